"""Loop fusion: two scans over the same steps become one, such as a scan and the copy of it that saves more values for
its gradient."""
from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op, Values
from graphc.ir.ops.control import Scan
from graphc.passes.loop import Carry, ScanLoop, Stacked, emit_in_place
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class FuseLoops(Pass):
    """A later scan joins an earlier one when, step by step, its carries are carries of the earlier one; its per-step
    outputs are added there.

    Needs equal operands to be one value (cse). Gives fewer scans, whose bodies hold no two equal nodes.
    Stands before licm, which moves what a body computes to operands and so hides that two bodies are equal.
    """
    name: ClassVar[str] = "fuse_loops"

    def run(self, graph: Graph) -> Graph:
        scans = [node for node in graph.nodes if isinstance(node.op, Scan)]
        if len(scans) < 2:
            return graph
        position = {v: i for i, node in enumerate(graph.nodes, 1) for v in node.outputs}
        groups: list[_Merged] = []
        joined: dict[Node, _Merged] = {}
        for node in scans:
            home = next((g for g in groups if g.join(node, position)), None)
            if home is None:
                groups.append(_Merged(node))
            else:
                joined[node] = home
        return _rewritten(graph, {g.loop.node: g.loop for g in groups if g.grown}, joined) if joined else graph


def _rewritten(graph: Graph, loops: dict[Node, ScanLoop], joined: dict[Node, "_Merged"]) -> Graph:
    w = Rewriter(graph)
    for node in graph.nodes:
        if node in loops:
            loop = loops[node]
            for part in loop.carries:
                part.start = w[part.start]
            for read in loop.xs + loop.captured:
                read.outer = w[read.outer]
            emit_in_place(w, loop)
        elif node not in joined:
            w.keep(node)
    return w.done()


class _Merged:
    """A loop that grows: its nodes are numbered by what they compute, so that equal nodes of another body are
    recognised."""

    def __init__(self, node: Node):
        self.node, self.grown = node, False
        self.loop = ScanLoop.of(node, node.inputs)
        self.known: dict[tuple[Op, Values], Values] = {}
        loop, same, nodes = self.loop, dict[Value, Value](), list[Node]()
        for inner in loop.nodes:
            self._number(inner, same, nodes)
        loop.nodes = nodes
        for c in loop.carries:
            c.next = same.get(c.next, c.next)
        for y in loop.ys:
            y.inner = same.get(y.inner, y.inner)

    def join(self, node: Node, position: dict[Value, int]) -> bool:
        """Takes in the scan's steps if its carries turn out to be carries of this loop, and its operands are made
        before this loop."""
        here, other = self.loop, ScanLoop.of(node, node.inputs)
        if (other.op.length, other.op.reverse) != (here.op.length, here.op.reverse):
            return False
        if (set(node.inputs).isdisjoint(self.node.inputs)
                or any(position.get(v, 0) >= position[self.node.outputs[0]] for v in node.inputs)):
            return False
        same, pairs = self._operands(other)
        if pairs is None:
            return False
        added: list[Node] = []
        known = dict(self.known)
        for inner in other.nodes:
            self._number(inner, same, added)
        if any(same.get(c.next, c.next) is not d.next for c, d in pairs):
            self.known = known
            return False
        self._take(other, same, pairs, added)
        return True

    def _operands(self, other: ScanLoop) -> tuple[dict[Value, Value], list[tuple[Carry, Carry]] | None]:
        """Body inputs of the other loop as this loop's, by equal operands; and the carries paired in order. None where
        a carry has no partner."""
        same, free, pairs = dict[Value, Value](), list(self.loop.carries), list[tuple[Carry, Carry]]()
        for c in other.carries:
            partner = next((d for d in free if d.start is c.start and d.inner.type == c.inner.type), None)
            if partner is None:
                return same, None
            free.remove(partner)
            pairs.append((c, partner))
            same[c.inner] = partner.inner
        for theirs, ours in ((other.xs, self.loop.xs), (other.captured, self.loop.captured)):
            inner = {r.outer: r.inner for r in ours}
            same.update((r.inner, inner.get(r.outer, r.inner)) for r in theirs)
        return same, pairs

    def _take(self, other: ScanLoop, same: dict[Value, Value], pairs: list[tuple[Carry, Carry]],
              added: list[Node]) -> None:
        here = self.loop
        self.grown = True
        here.nodes += added
        for theirs, ours in ((other.xs, here.xs), (other.captured, here.captured)):
            outer = {r.outer for r in ours}
            ours += [r for r in theirs if r.outer not in outer]
        for c, partner in pairs:
            partner.results += c.results
        for y in other.ys:
            v = same.get(y.inner, y.inner)
            own = next((s for s in here.ys if s.inner is v), None)
            if own is None:
                here.ys.append(Stacked(v, y.results))
            else:
                own.results += y.results

    def _number(self, node: Node, same: dict[Value, Value], added: list[Node]) -> None:
        """Records in `same` what the node's outputs are here; a node that is new joins `added`."""
        ins = tuple(same.get(v, v) for v in node.inputs)
        key = (node.op, ins)
        if key not in self.known:
            new = Node(node.op, ins, tuple(v.type for v in node.outputs), node.loc, node.scope)
            self.known[key] = new.outputs
            added.append(new)
        same.update(zip(node.outputs, self.known[key]))
