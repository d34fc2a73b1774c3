"""Contractions without register tiles: dot products for few rows or columns, plain loops for integers and for empty sums."""
from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphc.codegen.loops.builder import Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_sweep import finish, sums_in, sweep, whole_tile
from graphc.codegen.lower.micro import multiply_add
from graphc.codegen.lower.ranges import Index, Range, offset, open_range, unflatten, walk
from graphc.schedule.blocking import Cut
from graphc.schedule.contraction_schedule import round_up


@dataclass(frozen=True)
class DotTile:
    batch: Index
    row: Ix
    rows: Ix
    columns: Range


def lower_dots(job: Job) -> None:
    """Tiles of all rows × some columns of one batch entry."""
    f, s = job.f, job.schedule
    cut = _column_cut(job)
    tiles = cut.count(job.n_sizes)
    with f.parallel(job.batches * tiles, "dots") as t:
        batch_number, across = f.divmod(t, tiles)
        batch = unflatten(f, batch_number, job.phase.batch, job.sizes)
        tile = DotTile(batch, Ix(), Ix(job.m), open_range(f, job.phase.n, job.n_sizes, cut, across))
        apart = -(-cut.chunk * cut.inner(job.n_sizes) // s.columns)
        sums = f.scratch("sums", job.dtype, (round_up(job.m, s.rows), round_up(apart * s.columns, s.lanes)))
        _dot_tile(job, tile, apart, sums)
        sweep(job, tile, whole_tile(tile), sums_in(job, sums))


def _column_cut(job: Job) -> Cut:
    """About as many columns as the schedule says; with gates, all that belong to the same units."""
    sizes, s = job.n_sizes, job.schedule
    split = 0 if job.gates else len(sizes) - 1
    inner = prod(sizes[split + 1:])
    return Cut(split, _even_tile(sizes[split], max(1, s.tile // inner), 1 if job.gates else s.columns))


def _even_tile(size: int, largest: int, columns: int) -> int:
    """Columns of a tile, a multiple of `columns`, so that the last tile is about as long as the others."""
    return round_up(-(-size // max(1, -(-size // largest))), columns)


def _dot_tile(job: Job, tile: DotTile, apart: int, sums: View) -> None:
    """Columns that are taken together lie `apart`: each is then one long stream through memory, which the CPU fetches ahead. Neighbours would be
    short streams in the same pages, at half the speed where columns have some hundred elements."""
    f, s, p = job.f, job.schedule, job.phase
    with f.loop(0, job.m, s.rows) as down, f.loop(0, apart) as across:
        rows = [_start(job, p.a, p.m, down.index + i, job.m) for i in range(s.rows)]
        columns = [_start(job, p.b, p.n, tile.columns.flat + across.index + j * apart, job.n) for j in range(s.columns)]
        batch_a, batch_b = offset(p.a, tile.batch), offset(p.b, tile.batch)
        dots = _dots(job, [batch_a + r for r in rows], [batch_b + c for c in columns])
        for i in range(s.rows):
            for j in range(s.columns):
                f.store(sums, [down.index + i, across.index + j * apart], dots[i * s.columns + j])


def _start(job: Job, t, dims: tuple[int, ...], flat: Ix, size: int) -> Ix:
    """Distance of a row or column from the first; past the end the last is repeated."""
    return offset(t, unflatten(job.f, job.f.min_(flat, size - 1), dims, job.sizes)) - t.base


def _dots(job: Job, rows: list[Ix], columns: list[Ix]) -> list[Val]:
    """The dot product of every row with every column: `vectors` accumulators each, then a tree over vectors and lanes."""
    f, s = job.f, job.schedule
    pairs = len(rows) * len(columns)
    whole = job.k // (s.lanes * s.vectors) * (s.lanes * s.vectors)
    zero = f.const(0, job.dtype, s.lanes)
    with f.loop(0, whole, s.lanes * s.vectors, carry=[zero] * (pairs * s.vectors)) as loop:
        sums = list(loop.carried)
        for v in range(s.vectors):
            sums[v * pairs:(v + 1) * pairs] = _step(job, rows, columns, loop.index + v * s.lanes, None, sums[v * pairs:(v + 1) * pairs])
        loop.next(*sums)
    sums = loop.results[:pairs]
    for v in range(1, s.vectors):
        sums = [f.add(a, b) for a, b in zip(sums, loop.results[v * pairs:(v + 1) * pairs])]
    for at in range(whole, job.k, s.lanes):
        mask = f.tail_mask(job.k - at, s.lanes) if job.k - at < s.lanes else None
        sums = _step(job, rows, columns, as_ix(at), mask, sums)
    return [f.reduce(total, "add") for total in sums]


def _step(job: Job, rows: list[Ix], columns: list[Ix], k: Ix, mask: Val | None, sums) -> list[Val]:
    f, lanes = job.f, job.schedule.lanes
    a = [f.load(job.a, [r + k], lanes, mask) for r in rows]
    b = [f.load(job.b, [c + k], lanes, mask) for c in columns]
    return [multiply_add(f, x, y, sums[i * len(b) + j], job.fused) for i, x in enumerate(a) for j, y in enumerate(b)]


def lower_plain(job: Job) -> None:
    """One output after the other."""
    f, p = job.f, job.phase
    dims = p.batch + p.m + p.n
    count = p.extent(dims)
    per_tile = min(count, job.schedule.tile)
    with f.parallel(-(-count // per_tile), "outputs") as t:
        with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - t * per_tile)) as loop:
            index = unflatten(f, t * per_tile + loop.index, dims, p.sizes)
            finish(job, index, p.n[-1], _plain_sum(job, index), 1, None)


def _plain_sum(job: Job, index: Index) -> Val:
    """Integers wrap like numpy's."""
    f, p = job.f, job.phase
    zero = f.const(0, job.dtype)
    if job.k == 0:
        return zero
    total = f.scratch("total", job.dtype, (1,))
    f.store(total, [0], zero)
    everything = Range(p.k, job.k_sizes, 0, {}, Ix(), Ix(job.k_sizes[0]), Ix(), job.k // job.k_sizes[0])
    with walk(f, everything) as (k, _):
        product = f.mul(f.load(job.a, [offset(p.a, index | k)]), f.load(job.b, [offset(p.b, index | k)]))
        f.store(total, [0], f.add(f.load(total, [0]), product))
    return f.load(total, [0])
