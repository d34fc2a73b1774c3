"""Products of rounded factors: `compute=` of gc.compile, gc.plan and gc.train_step."""
from __future__ import annotations

from dataclasses import replace

from graphc.bf16_products import NO_PAIRS, Bf16Products
from graphc.codegen.llvm.host import host_target
from graphc.dsl.context import user_loc
from graphc.dsl.debug import rewritten
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.types import DType, bf16
from graphc.product_rewriter import ProductRewriter
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
    if compute != bf16.name:
        return function
    function, rewriter = _in_bf16(function)
    return replace(function, remarks=rewriter.left)


def computing(function: GraphFunction, compute: Compute) -> tuple[GraphFunction, ProductRewriter | None]:
    """The function with the f32 factors of its products (matmul, einsum, convolutions, attention: linear and recurrent
    layers) rounded to bf16; sums stay f32. Of integers: with products by weights, as `quantized_products` makes them.
    And what made them. GraphError if it has none."""
    if compute is None:
        return function, None
    if compute == bf16.name:
        return _in_bf16(function)
    quantizer = ProductQuantizer(host_target(), fixed=compute.ranges if isinstance(compute, Calibration) else {})
    graph = quantizer.whole(function.graph)
    if all(p.why_not and p.why_not != NO_INSTRUCTIONS for p in quantizer.found):
        raise GraphError(f"compute={INT8!r}: {function.name} has no product by weights that would be one of 8-bit "
                         f"integers{_reasons(quantizer)}", user_loc())
    strange = sorted(quantizer.fixed.keys() - {p.name for p in quantizer.found})
    if strange:
        raise GraphError(f"compute= is a calibration of another network: {function.name} has no product "
                         f"{strange[0]!r}", user_loc())
    return replace(function, graph=graph), quantizer


def _in_bf16(function: GraphFunction) -> tuple[GraphFunction, ProductRewriter]:
    rounder = Bf16Products(host_target())
    made = rewritten(function, rounder.whole)
    if all(p.why_not and p.why_not != NO_PAIRS for p in rounder.found):
        raise GraphError(f"compute={bf16.name!r}: {function.name} has no product of f32 (matmul, einsum, convolution, "
                         f"attention) that would be one of bf16{_reasons(rounder)}", user_loc())
    return made, rounder


def _reasons(rewriter: ProductRewriter) -> str:
    return "".join(f"\n  {p.name}: {p.why_not}" for p in rewriter.found[:MOST_SHOWN])
