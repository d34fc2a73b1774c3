"""The transformed weights of Winograd convolutions: a vector of features at a time, all numbers of a kernel in
registers.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, rows
from graphc.codegen.lower.transpose import gathered, transposed_runs
from graphc.codegen.lower.winograd.transform import linear_map
from graphc.ir.dims import static_shape
from graphc.ir.ops.winograd import WinogradWeights
from graphc.ir.winograd import TAPS, transforms
from graphc.schedule.winograd_schedule import WeightsSchedule

KERNEL = TAPS * TAPS
CHANNELS = 8                        # of a row: the run of each point is some cache lines long


def lower_weights(r: KernelRequest[WeightsSchedule, WinogradWeights]) -> LoopFunction:
    """A row is a few channels of one panel, collected in scratch first: the points are far apart in memory, on the
    same cache sets.
    """
    f, (w,), (u,) = function(r)
    s, op, (points, panels, channels, width) = r.schedule, r.op, static_shape(u.shape)
    features, _ = op.roles(w.shape)
    flat = f.reinterpret(w, (1 + sum(step * (n - 1) for n, step in zip(w.shape, w.strides)),), (1,))
    with rows(f, (panels, -(-channels // CHANNELS)), s) as (panel, part):
        made = f.scratch("made", w.dtype, (points, CHANNELS * width + s.lanes))
        first = part * CHANNELS
        count = f.min_(CHANNELS, channels - first)
        with f.loop(0, count) as loop, f.loop(0, width, s.lanes) as across:
            own = [f.min_(panel * width + across.index + lane, features - 1) for lane in range(s.lanes)]
            places = [feature * w.strides[op.turned] + (first + loop.index) * w.strides[1 - op.turned]
                      for feature in own]
            taps = _taps(f, flat, places, static_shape(w.strides[2:]), s.lanes)
            _transform(f, op, taps[::-1] if op.turned else taps, made, loop.index * width + across.index,
                       r.target.has_fma)
        part_of_u = u.view_at([0, panel, first, 0])
        if not s.stream:
            _copy(f, made, part_of_u, count, s.lanes)
        else:
            with f.if_(f.is_aligned(u, s.lanes * u.dtype.itemsize)):
                _copy(f, made, part_of_u, count, s.lanes, "nontemporal")
            with f.else_():
                _copy(f, made, part_of_u, count, s.lanes)
    return f


def _copy(f: LoopFunction, made: View, u: View, count: Ix, lanes: int, hint: str | None = None) -> None:
    with f.loop(0, u.shape[0]) as point, f.loop(0, count) as loop, f.loop(0, u.shape[3], lanes) as across:
        value = f.load(made, [point.index, loop.index * u.shape[3] + across.index], lanes)
        f.store(u, [point.index, 0, loop.index, across.index], value, hint=hint)


def _taps(f: LoopFunction, w: View, places: Sequence[Ix], steps: Sequence[int], lanes: int) -> list[Val]:
    """The nine taps of a kernel for each lane; those that lie side by side are transposed in registers."""
    if tuple(steps) != (TAPS, 1):
        return [gathered(f, w, [at + (i * steps[0] + j * steps[1]) for at in places]) for i in range(TAPS)
                for j in range(TAPS)]
    taps: list[Val] = []
    for first in range(0, KERNEL, lanes):
        count = min(lanes, KERNEL - first)
        if count == 1:
            taps.append(gathered(f, w, [at + first for at in places]))
        else:
            taps += transposed_runs(f, w, [at + first for at in places], count)
    return taps


def _transform(f: LoopFunction, op: WinogradWeights, taps: Sequence[Val], made: View, at: Ix, fused: bool) -> None:
    g = transforms(op.tile).g
    columns = [linear_map(f, g, taps[j::TAPS], fused) for j in range(TAPS)]
    for i in range(len(g)):
        for j, value in enumerate(linear_map(f, g, [column[i] for column in columns], fused)):
            f.store(made, [i * len(g) + j, at], value)
