"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphc.ir.graph import Node
from graphc.ir.ops import embedding_gradients, index, shape
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.machine import Machine
from graphc.schedule.parallel_rows import Rows, rows_of
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

# the first operand, changed in places
UPDATES = (index.ScatterAdd, embedding_gradients.AddRows, index.ScatterAddAlongAxis, shape.DynamicUpdateSlice)


def plain_schedule(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target) -> PlainSchedule:
    """A pure function of shapes, strides and target."""
    rows = rows_of(node, ins, outs)
    itemsize = max(v.dtype.itemsize for v in (ins[0], *outs))
    lanes = target.lanes(itemsize) if rows.vector else 1
    inplace = ((0, 0),) if type(node.op) in UPDATES and ins[0] == outs[0] else ()
    ranking = ranked(_candidates(rows, lanes, inplace, target.machine))
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
