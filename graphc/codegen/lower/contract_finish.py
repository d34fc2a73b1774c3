"""Where sums are accumulated until they are finished, and when they are swept: after each micro-tile, after each tile, or as partial results added later."""
from __future__ import annotations

from math import lcm

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_sweep import Block, Source, add_partials, sweep, sweep_turned, whole_tile
from graphc.codegen.lower.contract_tile import ContractionTile
from graphc.codegen.lower.ranges import part_of, steps_evenly, vector_run
from graphc.schedule.contraction_schedule import round_up


def is_direct(job: Job) -> bool:
    """Whether register tiles go straight to the output, which lies like a matrix: sums of one block and no epilogue."""
    s, p = job.schedule, job.phase
    plain = job.epilogue is None and not s.transposed_store and not s.streamed and s.blocking.kc.count(job.k_sizes) == 1
    return plain and p.out.strides[p.n[-1]] == 1 and steps_evenly(p.out, p.m, p.sizes) and steps_evenly(p.out, p.n[s.blocking.nc.split:], p.sizes)


def finishes_by_blocks(job: Job) -> bool:
    """Whether sums are swept as soon as they are there, so that what the sweep waits for, and what its stores wait for, passes while the next register
    tile is computed; else all those of a tile at its end."""
    return not (job.schedule.transposed_store or job.schedule.streamed)


def _columns_together(job: Job) -> int:
    """Columns that are finished together: whole register tiles, and all that is inside the dim along which the columns are cut."""
    s = job.schedule
    return lcm(s.blocking.nr, s.blocking.nc.inner(job.n_sizes))


def keeps_tile(job: Job) -> bool:
    """Whether there is room for the sums of all of a tile, or only for those of the register tile that is computed."""
    s = job.schedule
    return not finishes_by_blocks(job) or s.blocking.kc.count(job.k_sizes) > s.splits or _columns_together(job) > s.blocking.nr


def sums_scratch(job: Job) -> View:
    """Sums in thread scratch, with room for whole register tiles (and, to transpose them, whole vectors of rows)."""
    s = job.schedule
    if is_direct(job) or not keeps_tile(job):
        return job.f.scratch("sums", job.dtype, (s.blocking.mr, s.blocking.nr))
    rows = round_up(min(s.blocking.mc, job.m), s.blocking.mr)
    return job.f.scratch("sums", job.dtype, (round_up(rows, s.lanes) if s.transposed_store else rows, s.width(job.phase)))


def finish_block(job: Job, tile: ContractionTile, block: Block, source: Source) -> None:
    """What becomes of sums of all of k, or of the tile's part of it."""
    (sweep if job.schedule.splits == 1 else _store_partial)(job, tile, block, source)


def finish_register_tile(job: Job, tile: ContractionTile, row: Ix, rows: int, column: Ix, source: Source) -> None:
    """The sums of a register tile of so many rows, with those to the left of it that are finished together."""
    f, nr, together = job.f, job.schedule.blocking.nr, _columns_together(job)
    left = f.min_(rows, tile.rows - row)
    if together == nr:
        return finish_block(job, tile, Block(row, left, column, part_of(f, tile.columns, column, nr)), source)
    start = f.divmod(column, together)[0] * together
    end = f.min_(start + together, tile.columns.length)
    with f.if_(f.ge(f.value(column + nr), f.value(end))):
        finish_block(job, tile, Block(row, left, start, part_of(f, tile.columns, start, together)), source)


def _store_partial(job: Job, tile: ContractionTile, block: Block, source: Source) -> None:
    """A tile's part of the sum, where the last loop finds it: [part][batch][row][column]."""
    f, lanes = job.f, job.schedule.lanes
    memory = job.packed("partials", job.schedule.splits * job.batches * job.m * job.n)
    with f.loop(0, block.rows) as loop:
        row = block.row + loop.index
        start = ((tile.part * job.batches + tile.batch_number) * job.m + tile.row + row) * job.n + block.columns.flat
        vector_run(f, block.columns.length, lanes, lambda j, n, mask: f.store(memory, [start + j], source(row, block.column + j, n, mask), mask))


def add_parts(job: Job, tile: ContractionTile) -> None:
    """The partial results of a tile, added in order, are its sums."""
    f = job.f
    if not job.schedule.transposed_store:
        return sweep(job, tile, whole_tile(tile), lambda i, j, lanes, mask: add_partials(job, tile, i, j, lanes, mask))
    sums = sums_scratch(job)
    with f.loop(0, tile.rows) as loop:
        vector_run(f, tile.columns.length, job.schedule.lanes, lambda j, lanes, mask: f.store(
            sums, [loop.index, j], add_partials(job, tile, loop.index, j, lanes, mask), mask))
    sweep_turned(job, tile, sums)
