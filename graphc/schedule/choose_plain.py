"""Chooses tiles for operators with a loop structure of their own."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Node
from graphc.ir.ops import embedding_gradients, index, shape
from graphc.schedule.parallel_rows import rows_of
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

UPDATES = (index.ScatterAdd, embedding_gradients.AddRows, index.ScatterAddAlongAxis, shape.DynamicUpdateSlice)     # the first operand, changed in places
ELEMENT_NS = 0.8                    # one element of a scalar loop
TILE_NS = 25_000                    # work in one tile
SHORT_TILE_NS = 3_000               # least work in a tile of a small kernel, which has about TILES tiles: a thread waits for others as long as a tile takes
TILES = 16
SERIAL_NS = 15_000                  # less work than this is not worth waking other threads


def plain_schedule(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], target: Target) -> PlainSchedule:
    """A pure function of shapes, strides and target."""
    rows = rows_of(node, ins, outs)
    itemsize = max(v.dtype.itemsize for v in (ins[0], *outs))
    lanes = target.lanes(itemsize) if rows.vector else 1
    row_ns = max(ELEMENT_NS * rows.repeat * -(-rows.lane // lanes), 1.0)
    serial = row_ns * rows.count < SERIAL_NS
    inplace = ((0, 0),) if type(node.op) in UPDATES and ins[0] == outs[0] else ()
    return PlainSchedule(max(1, int(tile_ns(row_ns * rows.count) / row_ns)), serial, lanes, inplace)


def tile_ns(total_ns: float) -> float:
    """Work of one tile, of so much in all."""
    return min(TILE_NS, max(SHORT_TILE_NS, total_ns / TILES))
