"""From a graph to the nodes of an ONNX file: each operator by its rule, or by what it is made of."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.loops import zeros
from graphc.doors.onnx_out.rule import Rule
from graphc.doors.onnx_out.rewrites import REWRITES
from graphc.doors.onnx_out.table import RULES
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, NodeOf, Value, leading_to
from graphc.ir.op import Composite, as_tuple
from graphc.ir.stored import retyped_op
from graphc.ir.types import DType, bf16, bool_, f16, f32, i8, i16, i32, i64, u8, u16, u32, u64

# the type in which numbers of a type are computed where runtimes have no kernel for it; it has all of them, but for u64
WIDER: dict[DType, DType] = {bool_: i32, i8: i32, i16: i32, u8: i32, u16: i32, u32: i64, u64: i64, i32: i64, f16: f32,
                             bf16: f32}
SIGN = -(1 << 63)


def write_nodes(e: Emitter, nodes: Sequence[Node], outputs: Sequence[Value]) -> None:
    """Appends what the outputs need; `e.values` then names them."""
    needed = leading_to(outputs, nodes)
    e.file.read.update(outputs, *(node.inputs for node in needed))
    for node in needed:
        scope, e.scope = e.scope, node.scope or e.scope
        try:
            names = _written(e, node)
        except GraphError as error:
            names = _refused(e, node, error.text)
        e.scope = scope
        for v, name in zip(node.outputs, names, strict=True):
            e.values[v] = name
            e.infos[name] = v.type


def _written(e: Emitter, node: Node) -> Sequence[str]:
    if all(_is_empty(v) for v in node.outputs) or node.op.is_contraction and any(map(_is_empty, node.inputs)):
        return [zeros(e, v.type) for v in node.outputs]         # runtimes stumble over loops and sums of nothing
    rule = RULES.get(node.op.opcode)
    if rule is not None and rule.applies(node, e.opset):
        names = rule.write(e, cast(NodeOf[Any], node))
        if names is not None:
            return names
    b = Builder(node.op.name)
    ins = tuple(b.input("", v.type) for v in node.inputs)
    outs = _made_of(b, node, ins, rule)
    if outs is None:
        return _refused(e, node, "")
    e.values.update(zip(ins, (e.values[v] for v in node.inputs)))
    write_nodes(e, b.nodes, outs)
    return [e.values[v] for v in outs]


def _is_empty(v: Value) -> bool:
    return 0 in v.type.shape


def _made_of(b: Builder, node: Node, ins: tuple[Value, ...], rule: Rule | None) -> tuple[Value, ...] | None:
    """The outputs of the node, as other operators of graphc; None if there is no such way."""
    if node.op.opcode in REWRITES:
        made = REWRITES[node.op.opcode](b, node, *ins)
        if made is not None:
            return as_tuple(made)
    if isinstance(node.op, Composite):
        return as_tuple(node.op.decompose(b, *ins))
    source = rule.dtype(node) if rule and node.inputs else None
    if rule is None or source is None or _widest(source, rule) is source:
        return None
    return _in_wider_type(b, node, ins, source, _widest(source, rule), rule.ordered)


def _widest(source: DType, rule: Rule) -> DType:
    """The first of the wider types for which there is a kernel; the type itself if there is none."""
    wide = source
    while wide in WIDER:
        wide = WIDER[wide]
        if wide in rule.types:
            return wide
    return source


def _in_wider_type(b: Builder, node: Node, ins: tuple[Value, ...], source: DType, wide: DType,
                   ordered: bool) -> tuple[Value, ...]:
    """The node on wider numbers; results of its type are brought back, integers modulo their range. u64 that is
    compared is moved by half of its range."""
    moved = ordered and source is u64

    def widened(v: Value) -> Value:
        if v.type.dtype is not source:
            return v
        return b.bitxor(b.cast(v, dtype=wide), SIGN) if moved else b.cast(v, dtype=wide)
    outs = b.apply(retyped_op(node.op, {source: wide}), [widened(v) for v in ins])
    back = [b.bitxor(y, SIGN) if moved and old.type.dtype is source else y for y, old in zip(outs, node.outputs)]
    return tuple(b.cast(y, dtype=source) if old.type.dtype is source else y for y, old in zip(back, node.outputs))


def _refused(e: Emitter, node: Node, why: str) -> list[str]:
    e.file.refused.append((node, why))
    return [e.file.unique("refused") for _ in node.outputs]
