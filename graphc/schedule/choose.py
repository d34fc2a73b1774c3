"""How each kernel runs: one table, from the operator that decides it to what chooses its schedule.

codegen/lower/__init__.py has a table with the same rows, from the operator to its lowering.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from graphc.errors import InternalError
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.shape import Pad
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import DType
from graphc.schedule.choose_attention import attention_grad_schedule, attention_schedule
from graphc.schedule.choose_blocks import block_product_schedule
from graphc.schedule.choose_contraction import contraction_schedule
from graphc.schedule.choose_move import move_schedule
from graphc.schedule.choose_nest import nest_schedule
from graphc.schedule.choose_pad import pad_schedule
from graphc.schedule.choose_plain import plain_schedule
from graphc.schedule.choose_scatter import scatter_schedule
from graphc.schedule.choose_sort import sort_schedule
from graphc.schedule.choose_winograd import gradient_schedule, weights_schedule, winograd_schedule
from graphc.schedule.contraction_schedule import (
    ContractionSchedule, PhaseSchedule, RowsSchedule, TileSchedule)
from graphc.schedule.kernel_families import CONTRACTIONS, MOVES, NESTS, ROWS, SCATTERS, SORTS
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.loop_nest import nest_of_epilogue
from graphc.schedule.schedule import OPERANDS, Schedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides, view_bytes

Chooser = Callable[[KernelProblem[Any]], Schedule]


def schedule_node(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target,
                  invariant: Sequence[bool] = ()) -> Schedule:
    """The schedule of a node: a pure function of operator, views and target; `invariant` as in `KernelProblem`.

    InternalError if the operator has no row in `CHOOSERS`.
    """
    problem: KernelProblem[Op] = KernelProblem(node, tuple(ins), tuple(outs), target, tuple(invariant))
    op = problem.core.op
    choose = CHOOSERS.get(type(op))
    if choose is None:
        raise InternalError(f"nothing chooses a schedule of {op.name}; it needs a row in graphc/schedule/choose.py",
                            "schedule")
    return choose(problem)


def _contraction(p: KernelProblem[Op]) -> ContractionSchedule:
    inner, (a, b) = p.core, p.ins[:2]
    # with gates, the result lies nowhere
    strides = contiguous_strides(inner.outputs[0].type.shape) if p.gates else p.outs[0].strides
    x, y = inner.inputs
    contraction = inner.op.contraction(x.type, y.type)
    fixed_a, fixed_b = p.invariant[:2] or (False, False)
    dtype = inner.outputs[0].type.dtype
    schedule = contraction_schedule(contraction, a.shape, a.strides, b.shape, b.strides, strides, dtype, p.target,
                                    p.has_epilogue, (fixed_a, fixed_b), p.gates, (a.dtype, b.dtype), _together(p))
    schedule = replace(schedule, fetches=_fetches(p, schedule))
    packed = dtype if schedule.prepacked is None else (a, b)[schedule.prepacked].dtype
    return schedule if packed is dtype else _packed_as(schedule, packed)


def _fetches(p: KernelProblem[Op], schedule: ContractionSchedule) -> bool:
    """Whether prefetching a line that an epilogue reads or writes takes less than waiting for it where L2 has not kept
    it. Of gates there is another rule; without an epilogue stores do not wait; and micro-tiles of matrix registers are
    so few that it would come in bursts."""
    phases = [s for phase in schedule.phases
              for s in (phase.regimes if isinstance(phase, RowsSchedule) else (phase,))]
    if not p.has_epilogue or p.gates or not any(type(s) is TileSchedule for s in phases):
        return False
    views = (*p.ins[OPERANDS:], *p.outs)
    return p.target.machine.is_worth_fetching(sum(map(view_bytes, views)))


def _together(p: KernelProblem[Op]) -> int:
    """How many last axes of the results are one in all that the epilogue reads and writes; 0: it has no such ones."""
    if p.gates or not isinstance(p.node.op, Fused):
        return 0
    body, inner = p.node.op.body, p.core
    nest = nest_of_epilogue(body, inner.outputs, tuple([n for n in body.nodes if n is not inner]), p.ins)
    strides = contiguous_strides(inner.outputs[0].type.shape)
    counts = [n for n in range(2, len(strides) + 1) if all(isinstance(step, int) for step in strides[-n:])
              and nest.runs_together(strides[-n:]) and all(v.strides[-n:] == strides[-n:] for v in p.outs)]
    return max(counts, default=0)


def _packed_as(schedule: ContractionSchedule, packed: DType) -> ContractionSchedule:
    """The same, whose prepacked operand keeps the smaller type in which it is stored: fewer lines to prefetch."""
    def phase(p: PhaseSchedule) -> PhaseSchedule:
        if not isinstance(p, TileSchedule) or schedule.prepacked_role != "b":
            return p
        lines = [-(-n * packed.itemsize // schedule.dtype.itemsize) for n in (p.prefetch_lines, p.last_lines)]
        return replace(p, prefetch_lines=lines[0], last_lines=lines[1])
    return replace(schedule, packed_dtype=packed, phases=tuple(phase(p) for p in schedule.phases))


CHOOSERS: dict[type[Op], Chooser] = {
    **dict.fromkeys(NESTS, nest_schedule), **dict.fromkeys(ROWS, plain_schedule), **dict.fromkeys(MOVES, move_schedule),
    **dict.fromkeys(SCATTERS, scatter_schedule), Pad: pad_schedule,
    **dict.fromkeys(SORTS, sort_schedule), **dict.fromkeys(CONTRACTIONS, _contraction),
    WinogradConv2d: winograd_schedule, WinogradWeightGrad: gradient_schedule, WinogradWeights: weights_schedule,
    Attention: attention_schedule, AttentionGrad: attention_grad_schedule, BlockProduct: block_product_schedule,
}
