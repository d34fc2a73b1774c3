"""Python's and numpy's numbers as constants of a graph's dtype. A number that would be another one there is an error;
rounding is none."""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dsl.symbol import Symbol
from graphc.errors import GraphError
from graphc.ir.convert import is_number, number, shown
from graphc.ir.dims import Poly
from graphc.ir.no_number import unknown
from graphc.ir.types import BY_NAME, DType, bool_, f32, i64, of_numpy, u64

DEEP = 8                            # levels of lists that are looked into: a list may contain itself


def numbers(x: object, dtype: DType | None) -> np.ndarray:
    """Python numbers (or nested lists of them) as a numpy array of `dtype`; GraphError for a number that is another
    one in it."""
    array = array_of(x)
    wanted = dtype or {"b": bool_, "f": f32}.get(array.dtype.kind, i64)
    if not _fits(array, wanted):
        raise GraphError(f"{shown(x)} does not fit "
                         f"{f'the {dtype} array beside it' if dtype else wanted}: " + _remedy(array, wanted))
    with np.errstate(over="ignore"):                        # infinity stays infinity
        return array.astype(wanted.np)


def not_masked(x: object, depth: int = 0) -> None:
    """GraphError for masked arrays and numbers, also in lists: numpy would take what is masked for nan."""
    if isinstance(x, (list, tuple)) and depth < DEEP:
        for item in x:
            if isinstance(item, (list, tuple, np.ndarray)):
                not_masked(item, depth + 1)
    if isinstance(x, np.ndarray) and hasattr(x, "mask"):
        raise GraphError("a masked array's mask would be lost: give its numbers and its mask as two arrays, "
                         "and choose with gc.where")


def array_of(x: object) -> np.ndarray:
    """Numbers as numpy takes them; GraphError for what holds none. Ints of more than 64 bits are objects."""
    not_masked(x)
    try:
        array = np.asarray(x)
    except GraphError:              # of a symbolic array in a list
        raise GraphError("a list of symbolic arrays is not an array: use gc.stack or gc.concat") from None
    # numpy asks whatever it is given for an array or its items, and that may raise anything
    except Exception as error:
        raise GraphError(f"{shown(x)} is not an array: {error}") from None
    if (array.dtype.kind in "biuf" or of_numpy(array.dtype) is not None
        or (array.dtype.kind == "O" and all(type(v) is int for v in array.flat))):
        return array
    if isinstance(x, Poly):
        raise unknown(f"{x} as a number")
    raise GraphError(f"expected an array or a number, got {type(x).__name__} {shown(x)}")


def fitting(value: Any, dtype: DType, what: str) -> int | float | bool:
    """One number as an attribute beside an array of `dtype`: held to what a Python number in the place of an operand
    is held to."""
    if not is_number(value) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        raise GraphError(f"{what} is a number, got {shown(value)}")
    array = numbers(value, dtype)
    return float(value) if dtype.is_float else array.item()


def clip_bound(bound: object, dtype: DType) -> int | float | None:
    """A bound of clip; those of integers may be whole floats."""
    if bound is None or dtype.is_float:
        return bound if bound is None else fitting(bound, dtype, "clip: a bound")
    value = number(bound, "clip: a bound")
    if dtype.is_int and isinstance(value, float):
        if not value.is_integer():
            raise GraphError(f"clip of {dtype} needs whole bounds, got {shown(bound)}")
        value = int(value)
    return value if dtype.kind == "bool" else fitting(value, dtype, "clip: a bound")


def _fits(array: np.ndarray, dtype: DType) -> bool:
    """Whether numbers of a Python kind may take `dtype`: floats no integer's, numbers no bool's, none that would
    overflow."""
    kind = array.dtype.kind if array.dtype.kind != "V" else "f"         # bf16
    if kind == "b" or array.size == 0:
        return True
    if dtype.kind == "bool" or (dtype.is_int and kind == "f"):
        return False
    low, high = dtype.range
    with np.errstate(over="ignore"):                        # of limits in the array's own dtype, such as f16
        inside = (array >= low) & (array <= high)
    return bool((inside | ~np.isfinite(array) if kind == "f" else inside).all())


def _remedy(array: np.ndarray, dtype: DType) -> str:
    """What to write for numbers that do not fit."""
    if dtype.is_float:
        return f"the largest {dtype} is {dtype.range[1]:.8g}; use f64, or float('inf')"
    kind = array.dtype.kind
    wider = ("f32" if kind == "f" else "i32" if dtype.kind == "bool"
             else "i64" if kind in "iu" and dtype != i64 else "f64")
    return f"convert the array first, for example x.astype(gc.{wider})"


def counted_in(dtype: DType, *more: DType) -> DType:
    """What sums and products are in: integers of 8 and 16 bits, and the types `more`, in 64 bits, as in numpy."""
    if dtype not in more and (not dtype.is_int or dtype.bits >= 32):
        return dtype
    return i64 if dtype.is_signed else u64


def as_dtype(dtype: Any) -> DType:
    """A graphc dtype from gc.f32, "f32", np.float32 or a numpy dtype. As texts "i8" and "u8" are refused: numpy's have
    64 bits, graphc's 8."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str) and dtype in ("i8", "u8"):
        raise GraphError(f"{dtype!r} has 8 bits here and 64 in numpy: write gc.{dtype}, or gc.{dtype[0]}64")
    if isinstance(dtype, str) and dtype in BY_NAME:
        return BY_NAME[dtype]
    try:
        # numpy takes None for f64, and texts that begin with a for bytes, of which it warns
        if dtype is None or isinstance(dtype, (Symbol, np.ndarray)) or isinstance(dtype, str) and dtype[:1] == "a":
            raise TypeError
        found = of_numpy(np.dtype(dtype))
    except Exception:               # numpy asks whatever it is given for a dtype, and that may raise anything
        found = None
    if found is None:
        raise GraphError(f"{shown(dtype)} is not a dtype of graphc; there are {', '.join(BY_NAME)}")
    return found
