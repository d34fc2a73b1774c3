"""Arrays that are made: of numbers, of their own positions, triangles."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.torch.rules.promotion import as_type, category, filled
from graphc.dsl.array import as_array
from graphc.ir.types import DType, bool_, f32, i64

Array = gc.Array
Rule = Callable[..., Any]


def made_type(dtype: DType | None, *numbers: Any) -> DType:
    """The type of a new array: the one given, else by its numbers."""
    if dtype is not None:
        return dtype
    kinds = [category(n.dtype) if isinstance(n, Array) else 0 if isinstance(n, bool) else 2 if isinstance(n, float)
             else 1 for n in numbers]
    return (bool_, i64, f32)[max(kinds, default=2)]


def _full(size: Sequence[Any], value: Any, *, dtype: DType | None = None, **_: Any) -> Array:
    dtype = made_type(dtype, value)
    if isinstance(value, bool | int | float):
        return filled(size, value, dtype)
    return gc.broadcast_to(as_type(value, dtype), tuple(size))


def _filled(value: float) -> Rule:
    return lambda size, *_, dtype=None, **__: filled(size, value, dtype or f32)


def _filled_like(value: float) -> Rule:
    return lambda x, *_, dtype=None, **__: filled(x.shape, value, dtype or x.dtype)


def _full_like(x: Array, value: Any, *, dtype: DType | None = None, **_: Any) -> Array:
    return _full(x.shape, value, dtype=dtype or x.dtype)


def _arange(*numbers: Any, dtype: DType | None = None, **_: Any) -> Array:
    start, stop, step = (0, *numbers, 1) if len(numbers) == 1 else (*numbers, 1)[:3]
    dtype = made_type(dtype, start, stop, step)
    if not all(isinstance(n, int) for n in (start, stop, step)) and all(isinstance(n, int | float)
                                                                       for n in (start, stop, step)):
        return as_array(np.arange(start, stop, step).astype(dtype.np))
    if isinstance(step, int) and step == 1:
        return gc.iota((stop - start,), 0, i64).astype(dtype) + as_type(start, dtype)
    return gc.arange(start, stop, step).astype(dtype)


def _linspace(start: Any, end: Any, steps: int, *, dtype: DType | None = None, **_: Any) -> Array:
    wanted = dtype or f32
    if isinstance(start, Array) or isinstance(end, Array):
        start, end = as_type(start, wanted), as_type(end, wanted)
        share = as_array(np.linspace(0, 1, steps).astype(wanted.np))
        return start + (end - start) * share
    return as_array(np.linspace(float(start), float(end), steps).astype(wanted.np))


def _logspace(start: float, end: float, steps: int, base: float = 10.0, *, dtype: DType | None = None,
              **_: Any) -> Array:
    return as_array(np.logspace(float(start), float(end), steps, base=base).astype((dtype or f32).np))


def _eye(n: Any, m: Any = None, *, dtype: DType | None = None, **_: Any) -> Array:
    m = n if m is None else m
    return gc.equal(gc.iota((n, m), 0), gc.iota((n, m), 1)).astype(dtype or f32)


def _triangle(keep: Callable[[Array, Array, int], Array]) -> Rule:
    def rule(x: Array, diagonal: int = 0) -> Array:
        shape = x.shape[-2:]
        return gc.where(keep(gc.iota(shape, 0), gc.iota(shape, 1), diagonal), x, as_type(0, x.dtype))
    return rule


def _triangle_places(upper: bool) -> Rule:
    def rule(rows: int, columns: int, offset: int = 0, *, dtype: DType | None = None, **_: Any) -> Array:
        places = (np.triu_indices if upper else np.tril_indices)(rows, offset, columns)
        return as_array(np.stack(places).astype((dtype or i64).np))
    return rule


def _scalar(value: Any, *, dtype: DType | None = None, **_: Any) -> Array:
    return as_type(value, made_type(dtype, value))


RULES: dict[str, Rule] = {
    "tril.default": _triangle(lambda i, j, k: j <= i + k),
    "triu.default": _triangle(lambda i, j, k: j >= i + k), "tril_indices.default": _triangle_places(False),
    "triu_indices.default": _triangle_places(True), "full.default": _full, "full_like.default": _full_like,
    "zeros.default": _filled(0), "ones.default": _filled(1), "empty.memory_format": _filled(0),
    "empty_strided.default": _filled(0), "empty_permuted.default": _filled(0), "zeros_like.default": _filled_like(0),
    "ones_like.default": _filled_like(1), "empty_like.default": _filled_like(0),
    **{f"new_{name}.default": (lambda x, size, *_, value=value, dtype=None, **__: filled(
        size, value, dtype or x.dtype)) for name, value in {
            "zeros": 0, "ones": 1, "empty": 0, "empty_strided": 0}.items()},
    "new_full.default": lambda x, size, value, dtype=None, **_: _full(size, value, dtype=dtype or x.dtype),
    "arange.default": _arange, "arange.start": _arange, "arange.start_step": _arange, "linspace.default": _linspace,
    "linspace.Tensor_Tensor": _linspace, "linspace.Tensor_Scalar": _linspace, "linspace.Scalar_Tensor": _linspace,
    "logspace.default": _logspace, "eye.default": _eye, "eye.m": _eye, "scalar_tensor.default": _scalar,
}
