"""Schedules of contractions with few rows, whose operands are read once, unpacked: dot products, and rows of a matrix
that are scaled and added."""
from __future__ import annotations

from dataclasses import replace

from graphc.ir.dims import Dim, typical
from graphc.schedule.blocking import Blocking, Cut, PackingMode
from graphc.schedule.contraction_context import DOT_ROWS, ContractionContext, even
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import DotSchedule, StreamSchedule, round_up
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.open_phase import at_typical, is_closed, known
from graphc.schedule.target import LINE_BYTES
from graphc.schedule.tile_cost import TiledProblem

STREAM_BYTES = 8192             # of one row of b in a tile
STREAM_WORK = 64 << 10          # elements of b that a tile reads, at least
MAX_PARTIALS = 4 << 20          # elements of partial results


def is_dots(p: Phase[Dim], context: ContractionContext) -> bool:
    """Few rows, and both operands contiguous along a k worth vectors: packing would cost more than it saves. Sums of
    several vectors are worth their addition across lanes; of shorter ones, costs tell."""
    inner = p.k[-1]
    rows_linear = len(p.k) == 1 and p.a.strides[inner] == 1 and p.b.strides[inner] == 1
    few = any(isinstance(n, int) and n <= DOT_ROWS for n in (p.extent(p.m), p.extent(p.n)))
    if not few or not rows_linear or not p.sizes[inner] >= context.lanes:
        return False
    return p.sizes[inner] >= 2 * context.lanes or is_closed(p) and _beats_packing(p, context)


def _beats_packing(p: Phase[int], context: ContractionContext) -> bool:
    """Whether dot products take less time than micro-tiles of columns that are transposed for them."""
    columns = 0 if context.free[1] else p.extent(p.batch + p.n + p.k)
    return _dot_cycles(p, context) < TiledProblem(p, context).sums + columns * context.machine.transpose_cycles


def _dot_cycles(p: Phase[int], context: ContractionContext) -> float:
    machine, dots = context.machine, p.extent(p.batch + p.m + p.n)
    terms = p.extent(p.k) / context.lanes * max(1 / machine.fma_per_cycle, 1 / machine.loads_per_cycle)
    added = 2 * context.lanes.bit_length() * machine.vector_op_cycles       # a shuffle and a sum for each half
    return dots * (terms + added)


def repays_packing(p: Phase[int], context: ContractionContext, gates: int = 0) -> bool:
    """Whether micro-tiles take less time than dot products where columns are packed for nothing: sums over lanes are
    many where four numbers are one element. Of integers alone, whose bits are the same."""
    if not context.exact or not context.free[1]:
        return False
    return TiledProblem(p, context, gates).sums < _dot_cycles(p, context)


def dot_schedule(p: Phase[int], context: ContractionContext) -> DotSchedule:
    rows = min(p.extent(p.m), 2)
    columns = min(p.extent(p.n), 4 if rows == 1 else 3)
    vectors = 2 if rows * columns <= 4 and p.sizes[p.k[-1]] >= 4 * context.lanes else 1
    cost = 2 * p.extent(p.k) * p.extent(p.m)
    return DotSchedule(
        rows,
        columns,
        vectors,
        context.lanes,
        max(columns, round_up(context.machine.small_product_flops // 2 // cost, columns)),
    )


def runs_schedule(p: Phase[Dim], context: ContractionContext) -> DotSchedule | None:
    """Dot products of few rows over sums that lie in runs (channels of the lines of a window); None where no vector
    fits into a run, or the rows or runs are not known."""
    inner = p.k[-1]
    if not known(p, p.k, p.m) or not 0 < p.extent(p.m) <= DOT_ROWS or p.extent(p.k) == 0:
        return None
    if p.a.strides[inner] != 1 or p.b.strides[inner] != 1 or typical(p.sizes[inner]) < context.lanes:
        return None
    usual = at_typical(p)
    s = dot_schedule(usual, context)
    return replace(s, ranking=ranked([Candidate("dots of runs", s, _dot_terms(usual, s, context))]))


def _dot_terms(p: Phase[int], s: DotSchedule, context: ContractionContext) -> tuple[tuple[str, float], ...]:
    """Cycles on the planned cores. Windows that overlap bring few new elements for each column; each element comes once
    from the core that wrote it."""
    machine, inner = context.machine, p.k[-1]
    columns, runs, cores = p.extent(p.batch + p.n), p.extent(p.k[:-1]), machine.planned_cores
    step = max(s.rows * s.columns / machine.fma_per_cycle, (s.rows + s.columns) / machine.loads_per_cycle,
               machine.fma_latency / s.vectors)
    blocks = -(-p.extent(p.m) // s.rows) * -(-columns // s.columns)
    added = (s.lanes.bit_length() - 1) * (1 + 1 / machine.fma_per_cycle)    # a shuffle in each cycle, and a sum
    new = runs * min(p.sizes[inner], abs(p.b.strides[p.n[-1]]) or 1)
    low, high = p.b.span(p.sizes)
    lines = min(high - low + 1, columns * p.extent(p.k)) * context.itemsize / LINE_BYTES
    return (("sums", blocks * runs * (-(-p.sizes[inner] // s.lanes) * step + machine.step_cycles) / cores),
            ("lanes", blocks * s.rows * s.columns * added / cores), ("calls", blocks * machine.call_cycles / cores),
            ("load b", columns * new * context.itemsize / machine.l2_bytes_per_cycle / cores),
            ("first", lines * machine.remote_line_cycles / cores),
            ("hand-over", machine.handover_cycles))


def is_stream(p: Phase[int], context: ContractionContext) -> bool:
    """Few rows times a matrix that lies along n and is wide enough to be read in long runs; of several such products
    one of a few vectors, which others would read one vector after the other, each by steps of a whole row."""
    straight = len(p.n) == 1 and len(p.k) == 1 and p.b.strides[p.n[0]] == 1
    vectors = 8 if p.extent(p.batch) == 1 else 2
    return straight and p.extent(p.m) <= DOT_ROWS and p.extent(p.n) >= vectors * context.lanes and p.extent(p.k) >= 16


def stream_schedule(p: Phase[int], context: ContractionContext) -> StreamSchedule:
    """Tiles of some KB of columns and of enough steps that each reads some 100 KB of b."""
    m, n, k = p.extent(p.m), p.extent(p.n), p.extent(p.k)
    columns = Cut(0, even(n, min(n, STREAM_BYTES // context.itemsize), context.lanes))
    sums = Cut(0, min(k, 256))
    blocks = sums.count((k,))
    share = -(-STREAM_WORK // (columns.chunk * sums.chunk))
    splits = max(
        1,
        min(
            blocks // share,
            2 * context.machine.planned_tiles // (p.extent(p.batch) * columns.count((n,))),
            MAX_PARTIALS // (p.extent(p.batch) * m * n),
        ),
    )
    return StreamSchedule(
        Blocking(m, context.lanes, m, columns, sums),
        context.lanes,
        PackingMode.UNPACKED,
        PackingMode.UNPACKED,
        -(-blocks // -(-blocks // splits)),
    )
