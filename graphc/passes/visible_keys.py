"""Attention reads keys and values as they are where its mask hides them anyway."""
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from graphc.ir.builder import Rewriter, rewritten
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.attention import Attention
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.elementwise import WHERE
from graphc.ir.ops.shape import Reshape, Slice
from graphc.ir.types import bool_
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

KEYS, VALUES = 1, 2             # their places among the operands


@dataclass(frozen=True)
class VisibleKeys(Pass):
    """attention(q, where(seen, k, 0), where(seen, v, 0), mask) -> attention(q, k, v, mask) {hides_values}, `seen` being
    the mask of all queries as a column: scores of hidden keys are replaced, whatever they are, values of them are taken
    for 0, and a copy of all keys and values is saved. What the gradient reads too is there anyway.

    Stands before decompose, with which the operator loses its name. Leaves dead nodes.
    """
    name: ClassVar[str] = "visible_keys"

    def run(self, graph: Graph) -> Graph:
        readers, results = users(graph), set(graph.results)
        shown = {node: found for node in graph.nodes if isinstance(node.op, Attention) and (found := {
            i: v for i in (KEYS, VALUES) if (v := _as_it_is(node, i)) and {*readers[node.inputs[i]]} == {node}
            and node.inputs[i] not in results})}

        def made(w: Rewriter, node: Node) -> Sequence[Value]:
            op = node.op.replace(hides_values=True) if VALUES in shown[node] else node.op
            return w.apply(op, [w[shown[node].get(i, v)] for i, v in enumerate(node.inputs)])
        return rewritten(graph, shown, made)


def _as_it_is(node: Node, operand: int) -> Value | None:
    """The keys or values without what replaces the hidden ones; None where nothing does."""
    if len(node.inputs) < 4 or node.inputs[3].type.dtype != bool_:
        return None
    made, mask = node.inputs[operand].node, node.inputs[3]
    if made is None or made.op != WHERE or mask.type.rank < 2 or mask.type.shape[-2] != 1:
        return None
    seen, given, zero = made.inputs
    column = (*mask.type.shape[:-2], mask.type.shape[-1], 1)
    plain = seen.type.shape == column and _source(seen) is _source(mask) and given.type == node.inputs[operand].type
    return given if plain and zero.node is not None and isinstance(zero.node.op, Constant) else None


def _source(v: Value) -> Value:
    """What it shows all elements of, in the same order."""
    while v.node is not None and isinstance(v.node.op, (Reshape, Slice)) and v.node.inputs[0].type.size == v.type.size:
        v = v.node.inputs[0]
    return v
