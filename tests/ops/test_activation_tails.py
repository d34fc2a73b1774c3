"""Gradients of activations far from 0: nothing that makes later products slow."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.ops.activation import FAR_BELOW, FAR_SQUARE

SLOPES = {      # for negative x: more than the slope; in units of what, how far, it is 0
    gc.gelu: (lambda x: np.exp(-0.5 * x ** 2) * abs(x) * 0.4, lambda f64: -np.sqrt(FAR_SQUARE[f64]), (20, 50)),
    gc.silu: (lambda x: np.exp(x) * abs(x), FAR_BELOW.__getitem__, (110, 750)),
    gc.softplus: (np.exp, FAR_BELOW.__getitem__, (110, 750)),
    gc.elu: (np.exp, FAR_BELOW.__getitem__, (110, 750))}


@pytest.mark.parametrize("dtype", (gc.f32, gc.f64), ids=["f32", "f64"])
@pytest.mark.parametrize("function", SLOPES, ids=lambda f: f.__name__)
def test_gradients_far_from_0_are_0_and_not_subnormal(function, dtype):
    @gc.graph
    def f(x: dtype[4001], g: dtype[4001]):
        return gc.sum(function(x) * g)
    above, far, reach = SLOPES[function]
    x = np.linspace(-1, 1, 4001).astype(dtype.np) * reach[dtype is gc.f64]
    slopes = gc.compile(gc.grad(f, wrt="x"))
    small, found = (np.asarray(slopes(x, np.full_like(x, factor))) for factor in (1e-6, 1))
    assert not ((small != 0) & (abs(small) < np.finfo(dtype.np).tiny)).any()
    beyond = x < far(dtype is gc.f64)
    assert beyond.any() and not small[beyond].any() and small[~beyond].all()
    exact = above(x.astype(np.longdouble))
    assert (abs(found[x < -6]) <= exact[x < -6] + np.finfo(dtype.np).eps).all()
