"""Softmax over the last axis in the forms in which it is written."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.ir.graph import Node, Value
from graphc.ir.ops.constant import splat

SEEN_THROUGH = ("reshape", "broadcast_to", "stop_gradient")


@dataclass(frozen=True)
class SoftmaxForm:
    """What the softmax is of, and the nodes that compute it."""
    scores: Value
    inner: frozenset[Node]

    def beside(self, *nodes: Node) -> "SoftmaxForm":
        return SoftmaxForm(self.scores, self.inner.union(nodes))


def softmax_of(p: Value) -> SoftmaxForm | None:
    """How p is a softmax over its last axis; None if it is not, or is one that overflows where softmax would not."""
    node = p.node
    if node is None:
        return None
    if node.op.name == "softmax":
        return SoftmaxForm(node.inputs[0], frozenset((node,))) if _is_last(node.op.axis, p) else None
    if node.op.name == "exp":
        return _from_log(node)
    return _quotient(node)


def _is_last(axis: int, v: Value) -> bool:
    return axis % v.type.rank == v.type.rank - 1


def _from_log(node: Node) -> SoftmaxForm | None:
    """exp(log_softmax(s)) or exp(s - logsumexp(s))."""
    inner = node.inputs[0].node
    if inner is None or inner.op.name not in ("log_softmax", "sub"):
        return None
    s = inner.inputs[0]
    if inner.op.name == "log_softmax":
        return SoftmaxForm(s, frozenset((node, inner))) if _is_last(inner.op.axis, s) else None
    total = _row("logsumexp", s, inner.inputs[1])
    return total and SoftmaxForm(s, total.union((node, inner)))


def _quotient(node: Node) -> SoftmaxForm | None:
    """e / sum(e) or e · (1 / sum(e)), e = exp(s - max(s))."""
    for e, other in _factors(node):
        powers = _powers(e)
        total = _row("sum", e, other[-1]) if powers else None
        if total is not None:
            return SoftmaxForm(powers.scores, powers.inner | total).beside(node, *(v.node for v in other[:-1]))
    return None


def _factors(node: Node) -> Iterator[tuple[Value, tuple[Value, ...]]]:
    """x, and the way to the y through which it is divided."""
    if node.op.name == "div":
        yield node.inputs[0], (node.inputs[1],)
    if node.op.name == "mul":
        for x, y in (node.inputs, node.inputs[::-1]):
            if y.node is not None and y.node.op.name == "div" and splat(y.node.inputs[0]) == 1:
                yield x, (y, y.node.inputs[1])


def _powers(e: Value) -> SoftmaxForm | None:
    """exp(s - max(s)): without the maximum it would overflow."""
    shifted = e.node.inputs[0].node if e.node is not None and e.node.op.name == "exp" else None
    if shifted is None or shifted.op.name != "sub":
        return None
    s, top = shifted.inputs
    found = _row("max", s, top)
    return found and SoftmaxForm(s, found.union((e.node, shifted)))


def _row(name: str, x: Value, v: Value) -> frozenset[Node] | None:
    """The nodes from x to v, if v is the reduction of that name of the rows of x, beside each row."""
    beside, nodes = (x.type.shape, (*x.type.shape[:-1], 1)), []
    if v.type.shape not in beside:
        return None
    while v.node is not None and v.node.op.name in SEEN_THROUGH:
        nodes.append(v.node)
        v = v.node.inputs[0]
        if nodes[-1].op.name == "broadcast_to" and v.type.shape not in beside:
            return None
    made = v.node is not None and v.node.op.name == name and v.node.inputs[0] is x
    return frozenset((*nodes, v.node)) if made and v.node.op.axes == (x.type.rank - 1,) else None
