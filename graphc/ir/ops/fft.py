"""Discrete Fourier transforms along one axis of known length. Complex numbers are a last axis of two, real and
imaginary part. None is scaled.
"""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.dft import Pair, half, operations, real_from_half, transform
from graphc.ir.dims import Dim, static_dim
from graphc.ir.graph import Value
from graphc.ir.op import ALL, Composite, Cost, Gradients, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.shape import slice_axis
from graphc.ir.types import TensorType


class DFT(Composite):
    """y[k] = sum over j of x[j] exp(-2 pi i j k / n) (inverse: +) of x [..., n, 2], along the axis before the last."""
    name: ClassVar[str] = "dft"
    linear_in = (ALL,)
    inverse: bool = False

    def infer(self, x: TensorType) -> TensorType:
        _check_pairs(self.name, x)
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        z = x[..., 0] + 1j * x[..., 1].astype(np.float64)
        if not z.size:
            return x.copy()
        y = np.fft.ifft(z, norm="forward") if self.inverse else np.fft.fft(z)
        return np.stack([y.real, y.imag], -1).astype(x.dtype)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return _stacked(b, transform(b, _parted(b, x), static_dim(x.type.shape[-2]), 1 if self.inverse else -1))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.dft(only_gradient(gs), inverse=not self.inverse),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(_flops(x, x.shape[-2], 2), 2 * x.nbytes)


class RDFT(Composite):
    """The first n // 2 + 1 results of `dft` for real x [..., n]: [..., n // 2 + 1, 2]; the others are their
    conjugates."""
    name: ClassVar[str] = "rdft"
    linear_in = (ALL,)

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float and x.rank >= 1, f"rdft takes float arrays [..., n], got {x}")
        require(x.shape[-1] != 0, f"rdft of no numbers, got {x}")
        return x.with_shape((*x.shape[:-1], _half(x.shape[-1]), 2))

    def reference(self, x: np.ndarray) -> np.ndarray:
        if not x.size:
            return np.zeros((*x.shape[:-1], x.shape[-1] // 2 + 1, 2), x.dtype)
        y = np.fft.rfft(x.astype(np.float64))
        return np.stack([y.real, y.imag], -1).astype(x.dtype)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return _stacked(b, half(b, x, static_dim(x.type.shape[-1])))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        n = ins[0].type.shape[-1]
        return (b.irdft(_weighted(b, only_gradient(gs), n, 0.5), n=n),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(_flops(x, x.shape[-1], 1), x.nbytes + self.infer(x).nbytes)


class IRDFT(Composite):
    """The real y[j] = sum over k of x[k] exp(2 pi i j k / n), of which x [..., n // 2 + 1, 2] has the first ones, and
    the others are conjugates: [..., n]. The imaginary part of x[0], and of x[n / 2], is not read."""
    name: ClassVar[str] = "irdft"
    linear_in = (ALL,)
    n: Dim

    def infer(self, x: TensorType) -> TensorType:
        _check_pairs(self.name, x)
        require(self.n != 0, "irdft gives one number or more, got n = 0")
        require(x.shape[-2] == _half(self.n), f"irdft of {self.n} numbers takes {_half(self.n)}, got {x}")
        return x.with_shape((*x.shape[:-2], self.n))

    def reference(self, x: np.ndarray) -> np.ndarray:
        n = static_dim(self.n)
        if not x.size:
            return np.zeros((*x.shape[:-2], n), x.dtype)
        z = x[..., 0] + 1j * x[..., 1].astype(np.float64)
        z[..., 0] = z[..., 0].real
        return np.fft.irfft(z, n, norm="forward").astype(x.dtype)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return real_from_half(b, _parted(b, x), static_dim(self.n))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (_weighted(b, b.rdft(only_gradient(gs)), self.n, 2.0),)

    def cost(self, x: TensorType) -> Cost:
        out = self.infer(x)
        return Cost(_flops(out, self.n, 1), x.nbytes + out.nbytes)


def _check_pairs(name: str, x: TensorType) -> None:
    require(x.dtype.is_float and x.rank >= 2 and x.shape[-1] == 2,
            f"{name} takes float arrays [..., n, 2], real and imaginary part last, got {x}")


def _half(n: Dim) -> Dim:
    return n // 2 + 1


def _parted(b: OpBuilder, x: Value) -> Pair:
    shape, last = x.type.shape, x.type.rank - 1
    return Pair(*(b.reshape(slice_axis(b, x, last, i, i + 1), shape=shape[:-1]) for i in (0, 1)))


def _stacked(b: OpBuilder, x: Pair) -> Value:
    return b.stack(x.re, x.im, axis=x.re.type.rank)


def _weighted(b: OpBuilder, x: Value, n: Dim, weight: float) -> Value:
    """Times `weight`, but the numbers that are their own conjugates: the first, and of an even n the last; their
    imaginary parts, which nobody reads or which are 0, become 0."""
    k = np.arange(static_dim(_half(n)))
    own = (k == 0) | (2 * k == static_dim(n))
    factors = np.where(own[:, None], [1.0, 0.0], weight)
    return b.mul(x, b.constant(factors, x.type.dtype))


def _flops(x: TensorType, n: Dim, parts: int) -> int:
    size = static_dim(n)
    return operations(size, static_dim(x.size) // max(size * parts, 1)) if x.is_static else 0


OPS = (DFT, RDFT, IRDFT)
