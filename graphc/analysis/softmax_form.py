"""Softmax over the last axis in the forms in which it is written."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Node, Value
from graphc.ir.match import Is, match, matches
from graphc.ir.op import Op
from graphc.ir.ops.elementwise import DIV, EXP, MUL, SUB, StopGradient
from graphc.ir.ops.norm import LogSoftmax, Softmax
from graphc.ir.ops.reduce import LogSumExp, Max, Sum
from graphc.ir.ops.shape import BroadcastTo, Reshape

SEEN_THROUGH = (Reshape, BroadcastTo, StopGradient)
OF_LOG = Is(EXP, Is(LogSoftmax, "s"))
OF_DIFFERENCE = Is(EXP, Is(SUB, "s", "shift"))
QUOTIENTS = Is(DIV, "e", "total"), Is(MUL, "e", Is(DIV, 1, "total"))


@dataclass(frozen=True)
class SoftmaxForm:
    """What the softmax is of, and the nodes that compute it."""
    scores: Value
    inner: frozenset[Node]


def softmax_of(p: Value) -> SoftmaxForm | None:
    """How p is a softmax over its last axis; None if it is not, or is one that overflows where softmax would not."""
    if found := match(p, Is(Softmax, "s"), OF_LOG):
        axis = found.nodes[-1].op.axis
        return SoftmaxForm(found["s"], frozenset(found.nodes)) if _is_last(axis, p) else None
    if found := match(p, OF_DIFFERENCE):
        total = _row(LogSumExp, found["s"], found["shift"])
        return total and SoftmaxForm(found["s"], total.union(found.nodes))
    return _quotient(p)


def _is_last(axis: int, v: Value) -> bool:
    return axis % v.type.rank == v.type.rank - 1


def _quotient(p: Value) -> SoftmaxForm | None:
    """e / sum(e) or e · (1 / sum(e)), e = exp(s - max(s)): without the maximum it would overflow."""
    for quotient in matches(p, *QUOTIENTS):
        e, powers = quotient["e"], match(quotient["e"], OF_DIFFERENCE)
        top = powers and _row(Max, powers["s"], powers["shift"])
        total = top and _row(Sum, e, quotient["total"])
        if total:
            return SoftmaxForm(powers["s"], frozenset((*quotient.nodes, *powers.nodes)) | top | total)
    return None


def _row(reduction: type[Op], x: Value, v: Value) -> frozenset[Node] | None:
    """The nodes from x to v, if v is that reduction of the rows of x, beside each row."""
    beside, nodes = (x.type.shape, (*x.type.shape[:-1], 1)), []
    if v.type.shape not in beside:
        return None
    while v.node is not None and v.node.op.opcode in SEEN_THROUGH:
        nodes.append(v.node)
        v = v.node.inputs[0]
        if nodes[-1].op.opcode is BroadcastTo and v.type.shape not in beside:
            return None
    made = match(v, Is(reduction, "x"))
    if made is None or made["x"] is not x or v.node.op.axes != (x.type.rank - 1,):
        return None
    return frozenset((*nodes, v.node))
