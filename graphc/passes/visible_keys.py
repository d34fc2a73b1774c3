"""Attention and its gradient read keys and values as they are where a mask hides them anyway."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphc.ir.builder import Rewriter, rewritten
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.attention import AttentionGrad, AttentionOp
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.elementwise import WHERE
from graphc.ir.ops.shape import Reshape, Slice
from graphc.ir.types import bool_
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

KEYS, VALUES, MASK = 1, 2, 3    # places among the operands; of keys and values also those of their gradients

Shown = Mapping[tuple[Node, int], Value]


@dataclass(frozen=True)
class VisibleKeys(Pass):
    """attention(q, where(seen, k, 0), where(seen, v, 0), mask) -> attention(q, k, v, mask) {hides_values}, `seen` being
    the mask of all queries as a column: scores of hidden keys are replaced, whatever they are, values of them are taken
    for 0, and a copy of all keys and values is saved. Its gradient likewise, which also gives 0 for what is hidden, so
    that where(seen, dk, 0) is dk. What others read too is there anyway, and stays.

    Stands before decompose, with which the operators lose their names. Leaves dead nodes.
    """
    name: ClassVar[str] = "visible_keys"

    def run(self, graph: Graph) -> Graph:
        shown = _agreed({(node, i): plain for node in graph.nodes if isinstance(node.op, AttentionOp)
                         for i in (KEYS, VALUES) if (plain := _unhidden(node.inputs[i], node)) is not None}, graph)
        gradients = {node: v for node in graph.nodes if (v := _gradient_of(node, shown)) is not None}

        def made(w: Rewriter, node: Node) -> Sequence[Value]:
            if node in gradients:
                return [w[gradients[node]]]
            hides = isinstance(node.op, AttentionGrad) or (node, VALUES) in shown
            op = node.op.replace(hides_values=True) if hides else node.op
            return w.apply(op, [w[shown.get((node, i), v)] for i, v in enumerate(node.inputs)])
        return rewritten(graph, {node for node, _ in shown} | gradients.keys(), made)


def _agreed(shown: Shown, graph: Graph) -> Shown:
    """Those operands, and what each is without its zeros, that all who read them can do without; a gradient without
    those of its keys and of its values, or of neither."""
    readers, results = users(graph), set(graph.results)

    def agrees(node: Node, operand: int) -> bool:
        v = node.inputs[operand]
        places = [(reader, i) for reader in readers[v] for i, w in enumerate(reader.inputs) if w is v]
        if isinstance(node.op, AttentionGrad):
            places += [(node, KEYS), (node, VALUES)]
        return v not in results and all(place in shown for place in places)
    while len(kept := {place: v for place, v in shown.items() if agrees(*place)}) < len(shown):
        shown = kept
    return shown


def _gradient_of(node: Node, shown: Shown) -> Value | None:
    """What the node gives: the gradient of keys or values that are hidden in its gradient already."""
    if node.op != WHERE:
        return None
    gradient = node.inputs[1]
    place = next((i for i in (KEYS, VALUES) if gradient.node is not None and (gradient.node, i) in shown
                  and isinstance(gradient.node.op, AttentionGrad) and gradient.node.outputs[i] is gradient), None)
    return None if place is None or gradient.node is None else _unhidden(node.outputs[0], gradient.node)


def _unhidden(v: Value, attention: Node) -> Value | None:
    """What v is where the mask of `attention` shows it, if v is 0 elsewhere and the mask is that of all queries."""
    if len(attention.inputs) <= MASK or attention.inputs[MASK].type.dtype != bool_:
        return None
    made, mask = v.node, attention.inputs[MASK]
    if made is None or made.op != WHERE or mask.type.rank < 2 or mask.type.shape[-2] != 1:
        return None
    seen, given, zero = made.inputs
    column = (*mask.type.shape[:-2], mask.type.shape[-1], 1)
    plain = seen.type.shape == column and _source(seen) is _source(mask) and given.type == v.type
    return given if plain and _is_zero(zero) else None


def _is_zero(v: Value) -> bool:
    return v.node is not None and isinstance(v.node.op, Constant) and not v.node.op.value.array.any()


def _source(v: Value) -> Value:
    """What it shows all elements of, in the same order."""
    while v.node is not None and isinstance(v.node.op, (Reshape, Slice)) and v.node.inputs[0].type.size == v.type.size:
        v = v.node.inputs[0]
    return v
