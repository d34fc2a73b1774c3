"""Element types, symbolic dimensions and tensor types."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphc.errors import GraphError
from graphc.ir.convert import integer, is_sequence, items, shown
from graphc.ir.dims import (  # noqa: F401   # given on: most read them beside types
    DIGITS, TERMS, Dim, Dims, Poly, Sizes, as_dim, bind, parse_dim, static_dim, static_shape)


@dataclass(frozen=True, eq=False)
class DType:
    """An element type, one of `DTYPES`. `f32[2, "B"]` makes a `TensorType`; `f32[()]` is a scalar."""
    name: str
    np: np.dtype
    kind: str                       # "float", "int" or "bool"

    @property
    def itemsize(self) -> int:
        return self.np.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        return self.kind == "int"

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


f32 = DType("f32", np.dtype(np.float32), "float")
f64 = DType("f64", np.dtype(np.float64), "float")
i32 = DType("i32", np.dtype(np.int32), "int")
i64 = DType("i64", np.dtype(np.int64), "int")
bool_ = DType("bool", np.dtype(np.bool_), "bool")

DTYPES: tuple[DType, ...] = (f32, f64, i32, i64, bool_)
BY_NAME: Mapping[str, DType] = {d.name: d for d in DTYPES}
BY_NUMPY: Mapping[np.dtype, DType] = {d.np: d for d in DTYPES}


def dtype_of(array: np.ndarray) -> DType:
    """The graphc type of a numpy array; GraphError for one that graphc does not have."""
    try:
        return BY_NUMPY[array.dtype]
    except KeyError:
        raise GraphError(f"dtype {array.dtype} is not supported; convert with .astype to one of "
                         + ", ".join(str(d.np) for d in DTYPES)) from None


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
