"""Chooses how each node runs: which schedule family it belongs to, and which inputs its outputs may overwrite."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.ir.contraction import Contraction
from graphc.ir.graph import Node, Value
from graphc.ir.ops.fused import Fused, contraction_in, slices_in
from graphc.schedule.choose_attention import RULES as ATTENTION
from graphc.schedule.choose_attention import attention_schedule
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.choose_nest import nest_schedule
from graphc.schedule.choose_plain import plain_schedule
from graphc.schedule.choose_winograd import RULES as WINOGRAD
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.parallel_rows import RULES as PLAIN
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides
from graphc.schedule.winograd_schedule import WinogradGradSchedule, WinogradSchedule


def contraction_of(node: Node) -> tuple[Node, tuple[int, int]] | None:
    """The contraction, or convolution in Winograd's form, that `node` is or contains with its epilogue, and which of its inputs are the operands; else None."""
    if isinstance(node.op, Fused):
        if node.op.kind != "contraction":
            return None
        inner = contraction_in(node.op.body)
        return inner, (_position(node.op, inner.inputs[0]), _position(node.op, inner.inputs[1]))
    return (node, (0, 1)) if node.op.takes_epilogue else None


def schedule_node(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target, invariant: Sequence[bool] = ()):
    """The schedule of a node: a pure function of operator, views and target. invariant: inputs that do not change in the loop around it."""
    if type(node.op) in PLAIN:
        return plain_schedule(node, ins, outs, target)
    if type(node.op) in ATTENTION:
        return attention_schedule(node, ins, outs, target)
    found = contraction_of(node)
    if found is None and type(node.op) in WINOGRAD:
        return WINOGRAD[type(node.op)](node.op, ins, outs, target)
    if found is None:
        return nest_schedule(node, list(ins), list(outs), target)
    inner, (i, j) = found
    if type(inner.op) in WINOGRAD:
        return WINOGRAD[type(inner.op)](inner.op, (ins[i], ins[j]), outs, target)
    c: Contraction = inner.op.contraction(*(v.type for v in inner.inputs))
    a, b = ins[i], ins[j]
    gates = len(slices_in(node.op.body)) if inner is not node else 0
    strides = contiguous_strides(inner.outputs[0].type.shape) if gates else outs[0].strides         # with gates, the result lies nowhere
    return contraction_schedule(c, a.shape, a.strides, b.shape, b.strides, strides, a.dtype, target, fused=inner is not node,
                                invariant=(invariant[i], invariant[j]) if invariant else (False, False), gates=gates)


def inplace_pairs(node: Node, schedule, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> tuple[tuple[int, int], ...]:
    """Pairs (output, input): the output may lie exactly where the input lies, if that dies here."""
    if not isinstance(schedule, (ContractionSchedule, WinogradSchedule, WinogradGradSchedule)):
        return getattr(schedule, "inplace", ())
    found = contraction_of(node)
    operands = found[1]
    return tuple((o, i) for i, view in enumerate(ins) if i not in operands for o, out in enumerate(outs) if view == out)


def scratch_bytes(node: Node, schedule) -> int:
    """Memory that all threads of the kernel share while it runs."""
    size = getattr(schedule, "shared_scratch", 0)
    return size * node.inputs[0].type.dtype.itemsize if isinstance(schedule, ContractionSchedule) else size


def packed_bytes(node: Node, schedule) -> int:
    """Memory of the operand that is packed before the kernel runs."""
    return schedule.packed_size * node.inputs[0].type.dtype.itemsize if isinstance(schedule, ContractionSchedule) else 0


def _position(op: Fused, operand: Value) -> int:
    if operand not in op.body.inputs:
        raise InternalError(f"operand {operand} of a fused contraction is computed inside the cluster", "schedule")
    return op.body.inputs.index(operand)
