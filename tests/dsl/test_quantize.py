"""Rounding to integers that gradients pass through."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError

X = np.array([-3.0, -1.01, -0.99, -0.1, 0.0, 0.124, 0.126, 0.6, 0.9, 40.0], np.float32)
SCALE, ZERO, LOW, HIGH = 0.25, 1, -4, 3


@gc.graph
def rounded(x: gc.f32["n"]):
    return gc.fake_quantize(x, SCALE, ZERO, low=LOW, high=HIGH)


@gc.graph
def squares(x: gc.f32[10]):
    return gc.sum(rounded(x) * rounded(x))


@gc.graph
def scaled(x: gc.f32[10], s: gc.f32[()], z: gc.f32[()]):
    return gc.sum(gc.fake_quantize(x, s, z) ** 2)


@gc.graph
def cubes(x: gc.f32[10]):
    return gc.sum(rounded(x) ** 3)


@gc.graph
def slope_of_cubes(x: gc.f32[10]):
    return gc.sum(gc.grad(cubes)(x))


def test_the_gradient_passes_where_the_integer_was_within_its_limits():
    inside = (np.rint(X / SCALE) + ZERO >= LOW) & (np.rint(X / SCALE) + ZERO <= HIGH)
    np.testing.assert_array_equal(gc.grad(squares)(X), np.where(inside, 2 * rounded(X), 0))
    assert inside.any() and not inside.all()


def test_an_axis_has_scales_of_its_own():
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(3, 4, 2)
    scale, zero = np.array([0.25, 0.5, 0.125, 1], np.float32), np.array([1, -1, 0, 2], np.float32)
    f = gc.compile(lambda x, s, z: gc.fake_quantize(x, s, z, low=-4, high=3, axis=-2), x=gc.f32[3, 4, 2], s=gc.f32[4], z=gc.f32[4])
    whole = np.clip(np.rint(x / scale[:, None]) + zero[:, None], -4, 3)
    np.testing.assert_array_equal(f(x, scale, zero), (whole - zero[:, None]) * scale[:, None])


def test_scales_and_zero_points_have_no_gradient():
    assert gc.grad(scaled, wrt=("s", "z"))(X, np.float32(0.5), np.float32(3)) == (0, 0)


def test_the_second_gradient_is_that_of_the_loss():
    inside = np.abs(X) < 0.5
    np.testing.assert_allclose(gc.grad(slope_of_cubes)(X)[inside], 6 * rounded(X)[inside], rtol=1e-6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda x: gc.fake_quantize(x, 0.5, low=3, high=3), "low is below high"),
    (lambda x: gc.fake_quantize(x, 0.0), "scale is above 0, got 0.0"),
    (lambda x: gc.fake_quantize(x, [0.5, 1.0]), "axis= says"),
    (lambda x: gc.fake_quantize(x, [0.5, 1.0], axis=0), "one element for each of axis 0"),
    (lambda x: gc.fake_quantize(x, 0.5, axis=1), "out of range"),
])
def test_what_is_refused(call, message):
    with pytest.raises(GraphError, match=message):
        gc.compile(call, x=gc.f32[10])
