"""Removes nodes that no output and no state update needs."""
from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Needs nothing. Gives a graph in which every node leads to a result."""
    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> Graph:
        live = set(graph.results)
        kept = set()
        for node in reversed(graph.nodes):
            if any(v in live for v in node.outputs):
                kept.add(node)
                live.update(node.inputs)
        if len(kept) == len(graph.nodes):
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if node in kept:
                w.keep(node)
        return w.done()
