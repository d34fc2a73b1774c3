"""Nests whose operands lie otherwise than their results."""
import numpy as np
import pytest

import graphc as gc
from graphc.ir.interp import evaluate
from graphc.ir.op import as_tuple


@pytest.mark.parametrize("dtype", [gc.f32, gc.f64, gc.i16, gc.i8], ids=str)
@pytest.mark.parametrize("shape, perm", [((700, 45), (1, 0)), ((45, 700), (1, 0)), ((700, 3, 34), (2, 1, 0)), ((700, 12, 20), (0, 2, 1)),
                                         ((2000, 7, 5), (0, 2, 1))], ids=str)
def test_turned(shape, perm, dtype):
    """Blocks of rows with rests, and many small matrices."""
    def f(x):
        return gc.transpose(x, perm) + 1
    f.__annotations__ = {"x": dtype[shape]}
    x = (np.arange(np.prod(shape)) % 101).reshape(shape).astype(dtype.np)
    np.testing.assert_array_equal(gc.compile(gc.graph(f))(x), x.transpose(perm) + 1)


def both_sides(x, g):
    """Operands and results that lie along both dims, one of bools."""
    y = gc.transpose(x, (2, 0, 1))
    slope = y * gc.sum(g * y, axis=-1, keepdims=True) - g
    return slope, y > gc.mean(y, axis=-1, keepdims=True), gc.transpose(slope, (1, 2, 0)) * x


ACROSS = {"softmax": gc.softmax, "log_softmax": gc.log_softmax, "layer_norm": gc.layer_norm,
          "two axes": lambda y: (y - gc.mean(y, axis=(1, 2), keepdims=True)) / gc.std(y, axis=(1, 2), keepdims=True)}


@pytest.mark.parametrize("name", [*ACROSS, "both"])
@pytest.mark.parametrize("dtype", [gc.f32, gc.f64], ids=str)
@pytest.mark.parametrize("shape", [(44, 35, 60), (5, 600, 33), (17, 260, 9)], ids=str)
def test_rows_that_lie_across(name, shape, dtype):
    """Rows lie one beside the other, and results, or other operands, along them: squares with rests on both sides."""
    def f(x, g):
        return both_sides(x, g) if name == "both" else ACROSS[name](gc.transpose(x, (2, 0, 1)))
    f.__annotations__ = {"x": dtype[shape], "g": dtype[shape[2], shape[0], shape[1]]}
    graph = gc.graph(f)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(t.shape).astype(dtype.np) for t in f.__annotations__.values()]
    found = gc.compile(graph)(*arrays)
    for a, c in zip(as_tuple(found), evaluate(graph.graph, arrays), strict=True):
        np.testing.assert_allclose(a, c, rtol=2e-5, atol=2e-5 * max(1, np.abs(c).max()))


@pytest.mark.parametrize("dtype", [gc.f32, gc.f64, gc.bf16, gc.i8, gc.i64], ids=str)
@pytest.mark.parametrize("shape", [(61, 5), (7, 40, 3, 4), (40, 17)], ids=str)
def test_short_rows(dtype, shape):
    """Side by side, with a rest: what is found in a row, where it is, and what is stored along it."""
    axes = tuple(range(len(shape) // 2, len(shape)))

    def f(x):
        top = gc.max(x, axis=axes, keepdims=True)
        return top, x - top, gc.argmax(x, axis=-1), gc.sum(x, axis=axes), gc.any(x > 1, axis=-1)
    f.__annotations__ = {"x": dtype[shape]}
    graph = gc.graph(f)
    x = (4 * np.random.default_rng(1).standard_normal(shape)).astype(dtype.np)
    for a, c in zip(as_tuple(gc.compile(graph)(x)), evaluate(graph.graph, [x]), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(c, np.float64), rtol=2e-5, atol=2e-5)
