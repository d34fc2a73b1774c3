"""Reading and writing at positions held in arrays. Runtimes fail at a position outside of an axis, as graphc does, but
take a negative one for one from the end."""
from __future__ import annotations

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.movement import only, reshaped
from graphc.doors.onnx_out.rule import ALL, BOOL, NUMBERS, Rule, Rules
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.ops.index import Indexing, ScatterAdd, ScatterAddAlongAxis, Take, TakeAlongAxis
from graphc.ir.ops.scatter import Scatter, ScatterAlongAxis
from graphc.ir.types import i32, i64


def positions(e: Emitter, idx: Value) -> str:
    name = e.values[idx]
    return name if idx.type.dtype in (i32, i64) else e.cast(name, i64)


def _take(e: Emitter, node: NodeOf[Take]) -> list[str]:
    return [e.op("Gather", only(e, node), positions(e, node.inputs[1]), axis=_axis(node))]


def _take_along(e: Emitter, node: NodeOf[TakeAlongAxis]) -> list[str]:
    return [e.op("GatherElements", only(e, node), positions(e, node.inputs[1]), axis=_axis(node))]


def _axis(node: NodeOf[Take] | NodeOf[TakeAlongAxis]) -> int:
    return node.op.axis % node.inputs[0].type.rank


def _scattered(e: Emitter, node: Node, reduction: str) -> list[str]:
    """Updates of whole rows: their positions repeated along the row, so that one after another is written, as in
    graphc; runtimes write rows in any order where ScatterND is asked."""
    base, idx, updates = node.inputs
    op = node.op
    if not isinstance(op, Indexing):
        return []
    if 0 in updates.type.shape:
        return [e.values[base]]
    axis = op.axis % base.type.rank
    rows = base.type.shape[:axis] + (idx.type.size,) + base.type.shape[axis + 1:]
    column = (1,) * axis + (idx.type.size,) + (1,) * (base.type.rank - axis - 1)
    along = reshaped(e, positions(e, idx), column) if column != idx.type.shape else positions(e, idx)
    along = along if rows == column else e.op("Expand", along, e.shape(rows))
    flat = e.values[updates] if updates.type.shape == rows else reshaped(e, e.values[updates], rows)
    return [_elements(e, e.values[base], along, flat, axis, reduction)]


def _along(e: Emitter, node: Node, reduction: str) -> list[str]:
    base, idx, updates = node.inputs
    op = node.op
    if not isinstance(op, Indexing):
        return []
    if 0 in updates.type.shape:
        return [e.values[base]]
    return [_elements(e, e.values[base], positions(e, idx), e.values[updates], op.axis % base.type.rank, reduction)]


def _elements(e: Emitter, base: str, idx: str, updates: str, axis: int, reduction: str) -> str:
    return e.op("ScatterElements", base, idx, updates, axis=axis, reduction=reduction)


def _scatter(e: Emitter, node: NodeOf[Scatter]) -> list[str]:
    return _scattered(e, node, node.op.reduction)


def _scatter_along(e: Emitter, node: NodeOf[ScatterAlongAxis]) -> list[str]:
    return _along(e, node, node.op.reduction)


RULES: Rules = {
    Take: Rule(_take, ALL), TakeAlongAxis: Rule(_take_along, ALL),
    ScatterAdd: Rule(lambda e, node: _scattered(e, node, "add"), NUMBERS),
    ScatterAddAlongAxis: Rule(lambda e, node: _along(e, node, "add"), NUMBERS),
    Scatter: Rule(_scatter, NUMBERS | BOOL), ScatterAlongAxis: Rule(_scatter_along, NUMBERS | BOOL)}
