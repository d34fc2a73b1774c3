"""The gradient of max pooling of images whose lines lie in memory as they are read. Which element is the maximum of
each window of a line of windows is found by vectors along the line; each gradient then goes to its place, one by one.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.pool_lines import UNROLLED, PoolLine
from graphc.codegen.lower.pool_window import Place, PoolWindow
from graphc.codegen.lower.ranges import unflatten
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import clamped, function, nested, over_lanes, rows
from graphc.ir.dims import static_dim
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.ops import window
from graphc.ir.types import i32
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.parallel_rows import rows_of
from graphc.schedule.plain_schedule import PlainSchedule

NOTHING = i32.range[1]              # the line of a window without elements, or of padding


def maximum_gradient_lines(r: KernelRequest[PlainSchedule, window.MaxPoolGrad], lowest: float) -> LoopFunction:
    """Every gradient goes to the first maximum of its window, in the order of memory; NaN is larger than all numbers.
    `lowest`: than which none is less."""
    f, (x, dy), (dx,) = function(r)
    if 0 in dx.shape:
        return f
    lanes, size = r.schedule.lanes, dx.shape[FIRST_SPATIAL_AXIS:]
    with rows(f, rows_of(r.node, r.ins, r.outs).extents, r.schedule) as plane:
        def clear(place: list[Ix]) -> None:
            over_lanes(f, 0, size[-1], lanes, lambda i, lanes, mask: f.store(
                dx, [*plane, *place, i], f.const(0, dx.dtype, lanes), mask))
        nested(f, size[:-1], clear)
        lines = _WindowLines(f, r.op, (x, dy, dx), plane, lanes, lowest)
        nested(f, dy.shape[FIRST_SPATIAL_AXIS:-1], lines.send)
    return f


@dataclass(frozen=True)
class _Found:
    """Of some windows: a maximum, the line of the window in which it is, and its position in the line."""
    best: Val
    line: Val
    position: Val


class _WindowLines:
    """The windows of a plane, line by line. best, above: of each element of a line, the maximum of what a line of
    windows has there, and in which of the windows' lines; with room for the padding."""

    def __init__(self, f: LoopFunction, op: window.MaxPoolGrad, views: tuple[View, View, View], plane: Sequence[Ix],
                 lanes: int, lowest: float):
        self.f, self.op, self.plane, self.lanes, self.lowest = f, op, plane, lanes, lowest
        self.x, self.dy, self.dx = views
        self.size = self.x.shape[FIRST_SPATIAL_AXIS:]
        self.width, self.count = (static_dim(v.shape[-1]) for v in (self.x, self.dy))
        self.kernel, self.stride, self.apart = (n[-1] for n in (op.kernel, op.stride, op.dilation))
        self.low = op.padding[-1][0]
        reach = (round_up(self.count, lanes) - 1) * self.stride + (self.kernel - 1) * self.apart + 1
        end = max(reach, self.low + self.width)
        self.best, self.above = (PoolLine.of(f, dtype, self.low, end, lanes) for dtype in (self.x.dtype, i32))
        self.best.fill(lowest, 0, self.best.end)
        self.above.fill(NOTHING, 0, self.above.end)
        room = round_up(self.count, lanes)
        self.lines, self.positions = (f.scratch(name, i32, (room,)) for name in ("lines", "positions"))

    def send(self, place: Place) -> None:
        """The gradients of a line of windows to where these have their maxima."""
        f, above = self.f, PoolWindow(self.f, self.op, self.size[:-1], place)
        over_lanes(f, 0, self.width, self.lanes, lambda i, lanes, mask: self._column(above, i, lanes, mask))
        with f.loop(0, round_up(self.count, self.lanes), self.lanes) as loop:
            found = self._beside(loop.index)
            f.store(self.lines, [loop.index], found.line)
            f.store(self.positions, [loop.index], found.position)
        with f.loop(0, self.count) as loop:
            line = f.load(self.lines, [loop.index])
            with f.if_(f.ne(line, f.const(NOTHING, i32))):
                self._add(above, place, line, loop.index)

    def _column(self, above: PoolWindow, i: Ix, lanes: int, mask: Val | None) -> None:
        """The maximum of what stands above each other."""
        f, nothing = self.f, self.f.const(NOTHING, i32, lanes)

        def visit(at: Place, number: Val, found: tuple[Val, ...]) -> list[Val]:
            best, line = found
            v = f.load(self.x, [*self.plane, *at, i], lanes, mask)
            better = f.or_(self._exceeds(v, best), f.eq(line, nothing))
            return [f.select(better, v, best), f.select(better, f.splat(number, lanes), line)]
        best, line = above.reduce((f.const(self.lowest, self.x.dtype, lanes), nothing), visit)
        self.best.store(i, best, mask)
        self.above.store(i, line, mask)

    def _exceeds(self, v: Val, best: Val) -> Val:
        """Whether a value takes the place of one before it."""
        f = self.f
        if not v.dtype.is_float:
            return f.gt(v, best)
        return f.and_(f.not_(f.le(v, best)), f.eq(best, best))

    def _beside(self, first: Ix) -> _Found:
        """The maxima of a vector of windows from those of their columns: of equal ones that of the first line."""
        f, lanes = self.f, self.lanes
        start = _Found(f.const(self.lowest, self.x.dtype, lanes), f.const(NOTHING, i32, lanes), f.const(0, i32, lanes))

        def step(k: Ix, found: _Found) -> _Found:
            at = first * self.stride + k * self.apart
            v, line = self.best.load(at, self.stride), self.above.load(at, self.stride)
            equal = f.eq(v, found.best)
            if v.dtype.is_float:
                equal = f.or_(equal, f.and_(f.isnan(v), f.isnan(found.best)))
            better = f.or_(self._exceeds(v, found.best), f.and_(equal, f.lt(line, found.line)))
            position = f.splat(f.cast(f.value(k), i32), lanes)
            return _Found(*[f.select(better, new, old) for new, old in zip(
                (v, line, position), (found.best, found.line, found.position))])
        if self.kernel <= UNROLLED:
            for k in range(self.kernel):
                start = step(Ix(k), start)
            return start
        with f.loop(0, self.kernel, carry=(start.best, start.line, start.position)) as loop:
            found = step(loop.index, _Found(*loop.carried))
            loop.next(found.best, found.line, found.position)
        return _Found(*loop.results)

    def _add(self, above: PoolWindow, place: Place, line: Val, i: Ix) -> None:
        """The gradient of window number `i` of a line to its place, inside the image by what was found."""
        f, op = self.f, self.op
        *outer, _ = op.kernel
        numbers = unflatten(f, clamped(f, line, prod(outer)), range(len(outer)), outer)
        position = clamped(f, f.load(self.positions, [i]), self.kernel)
        starts = [*above.starts, i * self.stride - self.low]
        steps = [*(numbers[axis] for axis in range(len(outer))), position]
        to = [f.max_(f.min_(start + step * apart, n - 1), 0)
              for start, step, apart, n in zip(starts, steps, op.dilation, self.size)]
        index = [*self.plane, *to]
        f.store(self.dx, index, f.add(f.load(self.dx, index), f.load(self.dy, [*self.plane, *place, i])))

