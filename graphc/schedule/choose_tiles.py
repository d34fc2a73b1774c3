"""Contractions by micro-tiles: the cheapest of some ways to divide them into tiles and to bring operands to the
micro-kernel.

A candidate is a family of tiles (`_families`), an order and a number of parts of the sum, and a packing mode for each
operand; sizes within a family come from tile_sizes.py, the cycles of each candidate from tile_cost.py. """
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import prod

from graphc.ir.dims import Dim, ceil_div
from graphc.records import dataclass
from graphc.schedule.blocking import Blocking, ColumnPacking, Cut, PackingMode
from graphc.schedule.contraction_context import ContractionContext, even
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import MAX_TAPS, STEPS, MatrixSchedule, TileSchedule, group_sizes
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.machine import Machine
from graphc.schedule.matrix_registers import fit_matrices, matrix_column_modes, matrix_row_modes
from graphc.schedule.target import LINE_BYTES, MATRIX_LANES
from graphc.schedule.tile_cost import Agreement, TileCost, TiledProblem, Tiling
from graphc.schedule.tile_sizes import (
    DEEP_SUMS,
    column_cut,
    deep_tile,
    even_rows,
    first_split,
    first_use_tile,
    linear_from,
    row_shares,
    shared_tile,
    splits_of,
    sum_blocks,
    tall_tile,
)

TALL_ROWS = (256, 128)          # of tiles that pack their own columns: the more, the more rows share these
DECODED_ROWS = (512, 256, 128)  # of tiles that make numbers of codes
DEEP_RATIO = 4                  # steps of a sum for each row or column, from which on tiles take parts of it
FIRST_USE_STEPS = 2048          # of a sum, from which on the wait for the first block of rows counts little
FIRST_USE_PANELS = 4            # of columns, from which on enough of them read the packed rows
ROWS_OF_MATRICES = (128, 256, 64)       # of tiles by matrix registers, and their columns
COLUMNS_OF_MATRICES = (128, 256, 512)
LINES_OF_MATRICES = 16          # of packed columns every 16 steps of two registers of rows, at most
BROADCAST_RUN = 32              # steps along which rows must be linear to be read unpacked
PREFETCH_LINES = 4              # of packed columns every STEPS steps, at most, where L2 may have kept them
UNPACKED, ONCE, PER_TILE, BY_FIRST_USE, TAPS = PackingMode


@dataclass(frozen=True)
class TileFamily:
    """Tiles of one idea: their size, and the packing modes that suit them."""
    name: str
    mc: int
    nc: Cut
    a: tuple[PackingMode, ...]
    b: tuple[PackingMode, ...]


@dataclass(frozen=True)
class TileDraft:
    """What a candidate decides; the rest of its schedule follows."""
    tiling: Tiling
    kc: Cut
    a: PackingMode
    b: PackingMode


@lru_cache(maxsize=1024)
def tile_schedule(p: Phase[int], context: ContractionContext, gates: int = 0) -> TileSchedule:
    """gates: columns are interleaved, and those of the same units stay in one tile."""
    ranking = tile_ranking(p, context, gates)
    return replace(ranking.best.schedule, ranking=ranking)


def tile_ranking(p: Phase[int], context: ContractionContext, gates: int = 0, form: Phase[Dim] | None = None,
                 agreed: Agreement | None = None) -> Ranking[TileSchedule]:
    """By vectors, and by matrix registers where there are any. form, agreed: as of `TiledProblem`."""
    problems = [TiledProblem(p, context, gates, form, agreed, matrices) for matrices in (False, True)
                if agreed is None or agreed.matrices in (None, matrices)]
    return ranked([c for problem in problems for c in _candidates(problem)])


def _candidates(problem: TiledProblem) -> tuple[Candidate[TileSchedule], ...]:
    if problem.matrices and not fit_matrices(problem):
        return ()
    families = _matrix_families(problem) if problem.matrices else _families(problem)
    drafts = ranked([c for family in families for c in _members(problem, family)])
    finish = _matrix_schedule if problem.matrices else _finished
    return tuple([Candidate(c.name, finish(problem, c.schedule), c.terms) for c in drafts.candidates])


# --- candidates -------------------------------------------------------------------------------------------------------

def _families(problem: TiledProblem) -> Iterator[TileFamily]:
    p, free = problem.form, problem.context.free
    a, b = _row_modes(problem), _column_modes(problem)
    # taps are packed once, in the order of the weights
    own = not free[1] and problem.packing is not ColumnPacking.TAPS
    if (
        own
        and not problem.gates
        and problem.k >= DEEP_RATIO * max(problem.m, problem.n)
        and problem.m * problem.n <= 2 * DEEP_SUMS
    ):
        yield TileFamily(
            "parts of long sums",
            *deep_tile(problem),
            (*(mode for mode in a if mode in (UNPACKED, TAPS)), PER_TILE),
            (PER_TILE,),
        )
    closed = not p.is_open
    straight = closed and len(p.m) == 1 and len(p.k) == 1 and p.a.strides[p.m[0]] == 1 and not problem.transposed
    shares = problem.k >= FIRST_USE_STEPS and problem.n >= FIRST_USE_PANELS * problem.nr
    if straight and shares and not free[0] and not problem.gates:
        yield TileFamily("rows packed by first use", *first_use_tile(problem), (BY_FIRST_USE,), b)
    if problem.context.codes:
        for rows in DECODED_ROWS:
            yield TileFamily(f"numbers for {rows} rows", *tall_tile(problem, rows), a, b)
    mc, nc = shared_tile(problem)
    if problem.agreed and problem.agreed.columns:
        nc, mode = problem.agreed.columns
        b = (mode,)
    yield TileFamily("columns for all", mc, nc, a, b)
    alone = (problem.batch * nc.count(problem.n_sizes) == 1 and not problem.agreed and not problem.context.codes
             and problem.packing is ColumnPacking.TRANSPOSED)
    if own and (alone or UNPACKED in b and problem.agreed) and problem.m <= problem.mr and not problem.gates:
        share = problem.n / problem.machine.planned_cores       # few rows wait for columns: all cores read some
        columns = column_cut(problem.n_sizes, share, problem.nr, least=problem.n_split)
        yield TileFamily("columns for each core", mc, columns, a, (PER_TILE,) if alone else (UNPACKED,))
    for rows in TALL_ROWS if own and not problem.context.codes else ():
        yield TileFamily(f"columns for {rows} rows", *tall_tile(problem, rows), a, (PER_TILE,))


def _matrix_families(problem: TiledProblem) -> Iterator[TileFamily]:
    """The larger a tile, the more often is used what comes from L3: products take less time than that."""
    columns = [COLUMNS_OF_MATRICES[-1:], COLUMNS_OF_MATRICES][problem.n > COLUMNS_OF_MATRICES[0]]
    agreed = problem.agreed.columns if problem.agreed else None
    modes = matrix_column_modes(problem, _column_modes(problem))
    if not problem.context.free[1] and not agreed and problem.packing is not ColumnPacking.TAPS:
        modes = (*modes, PER_TILE)
    for rows, width in product(ROWS_OF_MATRICES, columns):
        mc = even(problem.m, min(rows, problem.m), problem.mr)
        cut = column_cut(problem.n_sizes, min(width, problem.n), problem.nr, 1 if problem.gates else 0, problem.n_split)
        yield TileFamily("matrix registers", mc, agreed[0] if agreed else cut, matrix_row_modes(problem), modes)


def _row_modes(problem: TiledProblem) -> tuple[PackingMode, ...]:
    """Rows are read unpacked, one broadcast an element, along linear runs of the sum, or as taps of a short one. Others
    are packed."""
    p = problem.form
    run = prod(problem.k_sizes[linear_from(p.a, p, p.k):])
    found = (UNPACKED,) if run >= BROADCAST_RUN or len(p.k) == 1 else ()
    if problem.context.free[0]:
        return (*found, ONCE)
    if all(isinstance(p.sizes[d], int) for d in p.k):
        if problem.k <= MAX_TAPS:
            return *found, TAPS
        found = (*[TAPS] * _has_rounds(problem), *found)        # sums of several blocks would be loaded and stored
    return *found, ONCE, PER_TILE


def _has_rounds(problem: TiledProblem) -> bool:
    """Whether the micro-kernel may know where all terms of a longer sum lie, too: rounds of a few neighbours, such as
    lines of a window, as many as have columns in L1."""
    p, sizes = problem.form, problem.k_sizes
    lines = p.a.strides[p.k[-1]] == 1 and linear_from(p.a, p, p.k) > 0 and prod(sizes[1:]) <= MAX_TAPS
    return (lines and problem.mr * problem.vectors >= problem.machine.busy_sums
            and problem.k * problem.nr <= problem.context.elements(problem.machine.l1_bytes))


def _column_modes(problem: TiledProblem) -> tuple[PackingMode, ...]:
    """Columns that are contiguous along n may be read unpacked, unless it is settled that they are packed. Codes become
    numbers where these are used at once."""
    if problem.context.codes:
        return (PER_TILE,)
    p, packed = problem.form, problem.agreed is not None and problem.agreed.packed
    straight = len(p.n) == 1 and len(p.k) == 1 and p.b.strides[p.n[0]] == 1
    return (UNPACKED, ONCE) if straight and not packed else (ONCE,)


def _members(problem: TiledProblem, family: TileFamily) -> Iterator[Candidate[TileDraft]]:
    """Those with whole sums first: parts are worth their sums only if that gains something."""
    blocks = {(a, b): kc for a in family.a for b in family.b for kc in _blocks(problem, family, a, b)}
    for by_rows in _orders(problem, family.mc):
        whole = _tiling(problem, family, by_rows)
        down = whole.down.count(problem.m_sizes) if whole.down else -(-problem.m // family.mc)
        tiles = problem.batch * family.nc.count(problem.n_sizes) * down
        parts = {modes: splits_of(problem, tiles, kc.count(problem.k_sizes)) for modes, kc in blocks.items()}
        yield from _costed(problem, family, whole, blocks)
        for splits in dict.fromkeys(parts.values()):
            if splits > 1:
                tiling = replace(whole, mc=whole.mc if whole.down else family.mc, splits=splits, shares=None)
                yield from _costed(
                    problem, family, tiling, {modes: kc for modes, kc in blocks.items() if parts[modes] == splits}
                )


def _blocks(problem: TiledProblem, family: TileFamily, a: PackingMode, b: PackingMode) -> list[Cut]:
    """The blocks of the sum; none where those that are agreed on do not suit the modes."""
    agreed = problem.agreed.kc if problem.agreed else None
    if agreed is None:
        packed = (a is PER_TILE) * family.mc + (b is PER_TILE) * family.nc.length(problem.n_sizes)
        return [sum_blocks(problem, a, b, packed)]
    whole = agreed.count(problem.k_sizes) == 1
    return [agreed] if agreed.split >= first_split(problem, a, b) and (whole or a is not TAPS) else []


def _costed(
    problem: TiledProblem, family: TileFamily, tiling: Tiling, blocks: dict[tuple[PackingMode, PackingMode], Cut]
) -> Iterator[Candidate[TileDraft]]:
    cost = TileCost(problem, tiling)
    if cost.tiles == 1:                     # nobody else reads what it packs
        blocks = {_private(problem, *modes): kc for modes, kc in blocks.items()}
    yield from _in_order(problem, family, cost, blocks)
    if cost.far_lines > 0 and not problem.gates and not problem.matrices and cost.columns > problem.nr:
        yield from _in_order(problem, family, TileCost(problem, replace(tiling, by_lines=True)), blocks)


def _in_order(
    problem: TiledProblem, family: TileFamily, cost: TileCost, blocks: dict[tuple[PackingMode, PackingMode], Cut]
) -> Iterator[Candidate[TileDraft]]:
    shared = cost.shared_terms()
    a_terms, b_terms = (
        {mode: terms(mode) for mode in dict.fromkeys(modes[i] for modes in blocks)}
        for i, terms in enumerate((cost.a_terms, cost.b_terms))
    )
    for (a, b), kc in blocks.items():
        yield Candidate(family.name, TileDraft(cost.tiling, kc, a, b), (*shared, *a_terms[a], *b_terms[b]))


def _private(problem: TiledProblem, a: PackingMode, b: PackingMode) -> tuple[PackingMode, PackingMode]:
    free = problem.context.free
    return (PER_TILE if a is ONCE and not free[0] else a,
            PER_TILE if b is ONCE and not free[1] and problem.packing is not ColumnPacking.TAPS else b)


def _orders(problem: TiledProblem, mc: int) -> tuple[bool, bool]:
    """Whether consecutive tiles share their rows. First: so that the smaller operand is what is read again and again;
    but rows that a core can keep from product to product are its own. If L2 holds both operands, the output (a weight
    that is updated) is cut into runs of its memory, as in the products that read it."""
    context, machine = problem.context, problem.machine
    own = context.free[1] and problem.m > (machine.planned_cores - 2) * mc
    fits = (
        problem.a_span + problem.b_span <= context.elements(machine.l2_bytes) and problem.m * problem.n > problem.b_span
    )
    return (True, False) if own or problem.a_span > problem.b_span or fits and not problem.transposed else (False, True)


def _tiling(problem: TiledProblem, family: TileFamily, by_rows: bool) -> Tiling:
    sizes, mr = problem.m_sizes, problem.mr
    down = column_cut(sizes, family.mc, mr, least=problem.m_split) if problem.transposed else None
    mc = down.length(sizes) if down else family.mc
    if down is None or len(sizes) == 1:
        mc = even_rows(problem, mc, family.nc.count(problem.n_sizes), by_rows)
        down = Cut(0, mc) if down else None
    return Tiling(mc, family.nc, by_rows, down, shares=row_shares(problem, family.nc, down, family.b))


# --- what follows from a draft ----------------------------------------------------------------------------------------

def _finished(problem: TiledProblem, draft: TileDraft) -> TileSchedule:
    """Columns that are packed for all tiles are prefetched where they come from beyond L2: many, or weights, since
    which those of other layers have passed. Others may be in the L2 of cores which have just computed them: line by
    line these take long to pack, but long runs are seen coming. Where rows are many, last ones of any number are padded
    instead of having micro-kernels of their own, unless they are read where they lie: those of taps are long, as these
    are written out, and packed ones would have micro-kernels that nobody else calls."""
    tiling, context = draft.tiling, problem.context
    far = (
        draft.b is ONCE
        and draft.a is not TAPS
        and not tiling.by_lines
        and (context.free[1] or not problem.holds_columns)
        and problem.packing is not ColumnPacking.RUNS
    )
    p = problem.form
    splits: Dim = tiling.splits
    ragged = p.extent(p.m) % problem.mr != 0 and not isinstance(p.extent(p.m), int)
    any_edge = ragged and tiling.down is None and (draft.a is UNPACKED or problem.m <= problem.mr)
    alone = any_edge and not problem.holds_columns and _repays_alone(problem.machine)
    blocks, part = draft.kc.count(group_sizes(p, p.k)), 0
    if not isinstance(blocks, int) and tiling.splits > 1:
        part = -(-draft.kc.count(problem.k_sizes) // tiling.splits)
        splits = ceil_div(blocks, part)
    return TileSchedule(
        Blocking(problem.mr, problem.nr, tiling.mc, tiling.nc, draft.kc, tiling.shares),
        context.lanes,
        draft.a,
        draft.b,
        splits,
        transposed_store=tiling.down,
        by_rows=tiling.by_rows,
        prefetch_lines=_prefetch_lines(problem, tiling) if far else 0,
        last_lines=_lines_of_panel(problem) if far and alone else 0,
        edge_mr=0 if tiling.down or ragged else _edge_rows(problem),
        packed_in_runs=(draft.b is ONCE and problem.holds_columns and problem.packing is ColumnPacking.PANELS
                        and isinstance(p.extent(p.n), int)),
        any_edge=any_edge,
        part_blocks=part,
        by_lines=tiling.by_lines,
        busy=problem.machine.busy_sums,
    )


def _matrix_schedule(problem: TiledProblem, draft: TileDraft) -> MatrixSchedule:
    """Kernels take all rows of a tile."""
    s = _finished(problem, draft)
    mc, far = draft.tiling.mc, s.b is ONCE and problem.context.free[1] and problem.m > MATRIX_LANES
    blocking = replace(s.blocking, mr=mc, shares=None)
    return MatrixSchedule(
        blocking, s.lanes, s.a, s.b, s.splits, by_rows=s.by_rows, packed_in_runs=s.packed_in_runs,
        prefetch_lines=min(LINES_OF_MATRICES, problem.nr // max(1, min(mc, problem.m) // problem.mr)) if far else 0,
        any_edge=True, part_blocks=s.part_blocks)


def _prefetch_lines(problem: TiledProblem, tiling: Tiling) -> int:
    """For each micro-tile: all those of a panel together prefetch the next panel, if that is little beside their
    arithmetic, or beside the wait for what L2 cannot have kept. Where rows come with the call there may be fewer of
    them than the usual number: as many lines as ever, by the same micro-kernel for all numbers."""
    panels = -(-min(tiling.mc, problem.m) // problem.mr)
    if panels == 1 and not _repays_alone(problem.machine):
        return 0
    lines = -(-_lines_of_panel(problem) // panels)
    if lines > PREFETCH_LINES and problem.holds_columns:
        return 0
    return lines if isinstance(problem.form.extent(problem.form.m), int) else PREFETCH_LINES


def _repays_alone(machine: Machine) -> bool:
    """Whether rows that are the only ones of a panel gain by prefetching the next: these wait for nothing else, and the
    hardware sees them read line after line. What that leaves of the wait must be more than a prefetch of each takes."""
    return machine.stream_wait_cycles > machine.stream_prefetch_cycles


def _lines_of_panel(problem: TiledProblem) -> int:
    """In STEPS steps."""
    return -(-problem.nr * STEPS // problem.context.elements(LINE_BYTES))


def _edge_rows(problem: TiledProblem) -> int:
    """Rows of a smaller last micro-tile: where padding costs so much that another kernel pays."""
    rest = problem.m % problem.mr
    return (
        rest if problem.p.flops >= problem.machine.small_product_flops and (problem.mr - rest) * 100 >= problem.m else 0
    )
