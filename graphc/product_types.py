"""Products of rounded factors: `compute=` of gc.compile, gc.plan and gc.train_step."""
from __future__ import annotations

from dataclasses import replace

from graphc.codegen.llvm.host import host_target
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
from graphc.quantized_products import NO_INSTRUCTIONS, Calibration, ProductQuantizer

INT8 = "int8"
MOST_SHOWN = 8                      # products in an error
Compute = str | Calibration | None


def compute_kind(compute: object) -> Compute:
    """`compute=` as the name of a type, or ranges for integers. GraphError unless products can be computed so."""
    if isinstance(compute, Calibration):
        return compute
    name = compute.name if isinstance(compute, DType) else compute
    if name is None or isinstance(name, str) and name in (bf16.name, INT8):
        return name
    raise GraphError(f"compute= takes {bf16.name!r}, products of factors rounded to bf16, or {INT8!r}, products of "
                     f"8-bit integers, got {shown(compute)}", user_loc())


def training_compute(compute: object) -> str | None:
    """`compute=` of a training step. GraphError for the ranges of a calibration, which are of weights as they were."""
    kind = compute_kind(compute)
    if isinstance(kind, Calibration):
        raise GraphError(f"a calibration is of a network that is trained: compute={INT8!r} of a training step rounds "
                         "by the largest number of each row", user_loc())
    return kind


def training_in(function: GraphFunction, compute: str | None) -> GraphFunction:
    """A whole training step in this type; for integers the trace has rounded the factors (`quantisation_aware`)."""
    return _in_bf16(function) if compute == bf16.name else function


def computing(function: GraphFunction, compute: Compute) -> tuple[GraphFunction, ProductQuantizer | None]:
    """The function with the f32 factors of its products (matmul, einsum: linear and recurrent layers, and attention
    that is written with them) rounded to bf16; sums stay f32. Of integers: with products by weights, convolutions too,
    as `quantized_products` makes them, and what made them. GraphError if it has none."""
    if compute is None or compute == bf16.name:
        return (function if compute is None else _in_bf16(function)), None
    quantizer = ProductQuantizer(host_target(), compute.ranges if isinstance(compute, Calibration) else {})
    graph = quantizer.whole(function.graph)
    if all(p.why_not and p.why_not != NO_INSTRUCTIONS for p in quantizer.found):
        reasons = "".join(f"\n  {p.name}: {p.why_not}" for p in quantizer.found[:MOST_SHOWN])
        raise GraphError(f"compute={INT8!r}: {function.name} has no product by weights that would be one of 8-bit "
                         f"integers{reasons}", user_loc())
    strange = sorted(quantizer.fixed.keys() - {p.name for p in quantizer.found})
    if strange:
        raise GraphError(f"compute= is a calibration of another network: {function.name} has no product "
                         f"{strange[0]!r}", user_loc())
    return replace(function, graph=graph), quantizer


def _in_bf16(function: GraphFunction) -> GraphFunction:
    compute = bf16.name
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
