"""Operators that are made of movements: tile, stack, and triangles of matrices; and one that only looks at sizes."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim
from graphc.ir.graph import Value
from graphc.ir.op import ALL, Composite, Gradients, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.constant import number
from graphc.ir.ops.shape import slice_axis
from graphc.ir.types import TensorType, i32, normalize_axis

FAR = 1 << 30           # a diagonal beyond every matrix, whose number does not wrap around when a row is added to it


class Tile(Composite):
    """x repeated reps[i] times along axis i, as numpy.tile; `reps` may have more axes than x."""
    name: ClassVar[str] = "tile"
    linear_in = (ALL,)
    reps: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(len(self.reps) >= x.rank, f"tile of {x} needs at least {x.rank} repetitions, got {len(self.reps)}")
        require(all(n >= 0 for n in self.reps), f"tile: repetitions must be >= 0, got {self.reps}")
        return x.with_shape(n * d for n, d in zip(self.reps, self._padded(x)))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.tile(x, self.reps)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        dims = self._padded(x.type)
        apart = b.reshape(x, shape=tuple(n for d in dims for n in (1, d)))
        wide = b.broadcast_to(apart, shape=tuple(n for pair in zip(self.reps, dims) for n in pair))
        return b.reshape(wide, shape=tuple(n * d for n, d in zip(self.reps, dims)))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x = ins[0]
        dims = self._padded(x.type)
        apart = b.reshape(gs[0], shape=tuple(n for pair in zip(self.reps, dims) for n in pair))
        return (b.reshape(b.sum(apart, axes=tuple(range(0, 2 * len(dims), 2))), shape=x.type.shape),)

    def _padded(self, x: TensorType) -> tuple[Dim, ...]:
        return (1,) * (len(self.reps) - x.rank) + x.shape


class Triangle(Composite):
    """Base of tril and triu: zero outside a triangle of the last two axes, whose border is the diagonal number k (k >
    0: above the main one)."""
    k: int = 0
    compare: ClassVar[str] = ""
    linear_in = (ALL,)

    def infer(self, x: TensorType) -> TensorType:
        require(x.rank >= 2, f"{self.name} takes arrays with at least 2 axes, got {x}")
        return x

    @property
    def diagonal(self) -> int:
        return max(min(self.k, FAR), -FAR)

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        rows, columns = (b.iota(shape=x.type.shape[-2:], axis=axis, dtype=i32) for axis in (0, 1))
        inside = getattr(b, self.compare)(columns, b.add(rows, self.diagonal))
        return b.where(inside, x, number(b, 0, x))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (self.decompose(b, only_gradient(gs)),)


class Tril(Triangle):
    """The lower triangle of the last two axes: x[…, i, j] where j <= i + k, else 0."""
    name: ClassVar[str] = "tril"
    compare: ClassVar[str] = "le"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.tril(x, self.diagonal)


class Triu(Triangle):
    """The upper triangle of the last two axes: x[…, i, j] where j >= i + k, else 0."""
    name: ClassVar[str] = "triu"
    compare: ClassVar[str] = "ge"

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.triu(x, self.diagonal)


class Stack(Composite):
    """The operands, all of one type, along a new axis at position `axis` of the result."""
    name: ClassVar[str] = "stack"
    linear_in = (ALL,)
    axis: int

    def infer(self, *xs: TensorType) -> TensorType:
        require(len(xs) > 0, "stack takes at least one array")
        require(all(x == xs[0] for x in xs), f"stack takes arrays of one type, got {', '.join(map(str, xs))}")
        axis = normalize_axis(self.axis, xs[0].rank + 1)
        return xs[0].with_shape(xs[0].shape[:axis] + (len(xs),) + xs[0].shape[axis:])

    def reference(self, *xs: np.ndarray) -> np.ndarray:
        return np.stack(xs, self.axis)

    def decompose(self, b: OpBuilder, *xs: Value) -> Value:
        axis = normalize_axis(self.axis, xs[0].type.rank + 1)
        return b.concat(*(b.reshape(x, shape=x.type.shape[:axis] + (1,) + x.type.shape[axis:]) for x in xs), axis=axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        axis = normalize_axis(self.axis, ins[0].type.rank + 1)
        g = only_gradient(gs)
        return tuple(b.reshape(slice_axis(b, g, axis, i, i + 1), shape=x.type.shape) for i, x in enumerate(ins))


class Unequal(Composite):
    """x as it is. Sizes for which one of `differences` is 0, or one of `dividends` below 0, are refused, where a call
    brings them or names get values: what a reader of files has decided by names would not be so then."""
    name: ClassVar[str] = "unequal"
    is_elementwise = True
    linear_in = (ALL,)
    differences: tuple[Dim, ...]
    text: str = ""                  # what they are of
    dividends: tuple[Dim, ...] = ()

    def infer(self, x: TensorType) -> TensorType:
        require(all(d != 0 for d in self.differences),
                f"two sizes that were taken to be different are the same: {self.text}")
        require(all(not isinstance(d, int) or d >= 0 for d in self.dividends),
                f"a size that was taken to be none below 0 is: {self.text}")
        return x

    def size_conditions(self, *ins: TensorType) -> tuple[Dim, ...]:
        return (*[d * d - 1 for d in self.differences], *self.dividends)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x

    def decompose(self, b: OpBuilder, x: Value) -> Value:
        return x

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (only_gradient(gs),)


OPS = (Tile, Tril, Triu, Stack, Unequal)
