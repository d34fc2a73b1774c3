"""Special functions that ONNX does not have, as formulas of f64 with the coefficients of the native code
(`codegen/llvm/special_functions`), where each method is said. erf and erfc: W. J. Cody, "Rational Chebyshev
approximations for the error function" (1969)."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from graphc.codegen.llvm.special_functions import (
    BESSEL_SPLIT, COT, DIGAMMA, DIGAMMA_ROOT, DIGAMMA_ROOT_LOW, ERFINV_END, ERFINV_MIDDLE, ERFINV_TAIL,
    HALF_LOG_TWO_PI, I0_LARGE, I0_SMALL, I1_LARGE, I1_SMALL, LGAMMA, STIRLING, STIRLING_FROM, STIRLING_SLOPE)
from graphc.ir.graph import Value
from graphc.ir.op import OpBuilder
from graphc.ir.ops.constant import number

Formula = Callable[[OpBuilder, Value], Value]

# numerators and denominators, the lowest power first, of erf(x) / x in x² up to 0.46875, of erfc(x) exp(x²) up to 4,
# and of what is left of it beyond, in 1 / x²
SMALL = ((3.20937758913846947e03, 3.77485237685302021e02, 1.13864154151050156e02, 3.16112374387056560e00,
          1.85777706184603153e-1),
         (2.84423683343917062e03, 1.28261652607737228e03, 2.44024637934444173e02, 2.36012909523441209e01, 1.0))
MIDDLE = ((1.23033935479799725e03, 2.05107837782607147e03, 1.71204761263407058e03, 8.81952221241769090e02,
           2.98635138197400131e02, 6.61191906371416295e01, 8.88314979438837594e0, 5.64188496988670089e-1,
           2.15311535474403846e-8),
          (1.23033935480374942e03, 3.43936767414372164e03, 4.36261909014324716e03, 3.29079923573345963e03,
           1.62138957456669019e03, 5.37181101862009858e02, 1.17693950891312499e02, 1.57449261107098347e01, 1.0))
FAR = ((6.58749161529837803e-4, 1.60837851487422766e-2, 1.25781726111229246e-1, 3.60344899949804439e-1,
        3.05326634961232344e-1, 1.63153871373020978e-2),
       (2.33520497626869185e-3, 6.05183413124413191e-2, 5.27905102951428412e-1, 1.87295284992346725e00,
        2.56852019228982242e00, 1.0))
ERF_SPLIT, ERFC_FAR = 0.46875, 4.0


def _polynomial(b: OpBuilder, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's form; the lowest power comes first."""
    total = number(b, coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        total = b.add(b.mul(total, x), c)
    return total


def _in(b: OpBuilder, x: Value, low: float, high: float, coefficients: Sequence[float]) -> Value:
    """The polynomial in t, which is -1 at low and 1 at high."""
    scale = 2 / (high - low)
    return _polynomial(b, b.add(b.mul(x, scale), -(low + high) / 2 * scale), coefficients)


def _fraction(b: OpBuilder, x: Value, form: tuple[Sequence[float], Sequence[float]]) -> Value:
    return b.div(_polynomial(b, x, form[0]), _polynomial(b, x, form[1]))


def erf(b: OpBuilder, x: Value) -> Value:
    a = b.abs(x)
    near = b.minimum(a, ERF_SPLIT)
    small = b.mul(near, _fraction(b, b.mul(near, near), SMALL))
    return b.mul(b.sign(x), b.where(b.le(a, ERF_SPLIT), small, b.sub(1, _erfc_of_large(b, a))))


def erfc(b: OpBuilder, x: Value) -> Value:
    a = b.abs(x)
    near = b.minimum(a, ERF_SPLIT)
    small = b.sub(1, b.mul(b.mul(b.sign(x), near), _fraction(b, b.mul(near, near), SMALL)))
    large = _erfc_of_large(b, a)
    return b.where(b.le(a, ERF_SPLIT), small, b.where(b.lt(x, 0), b.sub(2, large), large))


def _erfc_of_large(b: OpBuilder, a: Value) -> Value:
    """For a > 0.46; exp(-a²) as a product, of a rounded to sixteenths and of what is left."""
    a = b.minimum(b.maximum(a, ERF_SPLIT), 28.0)
    middle = _fraction(b, b.minimum(a, ERFC_FAR), MIDDLE)
    beyond = b.maximum(a, ERFC_FAR)
    inverse = b.div(1, b.mul(beyond, beyond))
    rest = b.sub(1 / math.sqrt(math.pi), b.mul(inverse, _fraction(b, inverse, FAR)))
    scaled = b.where(b.le(a, ERFC_FAR), middle, b.div(rest, beyond))
    coarse = b.div(b.floor(b.mul(a, 16)), 16)
    left = b.mul(b.sub(a, coarse), b.add(a, coarse))
    return b.mul(b.mul(b.exp(b.neg(b.mul(coarse, coarse))), b.exp(b.neg(left))), scaled)


def erfinv(b: OpBuilder, x: Value) -> Value:
    w = b.neg(b.log(b.mul(b.sub(1, x), b.add(x, 1))))
    s = b.sqrt(w)
    far = b.where(b.lt(s, 4), _in(b, s, 2.5, 4.0, ERFINV_TAIL), _in(b, s, 4.0, 6.125, ERFINV_END))
    result = b.mul(x, b.where(b.lt(w, 6.25), _in(b, w, 0.0, 6.25, ERFINV_MIDDLE), far))
    return b.where(b.eq(b.abs(x), 1), b.mul(x, math.inf), result)


def lgamma(b: OpBuilder, x: Value) -> Value:
    """Of negative numbers by reflection."""
    y = b.where(b.lt(x, 0), b.sub(1, x), x)
    r = b.sub(x, b.round(x))
    sine = b.log(b.div(math.pi, b.abs(b.sin(b.mul(r, math.pi)))))
    mirrored = b.where(b.eq(r, 0), number(b, math.inf, x), b.sub(sine, _lgamma_above(b, y)))
    return b.where(b.isfinite(x), b.where(b.lt(x, 0), mirrored, _lgamma_above(b, y)), b.mul(x, x))


def _lgamma_above(b: OpBuilder, x: Value) -> Value:
    below, far_below = b.lt(x, 1.5), b.lt(x, 0.5)
    one = number(b, 1, x)
    product = b.where(far_below, b.mul(x, b.add(x, 1)), b.where(below, x, one))
    z = x
    for _ in range(6):
        above = b.gt(z, 2.5)
        z = b.where(above, b.sub(z, 1), z)
        product = b.where(above, b.mul(product, z), product)
    near = b.lt(x, STIRLING_FROM)
    logarithm = b.log(b.where(near, product, x))
    t = b.where(far_below, x, b.sub(z, b.where(below, one, number(b, 2, x))))
    moved = b.add(b.mul(t, _in(b, t, -0.5, 0.5, LGAMMA)), b.where(below, b.neg(logarithm), logarithm))
    inverse = b.div(1, b.where(near, one, x))
    series = b.add(b.mul(inverse, _polynomial(b, b.mul(inverse, inverse), STIRLING)), HALF_LOG_TWO_PI - 0.5)
    return b.where(near, moved, b.add(b.mul(b.sub(x, 0.5), b.sub(logarithm, 1)), series))


def digamma(b: OpBuilder, x: Value) -> Value:
    reflected, one, zero = b.lt(x, 0), number(b, 1, x), number(b, 0, x)
    y = b.where(reflected, b.sub(1, x), x)
    below = b.lt(y, 1)
    z = b.where(below, b.add(y, 1), y)
    top, bottom = b.where(below, b.neg(one), zero), b.where(below, y, one)
    for _ in range(7):
        above = b.gt(z, 2)
        z = b.where(above, b.sub(z, 1), z)
        top = b.where(above, b.add(b.mul(top, z), bottom), top)
        bottom = b.where(above, b.mul(bottom, z), bottom)
    from_root = b.sub(b.sub(z, DIGAMMA_ROOT), DIGAMMA_ROOT_LOW)
    moved = b.add(b.mul(from_root, _in(b, z, 1.0, 2.0, DIGAMMA)), b.div(top, bottom))
    near = b.lt(y, STIRLING_FROM)
    inverse = b.div(1, b.where(near, one, y))
    square = b.mul(inverse, inverse)
    series = b.mul(square, _polynomial(b, square, STIRLING_SLOPE))
    result = b.where(near, moved, b.sub(b.log(y), b.add(b.mul(inverse, 0.5), series)))
    r = b.sub(x, b.round(x))
    mirrored = b.sub(result, b.div(_in(b, b.mul(r, r), 0.0, 0.25, COT), r))
    return b.where(reflected, b.where(b.eq(r, 0), number(b, math.nan, x), mirrored), result)


def _bessel(b: OpBuilder, x: Value, order: int) -> Value:
    a = b.abs(x)
    near, one = b.lt(a, BESSEL_SPLIT), number(b, 1, a)
    half = b.mul(b.minimum(a, BESSEL_SPLIT), 0.5)
    small = _polynomial(b, b.mul(half, half), I1_SMALL if order else I0_SMALL)
    small = b.mul(small, half) if order else small
    inverse = b.div(1, b.where(near, one, a))
    root = b.exp(b.mul(a, 0.5))
    series = _in(b, inverse, 0.0, 1 / BESSEL_SPLIT, I1_LARGE if order else I0_LARGE)
    grown = b.mul(b.mul(b.mul(root, b.sqrt(inverse)), series), root)
    large = b.where(b.lt(a, 720.0), grown, b.mul(a, math.inf))
    y = b.where(near, small, large)
    return b.mul(y, b.sign(x)) if order else y


FORMULAS: dict[str, Formula] = {
    "erf": erf, "erfc": erfc, "erfinv": erfinv, "lgamma": lgamma, "digamma": digamma,
    "i0": partial(_bessel, order=0), "i1": partial(_bessel, order=1)}
