"""Chooses the order of execution: state is written after the last check, and as soon after it as the operands allow;
single numbers come early."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from graphc.ir.graph import Graph, Node, Value, users
from graphc.passes.pipeline import Pass


@dataclass(frozen=True)
class Order(Pass):
    """Needs fused nodes (an optimizer's update of one parameter is one node).

    Gives the same nodes in another order. Updates of state run after the last node that may fail, so that a failed step
    leaves the state as it was, and otherwise as early as possible, so that gradients are freed early. An update may
    need scalars of the optimizer, which are traced after all gradients; nodes that compute only scalars therefore run
    right after their operands.
    """
    name: ClassVar[str] = "order"

    def run(self, graph: Graph) -> Graph:
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
        if new is not None and new.node in writers:
            replaced.setdefault(new.node, []).append(state)
    return {node: max([made.get(v, -1) for v in node.inputs] + [last_read.get(s, -1) for s in replaced[node]])
            for node in writers}
