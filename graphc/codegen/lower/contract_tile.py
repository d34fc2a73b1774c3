"""The tiles of the output: how many there are, and which part of it each is."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.ranges import Index, Range, open_range, unflatten
from graphc.schedule.contraction_schedule import round_up


@dataclass(frozen=True)
class ContractionTile:
    """A part of the output: `rows` rows from `row` on, a range of columns, in one batch entry; `part` of the sum.

    row_range: the rows as a range of the dims of m, if the schedule is turned.
    """
    batch: Index
    batch_number: Ix
    row: Ix
    rows: Ix
    columns: Range
    column_number: Ix
    part: Ix
    row_range: Range | None = None


def row_tiles(job: Job) -> int:
    s = job.schedule
    return s.transposed_store.count(job.m_sizes) if s.transposed_store else -(-job.m // s.blocking.mc)


def tile_count(job: Job) -> int:
    return job.batches * row_tiles(job) * job.schedule.blocking.nc.count(job.n_sizes)


def open_tile(job: Job, number: Ix, part: Ix) -> ContractionTile:
    """Tiles that share rows of a, or columns of b, follow each other."""
    f, s, p = job.f, job.schedule, job.phase
    column_tiles = s.blocking.nc.count(job.n_sizes)
    number, inner = f.divmod(number, column_tiles if s.by_rows else row_tiles(job))
    batch_number, outer = f.divmod(number, row_tiles(job) if s.by_rows else column_tiles)
    down, across = (outer, inner) if s.by_rows else (inner, outer)
    batch = unflatten(f, batch_number, p.batch, job.sizes)
    columns = open_range(f, p.n, job.n_sizes, s.blocking.nc, across)
    if s.transposed_store:
        rows = open_range(f, p.m, job.m_sizes, s.transposed_store, down)
        return ContractionTile(batch, batch_number, rows.flat, rows.length, columns, across, part, rows)
    row = down * s.blocking.mc
    count = as_ix(s.blocking.mc if job.m % s.blocking.mc == 0 else f.min_(s.blocking.mc, job.m - row))
    return ContractionTile(batch, batch_number, row, count, columns, across, part)


def padded_rows(job: Job) -> int:
    return round_up(min(job.schedule.blocking.mc, job.m), job.schedule.blocking.mr)
