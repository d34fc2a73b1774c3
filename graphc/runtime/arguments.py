"""From what a user passes to the exact arrays that native code wants, or an error that names the argument."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf
from numbers import Number
from typing import Any

import numpy as np

from graphc.errors import GraphError
from graphc.ir.types import shape_text
from graphc.runtime.dlpack import from_dlpack
from graphc.runtime.signature import ArraySpec, Signature

# Python's numbers that are taken for a kind of dtype
NUMBERS: dict[str, tuple[type[float] | type[int], ...]] = {"float": (float, int), "int": (int,), "bool": (bool,)}


def bind_arguments(signature: Signature, args: Sequence[object], named: Mapping[str, object]) -> list[np.ndarray]:
    """One aligned C-contiguous array of exactly the wanted dtype and shape per input, in order.

    An array that is not contiguous is copied. GraphError for a missing, extra, repeated or unknown argument, another
    dtype or shape.
    """
    names = [spec.name for spec in signature.inputs]
    if len(args) > len(names):
        raise GraphError(f"{signature.name} takes {_count(len(names), 'array')} ({', '.join(names)}), got {len(args)}")
    given = dict(zip(names, args))
    for name in named:
        if name not in names:
            raise GraphError(f"{signature.name} has no argument {name!r}; it takes {', '.join(names) or 'none'}")
        if name in given:
            raise GraphError(f"{signature.name} got the argument {name!r} twice")
    given.update(named)
    missing = [name for name in names if name not in given]
    if missing:
        hint = "; an argument called 'out' is given by position, as out= says where results go"
        raise GraphError(f"{signature.name} lacks the argument {', '.join(map(repr, missing))}; it takes "
                         f"{', '.join(names)}{hint if 'out' in missing else ''}")
    return [bind_argument(spec, given[spec.name], signature.name) for spec in signature.inputs]


def bind_argument(spec: ArraySpec, value: object, function: str) -> np.ndarray:
    """`value` as the array that `spec` wants: any CPU array with DLPack or the buffer protocol; a Python number for a
    scalar."""
    array = _as_array(spec, value, function)
    _check_type(spec, array, f"argument {spec.name!r} of {function}")
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.require(array, requirements=("C", "A"))


def bind_outputs(signature: Signature, out: object,
                 inputs: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(outputs, inputs): the caller's arrays of `out=` checked, with inputs that they overlap copied first.

    `out` has the form of the result. Each array must be a writeable C-contiguous ndarray of exactly the dtype and
    shape; two outputs must not overlap. An output may overlap an input: the result is as if it did not.
    """
    given = _out_list(signature, out)
    arrays = [_checked_output(spec, array, signature.name) for spec, array in zip(signature.outputs, given)]
    for i, first in enumerate(arrays):
        for j in range(i):
            if np.may_share_memory(first, arrays[j]):
                raise GraphError(f"out= of {signature.name}: {signature.outputs[j].name!r} and "
                                 f"{signature.outputs[i].name!r} overlap in memory")
    return arrays, [a.copy() if any(np.may_share_memory(a, o) for o in arrays) else a for a in inputs]


def _as_array(spec: ArraySpec, value: object, function: str) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if isinstance(value, Number) and not isinstance(value, np.generic):
        return _number(spec, value, function)
    array = foreign_array(value, f"argument {spec.name!r} of {function}")
    if array is not None:
        return array
    raise GraphError(f"argument {spec.name!r} of {function} must be an array {spec.type}, got {type(value).__name__}; "
                     f"convert it: np.asarray(…, {spec.type.dtype.written})")


def foreign_array(value: object, what: str) -> np.ndarray | None:
    """An array of another library as numpy's, on the same memory; None of what is no array. GraphError where its
    library does not give it."""
    return next((array for convert in (_from_dlpack, _from_buffer, _from_interface)
                 if (array := convert(value, what)) is not None), None)


def array_of_any_type(value: object, what: str) -> np.ndarray:
    """An argument of which the type is not checked yet, as an array. Lists and numbers are what numpy makes of them;
    GraphError where that is nothing, as of rows of different lengths."""
    array = None if isinstance(value, (np.ndarray, Number)) else foreign_array(value, what)
    try:
        return np.asarray(value) if array is None else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise GraphError(f"{what} is no array: {error}") from error


def _number(spec: ArraySpec, value: object, function: str) -> np.ndarray:
    if spec.type.shape != ():
        raise GraphError(f"argument {spec.name!r} of {function} must be an array {spec.type}, got the number {value!r}")
    kind = spec.type.dtype.kind
    if not isinstance(value, NUMBERS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise GraphError(f"argument {spec.name!r} of {function} must be {spec.type.dtype}, got {value!r} of type "
                         f"{type(value).__name__}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, spec.type.dtype.np)
        if spec.type.dtype.is_float and np.isinf(array) and not isinf(value):
            raise OverflowError
        return array
    except OverflowError:
        raise GraphError(f"argument {spec.name!r} of {function}: {value} does not fit into {spec.type.dtype}") from None


def _from_dlpack(value: object, what: str) -> np.ndarray | None:
    if not hasattr(value, "__dlpack__") or isinstance(value, np.generic):
        return None
    try:
        return from_dlpack(value)
    except Exception as error:      # each library words this in its own exception: a device, a gradient, a dtype
        raise GraphError(f"{what}: {type(value).__name__} gives no CPU array: {error}") from error


def _from_buffer(value: Any, what: str) -> np.ndarray | None:
    try:                            # the only way to ask whether it has a buffer, before Python 3.12
        return np.asarray(memoryview(value))
    except (TypeError, ValueError):
        return None


def _from_interface(value: object, what: str) -> np.ndarray | None:
    known = hasattr(value, "__array__") or hasattr(value, "__array_interface__")
    return np.asarray(value) if known else None


def _check_type(spec: ArraySpec, array: np.ndarray, what: str) -> None:
    wanted = spec.type
    if array.dtype != wanted.dtype.np:
        raise GraphError(f"{what} must be {wanted} (numpy {wanted.dtype.np}), got dtype {array.dtype}; convert it: "
                         f"{spec.name}.astype({wanted.dtype.written})")
    if array.shape != wanted.shape:
        raise GraphError(f"{what} must have shape {shape_text(wanted.shape)}, got {shape_text(array.shape)}")


def _checked_output(spec: ArraySpec, array: object, function: str) -> np.ndarray:
    what = f"out= {spec.name!r} of {function}"
    if not isinstance(array, np.ndarray):
        raise GraphError(f"{what} must be a numpy array {spec.type}, got {type(array).__name__}")
    _check_type(spec, array, what)
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise GraphError(f"{what} must be C-contiguous and aligned; make it with np.empty({spec.type.shape}, "
                         f"{spec.type.dtype.written})")
    if not array.flags.writeable:
        raise GraphError(f"{what} is read-only")
    return array


def _out_list(signature: Signature, out: object) -> list[object]:
    names = [spec.name for spec in signature.outputs]
    if signature.result == "dict":
        if not isinstance(out, Mapping) or set(out) != set(names):
            raise GraphError(f"out= of {signature.name} must be a dict with the keys {', '.join(names)}")
        return [out[name] for name in names]
    if signature.result == "array":
        return [out]
    if not isinstance(out, (tuple, list)) or len(out) != len(names):
        raise GraphError(f"out= of {signature.name} must be a tuple of {_count(len(names), 'array')} "
                         f"({', '.join(names)})")
    return list(out)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
