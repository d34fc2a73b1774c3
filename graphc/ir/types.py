"""Element types and tensor types."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from graphc.errors import GraphError
from graphc.ir.convert import integer, is_sequence, items, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim, Poly
from graphc.ir.element_type import BFLOAT16, ElementType
from graphc.records import dataclass


class DType(ElementType):
    """An element type, one of `DTYPES`. `f32[2, "B"]` makes a `TensorType`; `f32[()]` is a scalar."""

    @property
    def element(self) -> DType:
        """The type of one number: of what is packed, of each in it."""
        return BY_NAME[self.packs] if self.is_packed else self

    @property
    def numbers(self) -> int:
        """How many numbers an element is."""
        return self.bits // self.element.bits

    @property
    def compute(self) -> DType:
        """The type in which arithmetic on these numbers is done."""
        return f32 if self.is_storage else self

    def __getitem__(self, shape: object) -> TensorType:
        dims = shape if isinstance(shape, tuple) else (shape,)
        return TensorType(self, tuple(as_dim(d) for d in dims))

    __iter__ = None                 # else Python would go through f32[0], f32[1], … without end

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[[str], DType], tuple[str]]:
        """Copies and unpickled types are this very object: native code compares `np` by identity."""
        return _dtype_named, (self.name,)


def _dtype_named(name: str) -> DType:
    return BY_NAME[name]


def includes(dtype: DType, other: DType) -> bool:
    """Whether every number of the type `other` is one of `dtype`."""
    if dtype is other or "bool" in (dtype.kind, other.kind):
        return dtype is other
    (low, high), (least, most) = other.range, dtype.range
    digits = other.mantissa + 1 if other.is_float else other.bits - other.is_signed
    return least <= low and high <= most and (dtype.is_int and other.is_int or dtype.is_float
                                              and digits <= dtype.mantissa + 1)


def common(dtypes: Sequence[DType]) -> DType:
    """A type for operands of several types: the first of 32 bits or more among them, else the least that has all of
    their numbers, else f32."""
    wide = next((d for d in dtypes if d.bits >= 32), None)
    return wide or next((d for d in (*dtypes, i16, i32, f32) if all(includes(d, other) for other in dtypes)), f32)


f32 = DType("f32", "float", 32, "float32", mantissa=23)
f64 = DType("f64", "float", 64, "float64", mantissa=52)
i32 = DType("i32", "int", 32, "int32")
i64 = DType("i64", "int", 64, "int64")
bool_ = DType("bool", "bool", 1, "bool")
i8 = DType("i8", "int", 8, "int8")
i16 = DType("i16", "int", 16, "int16")
u8 = DType("u8", "int", 8, "uint8", is_signed=False)
u16 = DType("u16", "int", 16, "uint16", is_signed=False)
u32 = DType("u32", "int", 32, "uint32", is_signed=False)
u64 = DType("u64", "int", 64, "uint64", is_signed=False)
f16 = DType("f16", "float", 16, "float16", mantissa=10)
bf16 = DType("bf16", "float", 16, BFLOAT16, mantissa=7)

DTYPES: tuple[DType, ...] = (f32, f64, i32, i64, bool_, i8, i16, u8, u16, u32, u64, f16, bf16)
# Numbers that follow each other in memory, the first in the lowest bits: what instructions multiply and add together.
# Of graphs as compiled, never of a user's.
bf16x2 = DType("bf16x2", "packed", 32, "uint32", packs="bf16")
i8x4 = DType("i8x4", "packed", 32, "i1,i1,i1,i1", packs="i8")
u8x4 = DType("u8x4", "packed", 32, "u1,u1,u1,u1", packs="u8")
PACKED: tuple[DType, ...] = (bf16x2, i8x4, u8x4)
BY_NAME: Mapping[str, DType] = {d.name: d for d in (*DTYPES, *PACKED)}
PACKED_OF: Mapping[DType, DType] = {d.element: d for d in PACKED}
_OF_NUMPY: Mapping[np.dtype, DType] = {d.np: d for d in DTYPES if d.numpy != BFLOAT16}


def of_numpy(dtype: np.dtype) -> DType | None:
    """The graphc type of numpy's type; None for one that graphc does not have."""
    found = _OF_NUMPY.get(dtype)
    return bf16 if found is None and dtype.name == BFLOAT16 and dtype == bf16.np else found


def dtype_of(array: np.ndarray) -> DType:
    """The graphc type of a numpy array; GraphError for one that graphc does not have."""
    found = of_numpy(array.dtype)
    if found is None:
        raise GraphError(f"dtype {array.dtype} is not supported; convert with .astype to one of "
                         + ", ".join(d.numpy for d in DTYPES))
    return found


@dataclass(frozen=True)
class TensorType:
    """dtype and shape. Sizes in elements; `nbytes` in bytes of the dense array."""
    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        return prod(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.size * self.dtype.itemsize

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def is_known(self) -> bool:
        """Whether every dimension is a number, or a size of which bounds are known."""
        return all(isinstance(d, int) or d.is_open for d in self.shape)

    @property
    def names(self) -> frozenset[str]:
        return frozenset().union(*(d.names for d in self.shape if isinstance(d, Poly)))

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> "TensorType":
        return TensorType(dtype, self.shape)

    def bind(self, values: Mapping[str, Dim]) -> "TensorType":
        return self.with_shape(_bound(self, d, values) for d in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__


def _bound(type: TensorType, dim: Dim, values: Mapping[str, Dim]) -> Dim:
    size = bind(dim, values)
    if isinstance(dim, Poly) and isinstance(size, int) and size < 0:
        raise GraphError(f"{type} would have a dimension of {size} with "
                         f"{', '.join(f'{n} = {values[n]}' for n in sorted(dim.names & values.keys()))}")
    return size


def broadcast_shapes(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The numpy broadcast of the shapes; GraphError if they do not fit."""
    if shapes and shapes.count(shapes[0]) == len(shapes):
        return shapes[0]
    rank = max(map(len, shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        dims = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(dims) > 1:
            raise GraphError("shapes " + " and ".join(map(shape_text, shapes)) + " do not broadcast: "
                             f"axis {axis} is {' and '.join(map(str, sorted(dims, key=str)))}")
        result.append(dims.pop() if dims else 1)
    return tuple(result)


def normalize_axis(axis: int, rank: int, what: str = "axis") -> int:
    """`axis` counted from the front; GraphError if it is outside [-rank, rank)."""
    axis = integer(axis, what)
    if not -rank <= axis < rank:
        allowed = f"-{rank}..{rank - 1}" if rank else "none (the array is a scalar)"
        raise GraphError(f"{what} {axis} is out of range for an array with {rank} axes; allowed: {allowed}")
    return axis % rank


def normalize_axes(axes: int | tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    """Sorted axes counted from the front; None means all; GraphError if one is repeated or out of range."""
    if axes is None:
        return tuple(range(rank))
    given: list[Any] = items(axes, "axis") if is_sequence(axes) else [axes]
    result = sorted(normalize_axis(a, rank) for a in given)
    if len(set(result)) != len(result):
        raise GraphError(f"axes {shown(axes)} name an axis twice")
    return tuple(result)


def shape_text(shape: tuple[Dim, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
