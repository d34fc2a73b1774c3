"""Special functions, also where their parts overflow."""
from __future__ import annotations

from collections.abc import Callable
from math import pi, prod, sqrt
from typing import Any

import graphc as gc
from graphc.doors.torch.rules.promotion import of_floats

Array = gc.Array
Rule = Callable[..., Any]
FRACTION, FROM_ERFCX = 24, 5.0      # steps of a continued fraction, exact to f64's last digits from there on
SERIES, FROM_BESSEL = 14, 50.0      # terms of an asymptotic series, likewise


def _erfcx(x: Array) -> Array:
    """exp(x²) erfc(x); where erfc underflows by its continued fraction (Abramowitz and Stegun, 7.1.14)."""
    is_large = x > FROM_ERFCX
    near, far = gc.where(is_large, 0.0, x), gc.where(is_large, x, FROM_ERFCX)
    below = far
    for k in range(FRACTION, 0, -1):
        below = far + (k / 2) / below
    return gc.where(is_large, (1 / sqrt(pi)) / below, gc.exp(near * near) * gc.erfc(near))


def _scaled_bessel(order: int, bessel: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """exp(-|x|) I(x) of this order; where I overflows by its asymptotic series (Abramowitz and Stegun, 9.7.1)."""
    terms = [prod((2 * j - 1) ** 2 - 4 * order ** 2 for j in range(1, k + 1)) / prod(8 * j for j in range(1, k + 1))
             for k in range(SERIES + 1)]

    def function(x: Array) -> Array:
        size = gc.abs(x)
        is_large = size > FROM_BESSEL
        near, far = gc.where(is_large, 0.0, x), gc.where(is_large, size, FROM_BESSEL)
        series = gc.full(x.shape, terms[-1], x.dtype)
        for term in reversed(terms[:-1]):
            series = series / far + term
        tail = series * gc.rsqrt(2 * pi * far)
        tail = gc.where(x < 0, -tail, tail) if order % 2 else tail
        return gc.where(is_large, tail, bessel(near) * gc.exp(-gc.abs(near)))
    return function


RULES: dict[str, Rule] = {f"special_{name}.default": of_floats(function) for name, function in {
    "erfcx": _erfcx, "i1": gc.i1, "i0e": _scaled_bessel(0, gc.i0), "i1e": _scaled_bessel(1, gc.i1),
    "modified_bessel_i0": gc.i0, "modified_bessel_i1": gc.i1}.items()}
