"""From operators to loop functions: one table by operator class."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.lower import attention, attention_grad, cumulative, index, movement, sort, window
from graphc.codegen.lower.contraction.node import lower_contraction_cluster, lower_contraction_node
from graphc.codegen.lower.nest import lower_nest
from graphc.codegen.lower.winograd_weights import lower_weights
from graphc.errors import InternalError
from graphc.ir.graph import Node
from graphc.ir.ops import CLASSES
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.shape import Reshape
from graphc.ir.ops.winograd import WinogradWeights
from graphc.schedule.iteration_space import RULES
from graphc.schedule.single_op import single
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

Views = Sequence[ViewType]
Lowering = Callable[[str, Node, Views, Views, object, Target], LoopFunction]


def lower(node: Node, ins: Views, outs: Views, schedule, target: Target, name: str = "") -> LoopFunction:
    """The loop function of a node: view parameters are its inputs, its outputs, its shared scratch; an i64 parameter "node" comes
    last if it checks indices. Depends on nothing but its arguments, and not on the node's identity.
    """
    rule = LOWERINGS.get(type(node.op))
    if rule is None:
        raise InternalError(f"no lowering of operator {node.op.name}", "lower")
    return rule(name or node.op.name, node, ins, outs, schedule, target)


def function_needs_node_id(f: LoopFunction) -> bool:
    """Whether the caller passes the number under which the function reports bad indices."""
    return any(p.name == "node" for p in f.params)


def _nest(name: str, node: Node, ins: Views, outs: Views, schedule, target: Target) -> LoopFunction:
    return lower_nest(name, single(node), ins, outs, schedule)


def _fused(name: str, node: Node, ins: Views, outs: Views, schedule, target: Target) -> LoopFunction:
    return FUSED[node.op.kind](name, node, ins, outs, schedule, target)


FUSED: dict[str, Lowering] = {
    "nest": lambda name, node, ins, outs, schedule, target: lower_nest(name, node.op.body, ins, outs, schedule),
    "contraction": lower_contraction_cluster,
}

CONTRACTIONS = tuple(op for op in CLASSES if op.takes_epilogue)

LOWERINGS: dict[type, Lowering] = {
    **{op: _nest for op in RULES if op not in (Constant, Reshape)}, **dict.fromkeys(CONTRACTIONS, lower_contraction_node), Fused: _fused,
    **index.ROWS, **movement.ROWS, **cumulative.ROWS, **sort.ROWS, **window.ROWS,
    **attention.ROWS, **attention_grad.ROWS, WinogradWeights: lower_weights,
}
