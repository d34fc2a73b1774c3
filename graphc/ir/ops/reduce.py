"""Reductions over axes."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.op import Cost, Op, require
from graphc.ir.types import TensorType, normalize_axes


@dataclass(frozen=True)
class Reduction(Op):
    """Base of reductions over `axes` (sorted, counted from the front); the result keeps the other axes, or all with `keepdims`."""
    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, x: TensorType) -> TensorType:
        require(self.axes == normalize_axes(self.axes, x.rank), f"{self.name}: axes {self.axes} must be sorted and counted from the front")
        return x.with_shape(reduced_shape(x.shape, self.axes, self.keepdims))

    def cost(self, x: TensorType) -> Cost:
        return Cost(x.size, x.nbytes + self.infer(x).nbytes)

    def expanded(self, b, value, x):
        """`value`, shaped as this reduction of `x`, with the reduced axes back as 1."""
        return value if self.keepdims else b.reshape(value, shape=reduced_shape(x.type.shape, self.axes, True))


@dataclass(frozen=True)
class Sum(Reduction):
    """Sum over axes. f32 sums are blocked, not left to right."""
    name: ClassVar[str] = "sum"

    def reference(self, x):
        return np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)

    def vjp(self, b, gs, ins, outs):
        return (b.broadcast_to(self.expanded(b, gs[0], ins[0]), shape=ins[0].type.shape),)


def reduced_shape(shape, axes, keepdims):
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


OPS = (Sum,)
