"""Attention that is spelled out, softmax(q kᵀ · scale + mask) v, becomes the operator, which never holds the scores."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from graphc.analysis.attention import spelled_out
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.attention_support import is_whole


@dataclass(frozen=True)
class RecognizeAttention(Pass):
    """Products, by matmul or einsum, with a softmax between them become one `attention`; a causal mask becomes its
    flag, so that hidden tiles are skipped.

    Only where attention is one kernel (`keep`), and where scores and probabilities have no other use. The numbers
    are the same up to rounding, as long as scores that are not hidden are above `HIDES`. A row of which all scores are
    hidden gives 0 in the operator, but NaN in a graph that makes them -inf, and the mean of v in one that makes them a
    large negative number: nodes behind the operator restore that (a causal mask alone hides no whole row).

    Needs a graph without dead nodes (a dead user forbids it). Stands before decompose, with which softmax and tril lose
    their names.
    """
    name: ClassVar[str] = "recognize_attention"
    keep: Callable[[Op, Sequence[TensorType]], bool] = is_whole

    def run(self, graph: Graph) -> Graph:
        found = spelled_out(graph.nodes, graph.results, keep=self.keep)
        if not found:
            return graph
        w = Rewriter(graph)
        gone = {node for match in found.values() for node in match.inner}
        for node in graph.nodes:
            if node in found:
                with w.at(node.loc, node.scope):
                    w.replace(node, [found[node].build(w, [w[v] for v in found[node].leaves])])
            elif node not in gone:
                w.keep(node)
        return w.done()
