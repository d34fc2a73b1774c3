"""Clusters of operators while they grow, and what speaks against an operator in one: the data of the fuse pass."""
from __future__ import annotations

from dataclasses import field

from graphc.ir.graph import Node, Value
from graphc.records import dataclass
from graphc.schedule.iteration_space import Space


@dataclass(eq=False)
class Cluster:
    """Operators that will be one node. kind: "nest", "contraction", "view" or "other" (these two are single operators).

    `mask`: the bits of this cluster (those of clusters merged into it too); `before`: the bits of all that it depends
    on. `space`: of a nest or contraction; nothing has a place in that of another. `post`: values that depend on a
    reduction of the cluster.
    """
    kind: str
    number: int
    nodes: list[Node]
    mask: int
    before: int
    space: Space = field(default_factory=Space)
    flops: int = 0
    is_read: bool = False           # whether another cluster depends on it
    post: set[Value] = field(default_factory=set)


def shape_refusal(space: Space, node: Node) -> str:
    """A value that can leave a cluster is stored once."""
    return "" if space.stores_once(node.outputs[0]) else "its result runs over some of the axes only"


def column_refusal(c: Cluster, space: Space, node: Node) -> str:
    """A sum of sums down columns would have the columns as rows, and these read across memory."""
    if node not in space.crossing or node.inputs[0] not in c.post:
        return ""
    reduced = space.reduced or ()
    for n in space.reductions:
        order = [d for dims in space.maps.get(n.inputs[0]) or space.uses[n, 0] for d in dims]
        if set(order[len(order) - len(reduced):]) != set(reduced):
            return "the columns that it sums are sums themselves"
    return ""


def in_graph_order(a: list[Node], b: list[Node]) -> list[Node]:
    """The nodes of two clusters in an order in which values are made before they are used (each list is in graph
    order)."""
    result: list[Node] = []
    made = {v for n in (*a, *b) for v in n.outputs}
    done: set[Value] = set()
    queues = [list(reversed(a)), list(reversed(b))]
    while any(queues):
        for q in queues:
            while q and all(v not in made or v in done for v in q[-1].inputs):
                result.append(q.pop())
                done.update(result[-1].outputs)
    return result
