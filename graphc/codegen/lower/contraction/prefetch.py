"""Software prefetch in a tile: before each micro-tile, of the part of the operands that the tile packs next."""
from __future__ import annotations


from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.tile import MicroTile, SumBlock, TiledPhase
from graphc.codegen.lower.ranges import Index, offset
from graphc.ir.dims import Dim
from graphc.records import dataclass
from graphc.schedule.contraction_form import LinearMap
from graphc.schedule.target import LINE_BYTES


@dataclass(frozen=True)
class PackedRun:
    """What a tile packs of an operand: for each step of k `length` elements of memory, from `start` on; the next tile's
    are `advance` after these.
    """
    memory: View
    linear: LinearMap[Dim]
    batch: Index
    start: Ix
    length: int
    advance: int


def has_next_block(c: TiledPhase) -> bool:
    """Whether a tile, or the one that follows it, packs a further block, of which it is known where it is."""
    return len(c.phase.k) == 1 and (c.share != 1 or c.grid.down * c.grid.across != 1)


def prefetch_next_block(c: TiledPhase, block: SumBlock, runs: list[PackedRun], at: MicroTile) -> None:
    """Prefetches one micro-tile's share of what the next block of k packs, or the next tile: packing alone would wait
    for memory.
    """
    if not runs or not has_next_block(c):
        return
    f, p, blocking = c.f, c.phase, c.schedule.blocking
    downs = -(-c.grid.rows // blocking.mr)
    share = -(-blocking.kc.length(c.k_sizes) // (downs * (c.schedule.width(p) // blocking.nr)))
    number = f.divmod(at.column, blocking.nr)[0] * downs + f.divmod(at.row, blocking.mr)[0]
    with f.loop(0, share) as loop:
        later, step = f.divmod(block.k.start + block.k.count + number * share + loop.index, c.k)
        for run in runs:
            first = offset(run.linear, run.batch | {p.k[0]: step}) + run.start + later * run.advance
            line = LINE_BYTES // run.memory.dtype.itemsize
            for element in (*range(0, run.length - 1, line), run.length - 1):       # runs start anywhere in a line
                f.prefetch(run.memory, [first + element], level=2)
