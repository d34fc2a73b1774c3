"""Where a micro-tile reads its rows and its columns, as `TileSchedule.a` and `TileSchedule.b` say."""
from __future__ import annotations

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_pack import Panels, row_offset
from graphc.codegen.lower.contract_shared import b_step, shared_b, shared_panels
from graphc.codegen.lower.contract_tile import ContractionTile
from graphc.codegen.lower.ranges import Range, offset
from graphc.schedule.blocking import PackingMode

# rows: (job, tile, block, packed) -> (row in tile, in all, rows -> (memory, row offsets))

def rows_in_place(job: Job, tile: ContractionTile, block: Range, packed: View | None):
    base = offset(job.phase.a, tile.batch | block.first)
    clamped = job.has_row_tail and not job.schedule.edge_mr
    return lambda row, number, rows: (job.a, [row_offset(job, number + i, clamped) + base for i in range(rows)])


def _a_shared(job: Job, tile: ContractionTile, block: Range, packed: View | None):
    f, mr = job.f, job.schedule.blocking.mr
    panels = -(-job.m // mr)
    memory = job.packed("a", job.batches * panels * mr * job.k)
    start = tile.batch_number * (panels * mr * job.k) + block.flat * mr

    def at(row: Ix, number: Ix, rows: int):
        panel, _ = f.divmod(number, mr)
        return memory.view_at([start + panel * (mr * job.k)], (1,)), []
    return at


def _a_packed(job: Job, tile: ContractionTile, block: Range, packed: View):
    _mr, longest = job.schedule.blocking.mr, job.schedule.blocking.kc.length(job.k_sizes)
    return lambda row, number, rows: (packed.view_at([row * longest], (1,)), [])


A_SOURCES = {PackingMode.UNPACKED: rows_in_place, PackingMode.TAPS: rows_in_place, PackingMode.ONCE: _a_shared, PackingMode.PER_TILE: _a_packed,
             PackingMode.BY_FIRST_USE: _a_packed}


# columns: (job, tile, block, packed) -> (column in tile -> memory)

def columns_in_place(job: Job, tile: ContractionTile, block: Range, packed: View | None):
    start = offset(job.phase.b, tile.batch | tile.columns.first | block.first)
    return lambda column: job.b.view_at([start + column], (1,))


def _b_shared(job: Job, tile: ContractionTile, block: Range, packed: View | None):
    number = tile.batch_number * job.schedule.blocking.nc.count(job.n_sizes) + tile.column_number
    panels = shared_panels(job, shared_b(job), number, block)
    return lambda column: panels.memory.view_at([panels.at(job.f, column)], (1,))


def _b_packed(job: Job, tile: ContractionTile, block: Range, packed: View):
    step = b_step(job)
    panels = Panels(packed, Ix(), step, step * job.schedule.blocking.kc.length(job.k_sizes), step)
    return lambda column: packed.view_at([panels.at(job.f, column)], (1,))


B_SOURCES = {PackingMode.UNPACKED: columns_in_place, PackingMode.ONCE: _b_shared, PackingMode.PER_TILE: _b_packed}
