"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from graphc.ir.dims import Poly, evaluate, typical
from graphc.ir.op import Op
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.machine import Machine
from graphc.schedule.open_sizes import alone, busy_sizes
from graphc.schedule.parallel_rows import Rows, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

P = TypeVar("P", bound=PlainSchedule)


def plain_schedule(p: KernelProblem[Op]) -> PlainSchedule:
    """A pure function of shapes, strides and target."""
    rows = rows_of(p.node, p.ins, p.outs)
    itemsize = max(v.dtype.itemsize for v in (p.ins[0], *p.outs))
    ranking = ranked(_candidates(rows, p.target.lanes(itemsize) if rows.vector else 1, p.target.machine))
    return replace(ranking.best.schedule, ranking=ranking)


def _candidates(rows: Rows, lanes: int, machine: Machine) -> Iterator[Candidate[PlainSchedule]]:
    values = busy_sizes(rows.sizes, machine.scalar_element_cycles / lanes, machine)
    lane, repeat = (evaluate(n, values) for n in (rows.lane, rows.repeat))
    row = max(machine.scalar_element_cycles * repeat * -(-lane // lanes), 1.0)
    yield from tiled("", PlainSchedule(lanes=lanes), rows, row, machine)


def tiled(name: str, schedule: P, rows: Rows, row: float, machine: Machine) -> Iterator[Candidate[P]]:
    """The schedule with all rows, of so many cycles each, on one thread, and with tiles of them on several."""
    values = busy_sizes(rows.sizes, row / max(1, typical(rows.lane * rows.repeat)), machine)
    count, cores = evaluate(rows.count, values), machine.planned_cores
    total, is_open = row * count, any(isinstance(n, Poly) for n in rows.sizes)
    cycles = machine.tile_cycles(total)
    tile = max(1, int((min(cycles, machine.short_tile_cycles) if is_open else cycles) / row))
    few = alone(rows.count, row, machine)
    begin = f"{name}, " if name else ""
    yield Candidate(f"{begin}one thread", replace(schedule, tile=tile, serial=True), (("work", total),))
    last = min(tile, count) * row * (1 - 1 / cores)
    yield Candidate(f"{begin}tiles of rows", replace(schedule, tile=tile, serial=False, alone=few), (
        ("work", total / cores), ("hand-over", machine.handover_cycles), ("last tile", last)))
