"""Schedules of contractions without reuse for micro-tiles, of which every term is a vector: depthwise convolutions."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

from graphc.ir.dims import Dim
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_schedule import MAX_TAPS, LaneSchedule
from graphc.schedule.contraction_context import ContractionContext, even
from graphc.schedule.machine import Machine
from graphc.schedule.open_phase import at_typical, known
from graphc.schedule.open_sizes import is_many
from graphc.schedule.spaced_loads import spaced_cycles
from graphc.schedule.widening_cost import WIDEN_OPS

LANE_BLOCK = 16                 # vectors of a tile: with a line of them, a run that the hardware sees coming
# positions at a time, at most: their sums, a vector of each operand and what they share stay in registers
LANE_COLUMNS = 4
LANE_LINES = 2                  # of such positions that share what is widened for them, at most
LANE_TILES = 8                  # tiles worth the work of a small product
LANE_UNROLLED = 32              # terms of a sum that are not worth loops over them
LANE_RUN = 4096                 # terms that one register adds up, at most: more would lose digits
LANE_TERMS = 16                 # of a long sum that are unrolled, at most


def lane_dim(p: Phase[Dim], context: ContractionContext) -> int | None:
    """The dim for vectors when rows, or columns, are single: the one along which the output is contiguous. Where sums
    are too long to be unrolled, both operands have to be vectors along it too, or the same for all of them. How long
    sums are has to be known."""
    if not known(p, p.k) or 1 not in (p.extent(p.m), p.extent(p.n)):
        return None
    lane = next((d for d in p.batch + p.m + p.n if p.out.strides[d] == 1 and is_many(p.sizes[d])), None)
    usual = at_typical(p)
    if lane is None or usual.sizes[lane] < context.lanes // 2 or usual.extent(p.batch + p.m + p.n) == usual.sizes[lane]:
        return None
    return lane if is_short(p) or _may_loop(p, lane) else None


def is_short(p: Phase[Dim]) -> bool:
    """Whether all terms of a sum may be unrolled."""
    return p.extent(p.k) <= MAX_TAPS


def _may_loop(p: Phase[Dim], lane: int) -> bool:
    """Whether loops over the terms read vectors, and one register adds up a line."""
    return p.sizes[p.k[-1]] <= LANE_RUN and all(_is_vector(p, t, lane) for t in (p.a, p.b))


def _is_vector(p: Phase[Dim], t: LinearMap[Dim], lane: int) -> bool:
    """Whether a vector of the operand is one load, or one after it has been packed."""
    return t.strides[lane] in (0, 1) or LaneSchedule(lane, lane, 1, 1, 1, 1).packs(p, t)


def lane_frame(p: Phase[Dim], lane: int, context: ContractionContext) -> LaneSchedule:
    """The inner loop is along the dim with the next smallest step in the output. Tiles are small: what waits for the
    caches of other cores takes several times as long as its operations. Of long sums, L2 holds the factors that all
    positions of a tile share.
    """
    p = at_typical(p)
    others = [d for d in p.batch + p.m + p.n if d != lane and p.sizes[d] > 1]
    inner = min(others, key=lambda d: (abs(p.out.strides[d]), d))
    held = context.elements(context.machine.l2_bytes // 2) // (p.extent(p.k) * context.lanes)
    block = min(p.sizes[lane], max(1, min(LANE_BLOCK, held)) * context.lanes)
    work = 2 * p.extent(p.k) * block * p.sizes[inner]
    around = p.extent([d for d in others if d != inner])
    tile = even(around, max(1, context.machine.small_product_flops // LANE_TILES // work), 1)
    return LaneSchedule(lane, inner, context.lanes, 1, block, tile)


def lane_schedule(p: Phase[Dim], lane: int, context: ContractionContext) -> LaneSchedule:
    """The cheapest number of positions and of terms at a time."""
    one, loops = lane_frame(p, lane, context), _may_loop(p, lane)
    lines = _lines(p, one, context)
    p = at_typical(p)
    if p.extent(p.k) <= LANE_UNROLLED or not loops:
        ranking = ranked(_lane_candidates(p, context, one, lines), 1.0)
    else:
        unrolled = _lane_candidates(p, context, one, lines) if is_short(p) else ()
        ranking = ranked((*_looped_candidates(p, context, one), *unrolled))
    return replace(ranking.best.schedule, ranking=ranking)


def _lane_candidates(p: Phase[int], context: ContractionContext, one: LaneSchedule,
                     lines: Sequence[int]) -> Iterator[Candidate[LaneSchedule]]:
    """By the lines, and the positions of the inner dim in each, that are summed at a time, all terms unrolled."""
    for many, columns in product(lines, range(1, min(LANE_COLUMNS, p.sizes[one.inner]) + 1)):
        tile = max(1, one.tile // many)
        yield _lane_candidate(p, context, replace(one, columns=columns, lines=many, tile=tile))


def _lines(p: Phase[Dim], one: LaneSchedule, context: ContractionContext) -> list[int]:
    """How many positions of the dim around the inner one may be summed at a time: whole parts of it, whose sums and
    vectors stay in registers. Of factors that need not be widened one: they are loaded beside the sums."""
    around = [p.sizes[d] for d in one.outer(p)[-1:] if any(context.widened)]
    most = min(LANE_LINES, context.target.vector_registers // (4 * LANE_COLUMNS))
    return [1, *(n for size in around if isinstance(size, int) for n in range(2, most + 1) if size % n == 0)]


def _looped_candidates(p: Phase[int], context: ContractionContext,
                       one: LaneSchedule) -> Iterator[Candidate[LaneSchedule]]:
    """By the positions and by the terms of the innermost dim that are unrolled, the least code first; registers hold
    the sums and as many vectors that positions share."""
    most = min((context.target.vector_registers - 2) // 2, p.sizes[one.inner])
    size = p.sizes[p.k[-1]]
    pieces = {-(-size // -(-size // terms)) for terms in range(1, min(LANE_TERMS, size) + 1)}
    for terms, columns in sorted(product(pieces, range(1, most + 1)), key=prod):
        yield _lane_candidate(p, context, replace(one, columns=columns, terms=terms))


def _lane_candidate(p: Phase[int], context: ContractionContext, s: LaneSchedule) -> Candidate[LaneSchedule]:
    """Loads (each vector once where terms are unrolled), what sums take beyond them, what is waited for their results,
    and the control of loops."""
    around = p.extent(s.outer(p))
    runs = around // s.lines * -(-p.sizes[s.dim] // s.lanes)
    cores = min(context.machine.planned_cores, -(-around // (s.lines * s.tile)) * -(-p.sizes[s.dim] // s.block))
    count, rest = divmod(p.sizes[s.inner], s.columns)
    each, last = _run_costs(p, context, s, s.columns), _run_costs(p, context, s, rest) if rest else (0.0,) * 4
    name = f"{s.columns} at a time" + f" in {s.lines} lines" * (s.lines > 1) + (f", {s.terms} terms" if s.terms else "")
    return Candidate(name, s, tuple([
        (cause, runs / cores * (count * a + b))
        for cause, a, b in zip(("loads", "sums", "latency", "control"), each, last)]))


def _run_costs(p: Phase[int], context: ContractionContext, s: LaneSchedule, columns: int) -> tuple[float, ...]:
    """Cycles of one vector's sums at so many positions, by cause."""
    if not s.terms:
        return _unrolled_costs(p, context, s, [p.sizes[d] for d in p.k], columns)
    rows, (chunks, rest) = p.extent(p.k[:-1]), divmod(p.sizes[p.k[-1]], s.terms)
    ones = [1] * len(p.k[:-1])
    each = _unrolled_costs(p, context, s, [*ones, s.terms], columns)
    last = _unrolled_costs(p, context, s, [*ones, rest], columns) if rest else (0.0,) * 4
    return tuple([rows * (chunks * a + b) for a, b in zip(each, last)])


def _load_cycles(p: Phase[int], t: LinearMap[int], s: LaneSchedule, machine: Machine) -> float:
    """For a vector of an operand, on average of those of a line, of which the last may be masked."""
    step = t.strides[s.dim]
    if step in (0, 1) or s.packs(p, t):
        return 1 / machine.loads_per_cycle
    whole, rest = divmod(p.sizes[s.dim], s.lanes)
    last = spaced_cycles(step, s.lanes, machine, rest) if rest else 0.0
    return (whole * spaced_cycles(step, s.lanes, machine) + last) / (whole + (rest > 0))


def _distinct(steps: Sequence[tuple[int, int]]) -> int:
    """How many different places n steps of each length lead to."""
    places = {0}
    for step, n in steps:
        places = {place + i * step for place in places for i in range(n)}
    return len(places)


def _unrolled_costs(p: Phase[int], context: ContractionContext, s: LaneSchedule, sizes: Sequence[int],
                    columns: int) -> tuple[float, float, float, float]:
    """The same of terms that are unrolled, `sizes` of each dim of the sum."""
    machine, steps = context.machine, prod(sizes)
    dims = list(zip((*p.k, s.inner, *s.outer(p)[-1:]), (*sizes, columns, s.lines)))
    vectors = [_distinct([(t.strides[d], n) for d, n in dims]) for t in (p.a, p.b)]
    loaded = sum(_load_cycles(p, t, s, machine) * count for t, count in zip((p.a, p.b), vectors))
    widened = sum(WIDEN_OPS * count for count, narrow in zip(vectors, context.widened) if narrow)
    summed = (steps * columns * s.lines + widened) / machine.fma_per_cycle
    waited = steps * machine.fma_latency
    return loaded, max(0.0, summed - loaded), max(0.0, waited - max(loaded, summed)), machine.step_cycles
