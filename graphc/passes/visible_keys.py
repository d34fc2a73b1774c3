"""Attention reads keys as they are where its mask hides them anyway."""
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from graphc.ir.builder import Rewriter, rewritten
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.attention import Attention
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.elementwise import WHERE
from graphc.ir.ops.shape import Reshape, Slice
from graphc.ir.types import bool_
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class VisibleKeys(Pass):
    """attention(q, where(seen, k, 0), v, mask) -> attention(q, k, v, mask), `seen` being the mask of all queries as a
    column: scores of hidden keys are replaced, whatever they are, and a copy of all keys is saved. Values are
    multiplied by 0 and keep it; so do the keys of the gradient.

    Stands before decompose, with which the operator loses its name. Leaves dead nodes.
    """
    name: ClassVar[str] = "visible_keys"

    def run(self, graph: Graph) -> Graph:
        shown = {node: k for node in graph.nodes if isinstance(node.op, Attention) and (k := _as_it_is(node))}

        def made(w: Rewriter, node: Node) -> Sequence[Value]:
            q, _, v, mask = node.inputs
            return w.apply(node.op, [w[q], w[shown[node]], w[v], w[mask]])
        return rewritten(graph, shown, made)


def _as_it_is(node: Node) -> Value | None:
    """The keys without what replaces the hidden ones; None where nothing does."""
    if len(node.inputs) < 4 or node.inputs[3].type.dtype != bool_:
        return None
    k, mask = node.inputs[1].node, node.inputs[3]
    if k is None or k.op != WHERE or mask.type.rank < 2 or mask.type.shape[-2] != 1:
        return None
    seen, keys, zero = k.inputs
    column = (*mask.type.shape[:-2], mask.type.shape[-1], 1)
    plain = seen.type.shape == column and _source(seen) is _source(mask) and keys.type == node.inputs[1].type
    return keys if plain and zero.node is not None and isinstance(zero.node.op, Constant) else None


def _source(v: Value) -> Value:
    """What it shows all elements of, in the same order."""
    while v.node is not None and isinstance(v.node.op, (Reshape, Slice)) and v.node.inputs[0].type.size == v.type.size:
        v = v.node.inputs[0]
    return v
