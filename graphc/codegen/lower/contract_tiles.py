"""Contractions by register tiles: packing, tiles of the output in parallel, blocks of the sum, the micro-kernel over each block."""
from __future__ import annotations

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_finish import add_parts, finish_block, finishes_by_blocks, sums_scratch
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_pack import Panels, pack_a, pack_b
from graphc.codegen.lower.contract_register import register_tiles
from graphc.codegen.lower.contract_shared import b_step, pack_shared
from graphc.codegen.lower.contract_sweep import sums_in, sweep_turned, whole_tile
from graphc.codegen.lower.contract_tile import ContractionTile, open_tile, padded_rows, tile_count
from graphc.codegen.lower.ranges import open_range
from graphc.schedule.blocking import PackingMode


def lower_tiles(job: Job) -> None:
    for operand, source in (("a", job.schedule.a), ("b", job.schedule.b)):
        if source is PackingMode.ONCE and job.whole.ready != operand:
            pack_shared(job, operand)
    f, s = job.f, job.schedule
    with f.parallel(tile_count(job) * s.splits, "tiles") as t:
        number, part = f.divmod(t, s.splits)
        tile = open_tile(job, number, part)
        sums = sums_scratch(job)
        _sum_tile(job, tile, sums)
        if s.transposed_store and s.splits == 1:
            sweep_turned(job, tile, sums)
        elif not finishes_by_blocks(job):
            finish_block(job, tile, whole_tile(tile), sums_in(job, sums))
    if s.splits > 1:
        with f.parallel(tile_count(job), "add") as t:
            add_parts(job, open_tile(job, t, Ix()))


def _sum_tile(job: Job, tile: ContractionTile, sums: View) -> None:
    """Blocks of k one after the other; each is packed where need be and added to `sums`."""
    f, s = job.f, job.schedule
    blocks = s.blocking.kc.count(job.k_sizes)
    share = -(-blocks // s.splits)
    first = tile.part * share
    longest = s.blocking.kc.length(job.k_sizes)
    packed_a = f.scratch("packed_a", job.dtype, (padded_rows(job) * longest,)) if s.a in (PackingMode.PER_TILE, PackingMode.BY_FIRST_USE) else None
    packed_b = f.scratch("packed_b", job.dtype, (s.width(job.phase) * longest + s.lanes,)) if s.b is PackingMode.PER_TILE else None
    end = first + share if blocks % share == 0 else f.min_(first + share, blocks)
    with f.loop(first, end) as loop:
        block = open_range(f, job.phase.k, job.k_sizes, s.blocking.kc, loop.index)
        if s.a is PackingMode.PER_TILE:
            pack_a(job, tile.batch, tile.row, tile.rows, block, packed_a, Ix(), s.blocking.mr * longest)
        if s.b is PackingMode.PER_TILE:
            step = b_step(job)
            pack_b(job, tile.batch, tile.columns, block, Panels(packed_b, Ix(), step, step * longest, step))
        add = f.min_(loop.index - first, 1) if share > 1 else Ix()
        last = f.eq(f.value(loop.index + 1), f.value(end)) if share > 1 else None
        register_tiles(job, tile, block, sums, add, last, packed_a, packed_b)
