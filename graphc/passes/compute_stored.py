"""f16 and bf16 are types to store numbers in: operators on them become operators on f32 between conversions."""
from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.stored import COMPUTE, computes_on_stored, retyped_op
from graphc.ir.types import DType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class ComputeStored(Pass):
    """Gives a graph in which f16 and bf16 are only moved and converted. The result of each of the user's operators is
    rounded, once, by an operator of its own: what is fused later cannot change what is rounded.

    Stands before all that makes one operator of several, or several of one: the user's operators round.
    """
    name: ClassVar[str] = "compute_stored"

    def run(self, graph: Graph) -> Graph:
        if not any(computes_on_stored(n) for n in graph.nodes):
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if computes_on_stored(node):
                with w.at(node.loc, node.scope):
                    w.replace(node, self._computed(w, node))
            else:
                w.keep(node)
        return w.done()

    def _computed(self, w: Rewriter, node: Node) -> list[Value]:
        wide = [_as(w, w[v], v.type.dtype.compute) for v in node.inputs]
        outs = w.apply(retyped_op(node.op, COMPUTE), wide)
        return [_as(w, new, old.type.dtype) for old, new in zip(node.outputs, outs, strict=True)]


def _as(w: Rewriter, v: Value, dtype: DType) -> Value:
    return v if v.type.dtype is dtype else w.cast(v, dtype=dtype)
