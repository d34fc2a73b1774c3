"""Scan, cond and while_loop."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.loops import body_graph, zeros
from graphc.doors.onnx_out.package import GraphProto, ValueInfoProto
from graphc.doors.onnx_out.recurrent import recurrent
from graphc.doors.onnx_out.rule import Rule, Rules
from graphc.ir.graph import Graph, NodeOf, Value
from graphc.ir.ops.control import Cond, Scan, WhileLoop, output_types
from graphc.ir.types import TensorType, bool_, i64


def _scan(e: Emitter, node: NodeOf[Scan]) -> list[str]:
    op, names = node.op, [e.values[v] for v in node.inputs]
    if op.length == 0:
        return [*names[:op.carries], *(zeros(e, v.type) for v in node.outputs[op.carries:])]
    if op.xs == 0:
        return _counted(e, node)
    if cell := recurrent(e, node):
        return cell
    inner = e.inner()
    first, last = op.carries, op.carries + op.xs
    inputs = [inner.argument(v, v.name or "step") for v in op.body.inputs[:last]]
    outs = inner.written(op.body, [*(inner.values[v] for v in op.body.inputs[:last]), *names[last:]])
    body = body_graph(inner, e.file.unique(op.body.name or "body"), inputs, outs, output_types(op.body))
    ways = {"scan_input_directions": [1] * op.xs} if op.reverse else {}
    if op.reverse and len(node.outputs) > first:
        ways["scan_output_directions"] = [1] * (len(node.outputs) - first)
    return e.ops("Scan", *names[:last], body=body, num_scan_inputs=op.xs, outputs=len(node.outputs), **ways)


def _counted(e: Emitter, node: NodeOf[Scan]) -> list[str]:
    """Steps without slices, which Scan of ONNX does not have."""
    op, names = node.op, [e.values[v] for v in node.inputs]
    inner, body = e.inner(), op.body
    inputs = _loop_inputs(inner, body.inputs[:op.carries])
    outs = inner.written(body, [*(inner.values[v] for v in body.inputs[:op.carries]), *names[op.carries:]])
    going = inner.op("Identity", inputs[1].name)
    graph = body_graph(inner, e.file.unique(body.name or "body"), inputs, [going, *outs],
                       [TensorType(bool_, ()), *output_types(body)])
    results = e.ops("Loop", e.op("Squeeze", e.size(op.length)), "", *names[:op.carries], body=graph,
                    outputs=len(node.outputs))
    if not op.reverse:
        return results
    back = (e.numbers(-1), e.numbers(-(1 << 63)), e.numbers(0), e.numbers(-1))
    return [*results[:op.carries], *(e.op("Slice", y, *back) for y in results[op.carries:])]


def _loop_inputs(inner: Emitter, carries: Sequence[Value]) -> list[ValueInfoProto]:
    """What the body of Loop takes: the number of the step, whether it goes on, and the carries."""
    return [inner.described(inner.file.unique("number"), TensorType(i64, ())),
            inner.described(inner.file.unique("going"), TensorType(bool_, ())),
            *(inner.argument(v, v.name or "carry") for v in carries)]


def _while(e: Emitter, node: NodeOf[WhileLoop]) -> list[str]:
    op, names = node.op, [e.values[v] for v in node.inputs]
    carried, captured = names[:op.carries], names[op.carries:]
    start = e.written(op.cond_body, names)[0]
    inner = e.inner()
    count = TensorType(i64, ())
    inputs = _loop_inputs(inner, op.body.inputs[:op.carries])
    steps = inner.file.unique("steps")
    inputs.insert(2, inner.described(steps, count))
    new = inner.written(op.body, [*(inner.values[v] for v in op.body.inputs[:op.carries]), *captured])
    going = inner.written(op.cond_body, [*new, *captured])[0]
    taken = inner.op("Add", steps, inner.constant(1, i64))
    graph = body_graph(inner, e.file.unique(op.body.name or "body"), inputs, [going, taken, *new],
                       [TensorType(bool_, ()), count, *output_types(op.body)])
    return e.ops("Loop", e.constant(op.max_trips, i64), start, e.constant(0, i64), *carried, body=graph,
                 outputs=len(node.outputs))


def _cond(e: Emitter, node: NodeOf[Cond]) -> list[str]:
    condition, *captured = [e.values[v] for v in node.inputs]
    if not node.outputs:
        return []

    def branch(body: Graph) -> GraphProto:
        inner = e.inner()
        outs = inner.written(body, captured)
        return body_graph(inner, e.file.unique(body.name or "branch"), [], outs, output_types(body))
    return e.ops("If", condition, then_branch=branch(node.op.then_body), else_branch=branch(node.op.else_body),
                 outputs=len(node.outputs))


RULES: Rules = {Scan: Rule(_scan), Cond: Rule(_cond), WhileLoop: Rule(_while)}
