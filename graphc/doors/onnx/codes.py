"""What integers stand behind arrays of floats that a file dequantises.

QuantizeLinear and DequantizeLinear around an operator say that its floats are integers times scales. Products of such
arrays are products of the integers, which are exact and faster: sum (qa - za) sa (qb - zb) sb = sa sb sum (qa - za)
(qb - zb). The floats are made as well; where nobody reads them they are dead code.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.doors.onnx.known import Known
from graphc.dsl.array import Array, emit
from graphc.dsl.elementwise import maximum
from graphc.dsl.trace import Trace
from graphc.ir.graph import Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.activation import Relu
from graphc.ir.ops.index import Take, TakeAlongAxis
from graphc.ir.ops.resize import Resize
from graphc.ir.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Slice, Transpose
from graphc.ir.ops.shape_composites import Tile
from graphc.ir.ops.window import MaxPool
from graphc.records import dataclass


@dataclass(frozen=True, eq=False)
class Codes:
    """An array that is (integers - zero) * scale. `scale`, `zero`: of the file, or arrays; one number, or one for each
    index of `axis`. `zero` None: 0. `lasting`: the integers are those of the file."""
    integers: Array
    scale: Known | Array
    zero: Known | Array | None
    axis: int | None
    lasting: bool

    def has_scale(self, scale: object, zero: object) -> bool:
        """Whether these are its scale and zero point, both one number that is known."""
        return self.axis is None and same_numbers(self.scale, scale) and (
            self.zero is zero is None or same_numbers(self.zero, zero))


def fixed(value: object) -> np.ndarray | None:
    """The numbers of a scale or zero point that nothing can change; None of what is an array or a parameter."""
    return value.numbers.reshape(-1) if isinstance(value, Known) and not value.is_weight else None


def same_numbers(a: object, b: object) -> bool:
    """Whether two scales, or zero points, are the same numbers of the file."""
    x, y = fixed(a), fixed(b)
    return x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y)


@dataclass(frozen=True, eq=False)
class ScaledSums:
    """An array that is sums in i32 times a scale, an f32 array that meets them; `fixed`: its numbers, where nothing can
    change them. `rectified`: at least 0."""
    integers: Array
    scale: Array
    fixed: np.ndarray | None
    rectified: bool = False


# that move or choose elements of their first operand: what they do to floats they do to the integers
MOVES = (Reshape, Transpose, BroadcastTo, Slice, Flip, Take, TakeAlongAxis, Tile)
Origin = Codes | ScaledSums | None
FARTHEST = 256                      # operators between an array and what integers stand behind


class Origins:
    """The integers behind the arrays of one walk over a model."""

    def __init__(self) -> None:
        self._known: dict[Value, Codes | ScaledSums] = {}

    def note(self, array: Array, origin: Codes | ScaledSums) -> Array:
        """The array, of which this is known from now on."""
        self._known[array.value] = origin
        return array

    def of(self, array: Array) -> Origin:
        """What stands behind an array; also behind one whose elements are those of others, in whatever place, or the
        largest of them, and behind sums that are rectified."""
        return OriginSearch(self._known, array.trace).of(array.value)

    def joined(self, array: Array) -> tuple[list[Array], int] | None:
        """What an array is joined of, and along which axis; None of another, and where no part is made of integers."""
        node = array.value.node
        if array.value in self._known or node is None or not isinstance(node.op, Concat):
            return None
        parts = [Array(v, array.trace) for v in node.inputs]
        return (parts, node.op.axis) if any(isinstance(self.of(part), Codes) for part in parts) else None


class OriginSearch:
    """One search for what stands behind an array of a trace. Integers that it makes belong to the graph that is traced
    now, so that nothing is kept for the next one."""

    def __init__(self, known: Mapping[Value, Codes | ScaledSums], trace: Trace):
        self._known, self._trace, self._found, self._depth = known, trace, dict[Value, Origin](), 0

    def of(self, value: Value) -> Origin:
        if value in self._known or value.node is None:
            return self._known.get(value)
        if value not in self._found and self._depth < FARTHEST:
            self._depth += 1
            self._found[value] = self._made(value.node)
            self._depth -= 1
        return self._found.get(value)

    def _made(self, node: Node) -> Origin:
        op = node.op
        if isinstance(op, Concat):
            return self._joined(op, [self.of(v) for v in node.inputs])
        if not isinstance(op, (*MOVES, Relu, MaxPool, Pad, Resize)):
            return None
        found = self.of(node.inputs[0])
        if not isinstance(found, Codes):
            return replace(found, rectified=True) if found is not None and isinstance(op, Relu) else None
        if found.axis is not None:          # of scales along an axis, which goes where it goes
            return replace(found, integers=_again(op, found.integers),
                           axis=op.perm.index(found.axis)) if isinstance(op, Transpose) else None
        integers = _as_integers(op, found, [Array(v, self._trace) for v in node.inputs[1:]])
        return None if integers is None else replace(found, integers=integers)

    def _joined(self, op: Concat, parts: Sequence[Origin]) -> Codes | None:
        first = parts[0]
        if not isinstance(first, Codes):
            return None
        same = [p for p in parts if isinstance(p, Codes) and p.integers.dtype is first.integers.dtype
                and first.has_scale(p.scale, p.zero)]
        if len(same) < len(parts):
            return None
        return replace(first, integers=_again(op, *[p.integers for p in same]), lasting=all(p.lasting for p in same))


def _again(op: Op, *operands: Array) -> Array:
    attributes: dict[str, Any] = dict(op.attributes)
    return emit(op.name, *operands, **attributes)


def _as_integers(op: Op, found: Codes, others: Sequence[Array]) -> Array | None:
    """The integers of the result, whose scale and zero point are those of the operand; None where it has others."""
    if isinstance(op, MOVES):
        return _again(op, found.integers, *others)
    zero = 0 if found.zero is None else fixed(found.zero)
    if zero is None:
        return None
    nothing = int(np.reshape(zero, -1)[0])
    if isinstance(op, Pad):
        return None if op.value else emit("pad", found.integers, low=op.low, high=op.high, value=nothing)
    if isinstance(op, Resize):
        return _again(op, found.integers) if op.mode == "nearest" and not op.crop else None
    scale = fixed(found.scale)
    if scale is None or not np.all(scale > 0):          # the largest number has the largest integer
        return None
    return maximum(found.integers, nothing) if isinstance(op, Relu) else _again(op, found.integers)
