"""A node as the body of a cluster, whether it is one or not: a single operator then runs as a loop nest of its own."""
from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.fused import Fused


def cluster_of(node: Node) -> Graph:
    """The body of a fused node; of another node a body that holds just this operator."""
    return node.op.body if isinstance(node.op, Fused) else _single(node)


def _single(node: Node) -> Graph:
    """Its inputs are named x0, x1, …"""
    ins = tuple(Value(v.type, f"x{k}") for k, v in enumerate(node.inputs))
    inner = Node(node.op, ins, tuple(v.type for v in node.outputs), node.loc, node.scope)
    names = None if len(inner.outputs) == 1 else ("",) * len(inner.outputs)
    return Graph("body", ins, (inner,), inner.outputs, names)
