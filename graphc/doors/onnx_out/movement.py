"""Constants and operators that move elements."""
from __future__ import annotations

import numpy as np

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.rule import ALL, BOOL, FLOATS, Rule, Rules
from graphc.ir.dims import Dim, Dims
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.ops.constant import Constant, Dimension, Iota
from graphc.ir.ops.shape import (
    BroadcastTo, Concat, DynamicSlice, DynamicUpdateSlice, Flip, Pad, Reshape, Slice, Transpose)
from graphc.ir.ops.shape_composites import Tile, Tril, Triu
from graphc.ir.types import i8, i32, i64, u8, u32, u64

PADDED = FLOATS | BOOL | {i8, i32, i64, u8, u32, u64}
TRIANGLES = FLOATS | BOOL | {i32, i64}
FIRST = -(1 << 63)                  # an end before the first element, for steps backward
WRITTEN = 1 << 10                   # elements of a count that stand in the file


def only(e: Emitter, node: Node) -> str:
    """The name of the first operand."""
    return e.values[node.inputs[0]]


def reshaped(e: Emitter, x: str, shape: Dims) -> str:
    """x in another shape; where one size is not a number, and none is 0, runtimes find it."""
    named = [d for d in shape if not isinstance(d, int)]
    if 0 in shape:
        return e.op("Reshape", x, e.shape(shape), allowzero=1)
    if len(named) == 1:
        return e.op("Reshape", x, e.numbers(*(d if isinstance(d, int) else -1 for d in shape)))
    return e.op("Reshape", x, e.shape(shape), **({"allowzero": 1} if named else {}))


def _constant(e: Emitter, node: NodeOf[Constant]) -> list[str]:
    return [e.constant(node.op.value.array)]


def _iota(e: Emitter, node: NodeOf[Iota]) -> list[str]:
    op, type = node.op, node.outputs[0].type
    if type.is_static and type.size <= WRITTEN:
        return [e.constant(np.array(op.reference()))]
    zero, one = (e.constant(n, i64) for n in (0, 1))
    count = e.op("Squeeze", e.size(op.shape[op.axis]))
    line = e.op("Range", zero, count, one)
    line = line if op.dtype is i64 else e.cast(line, op.dtype)
    if type.rank == 1:
        return [line]
    along = tuple(d if i == op.axis else 1 for i, d in enumerate(op.shape))
    return [e.op("Expand", reshaped(e, line, along), e.shape(op.shape))]


def _dimension(e: Emitter, node: NodeOf[Dimension]) -> list[str]:
    size = e.op("Squeeze", e.op("Max", e.size(node.op.size), e.numbers(0)))
    return [size if node.op.dtype is i64 else e.cast(size, node.op.dtype)]


def _reshape(e: Emitter, node: NodeOf[Reshape]) -> list[str]:
    return [reshaped(e, only(e, node), node.op.shape)]


def _transpose(e: Emitter, node: NodeOf[Transpose]) -> list[str]:
    return [e.op("Transpose", only(e, node), perm=list(node.op.perm)) if node.op.perm else only(e, node)]


def _broadcast(e: Emitter, node: NodeOf[BroadcastTo]) -> list[str]:
    return [e.op("Expand", only(e, node), e.shape(node.op.shape))]


def _concat(e: Emitter, node: NodeOf[Concat]) -> list[str]:
    axis = node.op.axis % node.inputs[0].type.rank
    return [e.op("Concat", *(e.values[v] for v in node.inputs), axis=axis)]


def _slice(e: Emitter, node: NodeOf[Slice]) -> list[str]:
    op, shape = node.op, node.inputs[0].type.shape
    cut = [i for i in range(len(shape)) if (op.start[i], op.stop[i], op.step[i]) != (0, shape[i], 1)]
    if not cut:
        return [only(e, node)]
    starts, stops = (e.shape(tuple(ends[i] for i in cut)) for ends in (op.start, op.stop))
    steps = [op.step[i] for i in cut]
    last = () if set(steps) == {1} else (e.numbers(*steps),)
    return [e.op("Slice", only(e, node), starts, stops, e.numbers(*cut), *last)]


def _pad(e: Emitter, node: NodeOf[Pad]) -> list[str]:
    """Says its axes: without them ONNX Runtime puts it into a pooling behind it, also where that has not the room."""
    op, dtype = node.op, node.inputs[0].type.dtype
    axes = [i for i, ends in enumerate(zip(op.low, op.high)) if ends != (0, 0)]
    if not axes:
        return [only(e, node)]
    ends = e.shape(tuple(ends[i] for ends in (op.low, op.high) for i in axes))
    return [e.op("Pad", only(e, node), ends, e.constant(op.value, dtype), e.numbers(*axes))]


def _flip(e: Emitter, node: NodeOf[Flip]) -> list[str]:
    axes, x = node.op.axes, only(e, node)
    if not axes:
        return [x]
    ends = [e.numbers(*[n] * len(axes)) for n in (-1, FIRST)]
    return [e.op("Slice", x, *ends, e.numbers(*axes), e.numbers(*[-1] * len(axes)))]


def _starts(e: Emitter, starts: tuple[Value, ...], shape: Dims, sizes: Dims) -> str:
    """i64[rank]: where a window of these sizes begins inside an array of this shape."""
    given = [reshaped(e, e.values[v] if v.type.dtype is i64 else e.cast(e.values[v], i64), (1,)) for v in starts]
    first = e.op("Concat", *given, axis=0)
    room = e.shape(tuple(n - size for n, size in zip(shape, sizes)))
    return e.op("Max", e.op("Min", first, room), e.constant(0, i64))


def _window(e: Emitter, first: str, axis: int, size: Dim) -> str:
    """i64[size]: the positions along an axis of a window that begins at `first[axis]`."""
    start = e.op("Slice", first, e.numbers(axis), e.numbers(axis + 1))
    if isinstance(size, int):
        return e.op("Add", start, e.constant(np.arange(size)))
    return e.op("Add", start, e.op("Range", e.constant(0, i64), e.op("Squeeze", e.size(size)), e.constant(1, i64)))


def _dynamic_slice(e: Emitter, node: NodeOf[DynamicSlice]) -> list[str]:
    """Axis after axis, by positions: the shape of the result does not depend on numbers."""
    x, *starts = node.inputs
    cut = [i for i, (n, m) in enumerate(zip(x.type.shape, node.op.sizes)) if n != m]
    if not cut:
        return [e.values[x]]
    first, y = _starts(e, tuple(starts), x.type.shape, node.op.sizes), e.values[x]
    for axis in cut:
        y = e.op("Gather", y, _window(e, first, axis, node.op.sizes[axis]), axis=axis)
    return [y]


def _dynamic_update(e: Emitter, node: NodeOf[DynamicUpdateSlice]) -> list[str]:
    """On the first axis along which the update is smaller its rows are written; before, on inner axes, they are made of
    the rows that were there."""
    x, update, *starts = node.inputs
    inner = [i for i, (n, m) in enumerate(zip(x.type.shape, update.type.shape)) if n != m]
    if not inner or 0 in update.type.shape:
        return [e.values[x if inner else update]]
    first = _starts(e, tuple(starts), x.type.shape, update.type.shape)
    windows = [(i, _window(e, first, i, update.type.shape[i])) for i in inner]
    return [_replaced(e, e.values[x], x.type.shape, node, windows)]


def _replaced(e: Emitter, x: str, shape: Dims, node: NodeOf[DynamicUpdateSlice], windows: list[tuple[int, str]]) -> str:
    (axis, rows), *rest = windows
    small = node.inputs[1].type.shape
    part = shape[:axis] + (small[axis],) + shape[axis + 1:]
    update = e.values[node.inputs[1]]
    if rest:
        update = _replaced(e, e.op("Gather", x, rows, axis=axis), part, node, rest)
    column = reshaped(e, rows, (1,) * axis + (small[axis],) + (1,) * (len(shape) - axis - 1))
    return e.op("ScatterElements", x, e.op("Expand", column, e.shape(part)), update, axis=axis)


def _tile(e: Emitter, node: NodeOf[Tile]) -> list[str]:
    x, reps = node.inputs[0], node.op.reps
    padded = (1,) * (len(reps) - x.type.rank) + x.type.shape
    name = e.values[x] if padded == x.type.shape else reshaped(e, e.values[x], padded)
    return [e.op("Tile", name, e.numbers(*reps)) if reps else name]


def _triangle(e: Emitter, node: Node) -> list[str]:
    op = node.op
    if not isinstance(op, (Tril, Triu)):
        return []
    return [e.op("Trilu", only(e, node), e.constant(op.diagonal, i64), upper=int(isinstance(op, Triu)))]


RULES: Rules = {
    Constant: Rule(_constant), Iota: Rule(_iota), Dimension: Rule(_dimension), Reshape: Rule(_reshape),
    Transpose: Rule(_transpose), BroadcastTo: Rule(_broadcast, ALL), Concat: Rule(_concat), Slice: Rule(_slice),
    Pad: Rule(_pad, PADDED), Flip: Rule(_flip), DynamicSlice: Rule(_dynamic_slice),
    DynamicUpdateSlice: Rule(_dynamic_update), Tile: Rule(_tile), Tril: Rule(_triangle, TRIANGLES),
    Triu: Rule(_triangle, TRIANGLES)}
