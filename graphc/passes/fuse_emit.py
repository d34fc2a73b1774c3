"""Writes the graph in which each cluster of the fuse pass is one node."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, leading_to
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.shape import BroadcastTo
from graphc.once import once_property
from graphc.passes.cluster import Cluster
from graphc.passes.rematerialize import with_repeated
from graphc.schedule.iteration_space import Space

if TYPE_CHECKING:
    from graphc.passes.fuse import Fusion


def emit(graph: Graph, fusion: "Fusion") -> Graph:
    """The fused graph. A view whose result leaves its cluster is made again outside, from the value that it views."""
    return _Emitter(graph, fusion).run()


class _Emitter:
    def __init__(self, graph: Graph, fusion: "Fusion"):
        self.graph, self.fusion = graph, fusion
        self.w = Rewriter(graph)
        self.done: set[int] = set()

    def run(self) -> Graph:
        for c in sorted({id(c): c for c in self.fusion.of.values()}.values(), key=self._last):
            self._emit_after_sources(c)
        for v in self.graph.results:
            self._need(v)
        return self.w.done()

    def _last(self, c: Cluster) -> int:
        return self._positions[c.nodes[-1]]

    @once_property
    def _positions(self) -> dict[Node, int]:
        return {n: i for i, n in enumerate(self.graph.nodes)}

    def _emit_after_sources(self, cluster: Cluster) -> None:
        """Depth first, without recursion: a cluster once all that it reads has been emitted."""
        stack = [cluster]
        while stack:
            c = stack[-1]
            waiting = [s for s in self._sources(c) if id(s) not in self.done] if id(c) not in self.done else []
            if waiting:
                stack += waiting
                continue
            stack.pop()
            if id(c) not in self.done:
                self.done.add(id(c))
                self._emit(c)

    def _sources(self, c: Cluster) -> list[Cluster]:
        of = self.fusion.of
        found = [of[v.node] for n in c.nodes for v in n.inputs if v.node in of]
        return [s for s in dict.fromkeys(found) if s is not c]

    # ---- one cluster
    def _emit(self, c: Cluster) -> None:
        if c.kind in ("other", "view") or c.kind == "contraction" and len(c.nodes) == 1:
            self._keep(c.nodes[0])
            return
        inside = set(c.nodes)
        outs = self._stored(c, inside)
        members = leading_to(outs, c.nodes)
        if members:
            self._fuse(c, members, outs)
        for n in c.nodes:
            if n.op.is_whole_view and self._made_outside(n.outputs[0], inside):
                self._keep(n)

    def _stored(self, c: Cluster, inside: set[Node]) -> list[Value]:
        """The values that the cluster stores: those that others read, and in place of a view what it shows.

        That may be smaller than the loops of the cluster, which broadcast it: each trip along a dim that it does not
        have would store it again, over what others may read there. Then the broadcast value is stored, once.
        """
        escaping = [v for n in c.nodes for v in n.outputs if self._escapes(v, inside)]
        shown = [v for v in dict.fromkeys(_viewed(v, inside) for v in escaping) if v.node in inside]
        if c.kind != "nest" or shown == escaping:
            return shown
        small = self._smaller(shown, self._with_copies(leading_to(shown, c.nodes)))
        if not small:
            return shown
        return [v for v in dict.fromkeys(_viewed(v, inside, small) for v in escaping) if v.node in inside]

    def _smaller(self, outs: Sequence[Value], members: Sequence[Node]) -> set[Value]:
        """Those of the values that do not run over all loops around where the members would store them."""
        space = Space()
        for n in members:
            space.add(n)
        return {v for v in outs if v in space.maps and not space.stores_once(v)}

    def _made_outside(self, v: Value, inside: set[Node]) -> bool:
        """Whether the view `v`, which the cluster does not store, leaves it, or a view that does is made from it."""
        if v in self.w.map:
            return False
        return self._escapes(v, inside) or any(
            u.op.is_whole_view and u in inside and self._made_outside(u.outputs[0], inside)
            for u in self.fusion.users[v])

    def _escapes(self, v: Value, inside: set[Node]) -> bool:
        return v in self.fusion.results or v.node not in self.fusion.repeated and self._read_outside(v, inside)

    def _read_outside(self, v: Value, inside: set[Node]) -> bool:
        """Whether another cluster reads the value, or makes again what is made from it."""
        repeated = self.fusion.repeated
        return any(u not in inside or u in repeated and self._read_outside(u.outputs[0], inside)
                   for u in self.fusion.users[v])

    def _fuse(self, c: Cluster, members: list[Node], outs: list[Value]) -> None:
        first = [n for n in members if n.op.takes_epilogue]        # its operands come first, and lie in memory
        members = self._with_copies(members, {v for n in first for v in n.inputs})
        made = {v for n in members for v in n.outputs}
        ins = list(dict.fromkeys(v for n in first + members for v in n.inputs if v not in made))
        for v in ins:
            self._need(v)
        body = body_of(members, ins, outs)
        new = Node(Fused(body, c.kind), tuple(self.w.map[v] for v in ins), tuple(v.type for v in outs), c.nodes[-1].loc,
                   c.nodes[-1].scope)
        self.w.nodes.append(new)
        for old, v in zip(outs, new.outputs):
            v.name = old.name
            self.w.map[old] = v

    def _with_copies(self, members: list[Node], given: Collection[Value] = ()) -> list[Node]:
        """The members, each preceded by the copied and repeated nodes that it is the first to read; `given` values are
        not copied."""
        copied, repeated = self.fusion.copied, self.fusion.repeated
        return with_repeated(members, lambda v: (v.node in copied or v.node in repeated) and v not in given)

    def _keep(self, node: Node) -> None:
        for v in node.inputs:
            self._need(v)
        if not all(v in self.w.map for v in node.outputs):
            self.w.keep(node)

    def _need(self, v: Value) -> None:
        """Emits a copied node for a reader that is no cluster."""
        if v.node in self.fusion.copied and v not in self.w.map:
            if isinstance(v.node.op, Constant) or v.node.op.is_whole_view:
                self._keep(v.node)
            else:
                chain = self._with_copies([v.node])
                body = body_of(chain, [], [v])
                node = Node(Fused(body), (), (v.type,), v.node.loc, v.node.scope)
                self.w.nodes.append(node)
                self.w.map[v] = node.outputs[0]


def _viewed(v: Value, inside: set[Node], but: Collection[Value] = ()) -> Value:
    """What v, a chain of views in the cluster, shows; of the values `but`, their broadcast."""
    while (v.node in inside and v.node.op.is_whole_view
            and not (but and isinstance(v.node.op, BroadcastTo) and _viewed(v, inside) in but)):
        v = v.node.inputs[0]
    return v


def body_of(members: Sequence[Node], ins: Sequence[Value], outs: Sequence[Value]) -> Graph:
    """A body of its own: inputs x0, x1, …, so that equal clusters are equal."""
    mapping = {v: Value(v.type, f"x{k}") for k, v in enumerate(ins)}
    nodes = []
    for n in members:
        new = Node(n.op, tuple(mapping[v] for v in n.inputs), tuple(v.type for v in n.outputs), n.loc, n.scope)
        nodes.append(new)
        mapping.update(zip(n.outputs, new.outputs))
    names = None if len(outs) == 1 else ("",) * len(outs)
    return Graph("body", tuple(mapping[v] for v in ins), tuple(nodes), tuple(mapping[v] for v in outs), names)
