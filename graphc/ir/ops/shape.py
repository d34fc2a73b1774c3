"""Operators that move elements: reshape, transpose, broadcast, slice, concat, pad, …"""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.op import Cost, Op, require
from graphc.ir.types import Dim, TensorType, broadcast_shapes, shape_text


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order with another shape of equal size."""
    name: ClassVar[str] = "reshape"
    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        out = x.with_shape(self.shape)
        require(out.size == x.size, f"cannot reshape {shape_text(x.shape)} ({x.size} elements) to {shape_text(self.shape)} ({out.size} elements)")
        return out

    def reference(self, x):
        return x.reshape(self.shape)

    def vjp(self, b, gs, ins, outs):
        return (b.reshape(gs[0], shape=ins[0].type.shape),)

    def cost(self, x):
        return Cost(0, 2 * x.nbytes)


@dataclass(frozen=True)
class Transpose(Op):
    """Axis i of the result is axis perm[i] of x."""
    name: ClassVar[str] = "transpose"
    perm: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(sorted(self.perm) == list(range(x.rank)), f"transpose: {self.perm} is not a permutation of the {x.rank} axes")
        return x.with_shape(x.shape[p] for p in self.perm)

    def reference(self, x):
        return np.transpose(x, self.perm)

    def vjp(self, b, gs, ins, outs):
        inverse = tuple(sorted(range(len(self.perm)), key=self.perm.__getitem__))
        return (b.transpose(gs[0], perm=inverse),)

    def cost(self, x):
        return Cost(0, 2 * x.nbytes)


@dataclass(frozen=True)
class BroadcastTo(Op):
    """x repeated to `shape` by numpy's rules."""
    name: ClassVar[str] = "broadcast_to"
    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(broadcast_shapes(x.shape, self.shape) == self.shape, f"cannot broadcast {shape_text(x.shape)} to {shape_text(self.shape)}")
        return x.with_shape(self.shape)

    def reference(self, x):
        return np.broadcast_to(x, self.shape)

    def vjp(self, b, gs, ins, outs):
        return (gs[0],)             # backward sums over what was broadcast


OPS = (Reshape, Transpose, BroadcastTo)
