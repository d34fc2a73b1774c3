"""From operators to loop functions: one table by operator class.

schedule/choose.py has a table with the same rows, from the operator to what chooses its schedule.
"""
from __future__ import annotations

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.lower import attention, blocks, cumulative, factor, index, movement, sort, window, winograd
from graphc.codegen.lower.contraction.epilogue import epilogue_of
from graphc.codegen.lower.contraction.lowering import lower_contraction
from graphc.codegen.lower.nest import lower_nest
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.errors import InternalError
from graphc.ir.op import Op
from graphc.ir.ops.fused import core_of
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.kernel_families import CONTRACTIONS, NESTS
from graphc.schedule.schedule import Schedule

def lower(request: KernelRequest[Schedule, Op]) -> LoopFunction:
    """The loop function of a node: view parameters are its inputs, its outputs, its shared scratch; an i64 parameter
    "node" comes last if it checks indices. Depends on nothing but the request, and not on the node's identity.

    InternalError if the operator has no row in `LOWERINGS`.
    """
    op = core_of(request.node).op
    lowering = LOWERINGS.get(type(op))
    if lowering is None:
        raise InternalError(f"no lowering of operator {op.name}; it needs a row in graphc/codegen/lower/__init__.py",
                            "lower")
    return lowering(request)


def function_needs_node_id(f: LoopFunction) -> bool:
    """Whether the caller passes the number under which the function reports bad indices."""
    return any(p.name == "node" for p in f.params)


def _contraction(r: KernelRequest[ContractionSchedule, Op]) -> LoopFunction:
    return lower_contraction(r.ins, r.outs, r.schedule, r.target, epilogue_of(r), r.function_name)


LOWERINGS: dict[type[Op], Lowering] = {
    **dict.fromkeys(NESTS, lower_nest), **dict.fromkeys(CONTRACTIONS, _contraction),
    **index.LOWERINGS, **movement.LOWERINGS, **cumulative.LOWERINGS, **sort.LOWERINGS, **window.LOWERINGS,
    **factor.LOWERINGS, **winograd.LOWERINGS, **attention.LOWERINGS, **blocks.LOWERINGS,
}
