"""One operator as the body of a cluster, so that it runs as a loop nest of its own."""
from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value


def single(node: Node) -> Graph:
    """A body that holds just this operator, its inputs named x0, x1, …"""
    ins = tuple(Value(v.type, f"x{k}") for k, v in enumerate(node.inputs))
    inner = Node(node.op, ins, tuple(v.type for v in node.outputs), node.loc, node.scope)
    names = None if len(inner.outputs) == 1 else ("",) * len(inner.outputs)
    return Graph("body", ins, (inner,), inner.outputs, names)
