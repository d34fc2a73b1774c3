"""Inverse, hyperbolic and remaining circular functions: composites of elementwise operators, with numpy's values at infinities and NaN
(four overflow within a factor of two of the largest number: their docstrings say so).

Errors are a few units in the last place (measured in tests/ops/test_ops_trig.py), except tan near its poles.
"""
from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from graphc.ir.op import Composite, Cost, require
from graphc.ir.ops.activation import Activation
from graphc.ir.ops.constant import number
from graphc.ir.types import TensorType, broadcast_shapes

TAN_PI_8 = math.sqrt(2) - 1
ATAN_TERMS = {4: 9, 8: 20}      # of atan's power series at |t| <= tan(pi / 8), by bytes of the dtype: the next term is below half a unit


class Tan(Activation):
    """sin(x) / cos(x)."""
    name: ClassVar[str] = "tan"
    flops: ClassVar[int] = 25

    def formula(self, x):
        return np.tan(x)

    def decompose(self, b, x):
        return b.div(b.sin(x), b.cos(x))

    def vjp(self, b, gs, ins, outs):
        return (b.mul(gs[0], b.add(b.mul(outs[0], outs[0]), 1)),)


class Sinh(Activation):
    """(expm1(|x|) - expm1(-|x|)) / 2 with the sign of x. Infinite from where exp is, ln 2 before the limit of numpy's."""
    name: ClassVar[str] = "sinh"
    flops: ClassVar[int] = 28

    def formula(self, x):
        return np.sinh(x)

    def decompose(self, b, x):
        a = b.abs(x)
        return b.mul(b.sign(x), b.mul(b.sub(b.expm1(a), b.expm1(b.neg(a))), 0.5))

    def vjp(self, b, gs, ins, outs):
        return (b.mul(gs[0], b.cosh(ins[0])),)


class Cosh(Activation):
    """(exp(x) + exp(-x)) / 2. Infinite from where exp is, ln 2 before the limit of numpy's."""
    name: ClassVar[str] = "cosh"
    flops: ClassVar[int] = 20

    def formula(self, x):
        return np.cosh(x)

    def decompose(self, b, x):
        return b.mul(b.add(b.exp(x), b.exp(b.neg(x))), 0.5)

    def vjp(self, b, gs, ins, outs):
        return (b.mul(gs[0], b.sinh(ins[0])),)


class Atan(Activation):
    """arctan(x) in -pi/2..pi/2: |x| or its inverse, moved by pi/4 if above tan(pi/8), then the power series."""
    name: ClassVar[str] = "atan"
    flops: ClassVar[int] = 24

    def formula(self, x):
        return np.arctan(x)

    def decompose(self, b, x):
        a = b.abs(x)
        steep = b.gt(a, 1)
        r = _atan_up_to_one(b, b.where(steep, b.div(1, a), a))
        return b.mul(b.sign(x), b.where(steep, b.sub(math.pi / 2, r), r))

    def vjp(self, b, gs, ins, outs):
        return (b.div(gs[0], b.add(b.mul(ins[0], ins[0]), 1)),)


class Asin(Activation):
    """arcsin(x) = arctan(x / sqrt((1 - x)(1 + x))); NaN where |x| > 1."""
    name: ClassVar[str] = "asin"
    flops: ClassVar[int] = 32

    def formula(self, x):
        return np.arcsin(x)

    def decompose(self, b, x):
        return b.atan(b.div(x, b.sqrt(b.mul(b.sub(1, x), b.add(x, 1)))))

    def vjp(self, b, gs, ins, outs):
        return (b.mul(gs[0], _slope_of_asin(b, ins[0])),)


class Acos(Activation):
    """arccos(x) = 2 arctan(sqrt((1 - x) / (1 + x))); NaN where |x| > 1."""
    name: ClassVar[str] = "acos"
    flops: ClassVar[int] = 32

    def formula(self, x):
        return np.arccos(x)

    def decompose(self, b, x):
        return b.mul(b.atan(b.sqrt(b.div(b.sub(1, x), b.add(x, 1)))), 2)

    def vjp(self, b, gs, ins, outs):
        return (b.neg(b.mul(gs[0], _slope_of_asin(b, ins[0]))),)


class Asinh(Activation):
    """log(x + sqrt(x^2 + 1)), as log1p(a + a / (1/a + sqrt(1 + 1/a^2))) of a = |x| with the sign of x. Infinite from half the largest number."""
    name: ClassVar[str] = "asinh"
    flops: ClassVar[int] = 24

    def formula(self, x):
        return np.arcsinh(x)

    def decompose(self, b, x):
        a = b.abs(x)
        inverse = b.div(1, a)
        rest = b.div(a, b.add(inverse, b.sqrt(b.add(b.mul(inverse, inverse), 1))))
        return b.mul(b.sign(x), b.log1p(b.add(a, rest)))

    def vjp(self, b, gs, ins, outs):
        return (b.mul(gs[0], b.rsqrt(b.add(b.mul(ins[0], ins[0]), 1))),)


class Acosh(Activation):
    """log(x + sqrt(x^2 - 1)), as log1p(t + sqrt(t) sqrt(t + 2)) of t = x - 1; NaN where x < 1. Infinite from half the largest number."""
    name: ClassVar[str] = "acosh"
    flops: ClassVar[int] = 20

    def formula(self, x):
        return np.arccosh(x)

    def decompose(self, b, x):
        t = b.sub(x, 1)
        return b.log1p(b.add(t, b.mul(b.sqrt(t), b.sqrt(b.add(t, 2)))))

    def vjp(self, b, gs, ins, outs):
        x = ins[0]
        return (b.mul(gs[0], b.mul(b.rsqrt(b.sub(x, 1)), b.rsqrt(b.add(x, 1)))),)


class Atanh(Activation):
    """log((1 + x) / (1 - x)) / 2, as log1p(2a / (1 - a)) / 2 of a = |x| with the sign of x; NaN where |x| > 1."""
    name: ClassVar[str] = "atanh"
    flops: ClassVar[int] = 20

    def formula(self, x):
        return np.arctanh(x)

    def decompose(self, b, x):
        a = b.abs(x)
        return b.mul(b.sign(x), b.mul(b.log1p(b.div(b.add(a, a), b.sub(1, a))), 0.5))

    def vjp(self, b, gs, ins, outs):
        x = ins[0]
        return (b.div(gs[0], b.mul(b.sub(1, x), b.add(x, 1))),)


class Atan2(Composite):
    """The angle of the point (x, y), operands y and x, in -pi..pi; signed zeros and infinities as in numpy.arctan2. Gradient NaN at the origin."""
    name: ClassVar[str] = "atan2"
    is_elementwise = True

    def infer(self, y: TensorType, x: TensorType) -> TensorType:
        require(y.dtype == x.dtype, f"atan2 of {y.dtype} and {x.dtype}: convert one side, for example with .astype({y.dtype})")
        require(y.dtype.is_float, f"atan2 takes float arrays, got {y.dtype}; convert it with .astype(f32)")
        return y.with_shape(broadcast_shapes(y.shape, x.shape))

    def reference(self, y, x):
        return np.arctan2(y, x)

    def decompose(self, b, y, x):
        high, wide = b.abs(y), b.abs(x)
        steep, equal = b.gt(high, wide), b.eq(high, wide)
        ratio = b.div(b.minimum(high, wide), b.maximum(high, wide))
        still = b.where(b.eq(high, 0), b.mul(high, 0), b.add(b.mul(wide, 0), 1))         # of equals: 1, or 0 at the origin
        far = b.where(b.isfinite(high), still, number(b, 1, y))
        r = _atan_up_to_one(b, b.where(equal, far, ratio))
        r = b.where(steep, b.sub(math.pi / 2, r), r)
        r = b.where(_negative(b, x), b.sub(math.pi, r), r)
        return b.where(_negative(b, y), b.neg(r), r)

    def vjp(self, b, gs, ins, outs):
        y, x = ins
        scaled = b.div(gs[0], b.add(b.mul(x, x), b.mul(y, y)))
        return b.mul(scaled, x), b.neg(b.mul(scaled, y))

    def cost(self, y, x):
        out = self.infer(y, x)
        return Cost(36 * out.size, out.nbytes + y.nbytes + x.nbytes)


def _atan_up_to_one(b, a):
    """arctan of 0 <= a <= 1."""
    above = b.gt(a, TAN_PI_8)
    t = b.where(above, b.div(b.sub(a, 1), b.add(a, 1)), a)
    z, terms = b.mul(t, t), ATAN_TERMS[a.type.dtype.itemsize]
    series = number(b, 0, a)
    for k in range(terms, 0, -1):
        series = b.mul(b.add(series, (-1) ** k / (2 * k + 1)), z)
    small = b.add(t, b.mul(t, series))
    return b.where(above, b.add(small, math.pi / 4), small)


def _negative(b, x):
    """x < 0, or x is -0."""
    return b.bitor(b.lt(x, 0), b.bitand(b.eq(x, 0), b.lt(b.div(1, x), 0)))


def _slope_of_asin(b, x):
    return b.rsqrt(b.mul(b.sub(1, x), b.add(x, 1)))


OPS = (Tan, Sinh, Cosh, Asin, Acos, Atan, Asinh, Acosh, Atanh, Atan2)
