"""Chooses the order of execution: what reads an array comes before what changes it where it lies; state is written
after the last check, and as soon after it as the operands allow; single numbers come early."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from heapq import heappop, heappush
from typing import ClassVar

from graphc.ir.graph import Graph, Node, Value, users
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.in_place import updated


@dataclass(frozen=True)
class Order(Pass):
    """Needs fused nodes (an optimizer's update of one parameter is one node).

    Gives the same nodes in another order. Updates of state run after the last node that may fail, so that a failed step
    leaves the state as it was, and otherwise as early as possible, so that gradients are freed early. An update may
    need scalars of the optimizer, which are traced after all gradients; nodes that compute only scalars therefore run
    right after their operands. Nodes that read an array run before one that changes some of its elements, unless they
    need its result, so that it need not copy the others.
    """
    name: ClassVar[str] = "order"

    def run(self, graph: Graph) -> Graph:
        graph = _readers_first(graph)
        writers = _writers(graph)
        if not writers:
            return graph
        others = _numbers_first([n for n in graph.nodes if n not in writers])
        barrier = max((i for i, n in enumerate(others) if n.op.may_fail), default=-1)
        ready = _ready_positions(graph, writers, others)
        due: dict[int, list[Node]] = {}
        for node in writers:
            due.setdefault(max(ready[node], barrier), []).append(node)
        ordered = list(due.get(-1, ()))
        for i, node in enumerate(others):
            ordered.append(node)
            ordered.extend(due.get(i, ()))
        return replace(graph, nodes=tuple(ordered))


def _readers_first(graph: Graph) -> Graph:
    """The same nodes, those that change an array behind its other readers as far as the operands allow."""
    changes = list(_changes(graph))
    if not changes:
        return graph
    needs = {node: {v.node for v in node.inputs if v.node is not None} for node in graph.nodes}
    position = {node: at for at, node in enumerate(graph.nodes)}
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        for root in {storage_root(v) for v in node.inputs} if not node.op.is_view else ():
            readers.setdefault(root, []).append(node)
    late = False
    for node, changed in changes:
        for reader in readers[storage_root(changed)]:
            if reader is not node and not _follows(reader, node, needs):
                needs[node].add(reader)
                late = late or position[reader] > position[node]
    return replace(graph, nodes=tuple(_sorted(graph, needs, position))) if late else graph


def _changes(graph: Graph) -> Iterator[tuple[Node, Value]]:
    """Nodes that may make their result in the memory of an operand, with that."""
    for node in graph.nodes:
        yield from ((node, node.inputs[i]) for _, i in updated(node))


def _follows(node: Node, other: Node, needs: Mapping[Node, set[Node]]) -> bool:
    """Whether the node has to run after the other."""
    seen, waiting = set[Node](), [node]
    while waiting:
        here = waiting.pop()
        if here is other:
            return True
        if here not in seen:
            seen.add(here)
            waiting += needs[here]
    return False


def _sorted(graph: Graph, needs: Mapping[Node, set[Node]], position: Mapping[Node, int]) -> Iterator[Node]:
    """Every node behind those that it needs, otherwise in the order of the graph."""
    waits = {node: len(before) for node, before in needs.items()}
    followers: dict[Node, list[Node]] = {}
    for node, before in needs.items():
        for other in before:
            followers.setdefault(other, []).append(node)
    ready = [at for at, node in enumerate(graph.nodes) if not waits[node]]
    while ready:
        node = graph.nodes[heappop(ready)]
        yield node
        for other in followers.get(node, ()):
            waits[other] -= 1
            if not waits[other]:
                heappush(ready, position[other])


def storage_root(v: Value) -> Value:
    """The value whose memory a chain of view operators may share."""
    while v.node is not None and v.node.op.is_view:
        v = v.node.inputs[0]
    return v


def _numbers_first(nodes: list[Node]) -> list[Node]:
    """Each node that makes single numbers directly after its last operand, the others as they are."""
    place: dict[Node, int] = {}
    for i, node in enumerate(nodes):
        single = all(v.type.size == 1 for v in node.outputs)
        place[node] = max((place[v.node] for v in node.inputs if v.node in place), default=-1) if single else i
    return sorted(nodes, key=place.__getitem__)


def _writers(graph: Graph) -> dict[Node, None]:
    """Nodes whose outputs are new state and nothing else."""
    new = {u for u in graph.updates if u is not None} - set(graph.outputs)
    read = users(graph)
    nodes = (u.node for u in graph.updates if u in new and u.node is not None)
    return {n: None for n in nodes if all(v in new and not read[v] for v in n.outputs) and not n.op.may_fail}


def _ready_positions(graph: Graph, writers: Mapping[Node, None], others: list[Node]) -> dict[Node, int]:
    """For each writer the position in `others` of the last node it must follow: producers, and readers of the state it
    replaces."""
    made: dict[Value, int] = {}
    last_read: dict[Value, int] = {}
    for i, node in enumerate(others):
        made.update((v, i) for v in node.outputs)
        last_read.update((storage_root(v), i) for v in node.inputs)
    replaced: dict[Node, list[Value]] = {}
    for state, new in zip(graph.state, graph.updates):
        if new is not None and new.node is not None and new.node in writers:
            replaced.setdefault(new.node, []).append(state)
    return {node: max([made.get(v, -1) for v in node.inputs] + [last_read.get(s, -1) for s in replaced[node]])
            for node in writers}
