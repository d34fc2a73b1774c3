"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.ir.dims import Poly, evaluate
from graphc.ir.ops import embedding_gradients, index, scatter, shape
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.machine import Machine
from graphc.schedule.open_sizes import alone, busy_sizes
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
    values = busy_sizes(rows.sizes, machine.scalar_element_cycles / lanes, machine)
    count, lane, repeat = (evaluate(n, values) for n in (rows.count, rows.lane, rows.repeat))
    row = max(machine.scalar_element_cycles * repeat * -(-lane // lanes), 1.0)
    total, cores, is_open = row * count, machine.planned_cores, any(isinstance(n, Poly) for n in rows.sizes)
    cycles = machine.tile_cycles(total)
    tile = max(1, int((min(cycles, machine.short_tile_cycles) if is_open else cycles) / row))
    few = alone(rows.count, row, machine)
    yield Candidate("one thread", PlainSchedule(tile, True, lanes, inplace), (("work", total),))
    last = min(tile, count) * row * (1 - 1 / cores)
    yield Candidate("tiles of rows", PlainSchedule(tile, False, lanes, inplace, alone=few), (
        ("work", total / cores), ("hand-over", machine.handover_cycles), ("last tile", last)))
