"""Sizes of the blocks of a tiled contraction, as policy and the sizes of caches have it."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import prod, sqrt

from graphc.ir.dims import Dim
from graphc.schedule.blocking import Cut, PackingMode, RowShares
from graphc.schedule.contraction_context import even
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.target import LINE_BYTES, MATRIX_LANES
from graphc.schedule.tile_cost import EXACT_TILES, TiledProblem, longest_share, tile_rows

# of a product, where they are not too small: more would only make worse use of the caches
MAX_TILES = 512
MAX_ROWS = 96                   # of a tile that shares its columns
FULL_WIDTH = 128                # columns that a tile of fewer rows has
EVEN_GAIN = 1.03                # the longest share of rows, relative to the best, that is worth another number of rows
DEEP_SUMS = 32 << 10            # outputs of a tile that takes a part of long sums: these stay in L2
DEEP_ROWS = 256
# of a tile that packs its rows by first use: few of its micro-tiles read rows that are not packed yet
FIRST_USE_COLUMNS = 512
FIRST_USE_PANELS = 16           # panels of rows of such a tile, which share columns while these are in L1
FEW_ROWS = 256                  # below this many rows, b is streamed from memory rather than reused from L2
WEIGHT_ROWS = 64                # of a tile: with fewer, reading its weights from memory takes longer than its sums
MAX_PARTIALS = 4 << 20          # elements of partial results
MATRIX_STEPS = 1024             # of a block of a sum in matrix registers
SPLIT_STEPS = 128               # of a sum, the least of a part


def linear_from(t: LinearMap[Dim], p: Phase[Dim], dims: tuple[int, ...]) -> int:
    """The first of the dims such that the operand steps evenly through it and all that are inside it."""
    position = len(dims) - 1
    while position > 0 and t.strides[dims[position - 1]] == t.strides[dims[position]] * p.sizes[dims[position]]:
        position -= 1
    return position


def sum_blocks(problem: TiledProblem, a: PackingMode, b: PackingMode, packed: int = 0) -> Cut:
    """KC: the columns of a micro-tile stream from L2 (where each tile packs them, they stay in L1; where it packs both
    operands, L2 also has room for what it packs next), rows that were packed for all stay in L1 beside that stream, and
    operands that are read unpacked step evenly through the block. With few rows, columns are used few times: blocks are
    then short, as the first micro-tile of each waits for memory, and those after it prefetch the next block. Matrix
    registers take whole blocks of steps, and long ones, whose sums are loaded and stored the fewer times, as long as
    half of L2 holds the rows and columns that a tile packs for itself, `packed` in number."""
    p, sizes, context, machine = problem.p, problem.k_sizes, problem.context, problem.machine
    if a is PackingMode.TAPS:
        return Cut(0, sizes[0])
    own = (a is PackingMode.BY_FIRST_USE) + (b is PackingMode.PER_TILE) * (1 + (a is PackingMode.PER_TILE))
    stream = machine.l2_bytes // (16 if b is PackingMode.ONCE and problem.m <= FEW_ROWS else 4)
    limit = context.elements((stream, machine.l1_bytes * 2 // 3, machine.l1_bytes // 2)[own]) // problem.nr
    if problem.matrices:
        limit = min(MATRIX_STEPS, context.elements(machine.l2_bytes // 2) // max(1, packed))
    elif a is PackingMode.ONCE or a is PackingMode.PER_TILE and not own:
        limit = min(limit, context.elements(machine.l1_bytes // 4) // problem.mr)
    limit = max(1, limit)
    for split in range(first_split(problem, a, b), len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= limit or split == len(sizes) - 1:
            if problem.k_split == split and problem.form.sizes[p.k[split]] != sizes[split]:
                return Cut(split, max(1, limit // inner))
            blocks = min(sizes[split], -(-sizes[split] * inner // limit))
            chunk = -(-sizes[split] // max(1, blocks))
            whole = problem.matrices and inner == 1 and blocks > 1
            return Cut(split, round_up(chunk, MATRIX_LANES) if whole else chunk)
    return Cut(0, prod(sizes))


def first_split(problem: TiledProblem, a: PackingMode, b: PackingMode) -> int:
    """The first dim of k at which blocks may be cut: operands that are read unpacked step evenly through what is
    inside, whose size is known."""
    p = problem.form
    even = [linear_from(t, p, p.k) for t, mode in ((p.a, a), (p.b, b)) if mode is PackingMode.UNPACKED]
    return max([problem.k_split, *even])


def shared_tile(problem: TiledProblem) -> tuple[int, Cut]:
    """MC and NC of tiles that read what is packed for all of them, or unpacked columns: as square as may be of weights,
    else wide."""
    area = _area(problem)
    rows = max(sqrt(area), _rows_of_weights(problem)) if problem.context.free[1] else area / min(problem.n, FULL_WIDTH)
    return _sized(problem, min(MAX_ROWS, rows), area)


def tall_tile(problem: TiledProblem, most: int) -> tuple[int, Cut]:
    """Of tiles that pack their own columns: `most` rows share them."""
    return _sized(problem, min(problem.m, most), _area(problem))


def first_use_tile(problem: TiledProblem) -> tuple[int, Cut]:
    rows = even(problem.m, min(problem.m, FIRST_USE_PANELS * problem.mr), problem.mr)
    return rows, column_cut(problem.n_sizes, min(problem.n, FIRST_USE_COLUMNS), problem.nr, least=problem.n_split)


def deep_tile(problem: TiledProblem) -> tuple[int, Cut]:
    """All rows and columns if their sums stay in L2, else fewer columns, then fewer rows."""
    rows = even(problem.m, min(problem.m, DEEP_ROWS), problem.mr)
    return rows, column_cut(problem.n_sizes, DEEP_SUMS / rows, problem.nr, least=problem.n_split)


def row_shares(problem: TiledProblem, columns: Cut, down: Cut | None,
               modes: Collection[PackingMode]) -> RowShares | None:
    """Where the number of rows is not known, the tiles of these columns that keep the planned cores busy when rows are
    few: twice as many as cores, unless each of them then reads columns again from beyond L2. None where there are
    enough side by side, or each tile packs columns for itself, and where shares of rows are chosen otherwise.
    """
    p, machine = problem.form, problem.machine
    side_by_side = problem.batch * columns.count(problem.n_sizes)
    wanted = machine.planned_cores * (2 if problem.holds_columns else 1)
    tiles = -(-wanted // side_by_side)
    otherwise = down or problem.matrices or problem.gates or PackingMode.PER_TILE in modes
    if isinstance(p.extent(p.m), int) or otherwise or tiles < 2:
        return None
    panel = 2 * problem.k * problem.mr * columns.length(problem.n_sizes)
    return RowShares(tiles, -(-machine.small_product_flops // panel))


def column_cut(sizes: tuple[int, ...], columns: float, nr: int, unit: int = 0, least: int = 0) -> Cut:
    """Tiles of about so many columns: a part of one dim, all of the dims inside it. unit: of the outermost dim, a
    multiple of this. least: the first dim that may be cut."""
    inner = [prod(sizes[split + 1:]) for split in range(len(sizes))]
    split = next((i for i, size in enumerate(inner) if i >= least and (size <= columns or unit > 0)), len(sizes) - 1)
    return Cut(split, even(sizes[split], max(1, columns / inner[split]), nr if inner[split] == 1 else max(1, unit)))


def splits_of(problem: TiledProblem, tiles: int, blocks: int) -> int:
    """Parts of the sum: as many as the tiles fall short of keeping the planned cores busy, each worth its own tile."""
    machine, flops = problem.machine, problem.p.flops
    if problem.gates or 2 * tiles >= machine.planned_tiles:
        return 1
    outputs = problem.batch * problem.m * problem.n
    useful = min(
        machine.planned_tiles // max(1, tiles),
        flops // (2 * machine.small_product_flops * tiles),
        blocks,
        problem.k // SPLIT_STEPS,
        MAX_PARTIALS // outputs,
    )
    if useful < 2 or problem.agreed is None:
        return 1 if useful < 2 else -(-blocks // -(-blocks // useful))
    return blocks if blocks <= 2 * useful else 1        # a block a part: added as where sums are whole


def even_rows(problem: TiledProblem, rows: int, across: int, by_rows: bool) -> int:
    """MC, near `rows`, so that the planned cores get even shares; `across`: tiles side by side. `rows` itself if the
    gain is small."""
    m, mr, machine = problem.m, problem.mr, problem.machine
    tiles = problem.batch * across * -(-m // rows)
    if not 1 < tiles <= EXACT_TILES or problem.p.flops < tiles * machine.small_product_flops:
        return rows

    def share(chunk: int) -> int:
        return longest_share(tile_rows(m, chunk, mr), across, problem.batch, by_rows, machine.planned_cores)
    if share(rows) <= EVEN_GAIN * problem.batch * across * m / machine.planned_cores:       # no other can gain more
        return rows
    shares = {chunk: share(chunk) for chunk in (rows, *range(max(mr, round_up(rows / 2, mr)), 2 * rows + 1, mr))}
    least = min(shares.values())
    if shares[rows] <= EVEN_GAIN * least:
        return rows
    return min(shares, key=lambda chunk: (shares[chunk] > (1 + EVEN_GAIN) / 2 * least, abs(chunk - rows)))


def _area(problem: TiledProblem) -> float:
    """Outputs of a tile: work that a tile should have, more while that leaves tiles enough, so that enough rows share
    what is packed, or weights."""
    machine, flops, tile = problem.machine, problem.p.flops, problem.mr * problem.nr
    work = max(
        min(flops / machine.planned_tiles, machine.large_product_flops), machine.small_product_flops, flops / MAX_TILES
    )
    least = (
        0 if problem.context.free[1] else min(32 * tile, problem.batch * problem.m * problem.n / machine.planned_tiles)
    )
    return max(work / (2 * problem.k), least, 4 * tile)


def _sized(problem: TiledProblem, rows: float, area: float) -> tuple[int, Cut]:
    context, nr, sizes = problem.context, problem.nr, problem.n_sizes
    mc = even(problem.m, max(problem.mr, rows), problem.mr)
    columns = max(nr, min(area / mc, context.elements(problem.machine.l2_bytes // 4) / mc))
    # vectors of units whose results fill cache lines: no two threads share one
    line = -(-context.elements(LINE_BYTES) // context.lanes)
    cut = column_cut(sizes, columns, nr, line if problem.gates else 0, problem.n_split)
    few = context.free[1] and problem.batch * -(-problem.m // mc) * cut.count(sizes) < problem.machine.planned_tiles
    rounded = cut.split == len(sizes) - 1 and cut.chunk > max(nr, columns)
    return mc, replace(cut, chunk=cut.chunk - nr) if few and rounded else cut


def _rows_of_weights(problem: TiledProblem) -> int:
    """Rows at least of a tile that uses weights few times, and so many of them that other tiles read them from beyond
    L2 again."""
    machine, m, n = problem.machine, problem.m, problem.n
    again = m <= FEW_ROWS and n * problem.k > problem.context.elements(2 * machine.l2_bytes)
    return WEIGHT_ROWS if again and problem.batch * (m // WEIGHT_ROWS) * n >= machine.planned_tiles * problem.nr else 0
