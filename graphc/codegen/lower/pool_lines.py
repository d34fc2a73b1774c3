"""Pooling of images whose lines lie in memory as they are read: lanes run along a line of pixels.

Sums and maxima of a window are those of its lines. What is above each other is taken together first, by vectors along
the line, into scratch with room for the padding around it; then what is side by side, from there. Gradients of maxima:
`pool_lines_maxima.py`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.pool_window import Place, PoolWindow
from graphc.codegen.lower.ranges import load_spaced
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, over_lanes, rows
from graphc.codegen.lower.transpose import transposed_runs
from graphc.ir.dims import Dim, static_dim
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.ops import window
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.parallel_rows import rows_of
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.spaced_loads import turned_squares

UNROLLED = 16                       # positions side by side, at most: more are a loop

Combine = Callable[[Val, Val], Val]


@dataclass(frozen=True)
class PoolLine:
    """A line in scratch from element `first` on, with room around it; vectors of `lanes`."""
    f: LoopFunction
    memory: View
    first: int
    lanes: int

    @staticmethod
    def of(f: LoopFunction, dtype: DType, first: int, end: int, lanes: int) -> "PoolLine":
        """end: behind all that is stored in it and read from it, but for the last vector."""
        return PoolLine(f, f.scratch("line", dtype, (end + lanes,)), first, lanes)

    @property
    def end(self) -> int:
        return static_dim(self.memory.shape[0]) - self.lanes

    def fill(self, number: float, start: int, end: int) -> None:
        """The number from one element to another, in whole vectors: what these write behind `end` is free, or stored
        later."""
        value = self.f.const(number, self.memory.dtype, self.lanes)
        with self.f.loop(0, -(-(end - start) // self.lanes)) as loop:
            self.f.store(self.memory, [loop.index * self.lanes + start], value)

    def store(self, i: Ix, value: Val, mask: Val | None) -> None:
        self.f.store(self.memory, [i + self.first], value, mask)

    def load(self, start: Ix, step: int) -> Val:
        """A vector of elements `step` from each other."""
        return load_spaced(self.f, self.memory, start, step, self.lanes, None)

    def together(self, start: Ix, count: int, apart: int, step: int, combine: Combine) -> Val:
        """A vector of elements `step` from each other, of what stands at `start` and `count` - 1 times `apart` behind.
        """
        f = self.f
        if count <= UNROLLED:
            found = self._turned(start, [k * apart for k in range(count)], step)
            return reduce(combine, [found[k * apart] for k in range(count)])

        def load(k: Ix) -> Val:
            return self.load(start + k * apart, step)
        with f.loop(1, count, carry=(load(Ix()),)) as loop:
            loop.next(combine(loop.carried[0], load(loop.index)))
        return loop.results[0]

    def _turned(self, start: Ix, offsets: Sequence[int], step: int) -> dict[int, Val]:
        """By offset, the vector that begins so far behind `start`: of some that are near each other, squares are
        transposed. What these read behind the last is in the room for a vector."""
        found = dict[int, Val]()
        for first in turned_squares(step, self.lanes, offsets):
            rows = [start + (i * step + first) for i in range(self.lanes)]
            found |= dict(enumerate(transposed_runs(self.f, self.memory, rows), first))
        return {o: found[o] if o in found else self.load(start + o, step) for o in offsets}


def maximum_lines(r: KernelRequest[PlainSchedule, window.MaxPool], lowest: float) -> LoopFunction:
    """The maximum of each window; `lowest` is that of none."""
    return _forward(r, lowest, lambda f: f.max, lambda f, value: value)


def average_lines(r: KernelRequest[PlainSchedule, window.AvgPool]) -> LoopFunction:
    """The sum of each window divided by the number of its positions."""
    def mean(f: LoopFunction, total: Val) -> Val:
        return f.div(total, f.const(prod(r.op.kernel), total.dtype, total.lanes))
    return _forward(r, 0, lambda f: f.add, mean)


def _forward(r: KernelRequest[PlainSchedule, window.Pooling], neutral: float,
             combining: Callable[[LoopFunction], Combine], finish: Callable[[LoopFunction, Val], Val]) -> LoopFunction:
    f, (x,), (y,) = function(r)
    if 0 in y.shape:
        return f
    op, lanes, combine = r.op, r.schedule.lanes, combining(f)
    size, (width, out) = x.shape[FIRST_SPATIAL_AXIS:-1], (static_dim(v.shape[-1]) for v in (x, y))
    (kernel, stride, apart), low = (n[-1] for n in (op.kernel, op.stride, op.dilation)), op.padding[-1][0]
    with rows(f, rows_of(r.node, r.ins, r.outs).extents, r.schedule) as (n, c, *place):
        reach = (round_up(out, lanes) - 1) * stride + (kernel - 1) * apart + 1
        line, above = PoolLine.of(f, x.dtype, low, max(reach, low + width), lanes), PoolWindow(f, op, size, place)

        def column(i: Ix, lanes: int, mask: Val | None) -> None:
            def visit(at: Place, k: Val, found: tuple[Val, ...]) -> list[Val]:
                return [combine(found[0], f.load(x, [n, c, *at, i], lanes, mask))]
            line.store(i, above.reduce((f.const(neutral, x.dtype, lanes),), visit)[0], mask)

        def result(i: Ix, lanes: int, mask: Val | None) -> None:
            value = line.together(i * stride, kernel, apart, stride, combine)
            f.store(y, [n, c, *place, i], finish(f, value), mask)
        line.fill(neutral, 0, low)
        over_lanes(f, 0, width, lanes, column)
        line.fill(neutral, low + width, line.end)
        over_lanes(f, 0, out, lanes, result)
    return f


def gradient_lines(r: KernelRequest[PlainSchedule, window.AvgPoolGrad]) -> LoopFunction:
    """What the windows send that contain each element. Those of a line are spread to where they begin in the image,
    zeros between them; an element then gets what begins at it and before it, as far as a window reaches.
    """
    f, (dy,), (dx,) = function(r)
    if 0 in dx.shape:
        return f
    op, lanes = r.op, r.schedule.lanes
    out, width = (static_dim(v.shape[-1]) for v in (dy, dx))
    (kernel, stride), low = (n[-1] for n in (op.kernel, op.stride)), op.padding[-1][0]
    before, last = kernel - 1 - low, (out - 1) * stride + 1
    with rows(f, rows_of(r.node, r.ins, r.outs).extents, r.schedule) as (n, c, *place):
        spread = PoolLine.of(f, dx.dtype, before, max(round_up(width, lanes) - 1 + kernel, before + last), lanes)
        line = spread if stride == 1 else PoolLine.of(f, dx.dtype, 0, out, lanes)
        axes = zip(place, op.kernel, op.stride, op.padding, dy.shape[FIRST_SPATIAL_AXIS:])
        around = [_windows_at(f, at, k, step, pad[0], count) for at, k, step, pad, count in axes]

        def column(i: Ix, lanes: int, mask: Val | None) -> None:
            zero, count = (f.const(number, dx.dtype, lanes) for number in (0, prod(op.kernel)))
            total = _sum_over(f, around, zero, lambda at: f.load(dy, [n, c, *at, i], lanes, mask))
            line.store(i, f.div(total, count), mask)

        def result(i: Ix, lanes: int, mask: Val | None) -> None:
            f.store(dx, [n, c, *place, i], spread.together(i, kernel, 1, 1, f.add), mask)
        spread.fill(0, 0, spread.end)
        over_lanes(f, 0, out, lanes, column)
        if stride > 1:
            with f.loop(0, out) as loop:
                f.store(spread.memory, [loop.index * stride + before], f.load(line.memory, [loop.index]))
        over_lanes(f, 0, width, lanes, result)
    return f


def _windows_at(f: LoopFunction, at: Ix, kernel: int, stride: int, low: int, count: Dim) -> tuple[Ix, Ix]:
    """The windows along one axis that contain a position: from one number to another."""
    first = f.divmod(f.max_(at + (low - kernel + stride), 0), stride)[0]
    behind = f.divmod(at + low, stride)[0] + 1
    return first, f.min_(behind, count)


def _sum_over(f: LoopFunction, ranges: Sequence[tuple[Ix, Ix]], total: Val, load: Callable[[list[Ix]], Val],
              at: tuple[Ix, ...] = ()) -> Val:
    """The total and what is loaded for each index of the ranges."""
    if len(at) == len(ranges):
        return f.add(total, load(list(at)))
    low, high = ranges[len(at)]
    with f.loop(low, high, carry=(total,)) as loop:
        loop.next(_sum_over(f, ranges, loop.carried[0], load, (*at, loop.index)))
    return loop.results[0]
