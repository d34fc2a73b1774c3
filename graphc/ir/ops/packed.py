"""Numbers that instructions take several at a time, as one element. Made by the compiler, for products alone."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import exact_quotient
from graphc.ir.op import Gradients, OpBuilder, Values, require
from graphc.ir.ops.shape import Movement
from graphc.ir.types import TensorType, bf16, bf16x2, f32


class Pack(Movement):
    """bf16[…, 2 n] as bf16x2[…, n]: the same memory; the first of two numbers is in the low half of an element."""
    name: ClassVar[str] = "pack"
    is_view = is_whole_view = True
    element_flops = 0

    def infer(self, x: TensorType) -> TensorType:
        pairs = exact_quotient(x.shape[-1], 2) if x.rank else None
        if x.dtype is not bf16 or pairs is None:
            require(False, f"pack takes bf16 and an even number of them in a row, got {x}")
            raise InternalError("unreachable", "infer")
        return TensorType(bf16x2, (*x.shape[:-1], pairs))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.astype(bf16.np, copy=False)).view(bf16x2.np)      # machines are little-endian

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        raise InternalError("numbers are packed after a graph is differentiated", "backward")


def unpacked(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second numbers of packed pairs, as f32."""
    return (x << np.uint32(16)).view(f32.np), (x & np.uint32(0xFFFF0000)).view(f32.np)


OPS = (Pack,)
