"""What is around the inside of a pad is filled by the kernel that makes the inside, whatever its tiles, and before
anything reads it.
"""
from __future__ import annotations

import numpy as np
import pytest

from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.types import f32, f64, i32
from graphc.runtime.executable import Executable

PADS = (((7,), (2,), (3,)), ((40_001,), (0,), (17,)), ((3, 5), (1, 0), (0, 2)), ((300, 200), (2, 3), (1, 0)),
        ((9, 1), (0, 130), (0, 1)),
        ((2, 3, 4), (0, 0, 0), (1, 1, 1)), ((2, 33, 14, 15), (0, 0, 1, 2), (0, 0, 3, 1)),
        ((1, 3, 5, 4), (1, 1, 1, 1), (0, 2, 0, 2)))


def outputs_of(graph, threads):
    arrays = [np.random.default_rng(0).uniform(1, 3, v.type.shape).astype(v.type.dtype.np)
              for v in graph.inputs]
    compilation = Compilation(graph)
    run = Executable(compilation.build.program, threads)
    return compilation.plan, arrays, [run.slow(*arrays) for _ in range(2)]


@pytest.mark.parametrize("dtype, value", [(f32, 0), (f64, -1.5), (i32, 7)])
@pytest.mark.parametrize("threads", (1, 3))
def test_tiles_fill_what_is_around_their_results(dtype, value, threads):
    b = Builder()
    outputs = [b.flip(b.pad(b.add(x, x), low=low, high=high, value=value), axes=(0,))
               for number, (shape, low, high) in enumerate(PADS) for x in [b.input(f"x{number}", dtype[shape])]]
    graph = b.finish(outputs, ("",) * len(outputs))
    plan, arrays, results = outputs_of(graph, threads)
    assert len(plan.borders) == len(PADS)
    for got in results:
        for a, e in zip(got, evaluate(graph, arrays), strict=True):
            np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("channels, size", [(1, 5), (3, 33), (67, 8), (64, 31)])
def test_contractions_fill_what_is_around_their_images(channels, size):
    b = Builder()
    x, w = b.exp(b.input("x", f32[2, channels, size, size])), b.input("w", f32[channels + 1, channels, 1, 1])
    y = b.conv2d(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)
    graph = b.finish([b.flip(b.pad(y, low=(0, 0, 2, 1), high=(0, 0, 1, 0), value=float("-inf")), axes=(2,))], ("",))
    plan, arrays, results = outputs_of(graph, 3)
    assert len(plan.borders) == 1
    for got in results:
        np.testing.assert_allclose(got[0], evaluate(graph, arrays)[0], rtol=1e-4)


def test_one_kernel_fills_what_is_around_two_results():
    b = Builder()
    x = b.input("x", f32[70, 90])
    y = b.exp(x)
    total = b.sum(y, axes=(1,))
    graph = b.finish([b.flip(b.pad(v, low=low, high=low, value=2.0), axes=(0,))
                      for v, low in ((b.neg(y), (3, 1)), (total, (5,)))], ("", ""))
    plan, arrays, results = outputs_of(graph, 2)
    makers = {v.node for v in plan.borders}
    assert len(plan.borders) == 2
    assert len(makers) == 1, makers
    for got in results:
        for a, e in zip(got, evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-5)
