"""Which values depend on which: shared by differentiation and by the passes over loops."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.graph import Node, Value


def float_dependents(nodes: Sequence[Node], roots: Iterable[Value]) -> set[Value]:
    """The roots and the float values that depend on them through floats: where gradients can flow."""
    reach = set(roots)
    for node in nodes:
        if any(v in reach for v in node.inputs):
            reach.update(v for v in node.outputs if v.type.dtype.is_float)
    return reach


def dependents(nodes: Sequence[Node], roots: Iterable[Value]) -> set[Value]:
    """The roots and all values that depend on them."""
    reach = set(roots)
    for node in nodes:
        if any(v in reach for v in node.inputs):
            reach.update(node.outputs)
    return reach


def live_nodes(nodes: Sequence[Node], results: Iterable[Value]) -> list[Node]:
    """The nodes that lead to `results`, in their order."""
    live, kept = set(results), []
    for node in reversed(nodes):
        if any(v in live for v in node.outputs):
            kept.append(node)
            live.update(node.inputs)
    return kept[::-1]
