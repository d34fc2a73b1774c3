"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.ir.ops import embedding_gradients, index, scatter, shape
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.machine import Machine
from graphc.schedule.parallel_rows import Rows, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

# the first operand, changed in places
UPDATES = (index.ScatterAdd, embedding_gradients.AddRows, index.ScatterAddAlongAxis, scatter.Scatter,
           scatter.ScatterAlongAxis, shape.DynamicUpdateSlice)


def plain_schedule(p: KernelProblem) -> PlainSchedule:
    """A pure function of shapes, strides and target."""
    rows = rows_of(p.node, p.ins, p.outs)
    itemsize = max(v.dtype.itemsize for v in (p.ins[0], *p.outs))
    lanes = p.target.lanes(itemsize) if rows.vector else 1
    inplace = ((0, 0),) if type(p.node.op) in UPDATES and p.ins[0] == p.outs[0] else ()
    ranking = ranked(_candidates(rows, lanes, inplace, p.target.machine))
    return replace(ranking.best.schedule, ranking=ranking)


def _candidates(
    rows: Rows, lanes: int, inplace: tuple[tuple[int, int], ...], machine: Machine
) -> Iterator[Candidate[PlainSchedule]]:
    row = max(machine.scalar_element_cycles * rows.repeat * -(-rows.lane // lanes), 1.0)
    total, cores = row * rows.count, machine.planned_cores
    tile = max(1, int(machine.tile_cycles(total) / row))
    yield Candidate("one thread", PlainSchedule(tile, True, lanes, inplace), (("work", total),))
    last = min(tile, rows.count) * row * (1 - 1 / cores)
    yield Candidate("tiles of rows", PlainSchedule(tile, False, lanes, inplace), (
        ("work", total / cores), ("hand-over", machine.handover_cycles), ("last tile", last)))
