"""Second derivatives of what is piecewise linear, or goes through integers and bools, are zero: by hvp, grad of grad,
jacobian, inside loops.
"""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

X = np.array([1.5, -2, 0.25, 3], np.float32)
LINEAR_IN_PIECES = {
    "max": lambda x: gc.max(x), "min": lambda x: gc.min(x, axis=-1),
    "sort": lambda x: gc.sum(gc.sort(x) * [1.0, 2, 3, 4]),
    "topk": lambda x: gc.sum(gc.topk(x, 2)[0]), "relu": lambda x: gc.sum(gc.relu(x)),
    "leaky_relu": lambda x: gc.sum(gc.leaky_relu(x)),
    "abs": lambda x: gc.sum(gc.abs(x)), "maximum": lambda x: gc.sum(gc.maximum(x, gc.flip(x))),
    "clip": lambda x: gc.sum(gc.clip(x, 0, 1)),
    "where": lambda x: gc.sum(gc.where(x > 0, x, 2 * x)), "mask": lambda x: gc.sum(x * (x > 0).astype(gc.f32)),
    "argmax": lambda x: gc.sum(gc.take(x, gc.argmax(x))), "argsort": lambda x: gc.sum(gc.take(x, gc.argsort(x)[1:])),
    "rounded": lambda x: gc.sum(x + gc.floor(x) + gc.ceil(x) + gc.round(x) + gc.sign(x) + x // 2),
    "whole": lambda x: gc.sum(x + x.astype(gc.i32).astype(gc.f32)),
    "counted": lambda x: gc.sum(x) + gc.sum(x > 0).astype(gc.f32),
    "max_pool": lambda x: gc.sum(gc.max_pool2d(x.reshape(1, 1, 2, 2), 2)),
    "cummax": lambda x: gc.sum(gc.scan(lambda c, t: (gc.maximum(c, t), gc.maximum(c, t)), x[0], x)[1]),
    "cond": lambda x: gc.cond(x[0] > 0, lambda: gc.max(x), lambda: gc.min(x)),
    "steps": lambda x: gc.sum(gc.sign(x) + gc.round(x))}


@pytest.mark.parametrize("name", LINEAR_IN_PIECES)
def test_a_second_derivative_is_zero(name):
    @gc.graph
    def f(x: gc.f32[4]):
        return LINEAR_IN_PIECES[name](x)
    d = gc.grad(f)

    @gc.graph
    def of_gradient(x: gc.f32[4]):
        return gc.sum(d(x) * [1.0, 2, 3, 4])

    @gc.graph
    def of_many(x: gc.f32[4]):
        return gc.sum(gc.scan(lambda c, t: (c, d(x) * t), 0.0, gc.ones((3,)))[1])

    @gc.graph
    def all_of_them(x: gc.f32[4]):
        ones = gc.ones((4,))
        return gc.hvp(f)(x,
                         ones), gc.grad(of_gradient)(x), gc.grad(of_many)(x), gc.jacobian(d)(x), gc.jvp(d)(x, ones), gc.hvp(of_gradient)(x, ones)
    for second in gc.compile(all_of_them)(X):
        assert (second == 0).all()


def test_a_first_derivative_through_integers_alone_is_an_error():
    @gc.graph
    def f(x: gc.f32[4]):
        return gc.argmax(x).astype(gc.f32)
    with pytest.raises(gc.GraphError, match="'x' reaches the result only through argmax"):
        gc.grad(f)
    with pytest.raises(gc.GraphError, match="only through argmax"):
        gc.hvp(f)
