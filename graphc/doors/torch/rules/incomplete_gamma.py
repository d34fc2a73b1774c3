"""The shares of the gamma integral below and above a number, in f64: series near 0, a continued fraction beyond the
peak, Gauss's quadrature of the narrow peak of large parameters (DLMF 8; Numerical Recipes, 6.2)."""
from __future__ import annotations

from collections.abc import Callable
from math import inf, nan, pi
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.torch.rules.gradients import pulled
from graphc.doors.torch.rules.promotion import as_type, floating
from graphc.dsl.array import as_array
from graphc.ir.types import f64

Array = gc.Array
Rule = Callable[..., Any]
LARGE = 100.0                       # parameters from there on by quadrature
TERMS, STEPS, NODES = 130, 150, 48  # of series and fraction, exact to f64's last digits below LARGE; of the quadrature
ALTERNATING, SMALL = 20, 1.1        # terms of the series in -x; x to which it goes
OVER, BEYOND, UNDER, BEFORE = 11.5, 6.0, 7.5, 5.0       # widths of the peak that the integral takes in


def _scanned(step: Callable[[Any, tuple[Array, ...]], Any], start: Any, *rows: np.ndarray) -> Any:
    """The carry after a step for each of the numbers."""
    numbers = tuple(as_array(r.astype(np.float64)) for r in rows)
    return gc.scan(lambda carry, row: (step(carry, row), ()), start, numbers)[0]


def _of_moderate(a: Array, x: Array) -> tuple[Array, Array]:
    """(below, above) for 0 < a <= LARGE."""
    is_near, one = x <= a + 1, gc.ones(x.shape, f64)
    small = gc.logical_and(x < SMALL, a < 1)
    near, far = gc.where(is_near, x, 0.5 * one), gc.where(is_near, a + 2, x)

    def front(x: Array) -> Array:
        return a * gc.log(x) - gc.lgamma(a + 1)

    def added(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[Array, Array]:
        term = carry[0] * near / (a + row[0])
        return term, carry[1] + term
    below = gc.exp(front(near) - near) * _scanned(added, (one, one), np.arange(1, TERMS))[1]

    def deeper(rest: Array, row: tuple[Array, ...]) -> Array:
        k = row[0]
        return far + (2 * k - 1) - a + k * (a - k) / rest
    fraction = _scanned(deeper, far + (2 * STEPS + 1) - a, np.arange(STEPS, 0, -1))
    above = gc.exp(front(far) - far) * a / fraction
    tiny, power, total = gc.where(small, x, 0.5 * one), one, gc.zeros(x.shape, f64)
    for n in range(1, ALTERNATING):
        power = power * tiny * (-1 / n)
        total = total + power / (a + n)
    above_small = -gc.expm1(front(tiny)) - gc.exp(front(tiny)) * a * total
    return (gc.where(is_near, below, 1 - above),
            gc.where(small, above_small, gc.where(is_near, 1 - below, above)))


def _of_large(a: Array, x: Array) -> tuple[Array, Array]:
    """(below, above) for a > LARGE: the integral from x to where nothing is left."""
    peak = a - 1
    width, is_above = gc.sqrt(peak), x > peak
    end = gc.stop_gradient(gc.where(
        is_above, gc.maximum(peak + OVER * width, x + BEYOND * width),
        gc.maximum(gc.minimum(peak - UNDER * width, x - BEFORE * width), 0.0)))

    def added(total: Array, row: tuple[Array, ...]) -> Array:
        place, weight = row
        apart = (x + (end - x) * place - peak) / peak
        return total + weight * gc.exp(peak * (gc.log1p(apart) - apart))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = _scanned(added, gc.zeros(x.shape, f64), (nodes + 1) / 2, weights / 2)
    back = 1 / peak
    stirling = 0.5 * gc.log(2 * pi * peak) + back / 12 - back ** 3 / 360 + back ** 5 / 1260
    part = total * (end - x) * gc.exp(-stirling)
    return gc.where(is_above, 1 - part, -part), gc.where(is_above, part, 1 + part)


def _shares(a: Array, x: Array) -> tuple[Array, Array]:
    """(below, above) of a, x >= 0, as PyTorch's where one is 0 or infinite."""
    plain = gc.logical_and(gc.logical_and(a > 0, x > 0), gc.logical_and(gc.isfinite(a), gc.isfinite(x)))
    a_plain, x_plain = (gc.where(plain, v, as_type(1, f64)) for v in (a, x))
    is_large = a_plain > LARGE
    moderate = _of_moderate(gc.where(is_large, 1.0, a_plain), gc.where(is_large, 1.0, x_plain))
    large = _of_large(gc.where(is_large, a_plain, 2 * LARGE), gc.where(is_large, x_plain, 2 * LARGE))
    below, above = (gc.where(is_large, far, near) for near, far in zip(moderate, large))
    none = gc.logical_or(gc.logical_and(gc.equal(x, 0), a > 0), gc.equal(a, inf))           # lies below
    unknown = gc.logical_or(gc.logical_and(gc.equal(x, 0), gc.equal(a, 0)),
                            gc.logical_and(gc.equal(x, inf), gc.equal(a, inf)))
    unknown = gc.logical_or(unknown, gc.logical_not(gc.logical_and(a >= 0, x >= 0)))

    def settled(value: Array, least: float) -> Array:
        return gc.where(plain, value, gc.where(unknown, nan, gc.where(none, least, 1 - least)))
    return settled(below, 0.0), settled(above, 1.0)


def _incomplete(part: int) -> Rule:
    """The share below (0) or above (1), with its derivative towards x in closed form."""
    def function(a: Array, x: Array) -> Array:
        return _shares(a, x)[part]

    def gradient(inputs: tuple[Array, Array], _: Any, g: Array) -> tuple[Array, Array]:
        a, x = inputs
        slope = gc.exp((a - 1) * gc.log(x) - x - gc.lgamma(a))
        return pulled(lambda b: function(b, x), g, a)[0], g * (slope if part == 0 else -slope)

    def rule(a: Any, x: Any) -> Array:
        a, x = floating(a, x)
        shape = (a + x).shape
        wide = (gc.broadcast_to(v, shape).astype(f64) for v in (a, x))
        return gc.custom_vjp(function, gradient)(*wide).astype(a.dtype)
    return rule


RULES: dict[str, Rule] = {name: _incomplete(part) for part, names in enumerate((
    ("igamma.default", "special_gammainc.default"), ("igammac.default", "special_gammaincc.default")))
    for name in names}
