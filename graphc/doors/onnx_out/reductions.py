"""Reductions, running sums and recurrences, sorting."""
from __future__ import annotations

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.loops import along_axis
from graphc.doors.onnx_out.movement import only
from graphc.doors.onnx_out.rule import FLOATS, WORDS, Rule, Rules, Write
from graphc.ir.graph import Node, NodeOf
from graphc.ir.ops.reduce import ArgExtremum, ArgMax, ArgMin, Max, Mean, Min, Prod, Reduction, Sum
from graphc.ir.ops.scan_ops import CumProd, CumSum, LinearScan
from graphc.ir.ops.sort import ArgSort, Sort, Sorting, TopK
from graphc.ir.types import i8, i32, i64, u8

COMPARED = FLOATS | {i8, i32, i64, u8}
CUMPROD_SINCE = 26


def _reduction(kind: str) -> Write:
    def write(e: Emitter, node: NodeOf[Reduction]) -> list[str] | None:
        op, x = node.op, only(e, node)
        if isinstance(op, Mean) and any(node.inputs[0].type.shape[axis] == 0 for axis in op.axes):
            return None             # NaN, where runtimes give 0
        if not op.axes:
            return [x]
        if op.axes == tuple(range(node.inputs[0].type.rank)):
            return [e.op(kind, x, keepdims=int(op.keepdims))]
        return [e.op(kind, x, e.numbers(*op.axes), keepdims=int(op.keepdims))]
    return write


def _index_of(kind: str) -> Write:
    def write(e: Emitter, node: NodeOf[ArgExtremum]) -> list[str]:
        return [e.op(kind, only(e, node), axis=node.op.axis, keepdims=int(node.op.keepdims))]
    return write


def _cumsum(e: Emitter, node: NodeOf[CumSum]) -> list[str]:
    op = node.op
    axis = e.constant(op.axis % node.inputs[0].type.rank, i64)
    return [e.op("CumSum", only(e, node), axis, exclusive=int(op.exclusive), reverse=int(op.reverse))]


def _cumprod(e: Emitter, node: NodeOf[CumProd]) -> list[str]:
    op, x = node.op, node.inputs[0]
    if e.opset >= CUMPROD_SINCE:
        axis = e.constant(op.axis % x.type.rank, i64)
        return [e.op("CumProd", e.values[x], axis, exclusive=int(op.exclusive), reverse=int(op.reverse))]

    def step(inner: Emitter, before: str, slices: list[str]) -> tuple[str, str]:
        after = inner.op("Mul", before, slices[0])
        return after, before if op.exclusive else after
    return [along_axis(e, (x,), op.axis, op.reverse, 1, step)]


def _linear_scan(e: Emitter, node: NodeOf[LinearScan]) -> list[str]:
    def step(inner: Emitter, before: str, slices: list[str]) -> tuple[str, str]:
        after = inner.op("Add", inner.op("Mul", slices[0], before), slices[1])
        return after, before if node.op.exclusive else after
    return [along_axis(e, node.inputs, node.op.axis, node.op.reverse, 0, step)]


def _ordered(e: Emitter, node: Node, axis: int, descending: bool, count: str) -> list[str]:
    """The first `count` elements of an order and their positions; of equals the first, as ONNX says too. NaN, which it
    leaves open, is the greatest: it is counted as infinity, and then all of these are put behind the others or before
    them."""
    x = only(e, node)
    return e.ops("TopK", x, count, axis=axis, largest=int(descending), sorted=1, outputs=2)


def _sort(e: Emitter, node: NodeOf[Sorting]) -> list[str]:
    axis = node.op.axis % node.inputs[0].type.rank
    count = e.size(node.inputs[0].type.shape[axis])
    return _ordered(e, node, axis, node.op.descending, count)


def _topk(e: Emitter, node: NodeOf[TopK]) -> list[str]:
    axis = node.op.axis % node.inputs[0].type.rank
    return _ordered(e, node, axis, True, e.numbers(node.op.k))


RULES: Rules = {
    Sum: Rule(_reduction("ReduceSum"), WORDS), Prod: Rule(_reduction("ReduceProd"), WORDS),
    Max: Rule(_reduction("ReduceMax"), COMPARED, ordered=True),
    Min: Rule(_reduction("ReduceMin"), COMPARED, ordered=True), Mean: Rule(_reduction("ReduceMean"), FLOATS),
    ArgMax: Rule(_index_of("ArgMax"), COMPARED, ordered=True),
    ArgMin: Rule(_index_of("ArgMin"), COMPARED, ordered=True), CumSum: Rule(_cumsum, WORDS),
    CumProd: Rule(_cumprod, WORDS), LinearScan: Rule(_linear_scan, FLOATS),
    Sort: Rule(lambda e, node: _sort(e, node)[:1], WORDS, ordered=True),
    ArgSort: Rule(lambda e, node: _sort(e, node)[1:], WORDS, ordered=True), TopK: Rule(_topk, WORDS, ordered=True)}
