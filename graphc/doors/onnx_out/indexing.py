"""Reading and writing at positions held in arrays. Runtimes fail at a position outside of an axis, as graphc does, but
take a negative one for one from the end."""
from __future__ import annotations

from typing import Any

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.movement import only, reshaped
from graphc.doors.onnx_out.rule import ALL, BOOL, NUMBERS, Rule, Rules
from graphc.ir.graph import NodeOf, Value
from graphc.ir.ops.index import ScatterAdd, ScatterAddAlongAxis, Take, TakeAlongAxis
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


def _written(e: Emitter, node: NodeOf[Any], reduction: str) -> list[str]:
    """Updates one after another, as graphc has them: runtimes write rows in any order where ScatterND is asked, so that
    positions of whole rows are repeated along the row."""
    base, idx, updates = node.inputs
    if 0 in updates.type.shape:
        return [e.values[base]]
    axis, along, values = node.op.axis % base.type.rank, positions(e, idx), e.values[updates]
    if isinstance(node.op, ScatterAdd | Scatter):
        rows = base.type.shape[:axis] + (idx.type.size,) + base.type.shape[axis + 1:]
        column = (1,) * axis + (idx.type.size,) + (1,) * (base.type.rank - axis - 1)
        along = along if column == idx.type.shape else reshaped(e, along, column)
        along = along if rows == column else e.op("Expand", along, e.shape(rows))
        values = values if updates.type.shape == rows else reshaped(e, values, rows)
    return [e.op("ScatterElements", e.values[base], along, values, axis=axis, reduction=reduction)]


def _added(e: Emitter, node: NodeOf[ScatterAdd] | NodeOf[ScatterAddAlongAxis]) -> list[str]:
    return _written(e, node, "add")


def _set(e: Emitter, node: NodeOf[Scatter] | NodeOf[ScatterAlongAxis]) -> list[str]:
    return _written(e, node, node.op.reduction)


RULES: Rules = {
    Take: Rule(_take, ALL), TakeAlongAxis: Rule(_take_along, ALL),
    ScatterAdd: Rule(_added, NUMBERS), ScatterAddAlongAxis: Rule(_added, NUMBERS),
    Scatter: Rule(_set, NUMBERS | BOOL), ScatterAlongAxis: Rule(_set, NUMBERS | BOOL)}
