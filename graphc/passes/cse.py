"""Computes equal things once: nodes with equal operator and equal inputs become one."""
from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph
from graphc.ir.op import Op, Values
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Every operator is a pure function of its inputs (random ones take their key), so equality of operator and inputs
    is enough."""
    name: ClassVar[str] = "cse"

    def run(self, graph: Graph) -> Graph:
        w = Rewriter(graph)
        seen: dict[tuple[Op, Values], Values] = {}
        for node in graph.nodes:
            key = (node.op, tuple(w[v] for v in node.inputs))
            if key in seen:
                w.replace(node, seen[key])
            else:
                seen[key] = w.keep(node)
        return graph if len(w.nodes) == len(graph.nodes) else w.done()
