"""What an array made of constants and indices holds: one number, a count along axes, or a number on each side of a
diagonal.

A causal mask is written in many ways (tril of ones, indices compared, a numpy array); here all of them become one
`Step`. Nothing is evaluated at full size, so it costs the same for any length and works for named dimensions.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.bits import is_uniform, same_bits
from graphc.ir.graph import NodeOf, Value
from graphc.ir.op import Op, Opcode
from graphc.ir.ops.constant import Constant, Iota
from graphc.ir.ops.elementwise import ADD, COPY, GE, GT, LE, LT, NEG, SUB, Cast, Elementwise
from graphc.ir.ops.shape import BroadcastTo, Reshape, Slice, Transpose
from graphc.ir.ops.shape_composites import Tril, Triu
from graphc.records import dataclass

MOST = 1 << 22                  # elements of a constant that is examined, at most
DEEPEST = 50                    # operators between a mask and the arrays from which it is computed, at most
# start and slopes of counts that neither wrap as i32 nor round as f32, along axes of up to millions
FARTHEST, STEEPEST = 1 << 20, 2


@dataclass(frozen=True)
class Number:
    """Every element is `value`, a numpy scalar."""
    value: np.generic


@dataclass(frozen=True)
class Ramp:
    """start + the sum of slope * index over axes, which are counted from the last (-1); integers, or floats that are
    whole."""
    slopes: tuple[tuple[int, int], ...]
    start: int


@dataclass(frozen=True)
class TriangleStep:
    """Of the last two axes: `lower` where column - row <= diagonal, else `upper`."""
    diagonal: int
    lower: np.generic
    upper: np.generic


Known = Number | Ramp | TriangleStep


class MaskFacts:
    """What is known of values: `facts(v)`, None where v is not made of constants and indices in a way that is
    understood."""

    def __init__(self) -> None:
        self._found: dict[Value, Known | None] = {}
        self._depth = 0

    def __call__(self, v: Value) -> Known | None:
        if v not in self._found:
            self._found[v] = self._look(v)
        return self._found[v]

    def number(self, v: Value) -> float | None:
        """The number that v is filled with, or None."""
        found = self(v)
        return found.value.item() if isinstance(found, Number) else None

    def _look(self, v: Value) -> Known | None:
        node = v.node
        rule = RULES.get(type(node.op)) if node is not None else None
        if node is None or rule is None or self._depth == DEEPEST:
            return None
        self._depth += 1
        parts: list[Known] = []
        for x in node.inputs:
            part = self(x)
            if part is None:
                break
            parts.append(part)
        self._depth -= 1
        return rule(node, *parts) if len(parts) == len(node.inputs) else None


def _constant(node: NodeOf[Constant]) -> Known | None:
    array = node.op.value.array
    if not 0 < array.size <= MOST:
        return None
    if is_uniform(array):
        return Number(array.flat[0])
    long = [i - array.ndim for i, d in enumerate(array.shape) if d > 1]
    if len(long) == 1 and array.dtype.kind != "b":
        first = array.flat[0]
        counts = first == int(first) and (array.ravel() == first + np.arange(array.size)).all()
        return Ramp(((long[0], 1),), int(first)) if counts else None
    return _triangle(array.reshape(array.shape[-2:])) if long == [-2, -1] else None


def _triangle(array: np.ndarray) -> TriangleStep | None:
    lower, upper = array[0, 0], array[0, -1]
    diagonal = int(np.argmin(array[0] == lower)) - 1
    rows, columns = array.shape
    inside = np.tri(rows, columns, diagonal, dtype=bool)
    is_step = lower != upper and same_bits(array, np.where(inside, lower, upper))
    return TriangleStep(diagonal, lower, upper) if is_step else None


def _iota(node: NodeOf[Iota]) -> Known:
    shape, axis = node.op.shape, node.op.axis % len(node.op.shape)
    if shape[axis] == 1:
        return Number(node.op.dtype.np.type(0))
    return Ramp(((axis - len(shape), 1),), 0)


def _elementwise(node: NodeOf[Elementwise], *parts: Known) -> Known | None:
    sides = [p for p in parts if not isinstance(p, Ramp)]
    if len(sides) < len(parts):
        return _of_ramps(node.op.opcode, parts)
    diagonals = {p.diagonal for p in sides if isinstance(p, TriangleStep)}
    if len(diagonals) > 1:
        return None
    lower, upper = (_scalar(node.op.reference(*(_side(p, i) for p in sides))) for i in range(2))
    return TriangleStep(diagonals.pop(), lower, upper) if diagonals else Number(lower)


def _side(part: Number | TriangleStep, upper: int) -> np.ndarray:
    return np.asarray(part.value if isinstance(part, Number) else part.upper if upper else part.lower)


def _scalar(array: np.ndarray) -> np.generic:
    """The element of an array without axes."""
    return np.asarray(array).flat[0]


def _of_ramps(function: Opcode, parts: Sequence[Known]) -> Known | None:
    linear = [x for p in parts if (x := _linear(p)) is not None]
    if len(linear) < len(parts):
        return None
    if function in COMPARED:
        return COMPARED[function](*linear)
    total = SUMS[function](*linear) if function in SUMS else None
    if total is None or abs(total.start) > FARTHEST or any(abs(slope) > STEEPEST for _, slope in total.slopes):
        return None
    return total


def _linear(part: Known) -> Ramp | None:
    if isinstance(part, Number):
        value = part.value.item()
        return Ramp((), int(value)) if np.isfinite(value) and value == int(value) else None
    return part if isinstance(part, Ramp) else None


def _combined(a: Ramp, b: Ramp, sign: int) -> Ramp:
    slopes = dict(a.slopes)
    for axis, slope in b.slopes:
        slopes[axis] = slopes.get(axis, 0) + sign * slope
    return Ramp(tuple(sorted((axis, slope) for axis, slope in slopes.items() if slope)), a.start + sign * b.start)


def _at_least(a: Ramp, b: Ramp, more: int) -> TriangleStep | None:
    """Where a >= b + more."""
    difference = _combined(a, b, -1)
    start, (yes, no) = difference.start - more, (np.bool_(True), np.bool_(False))
    steps: dict[tuple[tuple[int, int], ...], TriangleStep] = {
        ((-2, -1), (-1, 1)): TriangleStep(-start - 1, no, yes), ((-2, 1), (-1, -1)): TriangleStep(start, yes, no)}
    return steps.get(difference.slopes)


COMPARED: dict[Opcode, Callable[[Ramp, Ramp], TriangleStep | None]] = {
    GE: lambda a, b: _at_least(a, b, 0), GT: lambda a, b: _at_least(a, b, 1),
    LE: lambda a, b: _at_least(b, a, 0), LT: lambda a, b: _at_least(b, a, 1),
}
SUMS: dict[Opcode, Callable[..., Ramp]] = {
    ADD: lambda a, b: _combined(a, b, 1), SUB: lambda a, b: _combined(a, b, -1),
    NEG: lambda a: _combined(Ramp((), 0), a, -1), COPY: lambda a: a,
}


def _cast(node: NodeOf[Cast], part: Known) -> Known | None:
    if isinstance(part, Ramp):
        return part if node.op.dtype.kind != "bool" else None
    lower, upper = (_scalar(node.op.reference(_side(part, i))) for i in range(2))
    return TriangleStep(part.diagonal, lower, upper) if isinstance(part, TriangleStep) else Number(lower)


def _reshaped(node: NodeOf[Reshape], part: Known) -> Known | None:
    """Axes of size 1 may come and go."""
    old, new = node.inputs[0].type.shape, node.outputs[0].type.shape
    if isinstance(part, Number):
        return part
    places = [[i - len(shape) for i, d in enumerate(shape) if d != 1] for shape in (old, new)]
    if [old[i] for i in places[0]] != [new[i] for i in places[1]]:
        return None
    return _moved(part, dict(zip(*places)))


def _transposed(node: NodeOf[Transpose], part: Known) -> Known | None:
    rank = len(node.op.perm)
    return _moved(part, {p - rank: i - rank for i, p in enumerate(node.op.perm)})


def _moved(part: Known, places: dict[int, int]) -> Known | None:
    """The same where axis a has become axis places[a]."""
    if isinstance(part, Ramp):
        return Ramp(tuple(sorted((places[axis], slope) for axis, slope in part.slopes)), part.start)
    if isinstance(part, TriangleStep):
        turned = TriangleStep(-part.diagonal - 1, part.upper, part.lower)
        return {(-2, -1): part, (-1, -2): turned}.get((places.get(-2, 0), places.get(-1, 0)))
    return part


def _broadcast(node: NodeOf[BroadcastTo], part: Known) -> Known:
    return part             # axes are counted from the last, and what varies along an axis is not repeated along it


def _sliced(node: NodeOf[Slice], part: Known) -> Known | None:
    if isinstance(part, Number):
        return part
    shape, starts = node.outputs[0].type.shape, [i for i in node.op.start if isinstance(i, int)]
    if any(step != 1 for step in node.op.step) or len(starts) < len(node.op.start):
        return None
    if isinstance(part, Ramp):
        start = part.start + sum(slope * starts[axis] for axis, slope in part.slopes)
        slopes = tuple((axis, slope) for axis, slope in part.slopes if shape[axis] != 1)
        return Ramp(slopes, start) if slopes else Number(node.outputs[0].type.dtype.np.type(start))
    if 1 in shape[-2:]:
        return None
    return TriangleStep(part.diagonal + starts[-2] - starts[-1], part.lower, part.upper)


def _tril(node: NodeOf[Tril], part: Known) -> Known | None:
    return _cut(part, node.op.k, 1)


def _triu(node: NodeOf[Triu], part: Known) -> Known | None:
    return _cut(part, node.op.k - 1, 0)


def _cut(part: Known, diagonal: int, upper: int) -> Known | None:
    """Zero in the upper or the lower of the two triangles."""
    if isinstance(part, Ramp) or isinstance(part, TriangleStep) and part.diagonal != diagonal:
        return None
    kept = _scalar(_side(part, 1 - upper))
    zero = _scalar(np.zeros_like(kept))
    return TriangleStep(diagonal, kept, zero) if upper else TriangleStep(diagonal, zero, kept)


RULES: dict[type[Op], Callable[..., Known | None]] = {
    Constant: _constant, Iota: _iota, Elementwise: _elementwise, Cast: _cast,
    Reshape: _reshaped, Transpose: _transposed, BroadcastTo: _broadcast, Slice: _sliced, Tril: _tril, Triu: _triu,
}
