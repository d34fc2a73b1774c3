"""The function of a contraction: its views, padded copies of operands, then the loops of each phase."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.codegen.loops.builder import LoopFunction, View
from graphc.codegen.lower.contraction.direct import DirectContraction
from graphc.codegen.lower.contraction.dots import DotContraction
from graphc.codegen.lower.contraction.matrix import MatrixContraction
from graphc.codegen.lower.contraction.narrow import NarrowContraction
from graphc.codegen.lower.contraction.outputs import flat
from graphc.codegen.lower.contraction.padded_copy import pad_copy
from graphc.codegen.lower.contraction.phase import (
    AnyEpilogue, BlockCodes, ContractionViews, PhaseLowering, part_of_scratch)
from graphc.codegen.lower.contraction.plain import PlainContraction
from graphc.codegen.lower.contraction.regimes import RowsContraction
from graphc.codegen.lower.contraction.shifted import ShiftedContraction
from graphc.codegen.lower.contraction.streamed import StreamedContraction
from graphc.codegen.lower.contraction.tiled import TiledContraction
from graphc.ir.ops.blocks import BlockProduct
from graphc.schedule.contraction_schedule import (
    ContractionSchedule, DotSchedule, LaneSchedule, LoopSchedule, MatrixSchedule, NarrowSchedule, RowsSchedule,
    ShiftedSchedule, StreamSchedule, TileSchedule)
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

LOWERINGS: dict[type, type[PhaseLowering[Any]]] = {
    TileSchedule: TiledContraction, MatrixSchedule: MatrixContraction, StreamSchedule: StreamedContraction,
    DotSchedule: DotContraction, LaneSchedule: DirectContraction, NarrowSchedule: NarrowContraction,
    LoopSchedule: PlainContraction, RowsSchedule: RowsContraction, ShiftedSchedule: ShiftedContraction}


def lower_contraction(ins: Sequence[ViewType], outs: Sequence[ViewType], schedule: ContractionSchedule, target: Target,
                      epilogue: AnyEpilogue = None, name: str = "contract") -> LoopFunction:
    """A function of the views ins = [a, b, *extra], outs, and (if the schedule has these) 1-D views for the prepacked
    operand and for shared scratch.

    The epilogue gets each finished vector of sums and gives what is stored, one value for each out; without one the
    only out is the sum. An out may have exactly the memory of an extra input, never that of a or b.
    """
    f = LoopFunction(name)
    inputs = [f.view(f"in{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(ins)]
    outputs = tuple([f.view(f"out{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(outs)])
    dtype = schedule.dtype
    prepacked = (f.view("packed", schedule.packed_dtype or dtype, (schedule.packed_size,)) if schedule.packed_size != 0
                 else None)
    shared = _shared(f, schedule)
    a, b = _operands(f, inputs, schedule, shared, target)
    views = ContractionViews(a, b, outputs, shared, prepacked)
    return _run(f, schedule, views, target, epilogue)


def lower_block_product(ins: Sequence[ViewType], outs: Sequence[ViewType], schedule: ContractionSchedule,
                        target: Target, op: BlockProduct, epilogue: AnyEpilogue, name: str) -> LoopFunction:
    """The same of the views ins = [x, codes, scale, perhaps minimum, *extra]; nothing is prepacked."""
    f = LoopFunction(name)
    inputs = [f.view(f"in{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(ins)]
    outputs = tuple([f.view(f"out{i}", v.dtype, v.shape, v.strides) for i, v in enumerate(outs)])
    x, codes, *scales = [flat(f, view) for view in inputs[:schedule.operands]]
    source = BlockCodes(op, codes, tuple(scales), target)
    views = ContractionViews(x, codes, outputs, _shared(f, schedule), None, source)
    return _run(f, schedule, views, target, epilogue)


def _shared(f: LoopFunction, schedule: ContractionSchedule) -> View | None:
    return f.view("shared", schedule.dtype, (schedule.shared_scratch,)) if schedule.shared_scratch != 0 else None


def _run(f: LoopFunction, schedule: ContractionSchedule, views: ContractionViews, target: Target,
         epilogue: AnyEpilogue = None) -> LoopFunction:
    """The function with the loops of all phases."""
    for number, part in enumerate(schedule.phases):
        LOWERINGS[type(part)](f, schedule, number, views, target.has_fma, epilogue).run()
    return f


def lower_packing(operand: ViewType, schedule: ContractionSchedule, target: Target, name: str) -> LoopFunction:
    """A function of two views: operand `schedule.prepacked`, and where it is packed for kernels of that schedule."""
    f = LoopFunction(name)
    source = flat(f, f.view("operand", operand.dtype, operand.shape, operand.strides))
    views = ContractionViews(source, source, prepacked=f.view("packed", operand.dtype, (schedule.packed_size,)))
    LOWERINGS[type(schedule.phases[0])](f, schedule, 0, views, target.has_fma).prepack()
    return f


def _operands(f: LoopFunction, inputs: Sequence[View], schedule: ContractionSchedule, shared: View | None,
              target: Target) -> list[View]:
    """The memory that the phases read as flat views: the operands themselves, or padded copies made here."""
    form = schedule.form
    operands = [inputs[1], inputs[0]] if form.swap else list(inputs[:2])
    flattened = []
    for operand, copy, at in zip(operands, form.copies, schedule.copies):
        if copy is None:
            flattened.append(flat(f, operand))
        else:
            memory = part_of_scratch(shared, at, copy.size)
            memory = memory.seen_as(operand.dtype) if operand.dtype.is_packed else memory
            flattened.append(pad_copy(f, operand, copy, memory, target.lanes(schedule.dtype.itemsize)))
    return flattened
