"""Pooling windows that are inside the image, reach into the padding, or do both: all gradients against the oracle."""
from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from graphc.codegen.llvm.host import host_target
from graphc.compiler import Compilation
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.window import AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad, MaxPoolPick
from graphc.ir.types import f32
from graphc.runtime.executable import Executable
from graphc.schedule.choose import schedule_node
from graphc.schedule.parallel_rows import rows_of
from graphc.schedule.view import ViewType, contiguous_strides

SIZES = ((1, 1), (1, 4), (2, 3), (5, 5), (6, 9), (4, 6))
WINDOWS = (((1, 1), (1, 1), 0), ((2, 2), (2, 2), 0), ((3, 3), (2, 2), 1), ((3, 2), (1, 2), 1), ((4, 4), (3, 1), 2),
           ((5, 5), (5, 5), 2))


def _cases():
    for size, (kernel, stride, pad) in product(SIZES, WINDOWS):
        padding = ((pad, pad), (pad // 2, 0))
        if all(n + low + high >= k for n, k, (low, high) in zip(size, kernel, padding)):
            yield size, {"kernel": kernel, "stride": stride, "padding": padding}


@pytest.mark.parametrize("channels", (1, 3, 19))
def test_pools_and_their_gradients(channels, rng=np.random.default_rng(0)):
    b = Builder()
    outputs, arrays = [], []
    for number, (size, options) in enumerate(_cases()):
        x = b.exp(b.input(f"x{number}", f32[2, channels, *size]))            # computed here, so channels lie last
        y = b.max_pool2d(x, **options)
        dy = b.exp(b.input(f"dy{number}", y.type))
        outputs += [y, b.max_pool2d_grad(x, dy, **options), b.avg_pool2d(x, **options),
                    b.avg_pool2d_grad(dy, x_shape=x.type.shape, **options), b.max_pool2d_pick(x, x, **options)]
    graph = b.finish(outputs, ("",) * len(outputs))
    arrays = [rng.integers(-3, 4, v.type.shape).astype("f") for v in graph.inputs]
    expected = evaluate(graph, arrays)
    actual = Executable(Compilation(graph).build.program, 2).slow(*arrays)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5)


# sizes, kernel, stride, padding, dilation, ceil_mode
EVERY_RANK = (((7,), (3,), (2,), ((2, 1),), (1,), True), ((9,), (2,), (3,), ((0, 1),), (2,), True),
              ((6, 5), (2, 3), (3, 2), ((0, 1), (2, 0)), (1, 1), True), ((17,), (17,), (1,), ((8, 8),), (1,), False),
              ((4, 5, 3), (2, 2, 2), (2, 2, 2), ((0, 0),) * 3, (1, 1, 1), True),
              ((3, 4, 5), (3, 1, 2), (1, 2, 1), ((1, 1), (0, 0), (1, 0)), (1, 1, 2), False),
              ((4, 2, 6), (2, 1, 3), (2, 1, 3), ((0, 0),) * 3, (1, 1, 1), False))


@pytest.mark.parametrize("channels", (3, 19))
@pytest.mark.parametrize("computed", (True, False), ids=("channels last", "an argument"))
def test_every_rank(channels, computed, rng=np.random.default_rng(1)):
    b, outputs = Builder(), []
    for number, (size, *options) in enumerate(EVERY_RANK):
        x = b.input(f"x{number}", f32[2, channels, *size])
        x = b.exp(x) if computed else x
        most = MaxPool.at(len(size))(*options)
        y, = b.apply(most, (x,))
        dy = b.input(f"dy{number}", y.type)
        dy = b.exp(dy) if computed else dy
        outputs += [y, *b.apply(most.like(MaxPoolGrad), (x, dy)), *b.apply(most.like(MaxPoolPick), (x, x))]
        for include in (True, False):
            mean = most.like(AvgPool, count_include_pad=include)
            outputs += [*b.apply(mean, (x,)), *b.apply(mean.like(AvgPoolGrad, x_shape=x.type.shape), (dy,))]
    graph = b.finish(outputs, ("",) * len(outputs))
    arrays = [rng.integers(0, 5, v.type.shape).astype("f") for v in graph.inputs]     # sums that do not cancel
    actual = Executable(Compilation(graph).build.program, 2).slow(*arrays)
    for a, e in zip(actual, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5)


@pytest.mark.parametrize("kernel", (2, 3))
def test_few_images_are_parted(kernel, images=2, channels=77, size=66):
    """Channels last, windows that do not overlap: four threads get shares of which the largest is a third at most."""
    b, out = Builder(), size // kernel
    x, dy = b.input("x", f32[images, channels, size, size]), b.input("dy", f32[images, channels, out, out])
    pooled, dx = (v.node for v in (b.max_pool2d(x, kernel=(kernel, kernel), stride=(kernel, kernel)),
                                   b.max_pool2d_grad(x, dy, kernel=(kernel, kernel), stride=(kernel, kernel))))
    for node in (pooled, dx):
        ins, outs = ([ViewType(f32, v.type.shape, contiguous_strides(v.type.shape, (0, 2, 3, 1))) for v in values]
                     for values in (node.inputs, node.outputs))
        schedule, rows = schedule_node(node, ins, outs, host_target()), rows_of(node, ins, outs)
        tiles = -(-rows.count // schedule.tile)
        assert not schedule.serial and -(-tiles // 4) * schedule.tile <= rows.count / 3
