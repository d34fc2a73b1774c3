"""Reading and writing at integer positions held in arrays.

Positions count from 0 and must be inside the axis: no negative ones (numpy's meaning of them is the DSL's work),
no clamping. A bad one is a GraphError in the reference; a kernel reports it, with its node, through the status word,
and reads and writes nothing.
"""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.errors import GraphError
from graphc.ir.dims import Dim, Dims, static_dim
from graphc.ir.graph import Value
from graphc.ir.op import Composite, Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.constant import full
from graphc.ir.types import DType, TensorType, normalize_axis, shape_text


class Indexing(Op):
    """Base: a named axis and an integer array of positions along it."""
    axis: int

    def check(self, x: TensorType, idx: TensorType) -> int:
        """The axis counted from the front."""
        require(idx.dtype.is_int,
                f"{self.name}: positions must be i32 or i64, got {idx.dtype}; convert them with .astype(i64)")
        axis = normalize_axis(self.axis, x.rank)
        require(x.shape[axis] != 0 or idx.size == 0,
                f"{self.name}: axis {axis} of {x} is empty, no position can be inside it")
        return axis


class Take(Indexing):
    """numpy.take(x, idx, axis): shape x.shape[:axis] + idx.shape + x.shape[axis+1:]. Embedding lookup is axis 0."""
    name: ClassVar[str] = "take"
    linear_in = ((0,),)
    checks_indices = True

    def infer(self, x: TensorType, idx: TensorType) -> TensorType:
        axis = self.check(x, idx)
        return x.with_shape(x.shape[:axis] + idx.shape + x.shape[axis + 1:])

    def reference(self, x: np.ndarray, idx: np.ndarray) -> np.ndarray:
        return np.take(x, inside(self.name, idx, x.shape[self.axis]), self.axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, idx = ins
        return b.scatter_add(full(b, 0, x.type), idx, gs[0], axis=self.axis), None

    def cost(self, x: TensorType, idx: TensorType) -> Cost:
        return Cost(0, 2 * self.infer(x, idx).nbytes + idx.nbytes)


class TakeAlongAxis(Indexing):
    """numpy.take_along_axis(x, idx, axis): one position per result element; idx has the shape of x except along `axis`
    (no broadcasting)."""
    name: ClassVar[str] = "take_along_axis"
    linear_in = ((0,),)
    checks_indices = True

    def infer(self, x: TensorType, idx: TensorType) -> TensorType:
        check_along(self, x, idx)
        return x.with_shape(idx.shape)

    def reference(self, x: np.ndarray, idx: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, inside(self.name, idx, x.shape[self.axis]), self.axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, idx = ins
        return b.scatter_add_along_axis(full(b, 0, x.type), idx, gs[0], axis=self.axis), None

    def cost(self, x: TensorType, idx: TensorType) -> Cost:
        return Cost(0, 2 * self.infer(x, idx).nbytes + idx.nbytes)


class ScatterAdd(Indexing):
    """`base` with updates added at positions idx along `axis`: the transpose of take, repeated positions add up, in
    row-major order of idx.

    updates.shape = base.shape[:axis] + idx.shape + base.shape[axis+1:], float or int.
    """
    name: ClassVar[str] = "scatter_add"
    linear_in = ((0, 2),)
    checks_indices = True

    def infer(self, base: TensorType, idx: TensorType, updates: TensorType) -> TensorType:
        axis = self.check(base, idx)
        _check_updates(self.name, base, updates, base.shape[:axis] + idx.shape + base.shape[axis + 1:])
        return base

    def reference(self, base: np.ndarray, idx: np.ndarray, updates: np.ndarray) -> np.ndarray:
        axis, idx = self.axis % base.ndim, inside(self.name, idx, base.shape[self.axis])
        result = np.moveaxis(base, axis, 0).copy()
        rows = np.moveaxis(updates, range(axis, axis + idx.ndim), range(idx.ndim))
        np.add.at(result, idx, rows)
        return np.moveaxis(result, 0, axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return gs[0], None, b.take(gs[0], ins[1], axis=self.axis)

    def cost(self, base: TensorType, idx: TensorType, updates: TensorType) -> Cost:
        return Cost(updates.size, 2 * base.nbytes + updates.nbytes + idx.nbytes)


class ScatterAddAlongAxis(Indexing):
    """`base` with updates[i] added at position idx[i] along `axis`: the transpose of take_along_axis; idx and updates
    have one shape."""
    name: ClassVar[str] = "scatter_add_along_axis"
    linear_in = ((0, 2),)
    checks_indices = True

    def infer(self, base: TensorType, idx: TensorType, updates: TensorType) -> TensorType:
        check_along(self, base, idx)
        _check_updates(self.name, base, updates, idx.shape)
        return base

    def reference(self, base: np.ndarray, idx: np.ndarray, updates: np.ndarray) -> np.ndarray:
        idx = inside(self.name, idx, base.shape[self.axis])
        places: list[np.ndarray] = list(np.indices(idx.shape, sparse=True))
        places[self.axis] = idx
        result = base.copy()
        np.add.at(result, tuple(places), updates)
        return result

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return gs[0], None, b.take_along_axis(gs[0], ins[1], axis=self.axis)

    def cost(self, base: TensorType, idx: TensorType, updates: TensorType) -> Cost:
        return Cost(updates.size, 2 * base.nbytes + updates.nbytes + idx.nbytes)


class OneHot(Composite):
    """1 where the new last axis, of size `depth`, equals the class id, else 0; an id outside [0, depth) gives zeros
    (PyTorch: an error)."""
    name: ClassVar[str] = "one_hot"
    depth: Dim
    dtype: DType

    def infer(self, ids: TensorType) -> TensorType:
        require(ids.dtype.is_int, f"one_hot takes integer class ids, got {ids.dtype}; convert them with .astype(i64)")
        return TensorType(self.dtype, (*ids.shape, self.depth))

    def reference(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(ids[..., None] == np.arange(static_dim(self.depth)), self.dtype.np)

    def decompose(self, b: OpBuilder, ids: Value) -> Value:
        shape = ids.type.shape
        classes = b.iota(shape=(self.depth,), axis=0, dtype=ids.type.dtype)
        return b.cast(b.eq(b.reshape(ids, shape=(*shape, 1)), classes), dtype=self.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)


def check_along(op: Indexing, x: TensorType, idx: TensorType) -> None:
    axis = op.check(x, idx)
    fits = idx.rank == x.rank and all(i == axis or d == n for i, (d, n) in enumerate(zip(idx.shape, x.shape)))
    require(fits,
            f"{op.name} along axis {axis}: positions {shape_text(idx.shape)} must have the shape "
            f"{shape_text(x.shape)} on every other axis")


def _check_updates(name: str, base: TensorType, updates: TensorType, shape: Dims) -> None:
    require(base.dtype.kind != "bool", f"{name} adds float or int arrays, got bool")
    require(updates == TensorType(base.dtype, tuple(shape)),
            f"{name}: updates must be {TensorType(base.dtype, tuple(shape))}, got {updates}")


def inside(name: str, idx: np.ndarray, size: int) -> np.ndarray:
    """The positions, if all are inside an axis of `size`; else GraphError."""
    bad = idx[(idx < 0) | (idx >= size)]
    if bad.size:
        raise GraphError(f"{name}: position {bad.flat[0]} is outside the axis, whose positions are 0..{size - 1}")
    return idx


OPS = (Take, TakeAlongAxis, ScatterAdd, ScatterAddAlongAxis, OneHot)
