"""Writing at integer positions held in arrays, one update after another in row-major order of the positions: the last
of those at one position wins, or all are multiplied, or the least or greatest is kept. (Sums: `index.ScatterAdd`.)
"""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import Dims
from graphc.ir.graph import Value
from graphc.ir.op import Cost, Gradients, OpBuilder, Operands, Values, only_gradient, require
from graphc.ir.ops.constant import full, number
from graphc.ir.ops.index import Indexing, check_along, inside
from graphc.ir.types import TensorType, i64, normalize_axis

REDUCTIONS: dict[str, np.ufunc | None] = {"none": None, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


class Scattering(Indexing):
    """Base: how updates meet what stands at their position, and the gradients of that."""
    checks_indices = True
    reduction: str = "none"

    @property
    def linear_in(self) -> tuple[Operands, ...]:
        return ((0, 2),) if self.reduction == "none" else ()

    def updates_shape(self, base: TensorType, idx: TensorType) -> Dims:
        raise InternalError(f"{self.name} does not say which updates it takes")

    def infer(self, base: TensorType, idx: TensorType, updates: TensorType) -> TensorType:
        require(self.reduction in REDUCTIONS,
                f"{self.name}: reduction is one of {', '.join(REDUCTIONS)}, got {self.reduction!r}")
        expect = TensorType(base.dtype, tuple(self.updates_shape(base, idx)))
        require(updates == expect, f"{self.name}: updates must be {expect}, got {updates}")
        require(base.dtype.kind != "bool" or self.reduction == "none",
                f"{self.name}: bools have no {self.reduction}; convert them with .astype(i32)")
        return base

    def cost(self, base: TensorType, idx: TensorType, updates: TensorType) -> Cost:
        return Cost(updates.size, 2 * base.nbytes + updates.nbytes + idx.nbytes)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        base, idx, updates = ins
        return RULES[self.reduction](self, b, only_gradient(gs), base, idx, updates, outs[0])

    def looked_up(self, b: OpBuilder, x: Value, idx: Value) -> Value:
        """`x` where each update goes."""
        raise InternalError(f"{self.name} has no lookup")

    def added(self, b: OpBuilder, base: Value, idx: Value, updates: Value) -> Value:
        raise InternalError(f"{self.name} has no sum")

    def last(self, b: OpBuilder, base: Value, idx: Value) -> Value:
        """Bools that broadcast to the updates: whether one is the last at its position."""
        raise InternalError(f"{self.name} does not know the last update")

    def with_reduction(self, b: OpBuilder, reduction: str, base: Value, idx: Value, updates: Value) -> Value:
        return b.apply(self.replace(reduction=reduction), (base, idx, updates))[0]


class Scatter(Scattering):
    """`base` with updates written at positions idx along `axis`, in row-major order of idx: the transpose of `take`.

    updates.shape = base.shape[:axis] + idx.shape + base.shape[axis+1:]. reduction "none": the last update at a position
    stands there; "mul", "min", "max": with what stood there.
    """
    name: ClassVar[str] = "scatter"

    def updates_shape(self, base: TensorType, idx: TensorType) -> Dims:
        axis = self.check(base, idx)
        return base.shape[:axis] + idx.shape + base.shape[axis + 1:]

    def reference(self, base: np.ndarray, idx: np.ndarray, updates: np.ndarray) -> np.ndarray:
        axis, idx = self.axis % base.ndim, inside(self.name, idx, base.shape[self.axis])
        result = np.moveaxis(base, axis, 0).copy()
        rows = np.moveaxis(updates, range(axis, axis + idx.ndim), range(idx.ndim))
        _write(result, (idx,), rows, self.reduction)
        return np.moveaxis(result, 0, axis)

    def looked_up(self, b: OpBuilder, x: Value, idx: Value) -> Value:
        return b.take(x, idx, axis=self.axis)

    def added(self, b: OpBuilder, base: Value, idx: Value, updates: Value) -> Value:
        return b.scatter_add(base, idx, updates, axis=self.axis)

    def last(self, b: OpBuilder, base: Value, idx: Value) -> Value:
        axis = normalize_axis(self.axis, base.type.rank)
        size, shape = base.type.shape[axis], idx.type.shape
        numbers = b.reshape(b.iota(shape=(idx.type.size,), axis=0, dtype=i64), shape=shape)
        places = b.scatter(full(b, -1, TensorType(i64, (size,))), idx, numbers, axis=0)
        found = b.eq(b.take(places, idx, axis=0), numbers)
        return b.reshape(found, shape=(1,) * axis + shape + (1,) * (base.type.rank - axis - 1))


class ScatterAlongAxis(Scattering):
    """`base` with updates[i] written at position idx[i] along `axis`, in order: the transpose of take_along_axis; idx
    and updates have one shape, that of base on every other axis. `reduction` as of scatter."""
    name: ClassVar[str] = "scatter_along_axis"

    def updates_shape(self, base: TensorType, idx: TensorType) -> Dims:
        check_along(self, base, idx)
        return idx.shape

    def reference(self, base: np.ndarray, idx: np.ndarray, updates: np.ndarray) -> np.ndarray:
        places: list[np.ndarray] = list(np.indices(idx.shape, sparse=True))
        places[self.axis] = inside(self.name, idx, base.shape[self.axis])
        result = base.copy()
        _write(result, tuple(places), updates, self.reduction)
        return result

    def looked_up(self, b: OpBuilder, x: Value, idx: Value) -> Value:
        return b.take_along_axis(x, idx, axis=self.axis)

    def added(self, b: OpBuilder, base: Value, idx: Value, updates: Value) -> Value:
        return b.scatter_add_along_axis(base, idx, updates, axis=self.axis)

    def last(self, b: OpBuilder, base: Value, idx: Value) -> Value:
        axis = normalize_axis(self.axis, base.type.rank)
        numbers = b.iota(shape=idx.type.shape, axis=axis, dtype=i64)
        places = b.scatter_along_axis(full(b, -1, base.type.with_dtype(i64)), idx, numbers, axis=axis)
        return b.eq(b.take_along_axis(places, idx, axis=axis), numbers)


def _write(result: np.ndarray, places: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str) -> None:
    ufunc = REDUCTIONS[reduction]
    if ufunc is None:
        result[places] = updates                            # of equal places numpy keeps the last
    else:
        with np.errstate(all="ignore"):
            ufunc.at(result, places, updates)


def _assigned(op: Scattering, b: OpBuilder, g: Value, base: Value, idx: Value, updates: Value, y: Value) -> Gradients:
    """To the last update at a position, and to what no update has replaced."""
    zeros = full(b, 0, updates.type)
    to_updates = b.where(op.last(b, base, idx), op.looked_up(b, g, idx), zeros)
    return op.with_reduction(b, "none", g, idx, zeros), None, to_updates


def _product(op: Scattering, b: OpBuilder, g: Value, base: Value, idx: Value, updates: Value, y: Value) -> Gradients:
    """To each factor the product of the others: that of all but the zeros, divided by the factor, where no other one is
    zero. A second derivative is exact where no update is 0."""
    one, nothing = full(b, 1, base.type), full(b, 0, base.type)
    zero, unit = number(b, 0, updates), number(b, 1, updates)
    is_zero = b.eq(updates, 0)
    product = op.with_reduction(b, "mul", one, idx, updates)
    solid = op.with_reduction(b, "mul", one, idx, b.where(is_zero, unit, updates))
    zeros = op.looked_up(b, op.added(b, nothing, idx, b.where(is_zero, unit, zero)), idx)
    others = b.div(op.looked_up(b, solid, idx), b.where(is_zero, unit, updates))
    alone = b.eq(zeros, b.where(is_zero, unit, zero))       # no other factor is 0
    share = b.where(alone, others, b.mul(zero, others))     # infinity and NaN among them show
    return b.mul(g, product), None, b.mul(op.looked_up(b, b.mul(g, base), idx), share)


def _extremum(op: Scattering, b: OpBuilder, g: Value, base: Value, idx: Value, updates: Value, y: Value) -> Gradients:
    """In equal shares to all that equal the result; NaN to all if it is NaN."""
    zero, one, undefined = number(b, 0, y), number(b, 1, y), b.isnan(y)
    at = op.looked_up(b, y, idx)
    mine = b.eq(updates, at)
    count = op.added(b, b.where(b.eq(base, y), one, zero), idx, b.where(mine, one, zero))
    share = b.where(undefined, y, b.div(g, count))
    there = op.looked_up(b, share, idx)
    return (b.where(b.bitor(b.eq(base, y), undefined), share, zero), None,
            b.where(b.bitor(mine, b.isnan(at)), there, zero))


RULES = {"none": _assigned, "mul": _product, "min": _extremum, "max": _extremum}

OPS = (Scatter, ScatterAlongAxis)
