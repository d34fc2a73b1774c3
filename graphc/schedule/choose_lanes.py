"""Schedules of contractions without reuse for micro-tiles: short sums (depthwise convolutions), and few outputs with
long sums (their weight gradients)."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from graphc.ir.dims import typical
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import MAX_TAPS, LaneSchedule, NarrowSchedule
from graphc.schedule.contraction_context import ContractionContext, even
from graphc.schedule.open_phase import at_typical, known
from graphc.schedule.open_sizes import is_many

LANE_BLOCK = 16                 # vectors of a tile: with a line of them, a run that the hardware sees coming
# positions at a time, at most: their sums, a vector of each operand and what they share stay in registers
LANE_COLUMNS = 4
LANE_TILES = 8                  # tiles worth the work of a small product
NARROW_COLUMNS = 7              # columns at a time of a narrow schedule, at most


def lane_dim(p: Phase, context: ContractionContext) -> int | None:
    """The dim for vectors when sums are short and rows, or columns, are single: the one along which the output is
    contiguous."""
    if not known(p, p.k) or p.extent(p.k) > MAX_TAPS or 1 not in (p.extent(p.m), p.extent(p.n)):
        return None
    found = [d for d in p.batch + p.m + p.n if p.out.strides[d] == 1 and is_many(p.sizes[d])]
    p = at_typical(p)
    return (
        found[0]
        if found and p.sizes[found[0]] >= context.lanes // 2 and p.extent(p.batch + p.m + p.n) > p.sizes[found[0]]
        else None
    )


def lane_schedule(p: Phase, lane: int, context: ContractionContext) -> LaneSchedule:
    """The inner loop is along the dim with the next smallest step in the output. Tiles are small: what waits for the
    caches of other cores takes several times as long as its operations. """
    p = at_typical(p)
    others = [d for d in p.batch + p.m + p.n if d != lane and p.sizes[d] > 1]
    inner = min(others, key=lambda d: (abs(p.out.strides[d]), d))
    block = min(p.sizes[lane], LANE_BLOCK * context.lanes)
    work = 2 * p.extent(p.k) * block * p.sizes[inner]
    around = p.extent([d for d in others if d != inner])
    tile = even(around, max(1, context.machine.small_product_flops // LANE_TILES // work), 1)
    ranking = ranked(_lane_candidates(p, context, LaneSchedule(lane, inner, context.lanes, 1, block, tile)), 1.0)
    return replace(ranking.best.schedule, ranking=ranking)


def _lane_candidates(p: Phase, context: ContractionContext, one: LaneSchedule) -> Iterator[Candidate[LaneSchedule]]:
    """By the positions of the inner dim that are summed at a time, each vector loaded once: loads, what sums take
    beyond them, and what is waited for their results."""
    machine, inner = context.machine, one.inner
    steps = [i for i in product(*[range(p.sizes[d]) for d in p.k])]
    runs = p.extent(p.batch + p.m + p.n) / p.sizes[inner] / context.lanes / machine.planned_cores

    def costs(columns: int) -> tuple[float, float, float, float]:
        loads = sum(
            len({sum(i * t.strides[d] for d, i in zip((*p.k, inner), (*k, j))) for k in steps for j in range(columns)})
            for t in (p.a, p.b)
        )
        loaded, summed, waited = (
            loads / machine.loads_per_cycle,
            len(steps) * columns / machine.fma_per_cycle,
            len(steps) * machine.fma_latency,
        )
        return loaded, max(0.0, summed - loaded), max(0.0, waited - max(loaded, summed)), machine.step_cycles
    for columns in range(1, min(LANE_COLUMNS, p.sizes[inner]) + 1):
        count, rest = divmod(p.sizes[inner], columns)
        each, last = costs(columns), costs(rest) if rest else (0.0,) * 4
        terms = tuple(
            (name, runs * (count * a + b)) for name, a, b in zip(("loads", "sums", "latency", "control"), each, last)
        )
        yield Candidate(f"{columns} at a time", replace(one, columns=columns), terms)


# --- few outputs, long sums -------------------------------------------------------------------------------------------

def narrow_dim(p: Phase, context: ContractionContext) -> int | None:
    """The dim for vectors when a batch entry has so few outputs that they stay in registers: a batch dim along which
    both operands are contiguous, or the innermost k dim. """
    if not known(p, p.m, p.n) or p.is_open and not known(p, p.k[-1:]):
        return None
    outputs = p.extent(p.m) * p.extent(p.n)
    if (
        min(p.extent(p.m), p.extent(p.n)) > 1
        or outputs > context.target.vector_registers - 4
        or typical(p.extent(p.batch)) < 2
        or len(p.k) < 2
    ):
        return None
    for d in (*p.batch, p.k[-1]):
        if p.a.strides[d] == 1 and (p.b.strides[d] == 1 or d == p.k[-1]) and typical(p.sizes[d]) >= context.lanes // 2:
            return d
    return None


def narrow_schedule(p: Phase, dim: int, context: ContractionContext) -> NarrowSchedule:
    """Tiles of runs of vectors, long enough to be read as streams, and as many parts of the sum as are useful then."""
    p = at_typical(p)
    one = NarrowSchedule(dim, dim == p.k[-1], context.lanes, 1)
    groups, steps = one.groups(p), p.extent(p.k[:-1])
    block = even(groups, min(groups, LANE_BLOCK), 1)
    tiles = one.entries(p) // groups * -(-groups // block)
    splits = max(
        1, min(2 * context.machine.planned_tiles, p.flops // (context.machine.small_product_flops // 2)) // tiles
    )
    splits = -(-steps // -(-steps // min(steps, splits)))
    pieces = -(-p.sizes[p.k[-1]] // NARROW_COLUMNS)
    return replace(one, splits=splits, block=block, columns=0 if one.along_k else -(-p.sizes[p.k[-1]] // pieces))
