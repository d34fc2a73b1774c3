"""`compute="int8"` of a training step: the forward pass rounds the factors of products by weights as compiled networks
of integers do, and gradients go straight through (Bengio et al. 2013, arXiv:1308.3432; Jacob et al. 2018,
arXiv:1712.05877)."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.llvm.host import host_target
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.quantized_products import ProductQuantizer


def rounding_factors(trace: Trace, results: Sequence[Array]) -> list[Array]:
    """Rewrites what the running trace has of its graph so far; the same results of the new one. GraphError if it has no
    product that would be one of 8-bit integers."""
    b = trace.builder
    seen = {*(a.value for a in (*results, *trace.keys.values())), *b.updates.values(),
            *(v for call in trace.calls if call for v in call.values)}
    made = [v for node in b.nodes for v in node.outputs if v in seen]
    quantizer = ProductQuantizer(host_target(), straight_through=True)
    graph = quantizer.whole(b.finish(made, ("",) * len(made)))
    if all(p.why_not for p in quantizer.found):
        raise GraphError('compute="int8": the step has no product by weights that would be one of 8-bit integers:'
                         + "".join(f"\n  {p.name}: {p.why_not}" for p in quantizer.found), user_loc())
    b.nodes = []
    new = dict(zip(made, b.inline_here(_without_updates(graph), [*b.inputs, *b.state]), strict=True))

    def moved(a: Array) -> Array:
        return Array(new[a.value], trace) if a.value in new else a
    b.updates = {state: new.get(v, v) for state, v in b.updates.items()}
    trace.keys.update({key: moved(a) for key, a in trace.keys.items()})
    trace.calls[:] = [call and replace(call, values=tuple(new.get(v, v) for v in call.values)) for call in trace.calls]
    return [moved(a) for a in results]


def _without_updates(graph: Graph) -> Graph:
    return replace(graph, updates=(None,) * len(graph.state))
