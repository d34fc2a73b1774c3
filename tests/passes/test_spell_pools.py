"""Max pooling of images that lie channels first: maxima of slices where that costs less, with the same bits."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.ir.interp import evaluate
from graphc.passes.spell_pools import SpellPools

CASES = (   # shape, kernel, stride, padding, dilation, ceil_mode
    ((2, 3, 50), 3, 1, 0, 1, False), ((2, 3, 50), 3, 2, 1, 1, False), ((1, 5, 37), 4, 3, 2, 1, True),
    ((2, 1, 41), 2, 1, 0, 3, False), ((3, 2, 2), 2, 2, 0, 1, False), ((2, 3, 9, 33), 3, 2, 1, 1, True),
    ((1, 2, 6, 5, 18), 2, 1, 1, 1, False), ((2, 3, 16), 1, 2, 0, 1, False), ((2, 3, 8), 16, 1, 8, 1, False))


def pooled(shape, kernel, stride, padding, dilation, ceil_mode, dtype=gc.f32) -> gc.GraphFunction:
    def f(x: dtype[shape]):
        return getattr(gc, f"max_pool{len(shape) - 2}d")(x, kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    return gc.graph(f)


def numbers(shape, dtype=np.float32) -> np.ndarray:
    """Ties, signs of zero, infinities and NaN among them."""
    x = np.random.default_rng(3).integers(-2, 3, shape).astype(np.float64)
    if np.dtype(dtype).kind == "f":
        flat = x.reshape(-1)
        flat[::7], flat[3::11], flat[5::13], flat[8::17] = -0.0, -np.inf, np.inf, np.nan
    return x.astype(dtype)


def is_spelled(f: gc.GraphFunction) -> bool:
    return "pool" not in {n.op.name.rstrip("123d").removeprefix("max_") for n in Compilation(f.graph).fused.nodes}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [gc.f32, gc.f64, gc.i32], ids=str)
def test_the_same_bits_either_way(case, dtype, monkeypatch):
    f, found = pooled(*case, dtype), []
    x = numbers(case[0], dtype.name.replace("f", "float").replace("i", "int"))
    for spelled in (True, False):
        monkeypatch.setattr(SpellPools, "_pays", lambda self, node, op, spelled=spelled: spelled)
        assert is_spelled(f) is spelled
        found += [gc.compile(f, threads=n)(x) for n in (1, 3)]
    np.testing.assert_array_equal(found[0], evaluate(f.graph, [x])[0])
    assert len({y.tobytes() for y in found}) == 1


def test_what_is_chosen():
    assert is_spelled(pooled((8, 32, 1000), 3, 1, 0, 1, False))
    assert is_spelled(pooled((8, 32, 64, 64), 2, 2, 0, 1, False))
    assert not is_spelled(pooled((8, 256, 7, 7), 3, 1, 1, 1, False))        # short lines, many channels
    assert not is_spelled(pooled((8, 32, 1000), 17, 1, 0, 1, False))        # a slice for each position


def test_pools_beside_convolutions_keep_their_layout():
    """Also where elementwise work is between them; and where its gradient wants the image."""
    def after(x: gc.f32[8, 3, 64, 64], w: gc.f32[32, 3, 3, 3]):
        return gc.max_pool2d(gc.relu(gc.conv2d(x, w, 1, 1)), 2)

    def before(x: gc.f32[8, 32, 64, 64], w: gc.f32[3, 32, 3, 3]):
        return gc.conv2d(gc.tanh(gc.max_pool2d(x, 2)), w, 1, 1)

    def beside(x: gc.f32[8, 32, 64, 64], w: gc.f32[3, 32, 3, 3]):
        x = gc.exp(x)
        return gc.max_pool2d(x, 2), gc.conv2d(x, w, 1, 1)

    def slope(x: gc.f32[8, 32, 64, 64]):
        return gc.sum(gc.square(gc.max_pool2d(x, 2)))
    for f in (*map(gc.graph, (after, before, beside)), gc.grad(gc.graph(slope), wrt="x")):
        assert not is_spelled(f)

    def chain(x: gc.f32[8, 32, 64, 64]):
        return gc.max_pool2d(gc.relu(gc.max_pool2d(x, 2)), 2)
    assert is_spelled(gc.graph(chain))
