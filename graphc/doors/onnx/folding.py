"""Shape arithmetic on numbers of the file and on sizes, while importing.

Functions here compute with numpy arrays, of numbers or of objects (ints and named sizes, which are polynomials; among
floats also fractions of sizes); the type of objects' results is that of the first operand, but of truths and Where.
What numpy or a polynomial cannot decide raises, and the operator's rule on arrays takes over.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.doors.onnx.known import MOST, MOST_GROWN, Known, computable
from graphc.doors.onnx.narrow import NARROW
from graphc.doors.onnx.ops.shape import slices
from graphc.doors.onnx.rule import Ints, rule_of
from graphc.doors.onnx.size_fractions import (
    SizeFraction, exact, greatest, least, of_sizes, quotient, rest, rounded, stored, truncated)
from graphc.errors import GraphError
from graphc.ir.dims import Poly
from graphc.ir.types import DType, bool_

if TYPE_CHECKING:
    from graphc.doors.onnx.call import Call

Numbers = np.ndarray


def folded(call: Call) -> list[Any] | None:
    """What the node gives, where that is arithmetic on known numbers; None where it is not, or is not decided."""
    function = FOLD.get(call.node.key)
    known = [v for v in call.operands if v is not None]
    if function is None or not known or not all(isinstance(v, Known) and not v.is_weight for v in known):
        return None
    if call.op not in OBJECTS and any(v.has_names for v in known):
        return None
    try:
        with np.errstate(all="ignore"):
            result = rule_of(function)(call)
    except GraphError:
        return None
    dtype = bool_ if call.op in TRUTHS else known[1 if call.op == "Where" else 0].dtype
    return [Known.of(v, dtype if v.dtype == object else None) if isinstance(v, np.ndarray | np.generic) else v
            for v in (result if isinstance(result, list) else [result])]


def _fits(shape: Sequence[int], *operands: Numbers) -> None:
    """Whether a result is no larger than its operands, or not large."""
    size = prod(map(int, shape))
    computable(size, max(MOST_GROWN, *(v.size for v in operands)))


def _meets(x: Numbers, y: Numbers) -> None:
    _fits(np.broadcast_shapes(x.shape, y.shape), x, y)


def _div(x: Numbers, y: Numbers, *, call: Call) -> Numbers:
    """Of integers truncated, as ONNX has it."""
    _meets(x, y)
    if object in (x.dtype, y.dtype):
        return _each(quotient if call.operands[0].dtype.is_float else truncated(call.importer.not_negative), x, y)
    if x.dtype.kind == "f":
        return np.asarray(x / y)
    if not np.all(y):
        raise GraphError("division by zero")
    return np.asarray(np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)


def _each(function: Callable[[Any, Any], Any], x: Numbers, y: Numbers) -> Numbers:
    """Element by element, on objects."""
    a, b = np.broadcast_arrays(x.astype(object), y.astype(object))
    made = np.empty(a.shape, object)
    for at in np.ndindex(a.shape):
        made[at] = stored(function(exact(a[at]), exact(b[at])))
    return made


def _binary(objects: Callable[[Any, Any], Any], numbers: Callable[..., Any]) -> Callable[..., Any]:
    def rule(x: Numbers, y: Numbers) -> Numbers:
        _meets(x, y)
        if x.dtype == object or y.dtype == object:
            return _each(objects, x, y)
        return np.asarray(numbers(x, y))
    return rule


def _truth(objects: Callable[[Any, Any], Any], numbers: Callable[..., Any]) -> Callable[..., Any]:
    rule = _binary(of_sizes(objects), numbers)

    def truth(x: Numbers, y: Numbers) -> Numbers:
        return np.asarray(rule(x, y)).astype(bool)
    return truth


def _equal(x: Numbers, y: Numbers, *, call: Call) -> Numbers:
    return np.asarray(_binary(call.importer.are_same, np.equal)(x, y)).astype(bool)


def _many(objects: Callable[[Any, Any], Any], numbers: Callable[..., Any]) -> Callable[..., Any]:
    both = _binary(of_sizes(objects), numbers)

    def rule(*xs: Numbers) -> Numbers:
        made = xs[0]
        for x in xs[1:]:
            made = both(made, x)
        return made
    return rule


def _rounded(objects: Callable[[Any], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(x: Numbers) -> Numbers:
        return _mapped(rounded(objects), x) if x.dtype == object else np.asarray(function(x))
    return rule


def _mapped(function: Callable[[Any], Any], x: Numbers) -> Numbers:
    made = np.empty(x.shape, object)
    for at in np.ndindex(x.shape):
        made[at] = function(x[at])
    return made


def _mod(x: Numbers, y: Numbers, *, fmod: int = 0, call: Call) -> Numbers:
    """With the sign of y, or of x."""
    _meets(x, y)
    if object not in (x.dtype, y.dtype):
        return np.asarray((np.fmod if fmod else np.mod)(x, y))
    over, remainder = truncated(call.importer.not_negative), rest(call.importer.not_negative)
    return _each(of_sizes((lambda a, b: a - b * over(a, b)) if fmod else remainder), x, y)


def _gather(x: Numbers, i: Ints, *, axis: int = 0, call: Call) -> Numbers:
    at = call.known(call.operands[1], "indices").numbers
    _fits((at.size, x.size // max(x.shape[axis], 1)), x, at)
    return np.asarray(np.take(x, at.astype(np.int64), axis))


def _concat(*xs: Numbers, axis: int) -> Numbers:
    _fits((sum(x.size for x in xs),), *xs)
    return np.concatenate(xs, axis)


def _reshape(x: Numbers, shape: Ints, *, allowzero: int = 0) -> Numbers:
    return x.reshape([x.shape[i] if d == 0 and not allowzero else d for i, d in enumerate(shape)])


def _squeeze(x: Numbers, axes: Ints | None = None) -> Numbers:
    return np.squeeze(x, axes)


def _unsqueeze(x: Numbers, axes: Ints) -> Numbers:
    return np.expand_dims(x, axes)


def _slice(x: Numbers, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Numbers:
    return np.asarray(x[slices(x.shape, starts, ends, axes, steps)])


def _split(x: Numbers, split: Ints | None = None, *, axis: int = 0, num_outputs: int = 0, call: Call) -> list[Numbers]:
    parts = num_outputs or call.wanted
    size = -(-x.shape[axis] // parts)
    ends: Any = np.cumsum(split)[:-1] if split is not None else [size * i for i in range(1, parts)]
    return np.split(x, ends, axis)


def _transpose(x: Numbers, *, perm: tuple[int, ...] | None = None) -> Numbers:
    return np.transpose(x, perm)


def _range(start: Numbers, limit: Numbers, delta: Numbers, *, stash_type: int = 1) -> Numbers:
    first, last, step = (v.item() for v in (start, limit, delta))
    if isinstance(last, Poly) or isinstance(first, Poly) or not step:
        raise GraphError("not a number")
    computable(int(max(0, -(-(last - first) // step))), MOST)
    return np.arange(first, last, step, dtype=start.dtype)


def _constant_of_shape(shape: Ints, *, value: Known | None = None) -> Numbers:
    computable(prod(map(int, shape)), MOST)
    number = value.numbers.reshape(-1) if value is not None else np.zeros(1, np.float32)
    return np.full(shape, number[0], number.dtype)


def _expand(x: Numbers, shape: Ints) -> Numbers:
    wanted = np.broadcast_shapes(x.shape, tuple(int(d) for d in shape))
    computable(prod(wanted), MOST)
    return np.broadcast_to(x, wanted)


def _tile(x: Numbers, repeats: Ints) -> Numbers:
    computable(prod(map(int, repeats)) * x.size, MOST)
    return np.tile(x, np.array(repeats, np.int64))


def _where(condition: Numbers, x: Numbers, y: Numbers) -> Numbers:
    _fits(np.broadcast_shapes(condition.shape, x.shape, y.shape), condition, x, y)
    return np.where(condition, x, y)


def _reduced(function: Callable[..., Any], operator: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def rule(x: Numbers, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Numbers:
        if not axes and noop_with_empty_axes:
            return x
        if x.dtype != object:
            axis = tuple(axes) if axes else None
            return np.asarray(function(x, axis=axis, keepdims=bool(keepdims))).astype(x.dtype)
        if x.ndim != 1 or not x.size:
            raise GraphError("sizes on one axis")
        total = exact(x[0])
        for item in x[1:]:
            total = operator(total, exact(item))
        made = np.empty((1,) if keepdims else (), object)
        made[...] = stored(total)
        return made
    return rule


def _nonzero(x: Numbers) -> Numbers:
    return np.array(np.nonzero(x), np.int64)


def _scatter_nd(x: Numbers, indices: Numbers, updates: Numbers, *, reduction: str = "none") -> Numbers:
    if reduction != "none":
        raise GraphError("not while importing")
    made = x.copy()
    for at in np.ndindex(indices.shape[:-1]):
        made[tuple(int(i) for i in indices[at])] = updates[at]
    return made


def _cast(x: Numbers, *, to: int, saturate: int = 1, round_mode: str = "up", call: Call) -> Known:
    if to in NARROW:
        raise GraphError("not while importing")
    dtype = call.importer.dtype(to)
    if x.dtype == object:
        return Known(_cast_sizes(x, dtype, call), dtype)
    if x.dtype.kind == "f" and dtype.is_int and not np.all(np.isfinite(x)):
        raise GraphError("no number")
    return Known.of(x.astype(dtype.np), dtype)


def _cast_sizes(x: Numbers, dtype: DType, call: Call) -> Numbers:
    """Of types that hold all sizes."""
    if dtype.bits < 32 or not dtype.is_signed:
        raise GraphError("not while importing")
    to_zero = truncated(call.importer.not_negative)
    return x if dtype.is_float else _mapped(rounded(lambda v: to_zero(v.size, v.divisor)
                                                    if isinstance(v, SizeFraction) else int(v)), x)


def _negative(x: Numbers) -> Numbers:
    return np.asarray(-x)


def _identity(x: Known) -> Known:
    return x


FOLD: Mapping[str, Callable[..., Any]] = {
    "Identity": _identity, "Cast": _cast,
    "Add": _binary(lambda a, b: a + b, np.add), "Sub": _binary(lambda a, b: a - b, np.subtract),
    "Mul": _binary(lambda a, b: a * b, np.multiply), "Div": _div, "Mod": _mod,
    "Min": _many(least, np.minimum), "Max": _many(greatest, np.maximum),
    "Floor": _rounded(floor, np.floor), "Ceil": _rounded(ceil, np.ceil), "Round": _rounded(round, np.round),
    "Neg": _negative,
    "Equal": _equal, "Less": _truth(lambda a, b: a < b, np.less),
    "LessOrEqual": _truth(lambda a, b: a <= b, np.less_equal), "Greater": _truth(lambda a, b: a > b, np.greater),
    "GreaterOrEqual": _truth(lambda a, b: a >= b, np.greater_equal),
    "And": _truth(lambda a, b: a and b, np.logical_and), "Or": _truth(lambda a, b: a or b, np.logical_or),
    "Gather": _gather, "Concat": _concat, "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Slice": _slice, "Split": _split, "Transpose": _transpose, "Range": _range,
    "ConstantOfShape": _constant_of_shape, "Expand": _expand, "Tile": _tile, "Where": _where,
    "ReduceProd": _reduced(np.prod, lambda a, b: a * b), "ReduceSum": _reduced(np.sum, lambda a, b: a + b),
    "ReduceMax": _reduced(np.max, of_sizes(greatest)), "ReduceMin": _reduced(np.min, of_sizes(least)),
    "NonZero": _nonzero, "ScatterND": _scatter_nd}
TRUTHS: Sequence[str] = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or")
OBJECTS = FOLD.keys() - {"NonZero", "Range", "ConstantOfShape"}
