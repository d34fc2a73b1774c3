"""Schedules of convolutions with few channels in each group, and of their weights' gradients: the vectors along the
channels of all groups."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from graphc.ir.dims import Dim, static_dim
from graphc.schedule.choose_lanes import lane_frame
from graphc.schedule.contraction_context import ContractionContext
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_schedule import LaneSchedule, MixedChannels
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.open_phase import at_typical, known

MIXED_CODE = 320                # terms of all positions that are summed at a time, at most: all of them are unrolled
MIXED_COLUMNS = 8               # positions at a time, at most: enough that none waits for the result of another


def mixed_phase(p: Phase[Dim], lanes: int) -> tuple[Phase[Dim], MixedChannels] | None:
    """The phase with groups and features as one dim, and which dim of the sum has the channels of a group; None where
    groups have other numbers of channels than of features, do not divide a vector, or do not lie side by side.

    A vector of the image has the channels of some groups; shuffled, it has one channel of each for all of its features.
    """
    if len(p.n) != 1 or not known(p, p.k):
        return None
    feature, = p.n
    width = p.sizes[feature]
    if not isinstance(width, int):
        return None
    for group, channel in product([d for d in p.batch if known(p, (d,))], p.k):
        beside = (p.out.strides[feature], p.out.strides[group], p.a.strides[feature]) == (1, width, 0)
        apart = (p.a.strides[channel], p.a.strides[group]) == (1, width)
        shared = not any(p.b.strides[d] for d in p.batch + p.m if d != group)
        whole = p.sizes[channel] == width and 1 < width < lanes and lanes % width == 0
        if beside and apart and shared and whole and p.sizes[group] * width >= lanes // 2:
            steps = 1, p.b.strides[feature], 1
            return _merged(p, group, feature, steps), MixedChannels(channel, width, p.b.strides[group])
    return None


def mixed_gradient(p: Phase[Dim], lanes: int) -> tuple[Phase[Dim], MixedChannels] | None:
    """The same of the weights' gradient, whose rows are the features of a group: a vector of `a` has the features of
    some groups, and of `b` their channels; shuffled, one channel for all features of each group."""
    if len(p.m) != 1 or len(p.k) < 2 or not known(p, p.m, p.n):
        return None
    feature, = p.m
    width = static_dim(p.sizes[feature])
    for group, channel in product([d for d in p.batch if known(p, (d,))], p.n):
        beside = (p.a.strides[feature], p.a.strides[group], p.b.strides[channel], p.b.strides[group])
        whole = p.sizes[channel] == width and 1 < width < lanes and lanes % width == 0
        even = p.out.strides[group] == width * p.out.strides[feature]
        if beside == (1, width, 1, width) and whole and even and p.sizes[group] * width >= lanes // 2:
            return _merged(p, group, feature, (1, 1, p.out.strides[feature])), MixedChannels(channel, width, 0)
    return None


def _merged(p: Phase[Dim], group: int, feature: int, steps: tuple[Dim, Dim, Dim]) -> Phase[Dim]:
    """The phase with the features of a group in the dim of the groups, which counts the channels of the result. steps:
    of a, b and the result along it."""
    count, (_, original, _, start) = p.sizes[group] * p.sizes[feature], p.parts[feature][-1]

    def linear(t: LinearMap[Dim], step: Dim) -> LinearMap[Dim]:
        merged = {group: step, feature: 0}
        return LinearMap(t.base, tuple([merged.get(d, s) for d, s in enumerate(t.strides)]))
    a, b, out = (linear(t, step) for t, step in zip((p.a, p.b, p.out), steps))
    return replace(
        p,
        sizes=tuple([count if d == group else 1 if d == feature else n for d, n in enumerate(p.sizes)]),
        a=a,
        b=b,
        out=out,
        parts=tuple([((count, original, 1, start),) if d == group else () if d == feature else own
                     for d, own in enumerate(p.parts)]))


def mixed_schedule(p: Phase[Dim], mixed: MixedChannels, context: ContractionContext) -> LaneSchedule | None:
    """The cheapest number of positions at a time; None where the terms of one are too many to be unrolled."""
    lane = next(d for d in p.batch if p.out.strides[d] == 1)
    usual = at_typical(p)
    if usual.extent(p.k) > MIXED_CODE or usual.extent(p.batch + p.m) == usual.sizes[lane]:
        return None
    ranking = ranked(_candidates(usual, replace(lane_frame(p, lane, context), mixed=mixed), context), 1.0)
    return replace(ranking.best.schedule, ranking=ranking)


def _candidates(p: Phase[int], one: LaneSchedule, context: ContractionContext) -> Iterator[Candidate[LaneSchedule]]:
    machine, around, blocks = context.machine, p.extent(one.outer(p)), -(-p.sizes[one.dim] // one.block)
    vectors = around * -(-p.sizes[one.dim] // one.lanes) / min(machine.planned_cores, -(-around // one.tile) * blocks)
    most = min(MIXED_COLUMNS, p.sizes[one.inner], MIXED_CODE // p.extent(p.k))
    for columns in range(1, most + 1):
        count, rest = divmod(p.sizes[one.inner], columns)
        each, last = _costs(p, one, columns, context), _costs(p, one, rest, context)
        yield Candidate(f"{columns} at a time", replace(one, columns=columns), tuple([
            (cause, vectors * (count * a + (b if rest else 0)))
            for cause, a, b in zip(("loads", "sums and shuffles", "latency", "control"), each, last)]))


def _costs(p: Phase[int], one: LaneSchedule, columns: int, context: ContractionContext) -> tuple[float, ...]:
    """Cycles of one vector's sums at so many positions: shuffles take the place of multiply-adds."""
    machine, mixed = context.machine, one.mixed or MixedChannels(p.k[-1], 1, 0)
    steps = list(product(*[range(p.sizes[d]) for d in p.k]))
    at = p.k.index(mixed.channel)

    def distances(t: LinearMap[int], apart: bool) -> int:
        return len({(sum(i * t.strides[d] for d, i in zip((*p.k, one.inner), (*k, j)) if apart or d != mixed.channel),
                     k[at] if not apart else 0) for k in steps for j in range(columns)})
    shuffles = distances(p.a, False)
    loaded = (shuffles / mixed.width + distances(p.b, True)) / machine.loads_per_cycle
    summed, waited = (len(steps) * columns + shuffles) / machine.fma_per_cycle, len(steps) * machine.fma_latency
    return loaded, max(0.0, summed - loaded), max(0.0, waited - max(loaded, summed)), machine.step_cycles
