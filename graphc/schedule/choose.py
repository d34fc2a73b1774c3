"""Chooses how each node runs."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.ir.contraction import Contraction
from graphc.ir.graph import Node, Value
from graphc.ir.ops.fused import Fused, contraction_in, slices_in, takes_epilogue
from graphc.schedule.choose_attention import RULES as ATTENTION
from graphc.schedule.choose_attention import attention_schedule
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.choose_nest import nest_schedule
from graphc.schedule.choose_plain import plain_schedule
from graphc.schedule.choose_winograd import RULES as WINOGRAD
from graphc.schedule.parallel_rows import RULES as PLAIN
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides


def contraction_of(node: Node) -> tuple[Node, tuple[int, int]] | None:
    """The contraction, or convolution in Winograd's form, that `node` is or contains with its epilogue, and which of its inputs are the operands; else None."""
    if isinstance(node.op, Fused):
        if node.op.kind != "contraction":
            return None
        inner = contraction_in(node.op.body)
        return inner, (_position(node.op, inner.inputs[0]), _position(node.op, inner.inputs[1]))
    return (node, (0, 1)) if takes_epilogue(node.op) else None


def schedule_node(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target, invariant: Sequence[bool] = ()) -> Schedule:
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


def _position(op: Fused, operand: Value) -> int:
    if operand not in op.body.inputs:
        raise InternalError(f"operand {operand} of a fused contraction is computed inside the cluster", "schedule")
    return op.body.inputs.index(operand)
