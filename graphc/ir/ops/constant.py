"""Constants and counting arrays."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.op import Literal, Op, require
from graphc.ir.types import Dim, DType, TensorType, normalize_axis


@dataclass(frozen=True)
class Constant(Op):
    """A fixed array."""
    name: ClassVar[str] = "constant"
    value: Literal

    def infer(self) -> TensorType:
        return self.value.type

    def reference(self):
        return self.value.array

    def vjp(self, b, gs, ins, outs):
        return ()


@dataclass(frozen=True)
class Iota(Op):
    """The array of `shape` whose elements are their own index along `axis`."""
    name: ClassVar[str] = "iota"
    shape: tuple[Dim, ...]
    axis: int
    dtype: DType

    def infer(self) -> TensorType:
        normalize_axis(self.axis, len(self.shape))
        require(self.dtype.kind != "bool", "iota counts in integers or floats, not in bool")
        return TensorType(self.dtype, self.shape)

    def reference(self):
        along = [1] * len(self.shape)
        along[self.axis] = -1
        return np.broadcast_to(np.arange(self.shape[self.axis], dtype=self.dtype.np).reshape(along), self.shape)

    def vjp(self, b, gs, ins, outs):
        return ()


OPS = (Constant, Iota)
