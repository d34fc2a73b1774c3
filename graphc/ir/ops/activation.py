"""Activation functions: composites of elementwise operators, with gradients that read the input only."""
from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.graph import Value
from graphc.ir.op import Composite, Cost, Gradients, OpBuilder, Values, holds, only_gradient, require
from graphc.ir.ops.constant import number
from graphc.ir.ops.elementwise import ROWS
from graphc.ir.types import TensorType, f64

SQRT_HALF = math.sqrt(0.5)
SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
ONE_OVER_SQRT_TWO_PI = 1 / math.sqrt(2 * math.pi)
TANH_GELU_CUBIC = 0.044715
# of f32 and narrower types, and of f64: squares from which on exp(-square / 2) is less than the smallest normal number
# to the power of 0.8 (5e-31 in f32)
FAR_SQUARE = tuple(-1.6 * math.log(np.finfo(dtype).tiny) for dtype in (np.float32, np.float64))
FAR_BELOW = tuple(-square / 2 for square in FAR_SQUARE)        # the same of exp(x)


class Activation(Composite):
    """Base: one float array in, the same type out."""
    flops: ClassVar[int] = 2
    is_elementwise = True

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float, f"{self.name} takes float arrays, got {x.dtype}; convert it with .astype(f32)")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(self.formula(x), x.dtype)

    def formula(self, x: np.ndarray) -> np.ndarray:
        """The function in numpy, in any float dtype."""
        raise InternalError(f"{self.name} has no formula")

    def cost(self, x: TensorType) -> Cost:
        return Cost(self.flops * x.size, 2 * x.nbytes)


def vanishing(b: OpBuilder, x: Value, slope: Value) -> Value:
    """A slope that falls as exp(x) does for negative x; 0 where it is next to nothing: gradients that it is part of
    would be subnormal, and products of these take 20 times as long on CPUs of Intel."""
    return b.where(b.lt(x, FAR_BELOW[x.type.dtype is f64]), number(b, 0, slope), slope)


class Relu(Activation):
    """maximum(x, 0); gradient 0 at 0 as in PyTorch; NaN stays NaN. Also of integers."""
    name: ClassVar[str] = "relu"

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind != "bool", "relu takes float or int arrays, got bool; convert it with .astype(f32)")
        return x

    def formula(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.maximum(x, 0)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        g = only_gradient(gs)
        return (b.where(b.le(outs[0], 0), number(b, 0, g), g),)


class LeakyRelu(Activation):
    """x where x > 0, else slope * x."""
    name: ClassVar[str] = "leaky_relu"
    slope: float = 0.01

    def formula(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, x * x.dtype.type(self.slope))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.where(b.gt(x, 0), x, b.mul(x, self.slope))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.where(b.gt(ins[0], 0), gs[0], b.mul(gs[0], self.slope)),)


class Elu(Activation):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2015)."""
    name: ClassVar[str] = "elu"
    alpha: float = 1.0
    flops: ClassVar[int] = 15

    def formula(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, x.dtype.type(self.alpha) * np.expm1(x))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.where(b.gt(x, 0), x, b.mul(b.expm1(b.minimum(x, 0)), self.alpha))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x = ins[0]
        below = vanishing(b, x, b.mul(b.exp(b.minimum(x, 0)), self.alpha))
        slope = b.where(b.gt(x, 0), number(b, 1, x), below)
        return (b.mul(gs[0], slope),)


class Gelu(Activation):
    """x * Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016).

    `approximate` "none": Phi(x) = (1 + erf(x / sqrt 2)) / 2; "tanh": (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    Both as in PyTorch.
    """
    name: ClassVar[str] = "gelu"
    approximate: str = "none"
    flops: ClassVar[int] = 20

    def infer(self, x: TensorType) -> TensorType:
        require(self.approximate in ("none", "tanh"),
                f'gelu: approximate is "none" or "tanh", got {self.approximate!r}')
        return super().infer(x)

    def formula(self, x: np.ndarray) -> np.ndarray:
        if self.approximate == "none":
            return 0.5 * x * (1 + ROWS["erf"].reference(x * x.dtype.type(SQRT_HALF)).astype(x.dtype))
        return 0.5 * x * (1 + np.tanh(x.dtype.type(SQRT_TWO_OVER_PI) * (x + x.dtype.type(TANH_GELU_CUBIC) * x * x * x)))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.mul(x, self._phi(b, x))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x = ins[0]
        return (b.mul(gs[0], b.add(self._phi(b, x), b.mul(x, self._density(b, x)))),)

    def _phi(self, b: OpBuilder, x: Value) -> Value:
        bump = b.erf(b.mul(x, SQRT_HALF)) if self.approximate == "none" else self._tanh(b, x)
        return b.add(b.mul(bump, 0.5), 0.5)

    def _tanh(self, b: OpBuilder, x: Value) -> Value:
        return b.tanh(b.mul(b.mul(x, SQRT_TWO_OVER_PI), b.add(b.mul(b.mul(x, x), TANH_GELU_CUBIC), 1)))

    def _density(self, b: OpBuilder, x: Value) -> Value:
        """The derivative of Phi. Where it is next to nothing it is 0: gradients that it is part of would be subnormal,
        and products of these take 20 times as long on CPUs of Intel."""
        square = b.mul(x, x)
        if self.approximate == "none":
            far = FAR_SQUARE[x.type.dtype is f64]
            density = b.mul(b.exp(b.mul(b.minimum(square, far), -0.5)), ONE_OVER_SQRT_TWO_PI)
            return b.where(b.lt(square, far), density, number(b, 0, x))
        t = self._tanh(b, x)
        inner = b.add(b.mul(square, 3 * TANH_GELU_CUBIC * SQRT_TWO_OVER_PI), SQRT_TWO_OVER_PI)
        return b.mul(b.mul(b.sub(1, b.mul(t, t)), inner), 0.5)


class Silu(Activation):
    """x * sigmoid(x), also called swish (Elfwing et al. 2017)."""
    name: ClassVar[str] = "silu"
    flops: ClassVar[int] = 11

    def formula(self, x: np.ndarray) -> np.ndarray:
        return x * ROWS["sigmoid"].reference(x)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.mul(x, b.sigmoid(x))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, s = ins[0], vanishing(b, ins[0], b.sigmoid(ins[0]))
        return (b.mul(gs[0], b.mul(s, b.add(b.mul(x, b.sub(1, s)), 1))),)


class Softplus(Activation):
    """log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-|x|)). No `beta`, and no `threshold`: exact everywhere,
    unlike PyTorch."""
    name: ClassVar[str] = "softplus"
    flops: ClassVar[int] = 25

    def formula(self, x: np.ndarray) -> np.ndarray:
        return np.logaddexp(x, x.dtype.type(0))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.add(b.maximum(x, 0), b.log1p(b.exp(b.neg(b.abs(x)))))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.mul(gs[0], vanishing(b, ins[0], b.sigmoid(ins[0]))),)


class Clip(Activation):
    """minimum(maximum(x, low), high); a bound that is None is absent; where low > high, high. The gradient passes
    inside, bounds included. Also of integers."""
    name: ClassVar[str] = "clip"
    low: int | float | None = None
    high: int | float | None = None

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind != "bool", "clip takes float or int arrays, got bool")
        whole = all(bound is None or holds(x.dtype, bound) for bound in (self.low, self.high))
        require(whole, f"clip of {x.dtype} needs whole bounds that {x.dtype} has, got {self.low} and {self.high}")
        return x

    def formula(self, x: np.ndarray) -> np.ndarray:
        low = x if self.low is None else np.maximum(x, x.dtype.type(self.low))
        return low if self.high is None else np.minimum(low, x.dtype.type(self.high))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        if self.low is not None:
            x = b.maximum(x, self.low)
        return x if self.high is None else b.minimum(x, self.high)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, g = ins[0], only_gradient(gs)
        if self.low is not None:
            g = b.where(b.ge(x, self.low), g, number(b, 0, g))
        if self.high is not None:
            g = b.where(b.le(x, self.high), g, number(b, 0, g))
        return (g,)


OPS = (Relu, LeakyRelu, Elu, Gelu, Silu, Softplus, Clip)
