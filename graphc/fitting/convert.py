"""Arrays as people have them (float64, int64, pandas, torch) as the arrays that a step declares, with the numbers
checked."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.literal import not_masked
from graphc.errors import GraphError
from graphc.ir.types import DType, TensorType, shape_text


@runtime_checkable
class Convertible(Protocol):
    """What numpy can read: pandas' tables and columns, torch's tensors …"""
    def __array__(self, *args: Any, **options: Any) -> np.ndarray: ...


def is_array(value: object) -> bool:
    """Whether this is one array, and not a sequence of batches."""
    return isinstance(value, (np.ndarray, Convertible))


def as_numpy(value: Any, name: str) -> np.ndarray:
    """One array, in the dtype that it has."""
    not_masked(value)
    try:
        return np.asarray(value)
    except Exception as error:      # each library words this in its own exception: a device, a gradient, ragged lists
        raise GraphError(f"{name} is no array: {error}", user_loc()) from error


def converted(array: np.ndarray, dtype: DType, name: str) -> np.ndarray:
    """`array` in `dtype`. Floats are rounded; GraphError for what would overflow, lose a fraction, or is no number."""
    wanted, kind = dtype.np, array.dtype.kind
    if array.dtype == wanted:
        return array
    if kind not in "biuf":
        advice = ("; give its classes numbers: classes, y = np.unique(y, return_inverse=True)" if kind in "UO" else "")
        raise GraphError(f"{name} has the dtype {array.dtype}, and is to be {dtype}{advice}", user_loc())
    with np.errstate(all="ignore"):
        made = array.astype(wanted)
    bad = _lost(array, made, dtype)
    if bad.any():
        example = array.reshape(-1)[np.flatnonzero(bad)[0]]
        raise GraphError(f"{name} has {example}, which {dtype} cannot hold; {name} came as {array.dtype}: declare "
                         "another type of the step's input, or convert it yourself", user_loc())
    return made


def _lost(array: np.ndarray, made: np.ndarray, dtype: DType) -> np.ndarray:
    """Where `made` is not the number of `array`."""
    if array.dtype.kind == "f" and dtype.is_float:
        return np.isinf(made) & np.isfinite(array)
    if array.dtype.kind == "f" or dtype.is_float:
        return made.astype(np.float64) != array.astype(np.float64)
    return made != array                # integers of any width are compared as the numbers that they are


def fitted(value: Any, type: TensorType, name: str) -> np.ndarray:
    """`value` as examples of an input of this type: its dtype, its rank, its sizes but the first."""
    array = as_numpy(value, name)
    if array.ndim != type.rank or any(isinstance(d, int) and d != n for d, n in zip(type.shape[1:], array.shape[1:])):
        column = array.ndim == type.rank + 1 and array.shape[-1] == 1
        flat = array.ndim == type.rank - 1 and type.shape[-1] == 1
        advice = f": give {name}[:, 0]" if column else f": give {name}[:, None]" if flat else ""
        raise GraphError(f"{name} is {type}, got {array.dtype}{shape_text(array.shape)}{advice}", user_loc())
    return converted(array, type.dtype, name)


def fitted_batch(batch: Any, types: Mapping[str, TensorType], what: str) -> tuple[np.ndarray, ...]:
    """One batch, a tuple of arrays in the order of the inputs or a dict of them."""
    names = list(types)
    if isinstance(batch, Mapping):
        given = dict(batch)
    elif isinstance(batch, (tuple, list)) and len(batch) == len(names):
        given = dict(zip(names, batch))
    elif len(names) == 1:
        given = {names[0]: batch}
    else:
        got = f"{len(batch)} arrays" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise GraphError(f"{what} takes batches, each a tuple of arrays ({', '.join(names)}) or a dict; got {got} as a "
                         "batch", user_loc())
    if set(given) != set(names):
        raise GraphError(f"{what} takes {', '.join(names)}; a batch has {', '.join(map(str, given))}", user_loc())
    return tuple(fitted(given[name], types[name], name) for name in names)
