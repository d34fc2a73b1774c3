"""Fusion: elementwise operators, broadcasts and reductions become clusters that run as one loop nest each; elementwise
operators that follow a contraction become its epilogue.

Greedy, in the order of the graph: an operator joins the clusters that make its operands if all still fit one iteration
space (`ir.space`) and the result stays convex (no path leaves a cluster and comes back). Ancestors of every cluster are
kept as a bit set, so that convexity is a bit test and the pass is close to linear.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from graphc.ir.dims import typical
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.constant import Constant, Dimension, Iota
from graphc.ir.ops.scan_ops import LinearScan
from graphc.ir.types import normalize_axis
from graphc.passes.cluster import Cluster, column_refusal, in_graph_order, shape_refusal
from graphc.passes.crossing import crossing_refusal
from graphc.passes.fuse_emit import emit
from graphc.passes.pipeline import Pass
from graphc.passes.rematerialize import repeated
from graphc.records import dataclass
from graphc.schedule.iteration_space import RULES, Misfit, Space
from graphc.schedule.machine import Machine
from graphc.schedule.target import LINE_BYTES

# an operator joins no cluster further back in the order: bounds the search and keeps lifetimes short. Of a step in bf16
# of two dozen layers, each of whose factors takes some nodes, it reaches from the updates to all gradients
WINDOW = 512


@dataclass(frozen=True)
class Fuse(Pass):
    """Merges operators into clusters that run as one kernel.

    Needs: static types, composites decomposed, no dead nodes (a dead user forces a value into memory).
    Gives: `fused` nodes; outputs and types unchanged. Views (reshape, transpose, broadcast) that only leave a cluster
    stay outside, where the memory plan can alias them.
    Stands before plan_memory, because values inside a cluster need no buffer.
    """
    name: ClassVar[str] = "fuse"
    max_nodes: int = 64
    machine: Machine = Machine()

    def run(self, graph: Graph) -> Graph:
        return emit(graph, Fusion(graph, self.max_nodes, self.machine).run())


def explain(graph: Graph, max_nodes: int = 64, machine: Machine = Machine()) -> str:
    """One line for every pair of neighbours that could have been fused and were not: why."""
    fusion = Fusion(graph, max_nodes, machine)
    fusion.run()
    return "\n".join(f"{a.op.name} -> {b.op.name} ({b.outputs[0].type}{f', {b.loc}' if b.loc else ''}): {why}"
                     for a, b, why in fusion.refused)


class Fusion:
    """One run of the pass. Afterwards `of` tells each node's cluster; nodes in `copied` and `repeated` go into every
    cluster that reads them."""

    def __init__(self, graph: Graph, max_nodes: int, machine: Machine):
        self.graph, self.max_nodes, self.machine = graph, max_nodes, machine
        self.of: dict[Node, Cluster] = {}
        self.clusters: list[Cluster] = []
        self.copied: dict[Node, int] = {}       # node -> flops per element of the chain that ends there
        self.repeated: set[Node] = set()
        self.refused: list[tuple[Node, Node, str]] = []
        self.users = users(graph)
        self.results = set(graph.results)

    def run(self) -> "Fusion":
        for node in self.graph.nodes:
            if not self._copy(node):
                self._place(node)
        if self.max_nodes > 1:
            self.repeated = repeated(self)
        return self

    # ---- what is copied into its readers
    def _copy(self, node: Node) -> bool:
        """Scalar constants, sizes, counting arrays, and cheap functions of them only."""
        if isinstance(node.op, Constant):
            if node.op.value.type.size == 1:
                self.copied[node] = 0
        elif isinstance(node.op, (Iota, Dimension)):
            self.copied[node] = 0
        elif node.op.is_elementwise and node.inputs and all(v.node in self.copied for v in node.inputs):
            flops = node.op.element_flops + sum(self.copied[v.maker] for v in node.inputs)
            if flops <= self.machine.recompute_ops and self._alone(node) is not None:
                self.copied[node] = flops
        return node in self.copied

    # ---- clusters
    def _place(self, node: Node) -> None:
        sources = self._sources(node)
        if node.op.takes_epilogue:
            apart = len(set(node.inputs)) == len(node.inputs)
            return self._open("contraction" if apart else "other", node, sources)
        if type(node.op) not in RULES or node.op.is_leaf or _is_empty(node) or _runs_inside(node):
            return self._open("other", node, sources)
        home = (self._join_contraction(node, sources) or self._join_nest(node, sources)
                or self._join_reader(node, sources))
        if home is None and node.op.is_whole_view:
            return self._open("view", node, sources)
        if home is None:
            self._open("nest", node, sources)

    def _sources(self, node: Node) -> list[Cluster]:
        """The clusters that make its operands, those of the largest operands first."""
        makers = [(typical(v.type.size), self.of[n]) for v in node.inputs for n in self._makers(v)]
        makers.sort(key=lambda item: (-item[0], -item[1].number))
        return list(dict.fromkeys(c for _, c in makers))

    def _makers(self, v: Value) -> Iterable[Node]:
        return (v.node,) if v.node is not None and v.node in self.of else ()

    def _open(self, kind: str, node: Node, sources: list[Cluster]) -> None:
        number = len(self.clusters)
        cluster = Cluster(kind, number, [node], 1 << number, 0)
        for s in sources:
            cluster.before |= s.before | s.mask
            s.is_read = True
        if kind == "nest":
            alone = self._alone(node)
            # what it copies runs over other dims: then that is made in kernels of its own
            if alone is None:
                cluster.kind = "other"
            else:
                cluster.space, cluster.flops = alone, node.op.element_flops
                self._note_post(cluster, node)
        elif kind == "contraction":
            cluster.space.maps[node.outputs[0]] = cluster.space.place(node.outputs[0].type.shape)
        self.clusters.append(cluster)
        self.of[node] = cluster

    def _join_nest(self, node: Node, sources: list[Cluster]) -> Cluster | None:
        """The cluster that takes the node; other sources that fit are merged into it."""
        home: Cluster | None = None
        for s in [c for c in sources if c.kind == "nest"]:
            why = self._refusal(s, node, sources) if home is None else self._merge_refusal(home, s, node, sources)
            if why:
                self._refuse(s, node, why)
            elif home is None:
                home = s
        if home is None:
            return None
        for c in self._siblings(home, node) if node.op.is_reduction else ():
            self._merge_refusal(home, c, node, sources)
        self._add(home, node, sources)
        return home

    def _siblings(self, home: Cluster, node: Node) -> list[Cluster]:
        """Nests that also reduce something that `home` reads: merged, they read it once."""
        size, inside = node.inputs[0].type.size, set(home.nodes)
        read = dict.fromkeys(v for n in home.nodes for v in n.inputs if v.node not in inside
                             and v.node not in self.copied and v.type.size == size)
        found = [self.of[u] for v in read for u in self.users[v] if u in self.of and u.op.is_reduction]
        return [c for c in dict.fromkeys(found) if c is not home and c.kind == "nest"]

    def _join_reader(self, node: Node, sources: list[Cluster]) -> Cluster | None:
        """A reduction of a value that another cluster reads joins it, so that the value is read once."""
        if not node.op.is_reduction:
            return None
        readers = [self.of[u] for u in self.users[node.inputs[0]] if u in self.of]
        for c in dict.fromkeys(c for c in readers if c.kind == "nest"):
            why = self._refusal(c, node, sources)
            if not why:
                self._add(c, node, sources)
                return c
            self._refuse(c, node, why)
        return None

    def _join_contraction(self, node: Node, sources: list[Cluster]) -> Cluster | None:
        if not node.op.is_elementwise:
            return None
        for c in [s for s in sources if s.kind == "contraction"]:
            feeders = [s for s in sources if self._feeds_only(s, c, node)]
            why = (self._distance(c, sources) or self._nest_is_better(c, node)
                   or self._epilogue_refusal(c, node, feeders))
            if not why:
                for s in feeders:
                    c.nodes[1:1] = s.nodes
                    c.flops += s.flops
                    self._absorb(c, s)
                self._add(c, node, sources)
                return c
            self._refuse(c, node, why)
        return None

    def _feeds_only(self, s: Cluster, c: Cluster, node: Node) -> bool:
        """Whether the nest `s` is elementwise, of the shape of the contraction `c`, and made for the node alone: then
        it goes along."""
        inside, shape = {*s.nodes, node}, c.nodes[0].outputs[0].type.shape
        return (s.kind == "nest" and not s.before & c.mask and not c.before & s.mask
                and len(s.nodes) + len(c.nodes) < self.max_nodes
                and all(n.op.is_elementwise and n.outputs[0].type.shape == shape and n.outputs[0] not in self.results
                        and all(u in inside for u in self.users[n.outputs[0]]) for n in s.nodes))

    def _nest_is_better(self, c: Cluster, node: Node) -> str:
        """An operand stays in memory for the reduction of a nest anyway, and only nests read the result: they can make
        it themselves."""
        inside, out = set(c.nodes), node.outputs[0]
        readers = [u for v in node.inputs if v.node in inside for u in self.users[v]]
        kept = any(type(u.op) in RULES and not u.op.is_elementwise for u in readers)
        if kept and self._only_nests_read(out):
            return "nests that read the operand can compute it themselves"
        return ""

    def _only_nests_read(self, v: Value) -> bool:
        """It, and what shows it: a product may read a transposed array."""
        return v not in self.results and all(
            type(u.op) in RULES and (not u.op.is_view or all(map(self._only_nests_read, u.outputs)))
            for u in self.users[v])

    def _epilogue_refusal(self, c: Cluster, node: Node, feeders: list[Cluster]) -> str:
        product = c.nodes[0].outputs[0]
        if node.outputs[0].type.shape != product.type.shape:
            return "an epilogue keeps the shape of the contraction"
        space = c.space.copy()
        members = [n for s in feeders for n in s.nodes] + [node]
        try:
            for n in members:
                self.extend(space, n)
        except Misfit as error:
            return str(error)
        if (any(space.maps[n.outputs[0]] != space.maps[product] for n in members)
                or len(space.extents) != len(c.space.extents)):
            return "an epilogue keeps the axes of the contraction"
        c.space = space
        return ""

    def _distance(self, c: Cluster, sources: list[Cluster]) -> str:
        """Why joining `c` would not be convex or would reach too far; "" if it may be."""
        if len(c.nodes) >= self.max_nodes:
            return f"the cluster has {self.max_nodes} operators already"
        if len(self.clusters) - c.number > WINDOW:
            return "too much lies between them"
        if any(s is not c and s.before & c.mask for s in sources):
            return "another path between them leaves the cluster"
        return ""

    def _refusal(self, c: Cluster, node: Node, sources: list[Cluster]) -> str:
        """Why the node cannot join the nest `c`; joins its space if it can."""
        why = self._distance(c, sources)
        if why:
            return why
        space = c.space.copy()
        try:
            self.extend(space, node)
        except Misfit as error:
            return str(error)
        why = (shape_refusal(space, node) or column_refusal(c, space, node) or self._growth(c, space, node)
               or self._stages(c, space, node) or crossing_refusal(c, space, node, self.machine))
        if not why:
            c.space = space
        return why

    def _merge_refusal(self, home: Cluster, other: Cluster, node: Node, sources: list[Cluster]) -> str:
        """Why `other` cannot merge into `home`, which the node has joined in space only; merges if it can."""
        others = [s for s in sources if s is not home]
        why = (self._distance(other, others)
               or ("another path between them leaves the cluster" if self._path(home, other) else ""))
        if why or len(home.nodes) + len(other.nodes) >= self.max_nodes:
            return why or f"together they have more than {self.max_nodes} operators"
        merged = Cluster("nest", home.number, in_graph_order(home.nodes, other.nodes), home.mask | other.mask, 0)
        try:
            for n in merged.nodes:
                before = merged.space.copy()
                self.extend(merged.space, n)
                why = why or self._stages(merged, merged.space, n, before)
                self._note_post(merged, n)
            full = merged.space.copy()
            self.extend(full, node)
        except Misfit as error:
            return str(error)
        why = why or shape_refusal(full, node)
        for part in (home, other):
            why = why or self._growth(part, full, node, both=(home, other))
        why = why or self._stages(merged, full, node) or crossing_refusal(merged, full, node, self.machine)
        if not why:
            home.space, home.post, home.nodes = full, merged.post, merged.nodes
            home.flops += other.flops
            self._absorb(home, other)
        return why

    def _path(self, a: Cluster, b: Cluster) -> bool:
        """Whether a path between the two runs through a third cluster."""
        for first, last in ((a, b), (b, a)):
            if last.before & first.mask:
                direct = [self.of[m] for n in last.nodes for v in n.inputs for m in self._makers(v)]
                if any(c is not first and c is not last and c.before & first.mask for c in direct):
                    return True
        return False

    def _growth(self, c: Cluster, space: Space, node: Node, both: tuple[Cluster, ...] = ()) -> str:
        """Values of `c` are repeated along dims that the larger space has: only if they are cheap and nobody else reads
        them."""
        if space.size(space.extents) == c.space.size(c.space.extents):
            return ""
        if (space.reduced is not None
                and all(space.dims_of(v) == set(space.kept) for n in c.nodes for v in n.outputs if v in space.maps)):
            return ""
        inside = {n for part in (both or (c,)) for n in part.nodes} | {node}
        if c.flops > self.machine.recompute_ops or any(n.op.is_generator or n.op.is_reduction
                                                       or isinstance(n.op, LinearScan) for n in c.nodes):
            return "its values would be computed again and again along a new axis"
        if any(v in self.results or any(u not in inside for u in self.users[v]) for n in c.nodes for v in n.outputs):
            return "its smaller values are read elsewhere too"
        return ""

    def _stages(self, c: Cluster, space: Space, node: Node, before: Space | None = None) -> str:
        """A node that walks over rows again, after a reduction of them: rows must be many, and short or contiguous."""
        old = before or c.space
        reduced = space.reduced
        if reduced is None or old.reduced is None and not c.post:
            return ""
        source = node.inputs[0] if node.op.is_reduction else node.outputs[0]
        dims = space.dims_of(source) if source in space.maps else frozenset()
        if not dims & set(reduced) or not any(v in c.post for v in node.inputs):
            return ""
        row, rows = typical(space.size(reduced)), typical(space.size(space.kept))
        order = [d for dims in space.maps[source] for d in dims]
        trailing = set(order[len(order) - len(reduced):]) == set(reduced)
        if row > (self.machine.row_elements if trailing else self.machine.column_elements):
            return f"rows of {row} elements would leave the cache between two passes over them"
        if rows < self.machine.planned_tiles // 2 and row * rows > self.machine.serial_elements:
            return f"{rows} rows are too few to work on in parallel"
        return ""

    # ---- bookkeeping
    def extend(self, space: Space, node: Node) -> None:
        """Adds the node, and first the copied chains that it reads."""
        for v in node.inputs:
            if v.node is not None and v.node in self.copied and v not in space.maps and not v.node.op.is_leaf:
                self.extend(space, v.node)
        space.add(node)

    def _alone(self, node: Node) -> Space | None:
        """The space of the node with the copied chains that it reads; None if they do not fit together."""
        space = Space()
        try:
            self.extend(space, node)
        except Misfit:
            return None
        return space

    def _add(self, c: Cluster, node: Node, sources: list[Cluster]) -> None:
        c.nodes.append(node)
        c.flops += node.op.element_flops
        self.of[node] = c
        self._note_post(c, node)
        self._depend(c, sources)

    def _absorb(self, home: Cluster, other: Cluster) -> None:
        for n in other.nodes:
            self.of[n] = home
        home.mask |= other.mask
        home.number = min(home.number, other.number)
        home.is_read |= other.is_read
        other.nodes = []
        home.before |= other.before
        self._depend(home, [])

    def _depend(self, c: Cluster, sources: list[Cluster]) -> None:
        """`c` depends on `sources` now, and so does all that depends on `c`."""
        new = c.before
        for s in sources:
            if s is not c:
                new |= s.before | s.mask
                s.is_read = True
        c.before = new & ~c.mask
        for d in self.clusters[max(0, c.number - WINDOW):] if c.is_read else ():
            if d.before & c.mask:
                d.before |= c.before | c.mask

    def _note_post(self, c: Cluster, node: Node) -> None:
        if node.op.is_reduction or any(v in c.post for v in node.inputs):
            c.post.update(node.outputs)

    def _refuse(self, c: Cluster, node: Node, why: str) -> None:
        maker = next((v.node for v in node.inputs if v.node in self.of and self.of[v.node] is c), c.nodes[-1])
        self.refused.append((maker, node, why))


def _runs_inside(node: Node) -> bool:
    """Whether a recurrence runs along an innermost axis that fills no vector: what other operators do there side by
    side, it would do one element after another."""
    if not isinstance(node.op, LinearScan):
        return False
    *_, n = (t := node.outputs[0].type).shape
    last = normalize_axis(node.op.axis, t.rank) == t.rank - 1
    return last and not (isinstance(n, int) and n * t.dtype.itemsize >= LINE_BYTES)


def _is_empty(node: Node) -> bool:
    return any(v.type.size == 0 for v in (*node.inputs, *node.outputs))
