"""Constants, counting arrays and dimensions as numbers; helpers with which other operators write constants."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.bits import is_uniform
from graphc.ir.dims import Dim, static_dim, static_shape
from graphc.ir.graph import Value
from graphc.ir.op import Cost, Gradients, Literal, Op, OpBuilder, Values, holds, require
from graphc.ir.size_proofs import allowed
from graphc.ir.types import DType, TensorType, normalize_axis


class Constant(Op):
    """A fixed array; as printed by numpy: `value` holds dtype, shape and the bytes in row-major order."""
    name: ClassVar[str] = "constant"
    is_leaf = True
    value: Literal

    def infer(self) -> TensorType:
        return self.value.type

    def reference(self) -> np.ndarray:
        return self.value.array

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return ()

    def cost(self) -> Cost:
        return Cost(0, self.value.type.nbytes)


class Iota(Op):
    """The array of `shape` whose elements are their own index along `axis`. Not bool; a float dtype counts in
    floats."""
    name: ClassVar[str] = "iota"
    is_leaf = True
    shape: tuple[Dim, ...]
    axis: int
    dtype: DType

    def infer(self) -> TensorType:
        require(self.axis == normalize_axis(self.axis, len(self.shape)),
                f"iota: axis {self.axis} must be counted from the front")
        require(self.dtype.kind != "bool", "iota counts in integers or floats, not in bool")
        return TensorType(self.dtype, self.shape)

    def reference(self) -> np.ndarray:
        along, shape = [1] * len(self.shape), static_shape(self.shape)
        along[self.axis] = -1
        return np.broadcast_to(np.arange(shape[self.axis], dtype=self.dtype.np).reshape(along), shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return ()


class Dimension(Op):
    """The scalar `max(size, 0)`: a dimension, or a polynomial over dimensions, as a number.

    It stands for what a decomposition divides by while sizes are still names; once bound it folds to a constant.
    `low` and `high` are the least and the greatest size for which the graph is right, and `what` says so: a rule
    that holds whether or not the number is used.
    """
    name: ClassVar[str] = "dimension"
    is_leaf = True
    size: Dim
    dtype: DType
    low: int = 0
    high: int | None = None
    what: str = ""

    def infer(self) -> TensorType:
        if self.what:
            fits = allowed(self.size - self.low) and (self.high is None or allowed(self.high - self.size))
            require(fits, f"{self.what}, got {self.size}")
        require(self.dtype.kind != "bool", "dimension counts in integers or floats, not in bool")
        require(not isinstance(self.size, int) or holds(self.dtype, max(self.size, 0)),
                f"dimension: {self.size} is not an {self.dtype}")
        return TensorType(self.dtype, ())

    def reference(self) -> np.ndarray:
        return np.asarray(max(static_dim(self.size), 0), self.dtype.np)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return ()


def number(b: OpBuilder, value: int | float | bool, like: Value | DType) -> Value:
    """A scalar constant of the dtype `like`, or of the dtype of the value `like`."""
    return b.constant(value, like.type.dtype if isinstance(like, Value) else like)


def full(b: OpBuilder, value: int | float | bool, type: TensorType) -> Value:
    """An array of `type` with every element `value`: a constant scalar, broadcast."""
    return b.broadcast_to(number(b, value, type.dtype), shape=type.shape)


def count(b: OpBuilder, size: Dim, dtype: DType) -> Value:
    """The scalar max(size, 0); a constant when `size` is an int."""
    return number(b, max(size, 0), dtype) if isinstance(size, int) else b.dimension(size=size, dtype=dtype)


def splat(v: Value) -> float | int | bool | None:
    """The number that fills v, when v is a constant of one number, bit for bit (also seen through views), else None."""
    while v.node is not None and v.node.op.is_whole_view:
        v = v.node.inputs[0]
    if v.node is None or not isinstance(v.node.op, Constant):
        return None
    array = v.node.op.value.array
    return array.flat[0].item() if is_uniform(array) else None


OPS = (Constant, Iota, Dimension)
