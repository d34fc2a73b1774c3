"""The register tiles of one tile and one block of the sum: a call of the micro-kernel for each, and what follows it."""
from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product

from graphc.codegen.loops.builder import Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_ahead import fetch_ahead, packed_runs
from graphc.codegen.lower.contract_finish import finish_register_tile, finishes_by_blocks, is_direct, keeps_tile
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_shared import b_step
from graphc.codegen.lower.contract_source import A_SOURCES, B_SOURCES, columns_in_place, rows_in_place
from graphc.codegen.lower.contract_sweep import ask_for_gates, flat, sums_in
from graphc.codegen.lower.contract_tile import ContractionTile
from graphc.codegen.lower.micro import MicroSpec, StreamSpec, call_micro_kernel, stream_kernel
from graphc.codegen.lower.ranges import Range, offset, vector_run
from graphc.schedule.blocking import PackingMode


@dataclass(frozen=True)
class RegisterTile:
    """Rows from `row`, columns from `column` of a tile; `number`: the row counted over all tiles. Then memory and row offsets of a, memory of b, steps
    of k, number of rows; and, in a tile that packs its rows by first use, memory and row offsets of the unpacked rows."""
    row: Ix
    column: Ix
    number: Ix
    a: View
    offsets: list[Ix]
    b: View
    steps: Ix
    rows: int
    first: tuple[View, list[Ix]] | None


def register_tiles(job: Job, tile: ContractionTile, block: Range, sums: View, add: Ix, last: Val | None, packed_a: View | None, packed_b: View | None) -> None:
    """last: whether this is the last block of the tile's part of the sum, if there are several."""
    f, s = job.f, job.schedule
    if s.streamed:
        return _stream(job, tile, block, sums, add)
    b_at = B_SOURCES[s.b](job, tile, block, packed_b)
    a_at = A_SOURCES[s.a](job, tile, block, packed_a)
    first_at = rows_in_place(job, tile, block, None) if s.a is PackingMode.BY_FIRST_USE else lambda *_: None
    direct, keeps, runs = is_direct(job), keeps_tile(job), packed_runs(job, tile)

    def register_tile(column: Ix, b: View, row: Ix, number: Ix, rows: int) -> None:
        r = RegisterTile(row, column, number, *a_at(row, number, rows), b, block.length, rows, first_at(row, number, rows))
        if direct:
            return _to_output(job, tile, r, sums)
        if job.gates:
            ask_for_gates(job, tile, row, f.min_(rows, tile.rows - row), column)
        _call(job, tile, r, sums.view_at([row, column] if keeps else [0, 0], (1,), (1,)), sums.shape[1], add)
        if finishes_by_blocks(job):
            with f.if_(last) if last is not None else nullcontext():
                finish_register_tile(job, tile, row, rows, column, sums_in(job, sums) if keeps else sums_in(job, sums, row, column))
    whole, rest = f.divmod(tile.rows, s.blocking.mr) if s.edge_mr else (Ix(), Ix())
    with f.loop(0, tile.columns.length, s.blocking.nr) as across:
        b = b_at(across.index)
        with f.loop(0, whole * s.blocking.mr if s.edge_mr else tile.rows, s.blocking.mr) as down:
            fetch_ahead(job, block, runs, across.index, down.index)
            register_tile(across.index, b, down.index, tile.row + down.index, s.blocking.mr)
        if s.edge_mr:
            with f.if_(f.gt(f.value(rest), 0)):
                row = f.min_(whole, s.blocking.mc // s.blocking.mr - 1) * s.blocking.mr          # both minima are for the verifier: only the last tile has a rest
                register_tile(across.index, b, row, f.min_(tile.row + row, job.m - s.edge_mr), s.edge_mr)


def _to_output(job: Job, tile: ContractionTile, r: RegisterTile, sums: View) -> None:
    """A whole register tile is stored by the micro-kernel, one at the edge goes through scratch."""
    f, s, p = job.f, job.schedule, job.phase
    rows, columns = tile.rows - r.row, tile.columns.length - r.column
    row_step = p.out.strides[p.m[-1]]
    out = flat(f, job.outs[0])
    target = out.view_at([offset(p.out, tile.batch | tile.columns.first) + r.number * row_step + r.column], (1,))
    edges = [f.ge(f.value(left), size) for left, size, ragged in ((rows, s.blocking.mr, job.m % s.blocking.mr and not s.edge_mr), (columns, s.blocking.nr, _has_column_tail(job))) if ragged]
    if not edges:
        return _call_whole(job, r, target, row_step, Ix())
    with f.if_(edges[0] if len(edges) == 1 else f.and_(*edges)):
        _call_whole(job, r, target, row_step, Ix())
    with f.else_():
        _call(job, tile, r, f.reinterpret(sums, (1,), (1,)), s.blocking.nr, Ix())
        with f.loop(0, r.rows if s.edge_mr else f.min_(rows, r.rows)) as loop:
            line = out.view_at([target.start - out.start + loop.index * row_step], (s.blocking.nr,))
            vector_run(f, f.min_(columns, s.blocking.nr), s.lanes, lambda j, lanes, mask: f.store(line, [j], f.load(sums, [loop.index, j], lanes, mask), mask))


def _has_column_tail(job: Job) -> bool:
    """Whether some tile's columns are not whole register tiles."""
    cut, sizes, nr = job.schedule.blocking.nc, job.n_sizes, job.schedule.blocking.nr
    inner = cut.inner(sizes)
    return sizes[cut.split] * inner % nr != 0 or cut.chunk * inner % nr != 0


def _stream(job: Job, tile: ContractionTile, block: Range, sums: View, add: Ix) -> None:
    """All rows and columns of the tile at once."""
    f, s, p = job.f, job.schedule, job.phase
    spec = StreamSpec(job.dtype, s.blocking.mr, s.lanes, p.a.strides[p.k[-1]], p.b.strides[p.k[-1]], s.width(p), job.fused)
    memory, rows = rows_in_place(job, tile, block, None)(Ix(), tile.row, s.blocking.mr)
    b = columns_in_place(job, tile, block, None)(Ix())
    f.call(stream_kernel(spec), [memory, b, f.reinterpret(sums, (1,), (1,)), block.length, tile.columns.length, add, *rows])


def _call_whole(job: Job, r: RegisterTile, target: View, row_step: int, add: Ix, masked: tuple[Ix, ...] = ()) -> None:
    """The micro-kernel; where a tile packs its rows on the way, the first columns' reads them as they lie and packs them."""
    f, spec, ahead = job.f, _micro_spec(job, r.rows), _ahead(job, r)

    def call(spec: MicroSpec, a: View, offsets: list[Ix], kept: View | None = None) -> None:
        call_micro_kernel(f, spec, a, r.b, target, r.steps, row_step, add, offsets, masked, ahead, kept=kept)
    if r.first is None:
        return call(spec, r.a, r.offsets)
    with f.if_(f.eq(f.value(r.column), 0)):
        call(replace(spec, a_step=job.phase.a.strides[job.phase.k[-1]], a_rows=True, keeps=job.schedule.blocking.mr), *r.first, r.a)
    with f.else_():
        call(spec, r.a, r.offsets)


def _ahead(job: Job, r: RegisterTile) -> Ix | None:
    """The columns that are asked for: of the next panel of the tile; of a single panel the next block of the sum, or of all the first of the next."""
    f, s = job.f, job.schedule
    if not s.prefetch_lines:
        return None
    share = -(-s.blocking.nr * s.blocking.kc.length(job.k_sizes) // -(-min(s.blocking.mc, job.m) // s.blocking.mr))
    return f.divmod(r.row, s.blocking.mr)[0] * share + (r.steps if s.width(job.phase) == s.blocking.nr else job.k) * s.blocking.nr


def _call(job: Job, tile: ContractionTile, r: RegisterTile, target: View, row_step: int, add: Ix) -> None:
    """The micro-kernel on one register tile; where b is read in place, the last columns by its masked form."""
    f, s = job.f, job.schedule
    if s.b is not PackingMode.UNPACKED or job.n % s.blocking.nr == 0:
        return _call_whole(job, r, target, row_step, add)
    left = tile.columns.length - r.column
    if job.n < s.blocking.nr:
        return _call_whole(job, r, target, row_step, add, (left,))
    with f.if_(f.ge(f.value(left), s.blocking.nr)):
        _call_whole(job, r, target, row_step, add)
    with f.else_():
        _call_whole(job, r, target, row_step, add, (f.min_(left, s.blocking.nr),))


def _micro_spec(job: Job, rows: int) -> MicroSpec:
    s, p = job.schedule, job.phase
    in_place = s.a in (PackingMode.UNPACKED, PackingMode.TAPS)
    taps = tuple(sum(i * p.a.strides[d] for i, d in zip(index, p.k)) for index in product(*map(range, job.k_sizes))) if s.a is PackingMode.TAPS else ()
    return MicroSpec(job.dtype, rows, s.vectors, s.lanes, p.a.strides[p.k[-1]] if in_place else s.blocking.mr, in_place,
                     p.b.strides[p.k[-1]] if s.b is PackingMode.UNPACKED else b_step(job), fused=job.fused, taps=taps, ahead=s.prefetch_lines)
