"""Lists of rows of a table: what the gradient of an embedding is. Made by passes, not by users."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, static_dim
from graphc.ir.op import Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.constant import full
from graphc.ir.ops.index import ScatterAdd, inside
from graphc.ir.types import TensorType, i32


class RowPlaces(Op):
    """For each row of a table of `size` rows, where in ids (flattened) it stands first; ids.size for rows that do not
    stand there. i32[size].

    checked: the ids are known to be rows; others are clamped."""
    name: ClassVar[str] = "row_places"
    size: Dim
    checked: bool = False

    @property
    def checks_indices(self) -> bool:
        return not self.checked

    def infer(self, ids: TensorType) -> TensorType:
        _check_ids(self, ids)
        return TensorType(i32, (self.size,))

    def reference(self, ids: np.ndarray) -> np.ndarray:
        size = static_dim(self.size)
        ids = np.clip(ids, 0, size - 1).ravel() if self.checked else inside(self.name, ids, size).ravel()
        places = np.full(size, ids.size, np.int32)
        places[ids[::-1]] = np.arange(ids.size, dtype=np.int32)[::-1]       # of equal ones the first is written last
        return places

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)

    def cost(self, ids: TensorType) -> Cost:
        return Cost(0, ids.nbytes + 4 * self.size)


class CheckRows(Op):
    """The row numbers, all of them inside a table of `size` rows: what reads them may write state in place, since
    nothing can fail any more."""
    name: ClassVar[str] = "check_rows"
    checks_indices = True
    size: Dim

    def infer(self, ids: TensorType) -> TensorType:
        _check_ids(self, ids)
        return ids

    def reference(self, ids: np.ndarray) -> np.ndarray:
        return inside(self.name, ids, static_dim(self.size))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)

    def cost(self, ids: TensorType) -> Cost:
        return Cost(0, 2 * ids.nbytes)


class AddRows(ScatterAdd):
    """scatter_add along axis 0 with row numbers that were checked; others are clamped."""
    name: ClassVar[str] = "add_rows"
    checks_indices = False
    axis: int = 0

    def reference(self, base: np.ndarray, idx: np.ndarray, updates: np.ndarray) -> np.ndarray:
        return super().reference(base, np.clip(idx, 0, len(base) - 1), updates)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        _, ids, updates = ins
        rows = b.pick_rows(gs[0], b.reshape(ids, shape=(ids.type.size,)))
        return gs[0], None, b.reshape(rows, shape=updates.type.shape)


class PickRows(Op):
    """x[at] along axis 0, for one axis of positions, which are clamped into x: take where no position can be bad, and
    which may run inside other kernels."""
    name: ClassVar[str] = "pick_rows"
    linear_in = ((0,),)

    def infer(self, x: TensorType, at: TensorType) -> TensorType:
        require(at.dtype.is_int and at.rank == 1, f"pick_rows takes one axis of i32 or i64 positions, got {at}")
        require(x.rank >= 1 and x.shape[0] != 0, f"pick_rows: {x} has no rows")
        return x.with_shape(at.shape + x.shape[1:])

    def reference(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        return x[np.clip(at, 0, len(x) - 1)]

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return b.add_rows(full(b, 0, ins[0].type), ins[1], gs[0]), None

    def cost(self, x: TensorType, at: TensorType) -> Cost:
        return Cost(0, self.infer(x, at).nbytes + at.nbytes)


def _check_ids(op: RowPlaces | CheckRows, ids: TensorType) -> None:
    require(ids.dtype.is_int, f"{op.name} takes i32 or i64 row numbers, got {ids.dtype}")
    require(not isinstance(op.size, int) or op.size > 0 or (op.size == ids.size == 0),
            f"{op.name}: a table of {op.size} rows has none of {ids}")


OPS = (RowPlaces, CheckRows, AddRows, PickRows)
