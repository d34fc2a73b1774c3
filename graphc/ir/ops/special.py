"""Special functions that are made of others: derivatives of digamma, logarithms of sums, sinc."""
from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from graphc.ir import special
from graphc.ir.graph import Value
from graphc.ir.op import Composite, Cost, Gradients, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.activation import Activation
from graphc.ir.ops.constant import number
from graphc.ir.types import TensorType, broadcast_shapes, f64

BERNOULLI = (*special.BERNOULLI, (43867, 798), (-174611, 330))
MOST_DERIVATIVES = 20
SINC_TERMS = 10                     # of the series of its slope, for |x| < 1/2


class Polygamma(Activation):
    """The derivative number n >= 1 of digamma, computed in f64: recurrence (DLMF 5.15.5) to where the asymptotic series
    (5.15.8) holds, reflection (5.15.6) of negative x. At 0, -1, … infinite."""
    name: ClassVar[str] = "polygamma"
    flops: ClassVar[int] = 100
    n: int

    def infer(self, x: TensorType) -> TensorType:
        require(1 <= self.n <= MOST_DERIVATIVES,
                f"polygamma: n is 1 to {MOST_DERIVATIVES}, got {self.n}; digamma is the one with n = 0")
        return super().infer(x)

    def formula(self, x: np.ndarray) -> np.ndarray:
        return special.polygamma(self.n, x)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        wide = b.cast(x, dtype=f64)
        negative = b.lt(wide, 0)
        result = self._of_positive(b, b.where(negative, b.sub(1, wide), wide))
        mirrored = b.sub(b.mul(result, (-1) ** self.n), self._cotangent(b, wide))
        return b.cast(b.where(negative, mirrored, result), dtype=x.type.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.mul(only_gradient(gs), b.polygamma(ins[0], n=self.n + 1)),)

    def _of_positive(self, b: OpBuilder, y: Value) -> Value:
        n, steps = self.n, 10 + 2 * self.n
        before = number(b, 0, f64)
        for k in range(steps):
            before = b.add(before, _power(b, b.div(1, b.add(y, k) if k else y), n + 1))
        inverse = b.div(1, b.add(y, steps))
        square, series = b.mul(inverse, inverse), number(b, 0, f64)
        for k, (top, bottom) in reversed(list(enumerate(BERNOULLI, 1))):
            c = top / bottom * math.factorial(2 * k + n - 1) / math.factorial(2 * k)
            series = b.mul(b.add(series, c), square)
        # (n - 1)! / y^n (1 + n / (2 y)) + y^-n series
        leading = b.add(b.add(b.mul(inverse, math.factorial(n) / 2), math.factorial(n - 1)), series)
        total = b.add(b.mul(leading, _power(b, inverse, n)), b.mul(before, math.factorial(n)))
        return b.mul(total, (-1) ** (n + 1))

    def _cotangent(self, b: OpBuilder, x: Value) -> Value:
        """The derivative number n of pi cot(pi x)."""
        angle = b.mul(b.sub(x, b.round(x)), math.pi)
        c = b.div(b.cos(angle), b.sin(angle))
        *rest, leading = special.cotangent_polynomial(self.n)
        total = number(b, leading, f64)
        for a in reversed(rest):
            total = b.add(b.mul(total, c), a)
        return b.mul(total, math.pi ** (self.n + 1))


class Sinc(Activation):
    """sin(pi x) / (pi x), 1 at 0, as numpy.sinc; exact zeros at whole numbers."""
    name: ClassVar[str] = "sinc"
    flops: ClassVar[int] = 24

    def formula(self, x: np.ndarray) -> np.ndarray:
        wide = x.astype(special.WIDE)
        n = np.rint(wide)
        wave = np.sin((wide - n) * special.PI)
        signed = np.where(np.mod(n, 2) != 0, -wave, wave)
        return np.where(wide == 0, 1, signed / (wide * special.PI))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        wave = _signed(b, x, b.sin(_angle(b, x)))
        return b.where(b.eq(x, 0), number(b, 1, x), b.div(wave, b.mul(x, math.pi)))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """(cos(pi x) - sinc(x)) / x; below 1/2, where that cancels, the power series."""
        x = ins[0]
        square, series = b.mul(x, x), number(b, 0, x)
        for k in range(SINC_TERMS, 0, -1):
            c = (-1) ** k * math.pi ** (2 * k) * 2 * k / math.factorial(2 * k + 1)
            series = b.add(b.mul(series, square), c)
        far = b.div(b.sub(_signed(b, x, b.cos(_angle(b, x))), outs[0]), x)
        return (b.mul(only_gradient(gs), b.where(b.lt(b.abs(x), 0.5), b.mul(series, x), far)),)


class _Pair(Composite):
    """Base: two float arrays of one dtype, which broadcast."""
    is_elementwise = True
    flops: ClassVar[int] = 20

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        require(x.dtype == y.dtype,
                f"{self.name} of {x.dtype} and {y.dtype}: convert one side, for example with .astype({x.dtype})")
        require(x.dtype.is_float, f"{self.name} takes float arrays, got {x.dtype}; convert it with .astype(f32)")
        return x.with_shape(broadcast_shapes(x.shape, y.shape))

    def cost(self, x: TensorType, y: TensorType) -> Cost:
        out = self.infer(x, y)
        return Cost(self.flops * out.size, out.nbytes + x.nbytes + y.nbytes)


class LogAddExp(_Pair):
    """log(exp(x) + exp(y)) without overflow: the larger plus log1p(exp(-|x - y|)); of equals x + log 2."""
    name: ClassVar[str] = "logaddexp"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.logaddexp(x, y), x.dtype)

    def decompose(self, b: OpBuilder, x: Value, y: Value) -> Value:
        apart = b.log1p(b.exp(b.neg(b.abs(b.sub(x, y)))))
        return b.add(b.maximum(x, y), b.where(b.eq(x, y), number(b, math.log(2), x), apart))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, y = ins
        g = only_gradient(gs)
        # the same infinity is as far from itself as equals are; of numbers the difference says that, with its gradients
        both = b.bitand(b.eq(x, y), b.eq(b.abs(x), math.inf))
        apart = b.where(both, number(b, 0, x), b.sub(x, y))
        return b.mul(g, b.sigmoid(apart)), b.mul(g, b.sigmoid(b.neg(apart)))


class XLogY(_Pair):
    """x log(y), 0 where x = 0 unless y is NaN. Where x = 0 and y <= 0 the gradients are 0 too."""
    name: ClassVar[str] = "xlogy"

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.where((x == 0) & ~np.isnan(y), np.zeros((), x.dtype), x * np.log(y)).astype(x.dtype)

    def decompose(self, b: OpBuilder, x: Value, y: Value) -> Value:
        nothing = b.bitand(b.eq(x, 0), b.bitnot(b.isnan(y)))
        return b.where(nothing, number(b, 0, x), b.mul(x, b.log(y)))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, y = ins
        g = only_gradient(gs)
        nothing = b.bitand(b.eq(x, 0), b.le(y, 0))
        zero = number(b, 0, x)
        return b.where(nothing, zero, b.mul(g, b.log(y))), b.where(nothing, zero, b.mul(g, b.div(x, y)))


def _power(b: OpBuilder, x: Value, n: int) -> Value:
    """x^n for n >= 1, by squares."""
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else b.mul(result, square)
        n >>= 1
        square = b.mul(square, square) if n else square
    return x if result is None else result


def _angle(b: OpBuilder, x: Value) -> Value:
    """pi (x - n) for the nearest whole number n."""
    return b.mul(b.sub(x, b.round(x)), math.pi)


def _signed(b: OpBuilder, x: Value, wave: Value) -> Value:
    """-wave where the whole number nearest to x is odd."""
    return b.where(b.ne(b.mod(b.round(x), 2), 0), b.neg(wave), wave)


OPS = (Polygamma, Sinc, LogAddExp, XLogY)
