"""Rematerialization: cheap values are computed again by each cluster that reads them, if their inputs are in memory,
instead of being stored. What is made of small arrays alone may cost as much as its way to memory and back.

A batch norm's x - mean is read by its backward pass, which can subtract as well; the derivative of a sigmoid is a
function of its result; what integers stand for is made of these, which are fewer bytes.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from graphc.ir.dims import typical
from graphc.ir.graph import Node, Value
from graphc.ir.ops.elementwise import Cast, Elementwise
from graphc.ir.ops.shape import BroadcastTo
from graphc.passes.cluster import Cluster
from graphc.schedule.iteration_space import Misfit, Space

if TYPE_CHECKING:
    from graphc.passes.fuse import Fusion

SMALL = 8                       # an operand with this many times fewer elements costs nothing to store and to read


def repeated(fusion: "Fusion") -> set[Node]:
    """The nodes that every cluster which reads their results from outside makes again."""
    return _Repeat(fusion).run()


class _Repeat:
    def __init__(self, fusion: "Fusion"):
        self.fusion, self.of, self.users = fusion, fusion.of, fusion.users
        self.found: set[Node] = set()

    def run(self) -> set[Node]:
        for node in self.fusion.graph.nodes:        # in order: what an operand's fate is has been decided
            if node in self.of and isinstance(node.op, Elementwise):
                self._decide(node)
        return self.found

    def _decide(self, node: Node) -> None:
        v, home = node.outputs[0], self.of[node]
        outside = [u for u in self.users[v] if self.of.get(u) is not home]
        if (home.kind not in ("nest", "contraction") or v in self.fusion.results or not outside
                or not all(map(self._may_repeat, outside))):
            return
        chain, readers = _Chain(self, v), list(dict.fromkeys(self.of[u] for u in outside))
        if chain.is_cheap(self._read_by(readers)) and all(self._fits(c, chain.nodes) for c in readers):
            self.found.update(chain.nodes)

    def _read_by(self, clusters: list[Cluster]) -> set[Value]:
        """What each of the clusters reads element by element in any case."""
        return set.intersection(*({v for n in c.nodes[c.kind == "contraction":] for v in n.inputs} for c in clusters))

    def _may_repeat(self, reader: Node) -> bool:
        """Whether the reader's cluster can make its operands: it is a nest, or an epilogue."""
        c = self.of.get(reader)
        return c is not None and (c.kind == "nest" or c.kind == "contraction" and reader is not c.nodes[0])

    def _fits(self, c: Cluster, chain: list[Node]) -> bool:
        """Whether the cluster, with what it would make again, still runs over the same axes: its nodes in the order in
        which they are emitted."""
        space, first = Space(), c.nodes[:1] if c.kind == "contraction" else []
        for n in first:
            space.maps[n.outputs[0]] = space.place(n.outputs[0].type.shape)
        copied = self.fusion.copied
        nodes = with_repeated(c.nodes[len(first):],
                              lambda v: v.node in copied or v.node in self.found or v.node in chain)
        members = [n for n in nodes if n not in copied]
        try:
            for n in nodes:
                space.add(n)
        except Misfit:
            return False
        if any(space.maps[n.outputs[0]] != space.maps[head.outputs[0]] for head in first for n in members):
            return False
        return len(members) < self.fusion.max_nodes and list(space.extents.values()) == list(c.space.extents.values())

    def in_memory(self, v: Value, home: Cluster) -> bool:
        """Whether the value is stored, for other reasons than a reader of what is being repeated."""
        if v.node is None or v.node not in self.of or v in self.fusion.results:
            return True
        return v.node not in self.found and (self.of[v.node] is not home or self._leaves(v, home))

    def _leaves(self, v: Value, home: Cluster) -> bool:
        """Whether other clusters read it, or views of it."""
        return any(self.of.get(u) is not home or u.op.is_whole_view and self._leaves(u.outputs[0], home)
                   for u in self.users[v])


class _Chain:
    """The nodes that make `v` from small arrays and others in memory, operands first."""

    def __init__(self, repeat: _Repeat, v: Value):
        self.repeat, self.v, self.home = repeat, v, repeat.of[v.maker]
        self.nodes: list[Node] = []
        self.bases: set[Value] = set()
        self.flops = 0
        machine = repeat.fusion.machine
        self.most = machine.recompute_ops if typical(v.type.nbytes) <= machine.l2_bytes else machine.reload_ops
        self.is_made = self._make(v)

    def is_cheap(self, at_hand: Collection[Value]) -> bool:
        """Whether at most one array more is read where so much is read in any case."""
        few = len(self.bases.difference(at_hand)) <= 1 and self.flops <= self.repeat.fusion.machine.recompute_ops
        return self.is_made and (not self.bases or few)

    def _make(self, v: Value) -> bool:
        node = v.maker
        if node in self.nodes:
            return True
        self.flops += 1 if isinstance(node.op, Cast) else node.op.element_flops
        if self.flops > self.most or not all(map(self._take, node.inputs)):
            return False
        self.nodes.append(node)
        return True

    def _take(self, v: Value) -> bool:
        """Whether the operand is small, in memory, or made by a node that can be repeated too."""
        if v.node in self.repeat.fusion.copied or typical(v.type.size) * SMALL <= typical(self.v.type.size):
            return v.node not in self.repeat.found
        if self.repeat.in_memory(v, self.home):
            self.bases.add(v)
            is_view = v.node is not None and v.node.op.is_whole_view
            return not is_view and typical(v.type.nbytes) <= typical(self.v.type.nbytes)
        return (self.repeat.of[v.maker] is self.home and isinstance(v.maker.op, (Elementwise, BroadcastTo, Cast))
                and self._make(v))


def with_repeated(members: Iterable[Node], again: Callable[[Value], bool]) -> list[Node]:
    """The members, each after the nodes that it is the first to read whose results are made `again`."""
    result: dict[Node, None] = {}

    def add(n: Node) -> None:
        for v in n.inputs:
            if v.node not in result and again(v):
                add(v.maker)
        result[n] = None
    for n in members:
        add(n)
    return list(result)
