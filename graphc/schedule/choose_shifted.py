"""Schedules of convolutions of few features: each kernel position is multiplied with whole runs of the image, and the
products are added as windows slide. Nothing of the image is packed, which would take longer than what so few rows do
with it.

Without windows it is columns of several runs, positions of several images, that `choose_tiles.py` would pack.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from graphc.ir.dims import Dim
from graphc.schedule.contraction_context import ContractionContext, even
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import MAX_TAPS, ShiftedSchedule, round_up
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.open_phase import is_closed
from graphc.schedule.pool_cost import LINE_CYCLES
from graphc.schedule.register_tiles import register_tile
from graphc.schedule.target import LINE_BYTES

MOST_RUNS = 6                   # lengths of runs that are costed: each twice as long as the one before
MOST_BESIDE = 2                 # times as many elements as results, at most, of a run with what lies between its lines


def shifted_schedule(p: Phase[Dim], context: ContractionContext) -> ShiftedSchedule | None:
    """The cheapest; None where columns do not lie side by side, no windows slide over them, or sizes are open."""
    if not is_closed(p):
        return None
    candidates = list(_candidates(p, context))
    if not candidates:
        return None
    ranking = ranked(candidates)
    return replace(ranking.best.schedule, ranking=ranking)


def _candidates(p: Phase[int], context: ContractionContext) -> Iterator[Candidate[ShiftedSchedule]]:
    if p.b.strides[p.n[-1]] != 1 or p.sizes[p.n[-1]] < 2 or p.n[-1] != min(p.n, key=lambda d: abs(p.out.strides[d])):
        return
    for taps, inner in _sums(p):
        for dims in _runs(p):
            for chunk in _chunks(p, dims, context):
                s = _schedule(p, taps, inner, dims, chunk, context)
                room = round_up(p.extent(p.m + taps), s.mr) * round_up(s.reach(p, chunk), s.vectors * s.lanes)
                if room <= context.elements(context.machine.l2_bytes // 2):
                    yield Candidate(f"{p.extent(taps)} taps", s, _terms(p, s, context))


def _sums(p: Phase[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Which dims of the sum have rows of their own, none or those with the smallest steps, and the longest of the
    others."""
    dims = sorted([d for d in p.k if p.sizes[d] > 1], key=lambda d: abs(p.b.strides[d]))
    for count in range(len(p.n) == 1, len(dims)):
        taps, rest = tuple(dims[:count]), [d for d in p.k if d not in dims[:count]]
        inner = max(rest, key=lambda d: p.sizes[d])
        if p.extent(taps) <= MAX_TAPS and p.b.strides[inner] > 0:
            yield taps, inner


def _runs(p: Phase[int]) -> Iterator[int]:
    """How many column dims lie in a run of memory that has little else."""
    for dims in range(1, len(p.n) + 1):
        run = p.n[-dims:]
        steps = [p.b.strides[d] for d in run]
        reached = [sum(p.b.strides[e] * (p.sizes[e] - 1) for e in run[i + 1:]) for i in range(dims)]
        if any(step <= inside for step, inside in zip(steps, reached)):
            return
        if steps[0] <= MOST_BESIDE * p.extent(run[1:]):
            yield dims


def _chunks(p: Phase[int], dims: int, context: ContractionContext) -> list[int]:
    """Even parts of the outermost dim of a run, from a vector or a line on."""
    size = p.sizes[p.n[-dims]]
    least = 4 * context.lanes if dims == 1 else 1
    return sorted({even(size, min(size, least << i), 1) for i in range(MOST_RUNS)} | {size})


def _schedule(p: Phase[int], taps: tuple[int, ...], inner: int, dims: int, chunk: int,
              context: ContractionContext) -> ShiftedSchedule:
    s = ShiftedSchedule(taps, inner, dims, chunk, 1, 1, context.lanes, p.sizes[inner])
    mr, vectors = register_tile(p.extent(p.m + taps), s.reach(p, chunk), context, 0, padded=True)
    # columns of a micro-tile stay in L1 while all rows pass by
    most = max(1, context.elements(context.machine.l1_bytes // 2) // (vectors * context.lanes))
    return replace(s, mr=mr, vectors=vectors, steps=even(p.sizes[inner], min(p.sizes[inner], most), 1))


def _terms(p: Phase[int], s: ShiftedSchedule, context: ContractionContext) -> tuple[tuple[str, float], ...]:
    """Cycles on the planned cores, of which the busiest has `each` tiles."""
    machine, nr = context.machine, s.vectors * s.lanes
    tiles = p.extent(p.batch) * s.cut(p).count(tuple([p.sizes[d] for d in p.n]))
    cores = min(machine.planned_cores, tiles)
    each, columns, steps = -(-tiles // cores), s.reach(p, s.chunk), p.extent(s.rest(p))
    down, across = -(-p.extent(p.m + s.taps) // s.mr), -(-columns // nr)
    calls = down * across * (steps // p.sizes[s.inner]) * -(-p.sizes[s.inner] // s.steps)
    packed = p.extent(p.batch) * down * s.mr * steps * machine.scalar_element_cycles / cores
    parallel = machine.handover_cycles * (cores > 1)
    a = 0.0 if context.free[0] else packed + parallel
    stored = p.extent(p.batch + p.m + p.n) * context.itemsize / machine.l3_bytes_per_cycle / cores
    return (
        ("sums", each * steps * down * across * _step(s, context)), ("calls", each * calls * machine.call_cycles),
        ("load a", each * across * _swept(down * s.mr * steps * context.itemsize, context)),
        ("load b", each * _loads(_touched(p, s, columns), steps * columns, context)),
        ("add taps", each * _added(p, s, context)), ("store", stored), ("pack a", a), ("hand-over", parallel))


def _step(s: ShiftedSchedule, context: ContractionContext) -> float:
    """Of a micro-tile's sums. Vectors of b begin anywhere: each is two loads."""
    machine = context.machine
    busy = s.mr * s.vectors > machine.busy_sums
    return machine.step_cycles + max(
        s.mr * s.vectors / machine.fma_per_cycle, (s.mr + 2 * s.vectors) / machine.loads_per_cycle,
        0 if busy else machine.fma_latency + 1)


def _swept(nbytes: int, context: ContractionContext) -> float:
    """All rows, by one panel of columns."""
    machine = context.machine
    if nbytes <= machine.l1_bytes / 2:
        return 0.0
    return nbytes / (machine.l2_bytes_per_cycle if nbytes <= machine.l2_bytes / 2 else machine.l3_bytes_per_cycle)


def _loads(touched: int, read: int, context: ContractionContext) -> float:
    """Of a tile's elements of b: once from the core that wrote them, later from L2 if it holds them."""
    machine = context.machine
    held = touched * context.itemsize <= machine.l2_bytes / 2
    again = machine.l2_bytes_per_cycle if held else machine.l3_bytes_per_cycle
    first = machine.remote_line_cycles / LINE_BYTES
    return context.itemsize * (touched * first + max(0, read - touched) / again)


def _added(p: Phase[int], s: ShiftedSchedule, context: ContractionContext) -> float:
    """The taps of a tile's results, by lines, from L1 or L2; they begin anywhere, too."""
    lines = p.extent(p.m) * (1 if s.dims == 1 else s.chunk * p.extent(p.n[1 - s.dims:-1]))
    line = s.chunk if s.dims == 1 else p.sizes[p.n[-1]]
    return lines * (LINE_CYCLES + -(-line // s.lanes) * p.extent(s.taps) * 2 / context.machine.loads_per_cycle)


def _touched(p: Phase[int], s: ShiftedSchedule, columns: int) -> int:
    """Different elements of b that a tile reads."""
    length, apart = columns, list[int]()
    for d in sorted(s.rest(p), key=lambda d: abs(p.b.strides[d])):
        if abs(p.b.strides[d]) <= length:
            length += (p.sizes[d] - 1) * abs(p.b.strides[d])
        else:
            apart.append(p.sizes[d])
    return length * prod(apart)
