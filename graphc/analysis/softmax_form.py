"""Softmax over the last axis in the forms in which it is written."""
from __future__ import annotations


from graphc.ir.graph import Node, Value
from graphc.ir.match import Is, match, matches
from graphc.ir.ops.elementwise import DIV, EXP, MUL, SUB, StopGradient
from graphc.ir.ops.norm import LogSoftmax, Softmax
from graphc.ir.ops.reduce import LogSumExp, Max, Reduction, Sum
from graphc.ir.ops.shape import BroadcastTo, Reshape
from graphc.records import dataclass

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
        softmax = found.nodes[-1].op
        is_last = isinstance(softmax, (Softmax, LogSoftmax)) and softmax.axis % p.type.rank == p.type.rank - 1
        return SoftmaxForm(found["s"], frozenset(found.nodes)) if is_last else None
    if found := match(p, OF_DIFFERENCE):
        total = _row(LogSumExp, found["s"], found["shift"])
        return None if total is None else SoftmaxForm(found["s"], total.union(found.nodes))
    return _quotient(p)


def _quotient(p: Value) -> SoftmaxForm | None:
    """e / sum(e) or e · (1 / sum(e)), e = exp(s - max(s)): without the maximum it would overflow."""
    for quotient in matches(p, *QUOTIENTS):
        powers = match(quotient["e"], OF_DIFFERENCE)
        if powers is None:
            continue
        top, total = _row(Max, powers["s"], powers["shift"]), _row(Sum, quotient["e"], quotient["total"])
        if top is not None and total is not None:
            return SoftmaxForm(powers["s"], frozenset((*quotient.nodes, *powers.nodes)) | top | total)
    return None


def _row(reduction: type[Reduction], x: Value, v: Value) -> frozenset[Node] | None:
    """The nodes from x to v, if v is that reduction of the rows of x, beside each row."""
    beside = x.type.shape, (*x.type.shape[:-1], 1)
    nodes: list[Node] = []
    if v.type.shape not in beside:
        return None
    while v.node is not None and v.node.op.opcode in SEEN_THROUGH:
        nodes.append(v.node)
        v = v.node.inputs[0]
        if nodes[-1].op.opcode is BroadcastTo and v.type.shape not in beside:
            return None
    made = match(v, Is(reduction, "x"))
    if made is None or made["x"] is not x:
        return None
    node, = made.nodes
    is_row = isinstance(node.op, Reduction) and node.op.axes == (x.type.rank - 1,)
    return frozenset((*nodes, node)) if is_row else None
