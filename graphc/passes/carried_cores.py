"""Sums over the steps of a loop of values that are a smaller one with zeros around it, or repeated: the gradient of a
slice, or of what is broadcast. The loop sums the smaller one, and what is around it is made once, after the loop."""
from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim, typical
from graphc.ir.graph import Node, Value
from graphc.ir.ops.constant import splat
from graphc.ir.ops.elementwise import ADD
from graphc.ir.ops.shape import BroadcastTo, Concat, Pad, Reshape, Slice, Transpose
from graphc.ir.types import normalize_axis
from graphc.passes.loop import Carry, ScanLoop
from graphc.records import dataclass

MOVES = (Pad, BroadcastTo, Reshape, Transpose, Slice)       # of one operand, and linear (a pad, by zeros)


@dataclass(frozen=True)
class CarriedCore:
    """`term`, what each step adds to a carried sum, or a part of it, is `value` after `moves`, the first one first.
    `inner` is the sum of the values so far, in a step."""
    term: Value
    value: Value
    moves: tuple[Node, ...]
    inner: Value

    def carry(self, loop: ScanLoop, zeros: Value) -> Carry:
        """The carry that sums the values; the node that does it is added to the step."""
        node = Node(ADD, (self.inner, self.value), (self.value.type,), loop.node.loc, loop.node.scope)
        loop.nodes.append(node)
        return Carry(self.inner, zeros, node.outputs[0], [self.inner])

    def finished(self, w: Rewriter, made: Mapping[Value, Value]) -> Value:
        """The sum of the terms, after the loop. made: what its results became."""
        total = made[self.inner]
        for node in self.moves:
            total, = w.apply(node.op, [total])
        return total


def carried_cores(loop: ScanLoop, c: Carry, terms: Iterable[Value]) -> list[CarriedCore]:
    """Of each term of the sum `c` that is smaller values moved, the smallest such values."""
    made, found, size = loop.made, [], typical(c.inner.type.size)
    for term in terms:
        cores = [_core(made, term, *piece) for piece in _pieces(made, term)]
        if sum(typical(core.value.type.size) for core in cores) < size:
            found += cores
    return found


def _pieces(made: Mapping[Value, Node], term: Value) -> list[tuple[Value, tuple[Node, ...]]]:
    """Values of which a term is the sum, each after some moves: those beside zeros, or the term itself."""
    node = made.get(term)
    if node is None or not isinstance(node.op, Concat) or not any(splat(v) == 0 for v in node.inputs):
        return [(term, ())]
    axis, rank = normalize_axis(node.op.axis, term.type.rank), term.type.rank
    pieces: list[tuple[Value, tuple[Node, ...]]] = []
    start: Dim = 0
    size = term.type.shape[axis]
    for v in node.inputs:
        end = start + v.type.shape[axis]
        if splat(v) != 0:
            low, high = (tuple([n if i == axis else 0 for i in range(rank)]) for n in (start, size - end))
            pieces.append((v, (Node(Pad(low, high), (v,), (term.type,), node.loc, node.scope),)))
        start = end
    return pieces


def _core(made: Mapping[Value, Node], term: Value, value: Value, last: tuple[Node, ...]) -> CarriedCore:
    moves = _moves(made, value)
    values = [value, *(node.inputs[0] for node in moves)]
    sizes = [typical(v.type.size) for v in values]
    least = sizes.index(min(sizes))
    return CarriedCore(term, values[least], (*reversed(moves[:least]), *last), Value(values[least].type))


def _moves(made: Mapping[Value, Node], v: Value) -> list[Node]:
    """The nodes that move what becomes v, the last one first."""
    found = []
    while (node := made.get(v)) is not None and isinstance(node.op, MOVES) and _is_linear(node):
        found.append(node)
        v = node.inputs[0]
    return found


def _is_linear(node: Node) -> bool:
    return not (isinstance(node.op, Pad) and node.op.value)
