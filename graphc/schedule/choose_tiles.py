"""Contractions by register tiles: how large tiles are, where these read their operands, in what order and parts."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod, sqrt

from graphc.schedule.blocking import Blocking, ColumnPacking, Cut, PackingMode
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_context import DOT_ROWS, SMALL_FLOPS, TILES, ContractionContext, even
from graphc.schedule.contraction_schedule import (
    MAX_TAPS, STEPS, StreamSchedule, TileSchedule, column_packing, group_sizes, round_up)
from graphc.schedule.register_tiles import register_tile
from graphc.schedule.target import LINE_BYTES

TILE_FLOPS = 6_500_000          # 50 to 70 µs of one core
MANY_TILES = 512                # more would only make worse use of the caches
AWAITED = 8                     # cost of reading a row that another thread has computed, in columns that are prefetched
CORES = 4                       # threads that get even shares of the tiles
LITTLE = 1.03                   # by which factor the longest share may exceed that of the best choice
DEEP_TILE = 32 << 10            # sums of a tile when the sums are long: they stay in L2
TALL = 256                      # most rows of a tile that packs its own columns
SCARCE = 256                    # below this many rows, b is streamed from memory rather than reused from L2
REREAD = 64                     # rows of a tile: with fewer, reading its weights from memory takes longer than its sums
BROAD = 128                     # columns that a tile of fewer than 96 rows has
WIDE = 512                      # columns of a tile that packs its rows by first use
LONG = 2048                     # least steps of a sum of which tiles pack rows by first use
SHARING = 16                    # register tiles below each other in such a tile
PARTIALS = 4 << 20              # elements of partial results at most
MOST_AHEAD = 4                  # cache lines of packed columns that are prefetched every STEPS steps, at most
STREAM_BYTES = 8192             # of one row of b in a tile
STREAM_WORK = 64 << 10          # elements of b that a tile reads, at least


def tile_schedule(p: Phase, context: ContractionContext, gates: int = 0) -> TileSchedule:
    """gates: columns are interleaved, and those of the same units stay in one tile."""
    m, n = p.extent(p.m), p.extent(p.n)
    turned = _is_turned(p)
    mr, vectors = register_tile(m, n, context, p.extent(p.k), turned, gates)
    nr = vectors * context.lanes
    deep = _is_deep(p) and not context.free[1] and not gates            # with b packed already, narrow tiles cost nothing
    a = _a_source(p, n, nr, deep or turned, gates, context)
    b = _b_source(p, m, mr, nr, deep, context)
    sums = _sum_blocks(p, a, b, mr, nr, context)
    rows, columns = _deep_tile(p, mr, nr) if deep else _wide_tile(p, mr, nr) if a is PackingMode.BY_FIRST_USE else _tile_size(p, mr, nr, b, context, gates)
    down = _column_cut(group_sizes(p, p.m), rows, mr) if turned else Cut(0, rows)
    rows = down.length(group_sizes(p, p.m)) if turned else rows
    tiles = p.extent(p.batch) * (down.count(group_sizes(p, p.m)) if turned else -(-m // rows)) * columns.count(group_sizes(p, p.n))
    splits = 1 if gates else _splits(p, tiles, sums)
    by_rows = _by_rows(p, turned, rows, context)
    if splits == 1 and (not turned or len(p.m) == 1):
        rows = _even_rows(p, rows, mr, columns.count(group_sizes(p, p.n)), by_rows)
        down = Cut(0, rows)
    alone = tiles * splits == 1 or columns.count(group_sizes(p, p.n)) == 1 and _are_windows(p, p.a, p.m)
    a = PackingMode.PER_TILE if a is PackingMode.ONCE and not context.free[0] and alone else a        # nobody else reads the rows of a tile
    if tiles * splits == 1:
        b = PackingMode.PER_TILE if b is PackingMode.ONCE and not context.free[1] and column_packing(p, context.lanes) is not ColumnPacking.TAPS else b
    ahead = _lines_ahead(-(-min(rows, m) // mr), nr, context) if b is PackingMode.ONCE and a is not PackingMode.TAPS and _are_far(p, context) else 0
    return TileSchedule(Blocking(mr, nr, rows, columns, sums), context.lanes, a, b, splits, transposed_store=down if turned else None,
                        by_rows=by_rows, prefetch_lines=ahead, edge_mr=0 if turned else _rest(p, m, mr),
                        packed_in_runs=b is PackingMode.ONCE and _are_near(p, context))


def _even_rows(p: Phase, rows: int, mr: int, across: int, by_rows: bool) -> int:
    """Rows of a tile, near `rows`, so that CORES threads get even shares; `across`: tiles side by side. `rows` itself if the gain is small."""
    m, batch = p.extent(p.m), p.extent(p.batch)
    tiles = batch * across * -(-m // rows)
    if not 1 < tiles <= MANY_TILES // 4 or p.flops < tiles * SMALL_FLOPS:
        return rows

    def longest(chunk: int) -> int:
        down = [round_up(min(chunk, m - row), mr) for row in range(0, m, chunk)]
        sizes = ([size for size in down for _ in range(across)] if by_rows else down * across) * batch
        ends = [len(sizes) * part // CORES for part in range(CORES + 1)]
        return max(sum(sizes[start:end]) for start, end in zip(ends, ends[1:]))
    shares = {chunk: longest(chunk) for chunk in (rows, *range(max(mr, round_up(rows / 2, mr)), 2 * rows + 1, mr))}
    least = min(shares.values())
    if shares[rows] <= LITTLE * least:
        return rows
    return min(shares, key=lambda chunk: (shares[chunk] > (1 + LITTLE) / 2 * least, abs(chunk - rows)))


def _rest(p: Phase, m: int, mr: int) -> int:
    """Rows of a smaller last register tile: where padding costs so much that another kernel pays."""
    return m % mr if p.flops >= SMALL_FLOPS and (mr - m % mr) * 100 >= m else 0


def _are_near(p: Phase, context: ContractionContext) -> bool:
    """Whether columns that lie in runs may be in the L2 of other cores, which have just computed them: line by line these take long, but long runs are
    seen coming."""
    return column_packing(p, context.lanes) is ColumnPacking.PANELS and _stay_in_l2(p, context)


def _are_far(p: Phase, context: ContractionContext) -> bool:
    """Whether columns that are packed for all tiles come from beyond L2: many, or weights, since which those of other layers have passed."""
    return (context.free[1] or not _stay_in_l2(p, context)) and column_packing(p, context.lanes) is not ColumnPacking.RUNS


def _stay_in_l2(p: Phase, context: ContractionContext) -> bool:
    """Whether all columns take at most half of it."""
    return p.extent(p.n) * p.extent(p.k) <= context.elements(context.target.l2 // 2)


def _lines_ahead(downs: int, nr: int, context: ContractionContext) -> int:
    """Lines to prefetch for each register tile: all those of a panel together prefetch the next panel, if that is little beside their arithmetic."""
    lines = -(-nr * STEPS // (downs * context.elements(LINE_BYTES)))
    return lines if lines <= MOST_AHEAD else 0


def _by_rows(p: Phase, turned: bool, rows: int, context: ContractionContext) -> bool:
    """Whether consecutive tiles share their rows, so that the columns are read again and again: best for the smaller operand, which a cache may hold.
    Prepacked columns are prefetched; rows were just written by other cores and are not. So if each thread can keep its own rows across layers, reusing
    rows matters more (by the factor AWAITED). If L2 holds both operands, the output (a weight that is updated) is cut into runs of its memory, one for
    each thread, as in the products that read it."""
    a, b = _memory(p, p.a, p.m + p.k), _memory(p, p.b, p.n + p.k)
    own = context.free[1] and not turned and p.extent(p.m) > (CORES - 2) * rows
    return a * (AWAITED if own else 1) > b or not turned and a + b <= context.elements(context.target.l2) and p.extent(p.m) * p.extent(p.n) > b


def _memory(p: Phase, operand: LinearMap, dims: Sequence[int]) -> int:
    """Elements of memory that an operand spans along some dims."""
    low, high = LinearMap(0, operand.strides).span([size if d in dims else 1 for d, size in enumerate(p.sizes)])
    return high - low + 1


def _is_turned(p: Phase) -> bool:
    """Whether the output is contiguous along m although vectors run along n."""
    def step(dims):
        return min((abs(p.out.strides[d]) for d in dims if p.sizes[d] > 1), default=1 << 62)
    return step(p.m) < step(p.n)


def _is_deep(p: Phase) -> bool:
    """Sums much longer than a small output is wide (gradients of weights): tiles take all or half of the output and a part of the sum."""
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    return k >= 4 * max(m, n) and m * n <= 2 * DEEP_TILE and p.extent(p.batch) * -(-m * n // DEEP_TILE) < TILES // 2


def _splits(p: Phase, tiles: int, sums: Cut) -> int:
    """Parts of the sum: as many as the tiles fall short of keeping the cores busy, each worth its own tile: every part is written and read once more."""
    blocks = sums.count(group_sizes(p, p.k))
    outputs = p.extent(p.batch + p.m + p.n)
    useful = min(TILES // max(1, tiles), p.flops // (2 * SMALL_FLOPS * tiles), blocks, p.extent(p.k) // 128, PARTIALS // outputs)
    if tiles >= TILES // 2 or useful < 2:
        return 1
    return -(-blocks // -(-blocks // useful))


# --- where operands are read -----------------------------------------------------------------------------------------------

def _a_source(p: Phase, n: int, nr: int, by_tile: bool, gates: int, context: ContractionContext) -> PackingMode:
    """Rows are read in place, one broadcast an element, when they lie along k, when sums are short, or when each element is used a
    few times only. Others are packed: before all calls, by the first register tiles that read them, by each tile, or for all tiles.
    """
    inner = p.k[-1]
    run = prod(group_sizes(p, p.k)[_linear_from(p.a, p, p.k):])
    in_place = run >= 32 or len(p.k) == 1
    step = abs(p.a.strides[inner])
    if in_place and (step <= 1 or n <= 2 * nr or run * 64 <= context.target.l1 // 2):
        return PackingMode.UNPACKED
    if context.free[0]:
        return PackingMode.ONCE
    if p.extent(p.k) <= MAX_TAPS:
        return PackingMode.TAPS
    if not (by_tile or gates) and _may_pack_on_the_way(p):
        return PackingMode.BY_FIRST_USE
    return PackingMode.PER_TILE if p.batch or by_tile else PackingMode.ONCE


def _may_pack_on_the_way(p: Phase) -> bool:
    """Whether rows are contiguous, and sums so long that the wait for the first block of each tile counts little."""
    return len(p.m) == 1 and len(p.k) == 1 and p.a.strides[p.m[0]] == 1 and p.extent(p.k) >= LONG


def _b_source(p: Phase, m: int, mr: int, nr: int, deep: bool, context: ContractionContext) -> PackingMode:
    """Columns are read unpacked if they are contiguous along n and there are too few rows, or too little data, for packing to pay; but not if
    packing costs nothing and their vectors cross cache lines."""
    inner, n, k = p.n[-1], p.extent(p.n), p.extent(p.k)
    straight = len(p.n) == 1 and len(p.k) == 1
    if straight and p.b.strides[inner] == 1:
        step = abs(p.b.strides[p.k[0]])
        few = m <= 3 * mr or k * step <= context.elements(context.target.l1) * 2
        if few and not (context.free[1] and step % context.elements(LINE_BYTES)):
            return PackingMode.UNPACKED
    if context.free[1] or column_packing(p, context.lanes) is ColumnPacking.TAPS:
        return PackingMode.ONCE
    return PackingMode.PER_TILE if p.batch or deep or _shares_little(m, n, k, nr, context) or _are_windows(p, p.b, p.n) else PackingMode.ONCE


def _shares_little(m: int, n: int, k: int, nr: int, context: ContractionContext) -> bool:
    """Whether tall tiles, enough of them, leave nobody else to read their columns, or so few others that packing these again costs less than a
    loop over all of b before.
    """
    times = max(1, round(m / TALL))
    again = times == 1 or n * k * times <= context.elements(context.target.l2 // 2)
    return again and m * k <= times * context.elements(context.target.l2 // 4) and n * times >= TILES // 2 * nr


def _are_windows(p: Phase, operand: LinearMap, dims: Sequence[int]) -> bool:
    """Whether rows or columns (`dims`) overlap in memory: an image, which packed whole would be many images."""
    return len(dims) > 1 and p.extent(dims) * p.extent(p.k) > 2 * _memory(p, operand, (*dims, *p.k))


def _linear_from(t: LinearMap, p: Phase, dims: Sequence[int]) -> int:
    """The first of the dims such that the operand steps evenly through it and all that are inside it."""
    position = len(dims) - 1
    while position > 0 and t.strides[dims[position - 1]] == t.strides[dims[position]] * p.sizes[dims[position]]:
        position -= 1
    return position


# --- sizes -----------------------------------------------------------------------------------------------------------------

def _sum_blocks(p: Phase, a: PackingMode, b: PackingMode, mr: int, nr: int, context: ContractionContext) -> Cut:
    """Blocks of k: the columns of a register tile stream from L2 (where each tile packs them, they stay in L1; where it packs both operands,
    L2 also has room for what it packs next), rows that were packed for all stay in L1 beside that stream, and operands that are read in place step
    evenly through the block. With few rows, columns are used few times: blocks are then short, as the first register tile of each waits for memory,
    and those after it prefetch the next block.
    """
    sizes = group_sizes(p, p.k)
    k = prod(sizes)
    if a is PackingMode.TAPS:
        return Cut(0, sizes[0])
    own = (a in (PackingMode.PER_TILE, PackingMode.BY_FIRST_USE)) + (b is PackingMode.PER_TILE)
    stream = context.target.l2 // (16 if b is PackingMode.ONCE and p.extent(p.m) <= SCARCE else 4)
    limit = context.elements((stream, context.target.l1 * 2 // 3, context.target.l1 // 2)[own]) // nr
    limit = min(limit, context.elements(context.target.l1 // 4) // mr) if a is PackingMode.ONCE else limit
    first = max([0] + [_linear_from(t, p, p.k) for t, where in ((p.a, a), (p.b, b)) if where is PackingMode.UNPACKED])
    for split in range(first, len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= limit or split == len(sizes) - 1:
            blocks = min(sizes[split], -(-sizes[split] * inner // limit))
            return Cut(split, -(-sizes[split] // max(1, blocks)))
    return Cut(0, k)


def _tile_size(p: Phase, mr: int, nr: int, b: PackingMode, context: ContractionContext, gates: int) -> tuple[int, Cut]:
    """Rows and columns worth TILE_FLOPS; more while that leaves TILES tiles, so that enough rows share what is packed, or weights. All rows, or about TALL, where
    each tile packs its own columns; half of that where it leaves few tiles and columns are near, which costs little to pack again.
    """
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    budget = max(min(p.flops / TILES, TILE_FLOPS), SMALL_FLOPS, p.flops / MANY_TILES)
    least = 0 if context.free[1] else min(32 * mr * nr, p.extent(p.batch) * m * n / TILES)
    area = max(budget / (2 * k), least, 4 * mr * nr)
    near = n * k <= context.elements(context.target.l2 // 4)
    tall = TALL // 2 if near and p.extent(p.batch) * round(m / TALL) * n < 2 * TILES * nr else TALL
    tall = min(m, tall) if b is PackingMode.PER_TILE else min(96, max(sqrt(area), _rows_of_weights(p, nr, context)) if context.free[1] else area / min(n, BROAD))
    rows = even(m, max(mr, tall), mr)
    columns = max(nr, min(area / rows, context.elements(context.target.l2 // 4) / rows))
    sizes = group_sizes(p, p.n)
    line = -(-context.elements(LINE_BYTES) // context.lanes)           # vectors of units whose results fill cache lines: no two threads share one
    cut = _column_cut(sizes, columns, nr, line if gates else 0)
    few = context.free[1] and p.extent(p.batch) * -(-m // rows) * cut.count(sizes) < TILES
    rounded = cut.split == len(sizes) - 1 and cut.chunk > max(nr, columns)
    return rows, replace(cut, chunk=cut.chunk - nr) if few and rounded else cut


def _rows_of_weights(p: Phase, nr: int, context: ContractionContext) -> int:
    """Rows at least of a tile that uses weights few times, and so many of them that other tiles read them from beyond L2 again."""
    m, n = p.extent(p.m), p.extent(p.n)
    again = m <= SCARCE and n * p.extent(p.k) > context.elements(2 * context.target.l2)
    return REREAD if again and p.extent(p.batch) * (m // REREAD) * n >= TILES * nr else 0


def _wide_tile(p: Phase, mr: int, nr: int) -> tuple[int, Cut]:
    """So many columns that few of the register tiles read rows that are not packed yet, and rows that share columns while these are in L1."""
    return even(p.extent(p.m), min(p.extent(p.m), SHARING * mr), mr), _column_cut(group_sizes(p, p.n), min(p.extent(p.n), WIDE), nr)


def _deep_tile(p: Phase, mr: int, nr: int) -> tuple[int, Cut]:
    """All rows and columns if their sums fit in L2, else fewer columns, then fewer rows."""
    m = p.extent(p.m)
    rows = even(m, min(m, 256), mr)
    return rows, _column_cut(group_sizes(p, p.n), DEEP_TILE / rows, nr)


def _column_cut(sizes: tuple[int, ...], columns: float, nr: int, unit: int = 0) -> Cut:
    """Tiles of about so many columns: a part of one dim, all of the dims inside it. unit: of the outermost dim, a multiple of this."""
    for split in range(len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= columns or split == len(sizes) - 1 or unit > 0:
            return Cut(split, even(sizes[split], max(1, columns / inner), nr if inner == 1 else max(1, unit)))
    raise AssertionError("unreachable")


# --- rows streamed --------------------------------------------------------------------------------------------------------

def is_stream(p: Phase, context: ContractionContext) -> bool:
    """Few rows times a matrix that lies along n and is wide enough to be read in long runs."""
    straight = len(p.n) == 1 and len(p.k) == 1 and p.b.strides[p.n[0]] == 1
    return straight and p.extent(p.m) <= DOT_ROWS and p.extent(p.n) >= 8 * context.lanes and p.extent(p.k) >= 16


def stream_schedule(p: Phase, context: ContractionContext) -> StreamSchedule:
    """Tiles of some KB of columns and of enough steps that each reads some 100 KB of b."""
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    columns = Cut(0, even(n, min(n, STREAM_BYTES // context.itemsize), context.lanes))
    sums = Cut(0, min(k, 256))
    blocks = sums.count((k,))
    share = -(-STREAM_WORK // (columns.chunk * sums.chunk))
    splits = max(1, min(blocks // share, 2 * TILES // (p.extent(p.batch) * columns.count((n,))), PARTIALS // (p.extent(p.batch) * m * n)))
    blocking = Blocking(m, context.lanes, m, columns, sums)
    return StreamSchedule(blocking, context.lanes, PackingMode.UNPACKED, PackingMode.UNPACKED, -(-blocks // -(-blocks // splits)))
