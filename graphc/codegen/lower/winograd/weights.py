"""The transformed weights of Winograd convolutions: a vector of features at a time, all numbers of a kernel in
registers.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import ELEMENTS, Ix
from graphc.codegen.loops.index_proofs import at_most
from graphc.codegen.lower.contraction.micro_kernel import ANY
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, rows
from graphc.codegen.lower.transpose import gathered, transposed_runs
from graphc.codegen.lower.winograd.transform import linear_map
from graphc.ir.dims import Sizes, static_shape
from graphc.ir.ops.winograd import WinogradWeights
from graphc.ir.types import DType
from graphc.ir.winograd import TAPS, transforms
from graphc.records import dataclass
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
        of_feature, of_channel = static_shape((w.strides[op.turned], w.strides[1 - op.turned]))
        room = f.reinterpret(made, (points * made.strides[0],), (1,))
        with f.loop(0, width, s.lanes) as across:
            feature, start = panel * width + across.index, first * of_channel
            even = at_most(feature + (s.lanes - 1), features - 1)
            starts = [feature * of_feature + start, of_feature] if even else [
                f.min_(feature + lane, features - 1) * of_feature + start for lane in range(s.lanes)]
            form = WeightsForm(w.dtype, op.tile, s.lanes, static_shape(w.strides[2:]), bool(op.turned), even,
                               r.target.has_fma)
            f.call(weights_kernel(form), [flat, room.view_at([across.index], (1,)), count, made.strides[0],
                                          of_channel, (count - 1) * of_channel, width, (count - 1) * width, *starts])
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


@dataclass(frozen=True)
class WeightsForm:
    """Which function transforms the kernels of a vector of features. steps: from a row of a kernel to the next, and in
    a row; turned: kernels are turned by 180°; even: features are at equal distances."""
    dtype: DType
    tile: int
    lanes: int
    steps: Sizes
    turned: bool
    even: bool
    fused: bool

    @property
    def name(self) -> str:
        forms = {"turned": self.turned, "even": self.even, "unfused": not self.fused}
        suffix = "".join(f"_{form}" for form, holds in forms.items() if holds)
        return f"winograd_weights_{self.dtype}_{self.tile}x3_{self.lanes}_by{'_'.join(map(str, self.steps))}{suffix}"


@cache
def weights_kernel(form: WeightsForm) -> LoopFunction:
    """Views: kernels, and where their transforms go. Integers: channels; how far apart points are there; how far
    apart channels are here, and where the last begins; the same there; where each feature begins, or (if even) the
    first, and the distance to the next."""
    f, lanes = LoopFunction(form.name, noalias=True), form.lanes
    w, made = (f.view(name, form.dtype, (ANY,), (1,)) for name in ("w", "made"))
    count = f.param("channels", 1, 1 << 24)
    point, here, last_here, there, last_there = [
        f.param(name, 0, ELEMENTS) for name in ("point", "here", "last_here", "there", "last_there")]
    names = ("first", "step") if form.even else [f"feature{lane}" for lane in range(lanes)]
    given = [f.param(name, 0, ELEMENTS) for name in names]
    starts = [given[0] + given[1] * lane for lane in range(lanes)] if form.even else given
    with f.loop(0, count) as loop:
        source, place = (f.min_(f.product(loop.index, distance), last)      # minima prove that it is inside
                         for distance, last in ((here, last_here), (there, last_there)))
        taps = _taps(f, w, [start + source for start in starts], form.steps, lanes)
        _transform(f, form, taps[::-1] if form.turned else taps, lambda number, value: f.store(
            made, [point * number + place], value))
    return f


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


def _transform(f: LoopFunction, form: WeightsForm, taps: Sequence[Val], store: Callable[[int, Val], None]) -> None:
    g = transforms(form.tile).g
    columns = [linear_map(f, g, taps[j::TAPS], form.fused) for j in range(TAPS)]
    for i in range(len(g)):
        for j, value in enumerate(linear_map(f, g, [column[i] for column in columns], form.fused)):
            store(i * len(g) + j, value)
