"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from graphc.ir.ops import embedding_gradients, index, shape
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.parallel_rows import rows_of
from graphc.schedule.plain_schedule import PlainSchedule

UPDATES = (index.ScatterAdd, embedding_gradients.AddRows, index.ScatterAddAlongAxis, shape.DynamicUpdateSlice)     # the first operand, changed in places
ELEMENT_NS = 0.8                    # one element of a scalar loop
TILE_NS = 25_000                    # work in one tile
SHORT_TILE_NS = 3_000               # least work in a tile of a small kernel, which has about TILES tiles: a thread waits for others as long as a tile takes
TILES = 16
SERIAL_NS = 15_000                  # less work than this is not worth waking other threads


def plain_schedule(p: KernelProblem) -> PlainSchedule:
    """A pure function of shapes, strides and target."""
    rows = rows_of(p.node, p.ins, p.outs)
    itemsize = max(v.dtype.itemsize for v in (p.ins[0], *p.outs))
    lanes = p.target.lanes(itemsize) if rows.vector else 1
    row_ns = max(ELEMENT_NS * rows.repeat * -(-rows.lane // lanes), 1.0)
    serial = row_ns * rows.count < SERIAL_NS
    inplace = ((0, 0),) if type(p.node.op) in UPDATES and p.ins[0] == p.outs[0] else ()
    return PlainSchedule(max(1, int(tile_ns(row_ns * rows.count) / row_ns)), serial, lanes, inplace)


def tile_ns(total_ns: float) -> float:
    """Work of one tile, of so much in all."""
    return min(TILE_NS, max(SHORT_TILE_NS, total_ns / TILES))
