"""Concatenations of what is one array already, or is put together for nothing else, are fewer and copy less."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.shape import Concat, Slice
from graphc.ir.types import normalize_axis
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class JoinConcats(Pass):
    """concat(a) -> a; concat(concat(a, b), c) -> concat(a, b, c) where nothing else reads the inner one, along the same
    axis; concat(x[:, :2], x[:, 2:], y) -> concat(x, y): slices of one array that follow each other are one slice.

    Needs bound dimensions. Gives the same bits. Stands before fusion and the memory plan: of fewer parts more are made
    where the whole lies, as what makes x may do and a slice of it may not. Leaves what is no longer read: dce comes
    after it.
    """
    name: ClassVar[str] = "join_concats"

    def run(self, graph: Graph) -> Graph:
        if not any(isinstance(node.op, Concat) for node in graph.nodes):
            return graph
        readers, kept = users(graph), set(graph.results)
        w, changed = Rewriter(graph), False
        for node in graph.nodes:
            with w.at(node.loc, node.scope):
                parts = _parts(w, node, node.op, readers, kept) if isinstance(node.op, Concat) else []
                if not parts or len(parts) > 1 and parts == [w[v] for v in node.inputs]:
                    w.keep(node)
                    continue
                w.replace(node, (parts[0] if len(parts) == 1 else w.apply(node.op, parts)[0],))
                changed = True
        return w.done() if changed else graph


def _parts(w: Rewriter, node: Node, op: Concat, readers: Mapping[Value, list[Node]],
           kept: Collection[Value]) -> list[Value]:
    """What the concatenation is of, as few as possible, in the new graph."""
    axis = _axis(node, op)
    found: list[Value] = []
    for v in _flat(node, axis, readers, kept):
        joined = _joined(w, found[-1], w[v], axis) if found else None
        if joined is None:
            found.append(w[v])
        else:
            found[-1] = joined
    return found


def _axis(node: Node, op: Concat) -> int:
    return normalize_axis(op.axis, node.outputs[0].type.rank)


def _flat(node: Node, axis: int, readers: Mapping[Value, list[Node]], kept: Collection[Value]) -> list[Value]:
    """The operands, those in the place of concatenations that nothing else reads."""
    found, waiting = list[Value](), list(reversed(node.inputs))
    while waiting:
        v = waiting.pop()
        inner = v.node
        if (inner is not None and isinstance(inner.op, Concat) and _axis(inner, inner.op) == axis and v not in kept
                and len(readers[v]) == 1):
            waiting += reversed(inner.inputs)
        else:
            found.append(v)
    return found


def _joined(w: Rewriter, first: Value, second: Value, axis: int) -> Value | None:
    """Both as one slice of one array, or all of it; None where they are not neighbours in one."""
    a, b = first.node, second.node
    if a is None or b is None or not (isinstance(a.op, Slice) and isinstance(b.op, Slice)):
        return None
    x, mine, theirs = a.inputs[0], [*_triples(a.op)], [*_triples(b.op)]
    (_, end, step), (start, _, other) = mine.pop(axis), theirs.pop(axis)
    if b.inputs[0] is not x or mine != theirs or end != start or (step, other) != (1, 1):
        return None
    stop = (*a.op.stop[:axis], b.op.stop[axis], *a.op.stop[axis + 1:])
    if not any(a.op.start) and stop == x.type.shape and set(a.op.step) == {1}:
        return x
    return w.slice(x, start=a.op.start, stop=stop, step=a.op.step)


def _triples(op: Slice) -> Iterator[tuple[Dim, Dim, int]]:
    return zip(op.start, op.stop, op.step)
