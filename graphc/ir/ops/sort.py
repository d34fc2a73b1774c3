"""Sorting along an axis. Always stable; NaN counts as larger than everything: last in ascending order, first in
descending."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.op import Arrays, Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.constant import full
from graphc.ir.size_proofs import allowed
from graphc.ir.types import TensorType, i64, normalize_axis


class Sorting(Op):
    """Base: `descending` order is stable too, so equal elements keep their order (numpy has no descending order)."""
    axis: int
    descending: bool = False

    def check(self, x: TensorType) -> TensorType:
        normalize_axis(self.axis, x.rank)
        require(x.dtype.kind != "bool",
                f"{self.name} takes float or int arrays, got bool; convert it with .astype(i32)")
        return x

    def cost(self, x: TensorType) -> Cost:
        n = x.shape[normalize_axis(self.axis, x.rank)]
        return Cost(x.size * (n.bit_length() if isinstance(n, int) else 10), 2 * x.nbytes)


class Sort(Sorting):
    """The elements in order along `axis`."""
    name: ClassVar[str] = "sort"

    def infer(self, x: TensorType) -> TensorType:
        return self.check(x)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, order_of(x, self.axis, self.descending), self.axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        order = b.argsort(ins[0], axis=self.axis, descending=self.descending)
        return (b.scatter_add_along_axis(full(b, 0, ins[0].type), order, gs[0], axis=self.axis),)


class ArgSort(Sorting):
    """i64 positions that put the elements in order along `axis`. No gradient."""
    name: ClassVar[str] = "argsort"

    def infer(self, x: TensorType) -> TensorType:
        return self.check(x).with_dtype(i64)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return order_of(x, self.axis, self.descending)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)


class TopK(Op):
    """The k largest elements along `axis`, largest first, and their i64 positions; of equals the first (PyTorch leaves
    that open)."""
    name: ClassVar[str] = "topk"
    k: int
    axis: int

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        axis = normalize_axis(self.axis, x.rank)
        size = x.shape[axis]
        require(self.k >= 0 and allowed(size - self.k),
                f"topk: k = {self.k} is not in 0..{size}, the size of axis {axis} of {x}")
        require(x.dtype.kind != "bool", "topk takes float or int arrays, got bool; convert it with .astype(i32)")
        out = x.with_shape(x.shape[:axis] + (self.k,) + x.shape[axis + 1:])
        return out, out.with_dtype(i64)

    def reference(self, x: np.ndarray) -> Arrays:
        first = [slice(None)] * x.ndim
        first[self.axis] = slice(self.k)
        order = order_of(x, self.axis, True)[tuple(first)]
        return np.take_along_axis(x, order, self.axis), order

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        if gs[0] is None:
            return (None,)
        return (b.scatter_add_along_axis(full(b, 0, ins[0].type), outs[1], gs[0], axis=self.axis),)

    def cost(self, x: TensorType) -> Cost:
        out, _ = self.infer(x)
        return Cost(x.size * max(self.k.bit_length(), 1), x.nbytes + out.nbytes + out.size * 8)


def order_of(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """Stable argsort with NaN largest. Descending: equal elements in their original order, so neither a flip nor a
    negation will do."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64)
    backward = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - backward, axis).astype(np.int64)


OPS = (Sort, ArgSort, TopK)
