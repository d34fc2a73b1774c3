"""Chooses how elements at positions that an array holds are changed: how many columns go together, and in which
tiles."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from graphc.ir.dims import Dim, typical
from graphc.ir.ops.embedding_gradients import AddRows
from graphc.ir.ops.index import ScatterAdd, ScatterAddAlongAxis
from graphc.ir.ops.scatter import Scatter, ScatterAlongAxis
from graphc.schedule.choose_move import copy_schedule
from graphc.schedule.choose_plain import tiled
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.parallel_rows import CHUNK, Rows, unit_stride
from graphc.schedule.scatter_schedule import ScatterSchedule, column_count, scatter_rows

WholeRows = ScatterAdd | Scatter | AddRows          # at a position along the axis are all columns of an update
AlongAxis = ScatterAddAlongAxis | ScatterAlongAxis  # each column has positions of its own
WIDER = 1, 4, 16                # times CHUNK, columns of a row
POSITION_CYCLES = 8             # of a position that is loaded and checked, and the loop over its columns
CHANGE_CYCLES = 2               # of a vector that is loaded, changed and stored
ELEMENT_CYCLES = 4              # of an element with a position of its own


def scatter_schedule(p: KernelProblem[WholeRows | AlongAxis]) -> ScatterSchedule:
    """A pure function of shapes, strides and target."""
    ranking = ranked(_candidates(p))
    base = copy_schedule(p.ins[0], p.outs[0], p.target)
    schedule = replace(ranking.best.schedule, base=base, ranking=ranking)
    return replace(schedule, in_place=replace(schedule, aliased=True)) if p.ins[0] == p.outs[0] else schedule


def _candidates(p: KernelProblem[WholeRows | AlongAxis]) -> Iterator[Candidate[ScatterSchedule]]:
    op, out, (_, idx, updates) = p.core.op, p.outs[0], p.ins
    columns, along = column_count(out, op.axis), isinstance(op, AlongAxis)
    vector = not along and columns != 1 and unit_stride(-1, out, updates)
    lanes = p.target.lanes(out.dtype.itemsize) if vector else 1
    repeat: Dim = idx.shape[op.axis] if along else prod(idx.shape)
    widths = [CHUNK * k for k in WIDER if k == 1 or CHUNK * k < 4 * typical(columns)]
    for chunk in widths if columns != 1 else (1,):
        each = min(chunk, typical(columns))
        row = each * ELEMENT_CYCLES if along else POSITION_CYCLES + CHANGE_CYCLES * -(-each // lanes)
        rows = Rows(scatter_rows(out, op.axis, chunk), repeat=repeat)
        cycles = max(row * typical(repeat), 1.0)
        yield from tiled(f"{each} columns", ScatterSchedule(lanes=lanes, chunk=chunk), rows, cycles, p.target.machine)
