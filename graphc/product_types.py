"""Products of rounded factors: `compute=` of gc.compile, gc.plan and gc.train_step."""
from __future__ import annotations

from dataclasses import replace

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Node, Value, regions
from graphc.ir.op import Op
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.types import DType, bf16, f32


def compute_name(compute: object) -> str | None:
    """`compute=` as the name of a type. GraphError unless products can be computed in it."""
    name = compute.name if isinstance(compute, DType) else compute
    if name is None or name == bf16.name:
        return name
    raise GraphError(f"compute= takes products of factors rounded to bf16, got {shown(compute)}", user_loc())


def computing(function: GraphFunction, compute: str | None) -> GraphFunction:
    """The function with the f32 factors of its products (matmul, einsum: linear and recurrent layers, and attention
    that is written with them) rounded to bf16; sums stay f32. GraphError if it has none."""
    if compute is None:
        return function
    if not _has_products(function.graph):
        raise GraphError(f"compute={compute!r}: {function.name} has no product of f32 matrices (matmul, einsum)",
                         user_loc())
    return replace(function, graph=_rounded(function.graph))


def _has_products(graph: Graph) -> bool:
    return any(_is_product(node) or any(_has_products(body) for _, body in regions(node.op)) for node in graph.nodes)


def _is_product(node: Node) -> bool:
    return isinstance(node.op, LabelledProduct) and all(v.type.dtype is f32 for v in (*node.inputs, *node.outputs))


def _rounded(graph: Graph) -> Graph:
    """The graph, whose products read what their factors are in bf16; loops and branches likewise. Gradients of one's
    own (custom_vjp) have been inlined, or belong to a function that is not differentiated here."""
    w = Rewriter(graph)
    for node in graph.nodes:
        with w.at(node.loc, node.scope):
            if _is_product(node):
                w.replace(node, w.apply(node.op, [_round(w, w[v]) for v in node.inputs]))
            else:
                bodies = {} if isinstance(node.op, CustomVjp) else dict(regions(node.op))
                inner = {name: _rounded(body) for name, body in bodies.items() if _has_products(body)}
                w.keep(node, node.op.replace(**inner) if inner else None)
    return w.done()


def _round(w: Rewriter, v: Value) -> Value:
    """v as it is after rounding. What a view shows is rounded where it lies: a weight that is read transposed, or
    repeated, stays as it is in memory."""
    views: list[Op] = []
    while v.node is not None and v.node.op.is_whole_view:
        views.append(v.node.op)
        v, = v.node.inputs
    v = w.cast(w.cast(v, dtype=bf16), dtype=f32)
    for op in reversed(views):
        v, = w.apply(op, (v,))
    return v
