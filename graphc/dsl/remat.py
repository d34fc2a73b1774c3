"""Functions whose inside is computed again in the backward pass instead of being kept for it."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dsl.array import Array, as_array, emit_all
from graphc.dsl.context import current_trace
from graphc.dsl.trace import Trace
from graphc.dsl.tree import flatten, tree_map, unflatten
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph


def rematerialized(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`f(*args, **options)`, of which the gradient keeps nothing but the arrays that come in. State that layers inside
    update, such as running statistics, is updated outside."""
    outer = current_trace()
    with Trace("inside", parent=outer, apart=True) as trace:
        results, tree = flatten(tree_map(as_array, f(*args, **options)))
        if not results:
            raise GraphError("gc.remat: the function returned no array")
        new = list(trace.updated)
        values = [trace.value(a) for a in (*results, *trace.updated.values())]
    operands, body = _with_constants(trace.outer, trace.builder.finish(values, ("",) * len(values)))
    outs = emit_all("remat", *operands, body=body)
    for key, array in zip(new, outs[len(results):], strict=True):
        outer.update_state(key, array)
    return unflatten(tree, outs[:len(results)])


def _with_constants(captured: Sequence[Array], body: Graph) -> tuple[list[Array], Graph]:
    """The body with the constants that it captured as constants of its own: masks, say, are known inside too."""
    leaves = [a.value.node if a.value.node and a.value.node.op.is_leaf and not a.value.node.inputs else None
              for a in captured]
    w = Rewriter(body)
    w.inputs = [w[v] for v, leaf in zip(body.inputs, leaves) if leaf is None]
    w.map.update((v, w.apply(leaf.op, ())[0]) for v, leaf in zip(body.inputs, leaves) if leaf is not None)
    for node in body.nodes:
        w.keep(node)
    return [a for a, leaf in zip(captured, leaves) if leaf is None], w.done()
