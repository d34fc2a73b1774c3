"""What sums across rows cost beside their elements: what they are made from, and what is fetched in vain."""
from __future__ import annotations

from graphc.ir.graph import Node
from graphc.schedule.loop_nest import Nest
from graphc.schedule.target import LINE_BYTES

COLUMN_LOSS = 128               # bytes that are fetched in vain behind a piece of a row, at most as many as it has


def crossing_sources(nest: Nest) -> set[Node]:
    """What crossing sums are made from, and these."""
    found, read = set(nest.crossing), {v for n in nest.crossing for v in n.inputs}
    for node in reversed(nest.body.nodes):
        if read.intersection(node.outputs):
            found.add(node)
            read.update(node.inputs)
    return found


def lost_bytes(extent: int, lanes: int, size: int) -> float:
    """Behind a piece of a row of so many elements of `size` bytes, in the mean of all: as much as a piece has, and no
    more than is between two."""
    pieces, rest = divmod(extent, lanes)
    parts = [lanes] * pieces + [rest] * bool(rest)
    return sum(min(COLUMN_LOSS, max(n * size, LINE_BYTES), (extent - n) * size) for n in parts) / len(parts)
