"""Which part of a training step a node belongs to, read off what depends on what: it holds at every stage of the
graph, before fusion and after."""
from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.fused import Fused

FORWARD, LOSS, BACKWARD, UPDATE = "forward", "loss", "backward", "update"
BOTH = "backward + update"          # a kernel that makes a gradient and uses it up
PHASES = (FORWARD, LOSS, BACKWARD, UPDATE, BOTH)


def phases(graph: Graph) -> Mapping[Node, str]:
    """The phase of each node of a training step, one of PHASES; none for a graph that updates no optimizer's state.

    Forward is what the results (the loss) need. Of that, what layers have no part in and that reads what layers made is
    the loss. Of the rest, what reads hyperparameters or the optimizer's arrays, at whatever distance, is the update; a
    kernel may be of the backward pass and of the update.
    """
    optimizers = {v for v in graph.state if v.name.startswith("optim.")}
    if not optimizers:
        return {}
    forward = _needed(graph)
    (update, late), layers = _reached(graph, optimizers), _reached_from_layers(graph)

    def phase(node: Node) -> str:
        if node in forward:
            return LOSS if not node.scope and any(v in layers for v in node.inputs) else FORWARD
        if node not in update:
            return BACKWARD
        return BOTH if isinstance(node.op, Fused) and _has_early_part(node.op.body, node, late) else UPDATE
    return {node: phase(node) for node in graph.nodes}


def _has_early_part(body: Graph, node: Node, late: set[Value]) -> bool:
    """Whether some of a kernel's operators on arrays depend on nothing that the optimizer has."""
    reached, _ = _reached(body, {inner for inner, v in zip(body.inputs, node.inputs) if v in late})
    return any(n not in reached and n.inputs and n.outputs[0].type.shape and not n.op.is_view for n in body.nodes)


def _needed(graph: Graph) -> set[Node]:
    """Nodes that the outputs depend on."""
    needed: set[Node] = set()
    wanted = set(graph.outputs)
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outputs):
            needed.add(node)
            wanted.update(node.inputs)
    return needed


def _reached(graph: Graph, sources: set[Value]) -> tuple[set[Node], set[Value]]:
    """Nodes that depend on one of these values, and the values that do."""
    values, nodes = set(sources), set[Node]()
    for node in graph.nodes:
        if not values.isdisjoint(node.inputs):
            nodes.add(node)
            values.update(_results_of(node, values))
    return nodes, values


def _results_of(node: Node, reached: set[Value]) -> Iterable[Value]:
    """The results that depend on what is reached: of a kernel, those whose operators do."""
    if not isinstance(node.op, Fused):
        return node.outputs
    body = node.op.body
    _, inside = _reached(body, {inner for inner, v in zip(body.inputs, node.inputs) if v in reached})
    return [v for v, inner in zip(node.outputs, body.outputs) if inner in inside]


def _reached_from_layers(graph: Graph) -> set[Value]:
    """Values that a layer made, or that were made of such values."""
    values: set[Value] = set()
    for node in graph.nodes:
        if node.scope or not values.isdisjoint(node.inputs):
            values.update(node.outputs)
    return values
