"""PyTorch's rules for operands of several types (torch.result_type), on arrays of a graph."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

import graphc as gc
from graphc.dsl.array import as_array
from graphc.ir.types import DType, bool_, f32, i64, of_numpy

Number = bool | int | float


def category(dtype: DType) -> int:
    """0 of bool, 1 of integers, 2 of floats: a type of a higher category wins."""
    return 0 if dtype is bool_ else 1 if dtype.is_int else 2


def promoted_type(first: DType, second: DType) -> DType:
    """The type that holds both: of an integer and a float the float, of f16 and bf16 f32, else as numpy."""
    if first is second:
        return first
    if category(first) != category(second):
        return max(first, second, key=category)
    if first.is_float:
        wider = max(first, second, key=lambda dtype: dtype.bits)
        return f32 if first.bits == second.bits else wider
    found = of_numpy(np.promote_types(first.np, second.np))
    return found if found is not None and found.is_int else i64


def result_type(operands: Sequence[Any]) -> DType:
    """The type of arithmetic on these: arrays with axes decide, then scalar arrays, then Python's numbers; a lower one
    counts only where its category (bool, integer, float) is higher."""
    arrays = [x for x in operands if isinstance(x, gc.Array)]
    ranks = [[x.dtype for x in arrays if x.ndim], [x.dtype for x in arrays if not x.ndim],
             [_number_type(x) for x in operands if x is not None and not isinstance(x, gc.Array)]]
    found: DType | None = None
    for dtypes in ranks:
        if not dtypes:
            continue
        best = reduce(promoted_type, dtypes)
        if found is None or category(best) > category(found):
            found = best
    return f32 if found is None else found


def _number_type(number: object) -> DType:
    if isinstance(number, bool):
        return bool_
    return f32 if isinstance(number, float) else i64


def promoted(*operands: Any) -> list[Any]:
    """The operands as arrays of their common type."""
    dtype = result_type(operands)
    return [as_type(x, dtype) for x in operands]


def as_type(x: Any, dtype: DType) -> gc.Array:
    """An array or a number as an array of this type; a size of a dimension as its number."""
    return x.astype(dtype) if isinstance(x, gc.Array) else number_array(x, dtype)


def number_array(x: Any, dtype: DType) -> gc.Array:
    """A Python number, or a named size, as a scalar array."""
    if isinstance(x, bool | int | float):
        return gc.full((), x, dtype) if dtype is not bool_ else as_array(np.array(bool(x)))
    return gc.full((), size_array(x), dtype) if dtype is not i64 else size_array(x)


def filled(shape: Sequence[Any], value: Any, dtype: DType) -> gc.Array:
    """An array of one number, of bools too."""
    return gc.full(tuple(shape), bool(value) if dtype is bool_ else value, dtype)


def size_array(size: Any) -> gc.Array:
    """A dimension as an i64 scalar, also where it is a name."""
    return gc.sum(gc.ones((size,), i64))


def floating(*operands: Any) -> list[Any]:
    """The operands promoted, integers and bools to f32: what PyTorch does for sin, division and their like."""
    dtype = result_type(operands)
    return [as_type(x, dtype if dtype.is_float else f32) for x in operands]


def of_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for operands that are all arrays or numbers, computed in a float type."""
    return lambda *operands: function(*floating(*operands))


def of_common(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for operands that are all arrays or numbers, computed in their common type."""
    return lambda *operands: function(*promoted(*operands))


def in_widest_type(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose float arrays may have several types, as activations and parameters have under autocast: computed in
    the type that holds all."""
    def rule(*operands: Any, **options: Any) -> Any:
        types = {x.dtype for x in operands if isinstance(x, gc.Array) and x.dtype.is_float}
        if len(types) < 2:
            return function(*operands, **options)
        wide = reduce(promoted_type, types)
        return function(*(x.astype(wide) if isinstance(x, gc.Array) and x.dtype.is_float else x for x in operands),
                        **options)
    return rule
