"""Gradients of gelu far from 0: nothing that makes later products slow."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.ops.activation import FAR_SQUARE


@pytest.mark.parametrize("dtype, reach", [(gc.f32, 20), (gc.f64, 50)], ids=["f32", "f64"])
def test_gradients_far_from_0_are_0_and_not_subnormal(dtype, reach):
    @gc.graph
    def f(x: dtype[4001], g: dtype[4001]):
        return gc.sum(gc.gelu(x) * g)
    x = np.linspace(-reach, reach, 4001).astype(dtype.np)
    slopes = gc.compile(gc.grad(f, wrt="x"))
    small, found = (np.asarray(slopes(x, np.full_like(x, factor))) for factor in (1e-6, 1))
    assert not ((small != 0) & (abs(small) < np.finfo(dtype.np).tiny)).any()
    far = x < -np.sqrt(FAR_SQUARE[dtype is gc.f64])
    assert far.any() and not small[far].any()
    exact = np.exp(-0.5 * x.astype(np.longdouble) ** 2) * abs(x) * 0.4
    assert (abs(found[x < -6]) <= exact[x < -6] + np.finfo(dtype.np).eps).all()
