"""Contractions by register tiles: packing, tiles of the output in parallel, blocks of the sum, the micro-kernel over each block."""
from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from math import lcm, prod

from graphc.codegen.index import Ix, as_ix
from graphc.codegen.loops import Val, View
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_pack import Panels, a_is_copied, b_packing, pack_a, pack_b, row_offset
from graphc.codegen.lower.contract_sweep import Block, Source, add_partials, ask_for_gates, flat, sums_in, sweep, sweep_turned, whole_tile
from graphc.codegen.lower.micro import MicroSpec, StreamSpec, call_micro_kernel, stream_kernel
from graphc.codegen.lower.ranges import Index, Range, offset, open_range, part_of, steps_evenly, unflatten, vector_run
from graphc.ir.contract_form import Linear
from graphc.ir.schedule import Cut, round_up
from graphc.ir.target import LINE_BYTES

PACK_PIECES, PACK_WORK = 8, 4096        # into so many pieces packing is divided, of so many elements at least
PACK_STEPS = 16                 # steps of k that are packed together: their source lines stay in cache while panel after panel is cut from them


@dataclass(frozen=True)
class Tile:
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


def pack_shared(job: Job, operand: str) -> None:
    """Packs all of an operand, "a" or "b", into the shared scratch."""
    {"a": _pack_shared_a, "b": _pack_shared_b}[operand](job)


def lower_tiles(job: Job) -> None:
    for operand, source in (("a", job.schedule.a), ("b", job.schedule.b)):
        if source == "shared" and job.whole.ready != operand:
            pack_shared(job, operand)
    f, s = job.f, job.schedule
    with f.parallel(tile_count(job) * s.splits, "tiles") as t:
        number, part = f.divmod(t, s.splits)
        tile = open_tile(job, number, part)
        sums = _sums(job)
        _sum_tile(job, tile, sums)
        if s.turned and s.splits == 1:
            sweep_turned(job, tile, sums)
        elif not _finishes_by_blocks(job):
            _finish(job, tile, whole_tile(tile), sums_in(job, sums))
    if s.splits > 1:
        with f.parallel(tile_count(job), "add") as t:
            _add_parts(job, open_tile(job, t, Ix()))


def _is_direct(job: Job) -> bool:
    """Whether register tiles go straight to the output, which lies like a matrix: sums of one block and no epilogue."""
    s, p = job.schedule, job.phase
    plain = job.epilogue is None and not s.turned and not s.streamed and s.sums.count(job.k_sizes) == 1
    return plain and p.out.strides[p.n[-1]] == 1 and steps_evenly(p.out, p.m, p.sizes) and steps_evenly(p.out, p.n[s.columns.split:], p.sizes)


def _finishes_by_blocks(job: Job) -> bool:
    """Whether sums are swept as soon as they are there, so that what the sweep waits for, and what its stores wait for, passes while the next register
    tile is computed; else all those of a tile at its end."""
    return not (job.schedule.turned or job.schedule.streamed)


def _finish(job: Job, tile: Tile, block: Block, source: Source) -> None:
    """What becomes of sums of all of k, or of the tile's part of it."""
    (sweep if job.schedule.splits == 1 else _store_partial)(job, tile, block, source)


def _columns_together(job: Job) -> int:
    """Columns that are finished together: whole register tiles, and all that is inside the dim along which the columns are cut."""
    s = job.schedule
    return lcm(s.nr, s.columns.inner(job.n_sizes))


def _keeps_tile(job: Job) -> bool:
    """Whether there is room for the sums of all of a tile, or only for those of the register tile that is computed."""
    s = job.schedule
    return not _finishes_by_blocks(job) or s.sums.count(job.k_sizes) > s.splits or _columns_together(job) > s.nr


def _sums(job: Job) -> View:
    """Sums in thread scratch, with room for whole register tiles (and, to transpose them, whole vectors of rows)."""
    s = job.schedule
    if _is_direct(job) or not _keeps_tile(job):
        return job.f.scratch("sums", job.dtype, (s.mr, s.nr))
    rows = round_up(min(s.rows, job.m), s.mr)
    return job.f.scratch("sums", job.dtype, (round_up(rows, s.lanes) if s.turned else rows, s.width(job.phase)))


def _add_parts(job: Job, tile: Tile) -> None:
    """The partial results of a tile, added in order, are its sums."""
    f = job.f
    if not job.schedule.turned:
        return sweep(job, tile, whole_tile(tile), lambda i, j, lanes, mask: add_partials(job, tile, i, j, lanes, mask))
    sums = _sums(job)
    with f.loop(0, tile.rows) as loop:
        vector_run(f, tile.columns.length, job.schedule.lanes, lambda j, lanes, mask: f.store(
            sums, [loop.index, j], add_partials(job, tile, loop.index, j, lanes, mask), mask))
    sweep_turned(job, tile, sums)


def row_tiles(job: Job) -> int:
    s = job.schedule
    return s.turned.count(job.m_sizes) if s.turned else -(-job.m // s.rows)


def tile_count(job: Job) -> int:
    return job.batches * row_tiles(job) * job.schedule.columns.count(job.n_sizes)


def open_tile(job: Job, number: Ix, part: Ix) -> Tile:
    """Tiles that share rows of a, or columns of b, follow each other."""
    f, s, p = job.f, job.schedule, job.phase
    column_tiles = s.columns.count(job.n_sizes)
    number, inner = f.divmod(number, column_tiles if s.by_rows else row_tiles(job))
    batch_number, outer = f.divmod(number, row_tiles(job) if s.by_rows else column_tiles)
    down, across = (outer, inner) if s.by_rows else (inner, outer)
    batch = unflatten(f, batch_number, p.batch, job.sizes)
    columns = open_range(f, p.n, job.n_sizes, s.columns, across)
    if s.turned:
        rows = open_range(f, p.m, job.m_sizes, s.turned, down)
        return Tile(batch, batch_number, rows.flat, rows.length, columns, across, part, rows)
    row = down * s.rows
    count = as_ix(s.rows if job.m % s.rows == 0 else f.min_(s.rows, job.m - row))
    return Tile(batch, batch_number, row, count, columns, across, part)


def _padded_rows(job: Job) -> int:
    return round_up(min(job.schedule.rows, job.m), job.schedule.mr)


# --- packing ---------------------------------------------------------------------------------------------------------------

def _pack_shared_a(job: Job) -> None:
    """All of a, one panel after the other; a tile packs a few steps of k of all panels, or all steps of some panels."""
    f, s = job.f, job.schedule
    panels = -(-job.m // s.mr)
    memory = job.packed("a", job.batches * panels * s.mr * job.k)
    steps = fine_cut(job.k_sizes, PACK_STEPS) if a_is_copied(job) else Cut(0, job.k_sizes[0])
    blocks = steps.count(job.k_sizes)
    group = panels if blocks >= 8 else -(-panels // 8)
    groups = -(-panels // group)
    with f.parallel(job.batches * groups * blocks, "pack_a") as t:
        rest, block = f.divmod(t, blocks)
        batch_number, number = f.divmod(rest, groups)
        batch = unflatten(f, batch_number, job.phase.batch, job.sizes)
        row = number * (group * s.mr)
        rows = group * s.mr if panels % group == 0 else f.min_(group * s.mr, panels * s.mr - row)
        sums = open_range(f, job.phase.k, job.k_sizes, steps, block)
        start = (batch_number * panels + number * group) * (s.mr * job.k) + sums.flat * s.mr
        pack_a(job, batch, row, as_ix(rows), sums, memory, start, s.mr * job.k)


def fine_cut(sizes: tuple[int, ...], length: int) -> Cut:
    """Ranges of at most about `length` elements."""
    for split in range(len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= length:
            return Cut(split, max(1, min(sizes[split], length // inner)))
    return Cut(len(sizes) - 1, length)


def _pack_shared_b(job: Job) -> None:
    """All of b, tile after tile; some steps of k for the columns of one tile at a time."""
    f, s = job.f, job.schedule
    cut = _packing_steps(job)
    tiles, blocks = s.columns.count(job.n_sizes), cut.count(job.k_sizes)
    memory = _shared_b(job)
    with f.parallel(job.batches * tiles * blocks, "pack_b") as t:
        number, block = f.divmod(t, blocks)
        batch_number, across = f.divmod(number, tiles)
        batch = unflatten(f, batch_number, job.phase.batch, job.sizes)
        columns = open_range(f, job.phase.n, job.n_sizes, s.columns, across)
        sums = open_range(f, job.phase.k, job.k_sizes, cut, block)
        pack_b(job, batch, columns, sums, _shared_panels(job, memory, number, sums))


def _packing_steps(job: Job) -> Cut:
    """A block of k; fewer steps where these would be too few pieces for the threads; by taps, all of k."""
    s = job.schedule
    if b_packing(job) == "taps":
        return Cut(0, job.k_sizes[0])
    tiles = job.batches * s.columns.count(job.n_sizes)
    pieces = -(-min(PACK_PIECES, job.batches * job.n * job.k // PACK_WORK) // tiles)
    return s.sums if pieces <= s.sums.count(job.k_sizes) else fine_cut(job.k_sizes, round_up(-(-job.k // pieces), PACK_STEPS))


def _shared_b(job: Job) -> View:
    s = job.schedule
    return job.packed("b", job.batches * s.columns.count(job.n_sizes) * s.width(job.phase) * job.k)


def _shared_panels(job: Job, memory: View, number: Ix, sums: Range) -> Panels:
    """Where a tile (number: counted over batches) has its columns, from step `sums.flat` of k on."""
    width = job.schedule.width(job.phase)
    step = b_step(job)
    start = number * (width * job.k) + sums.flat * step
    return Panels(memory, start, step, step * job.k, step)


def b_step(job: Job) -> int:
    """Distance in packed b of two steps of k."""
    return job.schedule.width(job.phase) if b_packing(job) == "runs" else job.schedule.nr


# --- the sum of one tile ---------------------------------------------------------------------------------------------------

def _sum_tile(job: Job, tile: Tile, sums: View) -> None:
    """Blocks of k one after the other; each is packed where need be and added to `sums`."""
    f, s = job.f, job.schedule
    blocks = s.sums.count(job.k_sizes)
    share = -(-blocks // s.splits)
    first = tile.part * share
    longest = s.sums.length(job.k_sizes)
    packed_a = f.scratch("packed_a", job.dtype, (_padded_rows(job) * longest,)) if s.a in ("tile", "first") else None
    packed_b = f.scratch("packed_b", job.dtype, (s.width(job.phase) * longest + s.lanes,)) if s.b == "tile" else None
    end = first + share if blocks % share == 0 else f.min_(first + share, blocks)
    with f.loop(first, end) as loop:
        block = open_range(f, job.phase.k, job.k_sizes, s.sums, loop.index)
        if s.a == "tile":
            pack_a(job, tile.batch, tile.row, tile.rows, block, packed_a, Ix(), s.mr * longest)
        if s.b == "tile":
            step = b_step(job)
            pack_b(job, tile.batch, tile.columns, block, Panels(packed_b, Ix(), step, step * longest, step))
        add = f.min_(loop.index - first, 1) if share > 1 else Ix()
        last = f.eq(f.value(loop.index + 1), f.value(end)) if share > 1 else None
        _register_tiles(job, tile, block, sums, add, last, packed_a, packed_b)


def _register_tiles(job: Job, tile: Tile, block: Range, sums: View, add: Ix, last: Val | None, packed_a: View | None, packed_b: View | None) -> None:
    """last: whether this is the last block of the tile's part of the sum, if there are several."""
    f, s = job.f, job.schedule
    if s.streamed:
        return _stream(job, tile, block, sums, add)
    b_at = B_SOURCES[s.b](job, tile, block, packed_b)
    a_at = A_SOURCES[s.a](job, tile, block, packed_a)
    first_at = _a_in_place(job, tile, block, None) if s.a == "first" else lambda *_: None
    direct, keeps, runs = _is_direct(job), _keeps_tile(job), _packed_runs(job, tile)

    def register_tile(column: Ix, b: View, row: Ix, number: Ix, rows: int) -> None:
        r = RegisterTile(row, column, number, *a_at(row, number, rows), b, block.length, rows, first_at(row, number, rows))
        if direct:
            return _to_output(job, tile, r, sums)
        if job.gates:
            ask_for_gates(job, tile, row, f.min_(rows, tile.rows - row), column)
        _call(job, tile, r, sums.view_at([row, column] if keeps else [0, 0], (1,), (1,)), sums.shape[1], add)
        if _finishes_by_blocks(job):
            with f.if_(last) if last is not None else nullcontext():
                _finish_register_tile(job, tile, r, sums_in(job, sums) if keeps else sums_in(job, sums, row, column))
    whole, rest = f.divmod(tile.rows, s.mr) if s.rest else (Ix(), Ix())
    with f.loop(0, tile.columns.length, s.nr) as across:
        b = b_at(across.index)
        with f.loop(0, whole * s.mr if s.rest else tile.rows, s.mr) as down:
            _fetch_ahead(job, block, runs, across.index, down.index)
            register_tile(across.index, b, down.index, tile.row + down.index, s.mr)
        if s.rest:
            with f.if_(f.gt(f.value(rest), 0)):
                row = f.min_(whole, s.rows // s.mr - 1) * s.mr          # both minima are for the verifier: only the last tile has a rest
                register_tile(across.index, b, row, f.min_(tile.row + row, job.m - s.rest), s.rest)


def _finish_register_tile(job: Job, tile: Tile, r: RegisterTile, source: Source) -> None:
    """The sums of a register tile, with those to the left of it that are finished together."""
    f, nr, together = job.f, job.schedule.nr, _columns_together(job)
    rows = f.min_(r.rows, tile.rows - r.row)
    if together == nr:
        return _finish(job, tile, Block(r.row, rows, r.column, part_of(f, tile.columns, r.column, nr)), source)
    start = f.divmod(r.column, together)[0] * together
    end = f.min_(start + together, tile.columns.length)
    with f.if_(f.ge(f.value(r.column + nr), f.value(end))):
        _finish(job, tile, Block(r.row, rows, start, part_of(f, tile.columns, start, together)), source)


@dataclass(frozen=True)
class Runs:
    """What a tile packs of an operand: for each step of k `length` elements of memory, from `start` on; the next tile's are `advance` after these."""
    memory: View
    linear: Linear
    batch: Index
    start: Ix
    length: int
    advance: int


def _packed_runs(job: Job, tile: Tile) -> list[Runs]:
    """Of the operands that the tile packs block after block, where these are runs."""
    s, p = job.schedule, job.phase
    across = s.columns.count(job.n_sizes)
    if len(p.k) > 1 or s.sums.count(job.k_sizes) <= s.splits and row_tiles(job) * across == 1:
        return []
    found = []
    if s.a == "first" or s.a == "tile" and a_is_copied(job):
        found.append(Runs(job.a, p.a, tile.batch, tile.row, min(s.rows, job.m), 0 if s.by_rows and across > 1 else s.rows))
    if s.b == "tile" and b_packing(job) == "panels":
        chunk = s.columns.chunk
        found.append(Runs(job.b, p.b, tile.batch, tile.columns.start, min(chunk, job.n), chunk if s.by_rows or row_tiles(job) == 1 else 0))
    return found


def _fetch_ahead(job: Job, block: Range, runs: list[Runs], across: Ix, down: Ix) -> None:
    """Asks, before each register tile, for some of what the next block of k packs, or the next tile: packing alone would wait for memory."""
    if not runs:
        return
    f, s, p = job.f, job.schedule, job.phase
    downs = -(-min(s.rows, job.m) // s.mr)
    share = -(-s.sums.length(job.k_sizes) // (downs * (s.width(p) // s.nr)))
    number = f.divmod(across, s.nr)[0] * downs + f.divmod(down, s.mr)[0]
    with f.loop(0, share) as loop:
        later, step = f.divmod(block.start + block.count + number * share + loop.index, job.k)
        for run in runs:
            at = offset(run.linear, run.batch | {p.k[0]: step}) + run.start + later * run.advance
            for element in (*range(0, run.length - 1, LINE_BYTES // job.dtype.itemsize), run.length - 1):         # runs start anywhere in a line
                f.prefetch(run.memory, [at + element], level=2)


@dataclass(frozen=True)
class RegisterTile:
    """Rows from `row`, columns from `column` of a tile; `number`: the row counted over all tiles. Memory and row offsets of a, memory of b, steps
    of k, how many rows; what the first columns' read as it lies, and pack."""
    row: Ix
    column: Ix
    number: Ix
    a: View
    offsets: list[Ix]
    b: View
    steps: Ix
    rows: int
    first: tuple[View, list[Ix]] | None


def _to_output(job: Job, tile: Tile, r: RegisterTile, sums: View) -> None:
    """A whole register tile is stored by the micro-kernel, one at the edge goes through scratch."""
    f, s, p = job.f, job.schedule, job.phase
    rows, columns = tile.rows - r.row, tile.columns.length - r.column
    row_step = p.out.strides[p.m[-1]]
    out = flat(f, job.outs[0])
    target = out.view_at([offset(p.out, tile.batch | tile.columns.first) + r.number * row_step + r.column], (1,))
    edges = [f.ge(f.value(left), size) for left, size, ragged in ((rows, s.mr, job.m % s.mr and not s.rest), (columns, s.nr, _has_column_tail(job))) if ragged]
    if not edges:
        return _call_whole(job, r, target, row_step, Ix())
    with f.if_(edges[0] if len(edges) == 1 else f.and_(*edges)):
        _call_whole(job, r, target, row_step, Ix())
    with f.else_():
        _call(job, tile, r, f.reinterpret(sums, (1,), (1,)), s.nr, Ix())
        with f.loop(0, r.rows if s.rest else f.min_(rows, r.rows)) as loop:
            line = out.view_at([target.start - out.start + loop.index * row_step], (s.nr,))
            vector_run(f, f.min_(columns, s.nr), s.lanes, lambda j, lanes, mask: f.store(line, [j], f.load(sums, [loop.index, j], lanes, mask), mask))


def _has_column_tail(job: Job) -> bool:
    """Whether some tile's columns are not whole register tiles."""
    cut, sizes, nr = job.schedule.columns, job.n_sizes, job.schedule.nr
    inner = cut.inner(sizes)
    return sizes[cut.split] * inner % nr != 0 or cut.chunk * inner % nr != 0


def _stream(job: Job, tile: Tile, block: Range, sums: View, add: Ix) -> None:
    """All rows and columns of the tile at once."""
    f, s, p = job.f, job.schedule, job.phase
    spec = StreamSpec(job.dtype, s.mr, s.lanes, p.a.strides[p.k[-1]], p.b.strides[p.k[-1]], s.width(p), job.fused)
    memory, rows = _a_in_place(job, tile, block, None)(Ix(), tile.row, s.mr)
    b = _b_in_place(job, tile, block, None)(Ix())
    f.call(stream_kernel(spec), [memory, b, f.reinterpret(sums, (1,), (1,)), block.length, tile.columns.length, add, *rows])


def _call_whole(job: Job, r: RegisterTile, target: View, row_step: int, add: Ix, masked: tuple[Ix, ...] = ()) -> None:
    """The columns that are asked for: of the next panel of the tile; of a single panel the next block of the sum, or of all the first of the next."""
    f, s = job.f, job.schedule
    ahead = None
    if s.ahead:
        share = -(-s.nr * s.sums.length(job.k_sizes) // -(-min(s.rows, job.m) // s.mr))
        ahead = f.divmod(r.row, s.mr)[0] * share + (r.steps if s.width(job.phase) == s.nr else job.k) * s.nr
    spec = micro_spec(job, r.rows)
    if r.first is None:
        return call_micro_kernel(f, spec, r.a, r.b, target, r.steps, row_step, add, r.offsets, masked, ahead)
    memory, offsets = r.first
    packing = replace(spec, a_step=job.phase.a.strides[job.phase.k[-1]], a_rows=True, keeps=s.mr)
    with f.if_(f.eq(f.value(r.column), 0)):
        call_micro_kernel(f, packing, memory, r.b, target, r.steps, row_step, add, offsets, masked, ahead, kept=r.a)
    with f.else_():
        call_micro_kernel(f, spec, r.a, r.b, target, r.steps, row_step, add, r.offsets, masked, ahead)


def _call(job: Job, tile: Tile, r: RegisterTile, target: View, row_step: int, add: Ix) -> None:
    """The micro-kernel on one register tile; where b is read in place, the last columns by its masked form."""
    f, s = job.f, job.schedule
    if s.b != "place" or job.n % s.nr == 0:
        return _call_whole(job, r, target, row_step, add)
    left = tile.columns.length - r.column
    if job.n < s.nr:
        return _call_whole(job, r, target, row_step, add, (left,))
    with f.if_(f.ge(f.value(left), s.nr)):
        _call_whole(job, r, target, row_step, add)
    with f.else_():
        _call_whole(job, r, target, row_step, add, (f.min_(left, s.nr),))


def micro_spec(job: Job, rows: int) -> MicroSpec:
    s, p = job.schedule, job.phase
    in_place = s.a in ("place", "taps")
    taps = tuple(sum(i * p.a.strides[d] for i, d in zip(index, p.k)) for index in product(*map(range, job.k_sizes))) if s.a == "taps" else ()
    return MicroSpec(job.dtype, rows, s.vectors, s.lanes, p.a.strides[p.k[-1]] if in_place else s.mr, in_place,
                     p.b.strides[p.k[-1]] if s.b == "place" else b_step(job), fused=job.fused, taps=taps, ahead=s.ahead)


# where a register tile reads its rows: (job, tile, block, packed) -> (row in tile, in all, rows -> (memory, row offsets))

def _a_in_place(job: Job, tile: Tile, block: Range, packed: View | None):
    base = offset(job.phase.a, tile.batch | block.first)
    clamped = job.has_row_tail and not job.schedule.rest
    return lambda row, number, rows: (job.a, [row_offset(job, number + i, clamped) + base for i in range(rows)])


def _a_shared(job: Job, tile: Tile, block: Range, packed: View | None):
    f, mr = job.f, job.schedule.mr
    panels = -(-job.m // mr)
    memory = job.packed("a", job.batches * panels * mr * job.k)
    start = tile.batch_number * (panels * mr * job.k) + block.flat * mr

    def at(row: Ix, number: Ix, rows: int):
        panel, _ = f.divmod(number, mr)
        return memory.view_at([start + panel * (mr * job.k)], (1,)), []
    return at


def _a_packed(job: Job, tile: Tile, block: Range, packed: View):
    _mr, longest = job.schedule.mr, job.schedule.sums.length(job.k_sizes)
    return lambda row, number, rows: (packed.view_at([row * longest], (1,)), [])


A_SOURCES = {"place": _a_in_place, "taps": _a_in_place, "shared": _a_shared, "tile": _a_packed, "first": _a_packed}


# where it reads its columns: (job, tile, block, packed) -> (column in tile -> memory)

def _b_in_place(job: Job, tile: Tile, block: Range, packed: View | None):
    start = offset(job.phase.b, tile.batch | tile.columns.first | block.first)
    return lambda column: job.b.view_at([start + column], (1,))


def _b_shared(job: Job, tile: Tile, block: Range, packed: View | None):
    number = tile.batch_number * job.schedule.columns.count(job.n_sizes) + tile.column_number
    panels = _shared_panels(job, _shared_b(job), number, block)
    return lambda column: panels.memory.view_at([panels.at(job.f, column)], (1,))


def _b_packed(job: Job, tile: Tile, block: Range, packed: View):
    step = b_step(job)
    panels = Panels(packed, Ix(), step, step * job.schedule.sums.length(job.k_sizes), step)
    return lambda column: packed.view_at([panels.at(job.f, column)], (1,))


B_SOURCES = {"place": _b_in_place, "shared": _b_shared, "tile": _b_packed}


# --- split sums --------------------------------------------------------------------------------------------------------------

def _store_partial(job: Job, tile: Tile, block: Block, source: Source) -> None:
    """A tile's part of the sum, where the last loop finds it: [part][batch][row][column]."""
    f, lanes = job.f, job.schedule.lanes
    memory = job.packed("partials", job.schedule.splits * job.batches * job.m * job.n)
    with f.loop(0, block.rows) as loop:
        row = block.row + loop.index
        start = ((tile.part * job.batches + tile.batch_number) * job.m + tile.row + row) * job.n + block.columns.flat
        vector_run(f, block.columns.length, lanes, lambda j, n, mask: f.store(memory, [start + j], source(row, block.column + j, n, mask), mask))
