"""Special functions, also where their parts overflow."""
from __future__ import annotations

from collections.abc import Callable
from math import nan, pi, prod, sqrt
from typing import Any

import graphc as gc
from graphc.doors.torch.rules.promotion import as_type, of_floats
from graphc.ir.types import f64, i32, i64

Array = gc.Array
Rule = Callable[..., Any]
FRACTION, FROM_ERFCX = 24, 5.0      # steps of a continued fraction, exact to f64's last digits from there on
TAYLOR, SQUARINGS = 18, 16          # terms of exp of a matrix of size 1, exact to f64's last digits; largest log2(size)
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


def _frexp(x: Array) -> tuple[Array, Array]:
    """(m, e) with x = m 2^e and 0.5 <= |m| < 1; of 0, infinity and NaN x itself and 0."""
    is_plain = gc.logical_and(gc.isfinite(x), gc.not_equal(x, 0))
    size = gc.stop_gradient(gc.where(is_plain, gc.abs(x), as_type(1, x.dtype)))
    e = gc.floor(gc.log2(size)) + 1
    first = gc.floor(e * 0.5)                   # in two steps: 2^-e alone is infinite where x is tiny
    scale, rest = gc.exp2(-first), gc.exp2(first - e)
    found = size * scale * rest
    e = e + gc.where(found >= 1, 1, gc.where(found < 0.5, -1, 0)).astype(x.dtype)
    last = gc.where(found >= 1, 0.5, gc.where(found < 0.5, 2.0, 1.0)).astype(x.dtype)
    nothing = as_type(0, x.dtype)
    return gc.where(is_plain, x * scale * rest * last, x), gc.where(is_plain, e, nothing).astype(i32)


def _matrix_exponential(x: Array) -> Array:
    """exp(x) of square matrices: the Taylor polynomial of x / 2^k, squared k times, where the rows of x / 2^k have sums
    of at most 1, in f32 of 3 (Higham, Functions of Matrices, 10.3). Each matrix has a k of its own, at most SQUARINGS.
    """
    size = gc.stop_gradient(gc.max(gc.sum(gc.abs(x), -1, True), -2, True)) / (1 if x.dtype is f64 else 3)
    k = gc.ceil(gc.log2(gc.maximum(size, as_type(1, x.dtype))))
    scaled, unit = x * gc.exp2(-k), gc.eye(x.shape[-1], dtype=x.dtype)
    found = unit + scaled / TAYLOR
    for n in range(TAYLOR - 1, 0, -1):
        found = unit + (scaled @ found) / n
    for n in range(SQUARINGS):
        found = gc.where(k > n, found @ found, found)
    return gc.where(k > SQUARINGS, gc.full((), nan, x.dtype), found)


def _ends(given: tuple[float, float] | None, x: Array, apart: float) -> tuple[Array, Array]:
    """The ends of a histogram: those given, or of the numbers themselves; where both are one, they move by `apart`."""
    low, high = (gc.min(x), gc.max(x)) if given is None else (as_type(end, x.dtype) for end in given)
    move = gc.where(low == high, as_type(apart, x.dtype), as_type(0, x.dtype))
    return low - move, high + move


def _histc(x: Array, bins: int = 100, low: float = 0, high: float = 0) -> Array:
    """How many numbers lie in each of equal intervals, by a product as PyTorch has it, rather than by comparisons."""
    first, last = _ends(None if low == high else (low, high), x, 1.0)
    flat = x.reshape(-1)
    inside = gc.logical_and(flat >= first, flat <= last)
    place = gc.trunc((gc.where(inside, flat, first) - first) * bins / (last - first)).astype(i64)
    place = gc.where(inside, gc.minimum(place, bins - 1), bins)
    return gc.bincount(place, length=bins + 1)[:bins].astype(x.dtype)


def _histogram(x: Array, bins: Any, *, range: tuple[float, float] | None = None, weight: Array | None = None,
               density: bool = False) -> tuple[Array, Array]:
    """Counts of intervals, and their ends."""
    edges = bins
    if not isinstance(bins, Array):
        first, last = _ends(range, x, 0.5)
        step, at = (last - first) / bins, gc.arange(bins + 1).astype(x.dtype)
        edges = gc.where(at < (bins + 1) // 2, first + step * at, last - step * (bins - at))    # torch.linspace's
    counts, _ = gc.histogram(x, edges, weights=weight, density=density)
    return counts.astype(x.dtype), edges


RULES: dict[str, Rule] = {f"special_{name}.default": of_floats(function) for name, function in {
    "erfcx": _erfcx, "i1": gc.i1, "i0e": _scaled_bessel(0, gc.i0), "i1e": _scaled_bessel(1, gc.i1),
    "modified_bessel_i0": gc.i0, "modified_bessel_i1": gc.i1}.items()} | {
    "frexp.Tensor": _frexp, "linalg_matrix_exp.default": _matrix_exponential, "histc.default": _histc,
    "histogram.bin_ct": _histogram, "histogram.bins_tensor": _histogram}
