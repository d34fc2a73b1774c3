"""Pooling by vectors along lines of pixels: the values of the reference, and that images are read as they lie."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.loops.printer import print_function
from graphc.compiler import Compilation
from graphc.ir.interp import evaluate
from graphc.passes import layout, spell_pools
from graphc.schedule.target import AVX2, AVX512, Target
from graphc.stages import FusedGraphs

# kernel, stride, padding, spatial size
CASES = [((3,), (2,), (1,), (37,)), ((20,), (1,), (9,), (50,)), ((4, 4), (4, 4), (0, 0), (37, 9)),
         ((5, 3), (1, 3), (2, 1), (12, 19)), ((1, 2), (3, 1), (0, 1), (7, 33)), ((2, 3, 4), (2, 1, 3), (1, 0, 2), (6, 5, 18))]


def pooled(kind: str, kernel, stride, padding, size, **options):
    """The pooling of an image of three channels, as a graph."""
    pool = getattr(gc, f"{kind}_pool{len(size)}d")

    @gc.graph
    def f(x: gc.f32[(2, 3, *size)]):
        return pool(x, kernel, stride=stride, padding=padding, **options)
    return f


def image(size, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 3, *size)).astype(np.float32)


def runs_by_lines(f) -> bool:
    """Whether no image is copied, and a line of it is held in scratch."""
    text = f.dump("loops")
    return "line" in text and "copy" not in text


def loops_of(f, target: Target) -> str:
    """The text of its kernels."""
    return "\n".join(map(print_function, Compilation(f.graph, target).loops.kernels))


@pytest.fixture
def cheap(monkeypatch):
    """Lines cost nothing, so that they are taken where they can be."""
    for module in (layout, spell_pools):
        monkeypatch.setattr(module, "line_cycles", lambda *_: 0.0)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("kernel, stride, padding, size", CASES)
def test_values_are_those_of_the_reference(kernel, stride, padding, size):
    x = image(size)
    for kind in ("max", "avg"):
        f = pooled(kind, kernel, stride, padding, size)
        run = gc.compile(f, threads=1)
        np.testing.assert_allclose(run(x), evaluate(f.graph, [x])[0], rtol=0, atol=1e-6)
        assert runs_by_lines(run)
        assert runs_by_lines(checked_gradient(f, x))


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("kernel, stride, padding, dilation, size", [((9,), (9,), (4,), (1,), (230,)),
                                                                     ((2, 11), (1, 9), (0, 5), (1, 2), (3, 150))])
def test_windows_far_apart_are_squares_that_are_transposed(kernel, stride, padding, dilation, size):
    """The same bits as element by element, of NaN too, and on two threads."""
    x = image(size)
    x[0, 1, ..., 3], x[1, 2, ..., -40:] = np.nan, -np.inf
    f = pooled("max", kernel, stride, padding, size, dilation=dilation)
    for target in (AVX2, AVX512):
        assert "shuffle" in loops_of(f, target)
    for threads in (1, 2):
        run = gc.compile(f, threads=threads)
        np.testing.assert_array_equal(run(x), evaluate(f.graph, [x])[0])
        assert runs_by_lines(run)


def checked_gradient(f, x: np.ndarray):
    """The gradient of a pooling, compiled, whose values are those of the reference."""
    dy = gc.f32[f.graph.outputs[0].type.shape]

    @gc.graph
    def product(x: gc.f32[x.shape], g: dy):
        return gc.sum(f(x) * g)
    slope, g = gc.grad(product, wrt="x"), np.random.default_rng(1).standard_normal(dy.shape).astype(np.float32)
    run = gc.compile(slope, threads=1)
    np.testing.assert_allclose(run(x, g), evaluate(slope.graph, [x, g])[0], rtol=0, atol=1e-6)
    return run


def test_few_channels_and_long_lines_are_pooled_by_lines():
    assert runs_by_lines(gc.compile(pooled("avg", (5, 5), (5, 5), (2, 2), (91, 91)), threads=1))


@pytest.mark.usefixtures("cheap")
def test_maxima_of_windows_that_are_dilated_or_hold_nan_or_infinity():
    x = image((9, 40))
    x[0, 1, 3, 7], x[1, 0, 5, :20], x[1, 2] = np.nan, np.inf, -np.inf
    f = pooled("max", (3, 7), (2, 2), (2, 3), (9, 40), dilation=(2, 2))
    run = gc.compile(f, threads=1)
    np.testing.assert_array_equal(run(x), evaluate(f.graph, [x])[0])
    assert runs_by_lines(run)
    assert runs_by_lines(checked_gradient(f, x))


@pytest.mark.usefixtures("cheap")
def test_the_first_of_equal_maxima_gets_the_gradient():
    """In the order of memory, wherever it stands in its window."""
    x = np.random.default_rng(2).integers(0, 2, (2, 3, 5, 6, 21)).astype(np.float32)
    assert runs_by_lines(checked_gradient(pooled("max", (2, 3, 3), (1, 2, 2), (1, 1, 1), x.shape[2:]), x))


@pytest.mark.usefixtures("cheap")
def test_windows_of_different_counts_are_averaged_by_channels():
    x = image((9, 9))
    f = pooled("avg", (3, 3), (2, 2), (1, 1), (9, 9), count_include_pad=False)
    run = gc.compile(f, threads=1)
    np.testing.assert_allclose(run(x), evaluate(f.graph, [x])[0], rtol=0, atol=1e-6)
    assert not runs_by_lines(run)


@pytest.mark.usefixtures("cheap")
def test_an_image_beside_a_convolution_is_pooled_by_channels():
    @gc.graph
    def f(x: gc.f32[2, 8, 16, 16], w: gc.f32[32, 8, 3, 3]):
        return gc.avg_pool2d(gc.relu(gc.conv2d(x, w)), 2)
    for target in (AVX2, AVX512):
        fused = Compilation(f.graph, target).stage(FusedGraphs).main
        assert not any("copy" in str(node) for node in fused.nodes)
        assert "line" not in loops_of(f, target)
