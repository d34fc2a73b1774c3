"""Sums of padded pieces that do not overlap are one concatenation: what the gradient of slicing an array into parts
leaves."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.elementwise import ADD
from graphc.ir.ops.shape import Pad
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class Piece:
    """`term` is `value` at start:stop of one axis of the sum, zeros around it."""
    term: Value
    value: Value
    start: Dim
    stop: Dim


@dataclass(frozen=True)
class PadsToConcat(Pass):
    """pad(a) + pad(b) + … -> concat(a, b, …), gaps filled with zeros; other terms are added to it.

    Needs bound dimensions, and equal nodes to be one. Gives the same numbers but for the order in which the other terms
    are added and the sign of zeros. Leaves the pads dead: dce comes after it. Stands before licm and fusion, which find
    one node instead of a tree.
    """
    name: ClassVar[str] = "pads_to_concat"

    def run(self, graph: Graph) -> Graph:
        readers = users(graph)
        kept = set(graph.results)
        w, changed = Rewriter(graph), False
        for node in graph.nodes:
            joined = self._joined(w, node, readers, kept)
            if joined is None:
                w.keep(node)
            else:
                w.replace(node, (joined,))
                changed = True
        return w.done() if changed else graph

    def _joined(self, w: Rewriter, node: Node, readers: Mapping[Value, list[Node]], kept: set[Value]) -> Value | None:
        if not _is_sum(node) or _is_term(node, readers, kept):
            return None
        terms = _terms(node, readers, kept)
        if len(set(terms)) < len(terms):
            return None
        for axis in range(node.outputs[0].type.rank):
            pieces = _disjoint([p for p in (_piece(t, axis) for t in terms) if p])
            if len(pieces) > 1:
                taken = {p.term for p in pieces}
                rest = [t for t in terms if t not in taken]
                with w.at(node.loc, node.scope):
                    return _total(w, [w[t] for t in rest] + [_concat(w, node.outputs[0], axis, pieces)])
        return None


def _is_sum(node: Node) -> bool:
    return node.op is ADD and all(v.type == node.outputs[0].type for v in node.inputs)


def _is_term(node: Node, readers: Mapping[Value, list[Node]], kept: set[Value]) -> bool:
    """The sum is read once, by a sum."""
    v, = node.outputs
    return v not in kept and len(readers[v]) == 1 and _is_sum(readers[v][0])


def _terms(root: Node, readers: Mapping[Value, list[Node]], kept: set[Value]) -> list[Value]:
    """The leaves of the tree of sums below `root`, in order; each sum in it is read by nothing else."""
    terms, waiting = [], list(reversed(root.inputs))
    while waiting:
        v = waiting.pop()
        if v.node is not None and _is_sum(v.node) and _is_term(v.node, readers, kept):
            waiting += reversed(v.node.inputs)
        else:
            terms.append(v)
    return terms


def _piece(v: Value, axis: int) -> Piece | None:
    """v as a piece along `axis`: zeros added on that axis only."""
    if v.node is None or not isinstance(v.node.op, Pad) or v.node.op.value != 0:
        return None
    op, x = v.node.op, v.node.inputs[0]
    if any(low or high for i, (low, high) in enumerate(zip(op.low, op.high)) if i != axis):
        return None
    return Piece(v, x, op.low[axis], op.low[axis] + x.type.shape[axis])


def _disjoint(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces in order, each after the one before; those that overlap an earlier one are left out."""
    chosen: list[Piece] = []
    for p in sorted(pieces, key=lambda p: p.start):
        if not chosen or p.start >= chosen[-1].stop:
            chosen.append(p)
    return chosen


def _concat(w: Rewriter, out: Value, axis: int, pieces: Sequence[Piece]) -> Value:
    parts: list[Value] = []
    end: Dim = 0
    for p in pieces:
        parts += _zeros(w, out, axis, p.start - end) + [w[p.value]]
        end = p.stop
    return w.concat(*parts, *_zeros(w, out, axis, out.type.shape[axis] - end), axis=axis)


def _zeros(w: Rewriter, out: Value, axis: int, length: Dim) -> list[Value]:
    if not length:
        return []
    shape = tuple(length if i == axis else d for i, d in enumerate(out.type.shape))
    return [w.broadcast_to(w.constant(0, out.type.dtype), shape=shape)]


def _total(w: Rewriter, terms: Sequence[Value]) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = w.add(total, term)
    return total
