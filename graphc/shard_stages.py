"""The graph of a shard in stages, between which the shards wait for each other: each `shard_sum` is a sum over all of
them, and what depends on it is computed after it.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value, regions
from graphc.ir.ops.elementwise import ShardSum
from graphc.records import dataclass


@dataclass(frozen=True)
class ShardStage:
    """`function` takes `inputs`, values of the graph of the shard, and gives `outputs`: results of the graph, what
    later stages take, and at the end the operands of `sums`, the values that their sums over the shards become."""
    function: GraphFunction
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sums: tuple[Value, ...]


def stages(function: GraphFunction) -> tuple[ShardStage, ...]:
    """The stages of a shard's graph, which writes no state; one if nothing is summed over shards."""
    graph = function.graph
    _check(graph.nodes)
    nodes = _needed(graph.nodes, graph.outputs)
    numbers = dict.fromkeys(graph.arguments, 0)         # of each value: the stage from which on it is there
    for node in nodes:
        number = max((numbers[v] for v in node.inputs), default=0) + isinstance(node.op, ShardSum)
        numbers.update(dict.fromkeys(node.outputs, number))
    count = 1 + max(numbers.values(), default=0)
    return tuple(_Cut(function, nodes, numbers, number).stage() for number in range(count))


def _check(nodes: Sequence[Node]) -> None:
    """GraphError for a sum over shards inside a loop or branch, which came there by a graph that was traced before."""
    for node in nodes:
        for _, body in regions(node.op):
            if any(isinstance(inner.op, ShardSum) for inner in body.nodes):
                raise GraphError("gc.shard_sum cannot stand inside scan, cond or while_loop: shards would wait for "
                                 "each other in every round; take the sum outside", node.loc or user_loc())
            _check(body.nodes)


def _needed(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[Node]:
    """Those that the outputs depend on, in order."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]


@dataclass(frozen=True)
class _Cut:
    """One stage of the nodes of a whole graph."""
    whole: GraphFunction
    nodes: Sequence[Node]
    numbers: Mapping[Value, int]
    number: int

    def stage(self) -> ShardStage:
        """Its graph, inputs and outputs."""
        number, fixed = self.number, [node for node in self.nodes if not node.inputs]
        own = [node for node in self.nodes if node.inputs and not isinstance(node.op, ShardSum)
               and self.numbers[node.outputs[0]] == number]
        sums = [node for node in self.nodes
                if isinstance(node.op, ShardSum) and self.numbers[node.outputs[0]] == number + 1]
        later = {v for node in self.nodes if self.numbers[node.outputs[0]] > number for v in node.inputs}
        results = [v for v in dict.fromkeys(self.whole.graph.outputs) if self.numbers[v] == number]
        kept = [v for node in own for v in node.outputs if v in later and v not in results]
        outputs = (*results, *kept, *(node.inputs[0] for node in sums))
        # constants are made anew in each stage
        function, inputs = self._built(_needed([*fixed, *own], outputs), outputs)
        return ShardStage(function, inputs, outputs, tuple(node.outputs[0] for node in sums))

    def _built(self, nodes: Sequence[Node], outputs: Sequence[Value]) -> tuple[GraphFunction, tuple[Value, ...]]:
        """A graph of these nodes, and the values that it takes."""
        graph, made = self.whole.graph, {v for node in nodes for v in node.outputs}
        taken = [v for v in dict.fromkeys([*(v for node in nodes for v in node.inputs), *outputs]) if v not in made]
        state = [(key, v) for key, v in zip(self.whole.keys, graph.state) if v in taken]
        inputs = [v for v in taken if v not in graph.state]
        b = Builder(f"{graph.name}_{self.number}")
        mapping = {v: b.input(f"v{i}", v.type) for i, v in enumerate(inputs)}
        mapping |= {v: b.state_input(v.name, v.type) for _, v in state}
        for node in nodes:
            mapping.update(zip(node.outputs, b.copy(node, mapping)))
        stage = b.finish([mapping[v] for v in outputs], ("",) * len(outputs))
        return replace(self.whole, graph=stage, keys=tuple(key for key, _ in state), calls=(),
                       orders=None), tuple(inputs)
