"""Software prefetch in a tile: before each micro-tile, of the part of the operands that the tile packs next."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_pack import a_is_copied, b_packing
from graphc.codegen.lower.contract_tile import ContractionTile, row_tiles
from graphc.codegen.lower.ranges import Index, Range, offset
from graphc.schedule.blocking import ColumnPacking, PackingMode
from graphc.schedule.contraction_form import LinearMap
from graphc.schedule.target import LINE_BYTES


@dataclass(frozen=True)
class Runs:
    """What a tile packs of an operand: for each step of k `length` elements of memory, from `start` on; the next tile's are `advance` after these."""
    memory: View
    linear: LinearMap
    batch: Index
    start: Ix
    length: int
    advance: int


def packed_runs(job: Job, tile: ContractionTile) -> list[Runs]:
    """Of the operands that the tile packs block after block, where these are runs."""
    s, p = job.schedule, job.phase
    across = s.blocking.nc.count(job.n_sizes)
    if len(p.k) > 1 or s.blocking.kc.count(job.k_sizes) <= s.splits and row_tiles(job) * across == 1:
        return []
    found = []
    if s.a is PackingMode.BY_FIRST_USE or s.a is PackingMode.PER_TILE and a_is_copied(job):
        found.append(Runs(job.a, p.a, tile.batch, tile.row, min(s.blocking.mc, job.m), 0 if s.by_rows and across > 1 else s.blocking.mc))
    if s.b is PackingMode.PER_TILE and b_packing(job) is ColumnPacking.PANELS:
        chunk = s.blocking.nc.chunk
        found.append(Runs(job.b, p.b, tile.batch, tile.columns.start, min(chunk, job.n), chunk if s.by_rows or row_tiles(job) == 1 else 0))
    return found


def fetch_ahead(job: Job, block: Range, runs: list[Runs], across: Ix, down: Ix) -> None:
    """Asks, before each register tile, for some of what the next block of k packs, or the next tile: packing alone would wait for memory."""
    if not runs:
        return
    f, s, p = job.f, job.schedule, job.phase
    downs = -(-min(s.blocking.mc, job.m) // s.blocking.mr)
    share = -(-s.blocking.kc.length(job.k_sizes) // (downs * (s.width(p) // s.blocking.nr)))
    number = f.divmod(across, s.blocking.nr)[0] * downs + f.divmod(down, s.blocking.mr)[0]
    with f.loop(0, share) as loop:
        later, step = f.divmod(block.start + block.count + number * share + loop.index, job.k)
        for run in runs:
            at = offset(run.linear, run.batch | {p.k[0]: step}) + run.start + later * run.advance
            for element in (*range(0, run.length - 1, LINE_BYTES // job.dtype.itemsize), run.length - 1):         # runs start anywhere in a line
                f.prefetch(run.memory, [at + element], level=2)
