"""Contractions as nodes of a graph, alone or with an epilogue."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.lower.contraction.epilogue import Epilogue, GateEpilogue
from graphc.codegen.lower.contraction.lowering import lower_contraction
from graphc.codegen.lower.contraction.phase import AnyEpilogue
from graphc.codegen.lower.winograd import lower_winograd
from graphc.codegen.lower.winograd_grad import lower_weight_grad
from graphc.errors import InternalError
from graphc.ir.graph import Node
from graphc.ir.ops.fused import contraction_in, slices_in
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

WINOGRAD = {WinogradConv2d: lower_winograd, WinogradWeightGrad: lower_weight_grad}
Views = Sequence[ViewType]


def lower_contraction_node(name: str, node: Node, ins: Views, outs: Views, schedule, target: Target) -> LoopFunction:
    """A contraction alone."""
    return _lower(node, ins, outs, schedule, target, None, name)


def lower_contraction_cluster(name: str, node: Node, ins: Views, outs: Views, schedule, target: Target) -> LoopFunction:
    """A contraction with its epilogue. The first two inputs of the body are the contraction's operands."""
    body = node.op.body
    inner = contraction_in(body)
    if inner.inputs != body.inputs[:2]:
        raise InternalError("operands of a contraction come first among the inputs of its cluster", "lower", repr(node))
    epilogue = GateEpilogue if slices_in(body) else Epilogue
    return _lower(inner, ins, outs, schedule, target, epilogue(body, inner, tuple(ins)), name)


def _lower(inner: Node, ins: Views, outs: Views, schedule, target: Target, epilogue: AnyEpilogue,
           name: str) -> LoopFunction:
    rule = WINOGRAD.get(type(inner.op))
    if rule is not None:
        return rule(inner, ins, outs, schedule, target, epilogue, name)
    return lower_contraction(ins, outs, schedule, target, epilogue, name)
