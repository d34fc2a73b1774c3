"""Numbers that instructions take several at a time, as one element. Made by the compiler, for products alone."""
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import exact_quotient
from graphc.ir.op import Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.shape import Movement
from graphc.ir.types import PACKED_OF, DType, TensorType, bf16, bf16x2, dtype_of, f32, i8x4, i32, u8x4

# the types of packed factors -> that of the sums of their products
SUMS: Mapping[tuple[DType, DType], DType] = {
    (bf16x2, bf16x2): f32, **{(a, b): i32 for a in (i8x4, u8x4) for b in (i8x4, u8x4)}}


class Pack(Movement):
    """bf16[…, 2 n] as bf16x2[…, n], i8[…, 4 n] as i8x4[…, n], u8 as u8x4: the same memory; the first number of an
    element is in its lowest bits."""
    name: ClassVar[str] = "pack"
    is_view = is_whole_view = True
    element_flops = 0

    def infer(self, x: TensorType) -> TensorType:
        packed = PACKED_OF.get(x.dtype)
        require(packed is not None and x.rank > 0, f"pack takes rows of {', '.join(map(str, PACKED_OF))}, got {x}")
        elements = exact_quotient(x.shape[-1], packed.numbers) if packed else None
        if packed is None or elements is None:
            require(False, f"pack takes rows of whole elements, got {x}")
            raise InternalError("unreachable", "infer")
        return TensorType(packed, (*x.shape[:-1], elements))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x).view(PACKED_OF[dtype_of(x)].np)      # machines are little-endian

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        raise InternalError("numbers are packed after a graph is differentiated", "backward")


class PackPair(Op):
    """(x, y) of bf16 -> bf16x2: element i has x[i], in its lowest bits, and y[i]. Numbers that lie far apart become
    elements without being moved beside each other first."""
    name: ClassVar[str] = "pack_pair"
    is_elementwise = True
    element_flops = 0

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        require(x == y and x.dtype is bf16, f"pack_pair takes two arrays of {bf16} of one shape, got {x} and {y}")
        return x.with_dtype(bf16x2)

    def reference(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        low, high = (a.view(np.uint16).astype(np.uint32) for a in (x, y))
        return low | high << np.uint32(16)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        raise InternalError("numbers are packed after a graph is differentiated", "backward")


class PackFour(Op):
    """(x, …) of bytes, four arrays or fewer -> i8x4 or u8x4: element i has x[i], in its lowest bits, then the others'
    numbers; missing ones are 0. As `PackPair` for numbers that lie far apart: channels of an image of few."""
    name: ClassVar[str] = "pack_four"
    is_elementwise = True
    element_flops = 0

    def infer(self, x: TensorType, *others: TensorType) -> TensorType:
        packed = PACKED_OF.get(x.dtype)
        require(packed in (i8x4, u8x4) and all(other == x for other in others) and len(others) < i8x4.numbers,
                f"pack_four takes arrays of bytes of one shape, got {', '.join(map(str, (x, *others)))}")
        return x.with_dtype(packed or x.dtype)

    def reference(self, *xs: np.ndarray) -> np.ndarray:
        y = np.zeros(xs[0].shape, PACKED_OF[dtype_of(xs[0])].np)
        for name, x in zip(y.dtype.names or (), xs):
            y[name] = x
        return y

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        raise InternalError("numbers are packed after a graph is differentiated", "backward")


def unpacked(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The first numbers of packed elements, the second and so on, in the type of their sums: f32 or i32."""
    if x.dtype == bf16x2.np:
        return (x << np.uint32(16)).view(f32.np), (x & np.uint32(0xFFFF0000)).view(f32.np)
    return tuple(x[name].astype(i32.np) for name in x.dtype.names or ())


OPS = (Pack, PackPair, PackFour)
