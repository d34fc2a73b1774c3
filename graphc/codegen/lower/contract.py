"""Contractions to loops: matrix products, einsums, convolutions and both of their gradients, by one set of loops.

    padded copies of operands, where indices reach outside          (contract_pad)
    for each phase: pack what is packed once                        (contract_shared, contract_pack)
    tiles of the output, in parallel; in each, blocks of the sum    (contract_tile, contract_tiles)
    each register tile: its sums into scratch                       (contract_register, contract_source, contract_ahead, micro)
    then a sweep over them: epilogue and store                      (contract_finish, contract_sweep)
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.loops.builder import LoopFunction, View
from graphc.codegen.lower.contract_dots import lower_dots, lower_plain
from graphc.codegen.lower.contract_job import Epilogue, Job
from graphc.codegen.lower.contract_lanes import lower_lanes, pack_factors
from graphc.codegen.lower.contract_pad import pad_copy
from graphc.codegen.lower.contract_shared import pack_shared
from graphc.codegen.lower.contract_small import lower_narrow
from graphc.codegen.lower.contract_sweep import load_along
from graphc.codegen.lower.contract_tiles import lower_tiles
from graphc.ir.contraction import Contraction
from graphc.schedule.contraction_schedule import (
    ContractionSchedule, DotSchedule, LaneSchedule, LoopSchedule, NarrowSchedule, TileSchedule)
from graphc.schedule.target import Target

__all__ = ["lower_contraction", "lower_packing", "load_along", "Epilogue"]

LOWERINGS: dict[type, Callable[[Job], None]] = {TileSchedule: lower_tiles, DotSchedule: lower_dots, LaneSchedule: lower_lanes,
                                                NarrowSchedule: lower_narrow, LoopSchedule: lower_plain}
PACKINGS: dict[type, Callable[[Job, str], None]] = {TileSchedule: pack_shared, LaneSchedule: pack_factors}


def lower_contraction(c: Contraction, ins: Sequence, outs: Sequence, schedule: ContractionSchedule, target: Target,
                      epilogue: Epilogue | None = None, name: str = "contract") -> LoopFunction:
    """A function of the views ins = [a, b, *extra], outs, and (if the schedule has these) 1-D views for the prepacked operand and for
    shared scratch.

    ins and outs have dtype, shape, strides. The epilogue gets each finished vector of sums and gives what is stored, one value for
    each out; without one the only out is the sum. An out may have exactly the memory of an extra input, never that of a or b.
    """
    f = LoopFunction(name)
    inputs = [f.view(f"in{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(ins)]
    outputs = [f.view(f"out{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(outs)]
    ready = f.view("packed", ins[0].dtype, (schedule.packed_size,)) if schedule.packed_size else None
    shared = f.view("shared", ins[0].dtype, (schedule.shared_scratch,)) if schedule.shared_scratch else None
    operands = _operands(f, inputs, schedule, shared, target)
    for number, (phase, part) in enumerate(zip(schedule.form.phases, schedule.phases)):
        LOWERINGS[type(part)](Job(f, schedule, number, phase, part, operands[0], operands[1], tuple(outputs), shared, ready, epilogue, target.has_fma))
    return f


def lower_packing(operand, schedule: ContractionSchedule, target: Target, name: str) -> LoopFunction:
    """A function of two views: the operand `schedule.prepacked`, and where it is packed for kernels of that schedule."""
    f = LoopFunction(name)
    source = f.view("operand", operand.dtype, operand.shape, operand.strides)
    ready = f.view("packed", operand.dtype, (schedule.packed_size,))
    flat = f.reinterpret(source, (_extent(source),), (1,))
    job = Job(f, schedule, 0, schedule.form.phases[0], schedule.phases[0], flat, flat, (), None, ready, None, target.has_fma)
    PACKINGS[type(job.schedule)](job, schedule.ready)
    return f


def _operands(f: LoopFunction, inputs: Sequence[View], schedule: ContractionSchedule, shared: View | None, target: Target) -> list[View]:
    """The memory that the phases read as flat views: the operands themselves, or padded copies made here."""
    form = schedule.form
    operands = [inputs[1], inputs[0]] if form.swap else list(inputs[:2])
    flat = []
    for operand, copy, at in zip(operands, form.copies, schedule.copies):
        if copy is None:
            flat.append(f.reinterpret(operand, (_extent(operand),), (1,)))
        else:
            flat.append(pad_copy(f, operand, copy, shared.view_at([at], (copy.size,)), target.lanes(operand.dtype.itemsize)))
    return flat


def _extent(view: View) -> int:
    return 1 + sum(s * (n - 1) for n, s in zip(view.shape, view.strides)) if 0 not in view.shape else 0
