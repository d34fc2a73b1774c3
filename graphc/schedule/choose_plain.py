"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.ir.dims import Poly, evaluate
from graphc.ir.op import Op
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.in_place import UPDATES
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.machine import Machine
from graphc.schedule.open_sizes import alone, busy_sizes
from graphc.schedule.parallel_rows import Rows, rows_of, rows_of_update
from graphc.schedule.plain_schedule import PlainSchedule


def plain_schedule(p: KernelProblem[Op]) -> PlainSchedule:
    """A pure function of shapes, strides and target."""
    whole = _of_rows(p, rows_of(p.node, p.ins, p.outs))
    if type(p.node.op) not in UPDATES or p.ins[0] != p.outs[0]:
        return whole
    return replace(whole, in_place=replace(_of_rows(p, rows_of_update(p.node, p.ins, p.outs)), aliased=True))


def _of_rows(p: KernelProblem[Op], rows: Rows) -> PlainSchedule:
    itemsize = max(v.dtype.itemsize for v in (p.ins[0], *p.outs))
    ranking = ranked(_candidates(rows, p.target.lanes(itemsize) if rows.vector else 1, p.target.machine))
    return replace(ranking.best.schedule, ranking=ranking)


def _candidates(rows: Rows, lanes: int, machine: Machine) -> Iterator[Candidate[PlainSchedule]]:
    values = busy_sizes(rows.sizes, machine.scalar_element_cycles / lanes, machine)
    count, lane, repeat = (evaluate(n, values) for n in (rows.count, rows.lane, rows.repeat))
    row = max(machine.scalar_element_cycles * repeat * -(-lane // lanes), 1.0)
    total, cores, is_open = row * count, machine.planned_cores, any(isinstance(n, Poly) for n in rows.sizes)
    cycles = machine.tile_cycles(total)
    tile = max(1, int((min(cycles, machine.short_tile_cycles) if is_open else cycles) / row))
    few = alone(rows.count, row, machine)
    yield Candidate("one thread", PlainSchedule(tile, True, lanes), (("work", total),))
    last = min(tile, count) * row * (1 - 1 / cores)
    yield Candidate("tiles of rows", PlainSchedule(tile, False, lanes, alone=few), (
        ("work", total / cores), ("hand-over", machine.handover_cycles), ("last tile", last)))
