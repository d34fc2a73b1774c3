"""Reductions over axes."""
from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, static_shape
from graphc.ir.graph import Value
from graphc.ir.op import ALL, Composite, Cost, Gradients, Op, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.constant import count, full, number
from graphc.ir.types import TensorType, i64, normalize_axes, normalize_axis


class Reduction(Op):
    """Base of reductions over `axes` (sorted, counted from the front); the result keeps the other axes, or all with
    `keepdims`."""
    axes: tuple[int, ...]
    keepdims: bool = False
    kinds: ClassVar[tuple[str, ...]] = ("float", "int")
    is_reduction = True

    @property
    def reduced_axes(self) -> tuple[int, ...]:
        return self.axes

    def infer(self, x: TensorType) -> TensorType:
        require(self.axes == normalize_axes(self.axes, x.rank),
                f"{self.name}: axes {self.axes} must be sorted and counted from the front")
        require(x.dtype.kind in self.kinds,
                f"{self.name} takes {' or '.join(self.kinds)} arrays, got {x.dtype}; convert it with .astype")
        return x.with_shape(reduced_shape(x.shape, self.axes, self.keepdims))

    def cost(self, x: TensorType) -> Cost:
        return Cost(x.size, x.nbytes + self.infer(x).nbytes)

    def expanded(self, b: OpBuilder, value: Value, x: Value) -> Value:
        """`value`, shaped as this reduction of `x`, with the reduced axes back as 1."""
        return value if self.keepdims else b.reshape(value, shape=reduced_shape(x.type.shape, self.axes, True))

    def spread(self, b: OpBuilder, value: Value, x: Value) -> Value:
        """`value`, shaped as this reduction of `x`, repeated to the shape of `x`."""
        return b.broadcast_to(self.expanded(b, value, x), shape=x.type.shape)


class Sum(Reduction):
    """Sum over axes, in the dtype of x (numpy widens i32 to i64). f32 sums are blocked, not left to right. Of nothing:
    0."""
    name: ClassVar[str] = "sum"
    linear_in = (ALL,)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (self.spread(b, only_gradient(gs), ins[0]),)


class Prod(Reduction):
    """Product over axes, in the dtype of x (numpy widens i32 to i64). Of nothing: 1.

    The gradient, the product of the other elements, is exact where elements are zero: products before times products
    after.
    """
    name: ClassVar[str] = "prod"

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.prod(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x = ins[0]
        rows, back = _reduced_last(b, x, self.axes)
        last = rows.type.rank - 1
        before = b.cumprod(rows, axis=last, exclusive=True)
        after = b.cumprod(rows, axis=last, exclusive=True, reverse=True)
        return (b.mul(self.spread(b, only_gradient(gs), x), back(b.mul(before, after))),)


class Extremum(Reduction):
    """Base of max and min: NaN if any element is; of no numbers an error. The gradient is shared evenly among equals,
    as in torch.amax."""
    kinds: ClassVar[tuple[str, ...]] = ("float", "int", "bool")
    of_bools: ClassVar[np.ufunc]
    of_numbers: ClassVar[np.ufunc]

    def infer(self, x: TensorType) -> TensorType:
        out = super().infer(x)
        require(x.dtype.kind == "bool" or out.size == 0 or all(x.shape[a] != 0 for a in self.axes),
                f"{self.name} of {x} over an axis of size 0 has no value")
        return out

    def reference(self, x: np.ndarray) -> np.ndarray:
        rule = self.of_bools if x.dtype == bool else self.of_numbers
        if x.size == 0 and x.dtype != bool:
            return np.empty(static_shape(reduced_shape(x.shape, self.axes, self.keepdims)), x.dtype)
        return np.asarray(rule.reduce(x, axis=self.axes, keepdims=self.keepdims))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x = ins[0]
        winners = b.cast(b.eq(x, self.expanded(b, outs[0], x)), dtype=x.type.dtype)
        share = b.div(self.expanded(b, only_gradient(gs), x), b.sum(winners, axes=self.axes, keepdims=True))
        return (b.mul(share, winners),)


class Max(Extremum):
    """The largest element over axes (of bool: any, False of nothing)."""
    name: ClassVar[str] = "max"
    of_bools, of_numbers = np.logical_or, np.maximum


class Min(Extremum):
    """The smallest element over axes (of bool: all, True of nothing)."""
    name: ClassVar[str] = "min"
    of_bools, of_numbers = np.logical_and, np.minimum


class ArgExtremum(Op):
    """Base of argmax and argmin: i64 index along `axis` of the first extreme element; the first NaN if there is one. No
    gradient."""
    axis: int
    keepdims: bool = False
    of_numbers: ClassVar[Callable[..., object]]
    is_reduction = True

    @property
    def reduced_axes(self) -> tuple[int, ...]:
        return (self.axis,)

    def infer(self, x: TensorType) -> TensorType:
        axis = normalize_axis(self.axis, x.rank)
        require(axis == self.axis, f"{self.name}: axis {self.axis} must be counted from the front")
        out = TensorType(i64, reduced_shape(x.shape, (axis,), self.keepdims))
        require(x.shape[axis] != 0 or out.size == 0, f"{self.name} of {x} over an axis of size 0 has no value")
        require(x.dtype.kind != "bool",
                f"{self.name} takes float or int arrays, got bool; convert it with .astype(i32)")
        return out

    def reference(self, x: np.ndarray) -> np.ndarray:
        if x.size == 0:
            shape = reduced_shape(x.shape, (normalize_axis(self.axis, x.ndim),), self.keepdims)
            return np.empty(static_shape(shape), np.int64)
        return np.asarray(self.of_numbers(x, axis=self.axis, keepdims=self.keepdims), np.int64)

    def cost(self, x: TensorType) -> Cost:
        return Cost(x.size, x.nbytes + self.infer(x).nbytes)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)


class ArgMax(ArgExtremum):
    """Index of the first largest element along `axis`."""
    name: ClassVar[str] = "argmax"
    of_numbers = staticmethod(np.argmax)


class ArgMin(ArgExtremum):
    """Index of the first smallest element along `axis`."""
    name: ClassVar[str] = "argmin"
    of_numbers = staticmethod(np.argmin)


class Mean(Reduction, Composite):
    """sum(x) / n over axes, n the number of elements summed; NaN if n = 0. Float arrays (the DSL makes f32 of
    integers)."""
    name: ClassVar[str] = "mean"
    linear_in = (ALL,)
    kinds: ClassVar[tuple[str, ...]] = ("float",)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.sum(x, axis=self.axes, keepdims=self.keepdims) / _count_of(x, self.axes), x.dtype)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return b.div(b.sum(x, axes=self.axes, keepdims=self.keepdims), reduced_count(b, x, self.axes))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (self.spread(b, b.div(gs[0], reduced_count(b, ins[0], self.axes)), ins[0]),)


class Var(Reduction, Composite):
    """sum((x - mean)^2) / max(n - ddof, 0) over axes, in two passes; ddof 0 as in numpy (torch.var: 1)."""
    name: ClassVar[str] = "var"
    kinds: ClassVar[tuple[str, ...]] = ("float",)
    ddof: int = 0

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            far = x - np.sum(x, axis=self.axes, keepdims=True) / x.dtype.type(_count_of(x, self.axes))
            total = np.sum(far * far, axis=self.axes, keepdims=self.keepdims)
            return np.asarray(total / x.dtype.type(max(_count_of(x, self.axes) - self.ddof, 0)), x.dtype)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        far = b.sub(x, b.mean(x, axes=self.axes, keepdims=True))
        return b.div(b.sum(b.mul(far, far), axes=self.axes, keepdims=self.keepdims),
                     reduced_count(b, x, self.axes, self.ddof))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x = ins[0]
        far = b.sub(x, b.mean(x, axes=self.axes, keepdims=True))
        scale = b.div(b.mul(gs[0], 2), reduced_count(b, x, self.axes, self.ddof))
        return (b.mul(self.expanded(b, scale, x), far),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(4 * x.size, x.nbytes + self.infer(x).nbytes)


class LogSumExp(Reduction, Composite):
    """log(sum(exp(x))) over axes, shifted by the largest element so that nothing overflows; -inf where all are -inf,
    and of nothing."""
    name: ClassVar[str] = "logsumexp"
    kinds: ClassVar[tuple[str, ...]] = ("float",)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            top = np.max(x, axis=self.axes, keepdims=True, initial=-np.inf)
            top = np.where(np.isfinite(top), top, x.dtype.type(0))
            result = np.log(np.sum(np.exp(x - top), axis=self.axes, keepdims=True)) + top
            return result.reshape(reduced_shape(x.shape, self.axes, self.keepdims))

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        if any(x.type.shape[a] == 0 for a in self.axes):
            return full(b, -np.inf, self.infer(x.type))
        top = finite_or_zero(b, b.max(x, axes=self.axes, keepdims=True))
        result = b.add(b.log(b.sum(b.exp(b.sub(x, top)), axes=self.axes, keepdims=True)), top)
        return b.reshape(result, shape=reduced_shape(x.type.shape, self.axes, self.keepdims))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """softmax(x) g; 0 where all elements are -inf. NaN and +inf stay in the sum: what they have no share in has
        none."""
        x, y = ins[0], self.expanded(b, outs[0], ins[0])
        weights = b.exp(b.sub(x, b.where(b.eq(y, -np.inf), number(b, 0, y), y)))
        return (b.mul(self.expanded(b, only_gradient(gs), x), weights),)

    def cost(self, x: TensorType) -> Cost:
        return Cost(10 * x.size, x.nbytes + self.infer(x).nbytes)


def reduced_shape(shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[Dim, ...]:
    """`shape` after a reduction over `axes`."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def reduced_count(b: OpBuilder, x: Value, axes: tuple[int, ...], less: int = 0) -> Value:
    """The number of elements of `x` along `axes` minus `less`, at least 0, as a scalar of its dtype."""
    return count(b, prod(x.type.shape[a] for a in axes) - less, x.type.dtype)


def finite_or_zero(b: OpBuilder, x: Value) -> Value:
    """x where finite, else 0: a shift that does not make inf - inf."""
    return b.where(b.isfinite(x), x, number(b, 0, x))


def _count_of(x: np.ndarray, axes: tuple[int, ...]) -> int:
    return prod(x.shape[a] for a in axes)


def _reduced_last(b: OpBuilder, x: Value, axes: tuple[int, ...]) -> tuple[Value, Callable[[Value], Value]]:
    """`x` with `axes` moved to the end and merged into one, and the function that undoes this."""
    kept = tuple(i for i in range(x.type.rank) if i not in axes)
    perm = kept + axes
    moved = b.transpose(x, perm=perm)
    shape = moved.type.shape
    rows = b.reshape(moved, shape=(*shape[:len(kept)], prod(shape[len(kept):])))
    inverse = tuple(sorted(range(len(perm)), key=perm.__getitem__))
    return rows, lambda v: b.transpose(b.reshape(v, shape=shape), perm=inverse)


OPS = (Sum, Prod, Max, Min, ArgMax, ArgMin, Mean, Var, LogSumExp)
