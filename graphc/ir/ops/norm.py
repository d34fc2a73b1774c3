"""Softmax and normalisations: composites in two-pass stable form, with gradients of few row operations.

A gradient recomputes what the forward pass had (the mean, 1/sigma): the same nodes,
which CSE merges after decomposition.
"""
from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from graphc.ir.graph import Value
from graphc.ir.op import Arrays, Composite, Cost, Gradients, OpBuilder, Values, require
from graphc.ir.ops.reduce import reduced_count
from graphc.ir.size_proofs import allowed
from graphc.ir.types import TensorType, normalize_axis, shape_text


class SoftmaxLike(Composite):
    """Base: normalises along `axis`; shape and dtype of x. A row of only -inf gives NaN, as in PyTorch."""
    axis: int = -1

    def infer(self, x: TensorType) -> TensorType:
        normalize_axis(self.axis, x.rank)
        require(x.dtype.is_float, f"{self.name} takes float arrays, got {x.dtype}; convert it with .astype(f32)")
        return x

    def cost(self, x: TensorType) -> Cost:
        return Cost(12 * x.size, 2 * x.nbytes)

    def _axes(self, x: Value) -> tuple[int, ...]:
        return (normalize_axis(self.axis, x.type.rank),)

    def _shifted(self, b: OpBuilder, x: Value) -> Value:
        if x.type.shape[self._axes(x)[0]] == 0:
            return x                    # rows of nothing have no largest element
        return b.sub(x, b.max(x, axes=self._axes(x), keepdims=True))


class Softmax(SoftmaxLike):
    """y = exp(x - max(x)) / sum(exp(x - max(x))) along `axis`. Gradient: y (g - sum(g y))."""
    name: ClassVar[str] = "softmax"

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            e = np.exp(x - np.max(x, self.axis, keepdims=True, initial=-np.inf))
            return e / np.sum(e, self.axis, keepdims=True)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        e = b.exp(self._shifted(b, x))
        # one division a row; the sum is >= 1
        return b.mul(e, b.div(1, b.sum(e, axes=self._axes(x), keepdims=True)))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        g, y = gs[0], outs[0]
        return (b.mul(y, b.sub(g, b.sum(b.mul(g, y), axes=self._axes(y), keepdims=True))),)


class LogSoftmax(SoftmaxLike):
    """y = x - max(x) - log(sum(exp(x - max(x)))) along `axis`. Gradient: g - exp(y) sum(g)."""
    name: ClassVar[str] = "log_softmax"

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            z = x - np.max(x, self.axis, keepdims=True, initial=-np.inf)
            return z - np.log(np.sum(np.exp(z), self.axis, keepdims=True))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        z = self._shifted(b, x)
        return b.sub(z, b.log(b.sum(b.exp(z), axes=self._axes(x), keepdims=True)))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        g, y = gs[0], outs[0]
        return (b.sub(g, b.mul(b.exp(y), b.sum(g, axes=self._axes(y), keepdims=True))),)


class LayerNorm(Composite):
    """gamma (x - mean) / sqrt(var + eps) + beta over the last `axes` axes (Ba et al. 2016), var = mean((x - mean)^2).

    Operands x, or x and gamma, or x, gamma and beta, those with the shape of the last `axes` axes.
    As torch.nn.functional.layer_norm.
    """
    name: ClassVar[str] = "layer_norm"
    axes: int = 1
    eps: float = 1e-5

    def infer(self, x: TensorType, *scales: TensorType) -> TensorType:
        _check_norm(self, x, scales, 2)
        return x

    def reference(self, x: np.ndarray, *scales: np.ndarray) -> np.ndarray:
        axes = tuple(range(x.ndim - self.axes, x.ndim))
        far = x - _mean(x, axes)
        return _scaled(far / np.sqrt(_mean(far * far, axes) + x.dtype.type(self.eps)), *scales)

    def decompose(self, b: OpBuilder, x: Value, *scales: Value) -> Value:
        y, _ = standardized(b, x, last_axes(x, self.axes), self.eps)
        return _affine(b, y, *scales)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        (x, *scales), g, axes = ins, gs[0], last_axes(ins[0], self.axes)
        y, scale = standardized(b, x, axes, self.eps)
        dy = b.mul(g, scales[0]) if scales else g
        inner = b.sub(b.sub(dy, b.mean(dy, axes=axes, keepdims=True)),
                      b.mul(y, b.mean(b.mul(dy, y), axes=axes, keepdims=True)))
        return (b.mul(scale, inner), b.mul(g, y), g)[:len(ins)]

    def cost(self, x: TensorType, *scales: TensorType) -> Cost:
        return Cost(8 * x.size, 2 * x.nbytes + sum(t.nbytes for t in scales))


class RMSNorm(Composite):
    """gamma x / sqrt(mean(x^2) + eps) over the last `axes` axes (Zhang and Sennrich 2019); operands x, or x and
    gamma."""
    name: ClassVar[str] = "rms_norm"
    axes: int = 1
    eps: float = 1e-6

    def infer(self, x: TensorType, *scales: TensorType) -> TensorType:
        _check_norm(self, x, scales, 1)
        return x

    def reference(self, x: np.ndarray, *scales: np.ndarray) -> np.ndarray:
        axes = tuple(range(x.ndim - self.axes, x.ndim))
        return _scaled(x / np.sqrt(_mean(x * x, axes) + x.dtype.type(self.eps)), *scales)

    def decompose(self, b: OpBuilder, x: Value, *scales: Value) -> Value:
        return _affine(b, b.mul(x, self._scale(b, x)), *scales)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        (x, *scales), g, axes = ins, gs[0], last_axes(ins[0], self.axes)
        scale = self._scale(b, x)
        y = b.mul(x, scale)
        dy = b.mul(g, scales[0]) if scales else g
        inner = b.sub(dy, b.mul(y, b.mean(b.mul(dy, y), axes=axes, keepdims=True)))
        return (b.mul(scale, inner), b.mul(g, y))[:len(ins)]

    def cost(self, x: TensorType, *scales: TensorType) -> Cost:
        return Cost(5 * x.size, 2 * x.nbytes + sum(t.nbytes for t in scales))

    def _scale(self, b: OpBuilder, x: Value) -> Value:
        square = b.mean(b.mul(x, x), axes=last_axes(x, self.axes), keepdims=True)
        return b.rsqrt(b.add(square, self.eps))


class GroupNorm(Composite):
    """gamma (x - mean) / sqrt(var + eps) + beta, mean and var over each of `groups` groups of channels and all later
    axes (Wu and He 2018).

    x is [N, C, …]; gamma and beta, optional as in layer_norm, are [C]. groups = C is instance norm.
    """
    name: ClassVar[str] = "group_norm"
    groups: int
    eps: float = 1e-5

    def infer(self, x: TensorType, *scales: TensorType) -> TensorType:
        _check_channels(self.name, x, scales, (0, 1, 2))
        require(self.groups > 0, f"group_norm: groups must be > 0, got {self.groups}")
        require(x.shape[1] % self.groups == 0,
                f"group_norm: {x.shape[1]} channels do not split into {self.groups} groups")
        return x

    def reference(self, x: np.ndarray, *scales: np.ndarray) -> np.ndarray:
        rows = x.reshape(x.shape[0], self.groups, prod(x.shape[1:]) // self.groups)
        far = rows - _mean(rows, (2,))
        y = far / np.sqrt(_mean(far * far, (2,)) + x.dtype.type(self.eps))
        return _scaled(y.reshape(x.shape), *(_per_channel(s, x.ndim) for s in scales))

    def decompose(self, b: OpBuilder, x: Value, *scales: Value) -> Value:
        shape = x.type.shape
        rows = b.reshape(x, shape=(shape[0], self.groups, prod(shape[1:]) // self.groups))
        y, _ = standardized(b, rows, (2,), self.eps)
        return _affine(b, b.reshape(y, shape=shape), *(per_channel(b, s, len(shape)) for s in scales))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        (x, *scales), g, shape = ins, gs[0], ins[0].type.shape
        grouped = (shape[0], self.groups, prod(shape[1:]) // self.groups)
        y, scale = standardized(b, b.reshape(x, shape=grouped), (2,), self.eps)
        dy = b.reshape(b.mul(g, per_channel(b, scales[0], len(shape))) if scales else g, shape=grouped)
        inner = b.sub(b.sub(dy, b.mean(dy, axes=(2,), keepdims=True)),
                      b.mul(y, b.mean(b.mul(dy, y), axes=(2,), keepdims=True)))
        others = tuple(i for i in range(len(shape)) if i != 1)
        dgamma = b.sum(b.mul(g, b.reshape(y, shape=shape)), axes=others)
        return (b.reshape(b.mul(scale, inner), shape=shape), dgamma, b.sum(g, axes=others))[:len(ins)]

    def cost(self, x: TensorType, *scales: TensorType) -> Cost:
        return Cost(8 * x.size, 2 * x.nbytes + sum(t.nbytes for t in scales))


class BatchNorm(Composite):
    """Training form (Ioffe and Szegedy 2015): y = gamma (x - mean) / sqrt(var + eps) + beta over all axes but the
    channels, axis 1.

    x [N, C, …], gamma [C], beta [C] -> y, mean [C], var [C]. var divides by n (PyTorch's running average takes var n /
    (n - 1)). One number per channel is refused, as in PyTorch: it has no variance, and y would be beta whatever x is.
    """
    name: ClassVar[str] = "batch_norm"
    eps: float = 1e-5

    def infer(self, x: TensorType, *scales: TensorType) -> tuple[TensorType, ...]:
        _check_channels(self.name, x, scales, (2,))
        numbers = prod(x.shape[axis] for axis in _not_channels(x.rank))
        require(numbers == 0 or allowed(numbers - 2),
                f"{self.name} of {x} has one number for each channel, whose variance "
                "is 0: give a batch of 2 or more, or take layer_norm or group_norm")
        return x, scales[0], scales[0]

    def reference(self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> Arrays:
        axes = _not_channels(x.ndim)
        mean = _mean(x, axes)
        var = _mean((x - mean) ** 2, axes)
        y = (x - mean) / np.sqrt(var + x.dtype.type(self.eps))
        return _scaled(y, _per_channel(gamma, x.ndim), _per_channel(beta, x.ndim)), mean.reshape(-1), var.reshape(-1)

    def decompose(self, b: OpBuilder, x: Value, gamma: Value, beta: Value) -> Values:
        rank = x.type.rank
        mean, far, var = _moments(b, x, _not_channels(rank))
        scale = b.mul(b.rsqrt(b.add(var, self.eps)), per_channel(b, gamma, rank))
        y = b.add(b.mul(far, scale), per_channel(b, beta, rank))
        return y, b.reshape(mean, shape=gamma.type.shape), b.reshape(var, shape=gamma.type.shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, gamma, _ = ins
        rank, axes = x.type.rank, _not_channels(x.type.rank)
        _, far, var = _moments(b, x, axes)
        n, scale = reduced_count(b, x, axes), b.rsqrt(b.add(var, self.eps))
        dx, dgamma, dbeta = self._from_y(b, gs[0], gamma, far, scale, n) if gs[0] is not None else (None, None, None)
        if gs[1] is not None:
            spread = b.broadcast_to(b.div(per_channel(b, gs[1], rank), n), shape=x.type.shape)
            dx = spread if dx is None else b.add(dx, spread)
        if gs[2] is not None:
            spread = b.mul(b.div(per_channel(b, b.mul(gs[2], 2), rank), n), far)
            dx = spread if dx is None else b.add(dx, spread)
        return dx, dgamma, dbeta

    def cost(self, x: TensorType, gamma: TensorType, beta: TensorType) -> Cost:
        return Cost(8 * x.size, 3 * x.nbytes)

    def _from_y(self, b: OpBuilder, g: Value, gamma: Value, far: Value, scale: Value,
                n: Value) -> tuple[Value, Value, Value]:
        """Gradients of x, gamma and beta from that of the first output; far scale is standardized x, which need not be
        kept."""
        rank, axes = g.type.rank, _not_channels(g.type.rank)
        dbeta = b.sum(g, axes=axes, keepdims=True)
        dgamma = b.mul(b.sum(b.mul(g, far), axes=axes, keepdims=True), scale)
        inner = b.sub(b.sub(g, b.div(dbeta, n)), b.mul(far, b.mul(scale, b.div(dgamma, n))))
        dx = b.mul(b.mul(per_channel(b, gamma, rank), scale), inner)
        return dx, b.reshape(dgamma, shape=gamma.type.shape), b.reshape(dbeta, shape=gamma.type.shape)


class BatchNormInference(Composite):
    """gamma (x - mean) / sqrt(var + eps) + beta, everything but x [N, C, …] being [C]; computed as x scale + shift."""
    name: ClassVar[str] = "batch_norm_inference"
    eps: float = 1e-5

    def infer(self, x: TensorType, *scales: TensorType) -> TensorType:
        _check_channels(self.name, x, scales, (4,))
        return x

    def reference(self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray,
                  var: np.ndarray) -> np.ndarray:
        gamma, beta, mean, var = (_per_channel(s, x.ndim) for s in (gamma, beta, mean, var))
        with np.errstate(all="ignore"):
            return (x - mean) / np.sqrt(var + x.dtype.type(self.eps)) * gamma + beta

    def decompose(self, b: OpBuilder, x: Value, gamma: Value, beta: Value, mean: Value, var: Value) -> Value:
        scale = b.mul(gamma, b.rsqrt(b.add(var, self.eps)))
        shift = b.sub(beta, b.mul(mean, scale))
        return b.add(b.mul(x, per_channel(b, scale, x.type.rank)), per_channel(b, shift, x.type.rank))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, gamma, _, mean, var = ins
        g, rank, axes = gs[0], x.type.rank, _not_channels(x.type.rank)
        inverse = b.rsqrt(b.add(var, self.eps))
        scale = b.mul(gamma, inverse)
        dbeta = b.sum(g, axes=axes)
        product = b.sum(b.mul(g, b.sub(x, per_channel(b, mean, rank))), axes=axes)
        dvar = b.mul(b.mul(b.mul(product, scale), b.mul(inverse, inverse)), -0.5)
        return b.mul(g, per_channel(b, scale, rank)), b.mul(product, inverse), dbeta, b.neg(b.mul(dbeta, scale)), dvar

    def cost(self, x: TensorType, *scales: TensorType) -> Cost:
        return Cost(2 * x.size, 2 * x.nbytes)


def standardized(b: OpBuilder, x: Value, axes: tuple[int, ...], eps: float) -> tuple[Value, Value]:
    """(x - mean) / sqrt(var + eps) over `axes`, and 1 / sqrt(var + eps) with these axes as 1."""
    _, far, var = _moments(b, x, axes)
    scale = b.rsqrt(b.add(var, eps))
    return b.mul(far, scale), scale


def per_channel(b: OpBuilder, s: Value, rank: int) -> Value:
    """A [C] array shaped to broadcast along axis 1 of an array with `rank` axes."""
    return b.reshape(s, shape=(1, *s.type.shape, *(1,) * (rank - 2)))


def last_axes(x: Value, n: int) -> tuple[int, ...]:
    return tuple(range(x.type.rank - n, x.type.rank))


def _moments(b: OpBuilder, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value, Value]:
    """mean, x - mean and mean((x - mean)^2), reduced axes kept as 1."""
    mean = b.mean(x, axes=axes, keepdims=True)
    far = b.sub(x, mean)
    return mean, far, b.mean(b.mul(far, far), axes=axes, keepdims=True)


def _affine(b: OpBuilder, y: Value, gamma: Value | None = None, beta: Value | None = None) -> Value:
    y = y if gamma is None else b.mul(y, gamma)
    return y if beta is None else b.add(y, beta)


def _check_norm(op: LayerNorm | RMSNorm, x: TensorType, scales: tuple[TensorType, ...], most: int) -> None:
    require(x.dtype.is_float, f"{op.name} takes float arrays, got {x.dtype}; convert it with .astype(f32)")
    require(0 < op.axes <= x.rank, f"{op.name}: {op.axes} axes of {x} cannot be normalised; allowed: 1..{x.rank}")
    require(len(scales) <= most, f"{op.name} takes at most {1 + most} operands, got {1 + len(scales)}")
    _check_scales(op.name, scales, x.with_shape(x.shape[x.rank - op.axes:]))


def _check_channels(name: str, x: TensorType, scales: tuple[TensorType, ...], counts: tuple[int, ...]) -> None:
    require(x.dtype.is_float, f"{name} takes float arrays, got {x.dtype}; convert it with .astype(f32)")
    require(x.rank >= 2, f"{name} takes arrays [N, C, …], got {x}")
    require(len(scales) in counts,
            f"{name} takes x and {' or '.join(map(str, counts))} arrays per channel, got {len(scales)}")
    _check_scales(name, scales, x.with_shape((x.shape[1],)))


def _check_scales(name: str, scales: tuple[TensorType, ...], expected: TensorType) -> None:
    bad = next((t for t in scales if t != expected), None)
    require(bad is None, f"{name}: scale and shift must be {expected.dtype}{shape_text(expected.shape)}, got {bad}")


def _not_channels(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank))


def _mean(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.sum(x, axes, keepdims=True) / x.dtype.type(prod(x.shape[a] for a in axes))


def _scaled(y: np.ndarray, gamma: np.ndarray | int = 1, beta: np.ndarray | int = 0) -> np.ndarray:
    return y * gamma + beta


def _per_channel(s: np.ndarray, rank: int) -> np.ndarray:
    return s.reshape(1, -1, *(1,) * (rank - 2))


OPS = (Softmax, LogSoftmax, LayerNorm, RMSNorm, GroupNorm, BatchNorm, BatchNormInference)
