"""Pooling. Lanes run along the channels where these are neighbours in memory (for those where pixels of a line are:
`pool_lines.py`). Windows that are inside the image are unrolled; the bounds of those that reach into the padding are
loop bounds.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.pool_lines import average_lines, gradient_lines, maximum_lines
from graphc.codegen.lower.pool_lines_maxima import maximum_gradient_lines
from graphc.codegen.lower.pool_window import Place, PoolWindow
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import Lanes, function, nested, over_lanes, permuted, rows
from graphc.ir.dims import Dim
from graphc.ir.image import FIRST_SPATIAL_AXIS, channels_last
from graphc.ir.op import Op
from graphc.ir.ops import window
from graphc.ir.types import DType, i32
from graphc.records import dataclass
from graphc.schedule.parallel_rows import CHUNK, pools_by_lines, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

UNROLLED = 16                       # positions of a window, at most


def _for_window(f: LoopFunction, op: window.Pooling, size: Sequence[Dim], result: Sequence[Dim], out: Sequence[Ix],
                do: Callable[[PoolWindow], None]) -> None:
    """`do` for the window of one output of `result` along each axis: in a form for windows inside the image, where
    there are such, and in one for others.
    """
    if prod(op.kernel) > UNROLLED:
        do(PoolWindow(f, op, size, out))
    elif not op.reaches_outside(tuple(size), tuple(result)):
        do(PoolWindow(f, op, size, out, whole=True))
    elif PoolWindow(f, op, size, out).never_whole():
        do(PoolWindow(f, op, size, out))
    else:
        with f.if_(PoolWindow(f, op, size, out).is_whole()):
            do(PoolWindow(f, op, size, out, whole=True))
        with f.else_():
            do(PoolWindow(f, op, size, out))


@dataclass(frozen=True)
class PoolLanes:
    """Some channels (`lanes` from `channel` on) of image number `image`, and the window that is there."""
    f: LoopFunction
    window: PoolWindow
    image: Ix
    channel: Ix
    lanes: int
    mask: Val | None

    def load(self, view: View, place: Place) -> Val:
        return self.f.load(view, [self.image, *place, self.channel], self.lanes, self.mask)

    def store(self, view: View, place: Place, value: Val) -> None:
        self.f.store(view, [self.image, *place, self.channel], value, self.mask)

    def fill(self, number: float, dtype: DType) -> Val:
        """The number for each channel."""
        return self.f.const(number, dtype, self.lanes)

    def splat(self, value: Val) -> Val:
        """The scalar for each channel."""
        return self.f.splat(value, self.lanes)


Element = Callable[[PoolLanes, Sequence[View]], Val]                    # where, operands -> value of the window
Add = Callable[[Place, Val], None]                                      # where, what is added to dx there
# where, operands, place of the window in the result
Send = Callable[[PoolLanes, Sequence[View], Place, Add], None]


def _over_windows(r: KernelRequest[PlainSchedule, window.Pooling], element: Element) -> LoopFunction:
    """`element` gives the value of each window."""
    f, xs, (y,) = function(r)
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)
    xs, result = [_channels_last(f, x) for x in xs], _channels_last(f, y)
    size, windows = (v.shape[FIRST_SPATIAL_AXIS:] for v in (r.ins[0], y))
    with rows(f, row.extents, r.schedule) as at:
        def body(i: Ix, lanes: int, mask: Val | None) -> None:
            n, c, *place = (at[0], i, *at[1:]) if row.vector else (*at, i)

            def one(window: PoolWindow) -> None:
                here = PoolLanes(f, window, n, c, lanes, mask)
                here.store(result, place, element(here, xs))
            _for_window(f, r.op, size, windows, place, one)
        over_lanes(f, 0, row.lane, r.schedule.lanes, body)
    return f


def _channels_last(f: LoopFunction, view: View) -> View:
    return permuted(f, view, channels_last(len(view.shape)))


def _lowest(dtype: DType) -> float:
    return float("-inf") if dtype.is_float else dtype.range[0]


def _chosen(at: PoolLanes, x: View, extra: View | None = None) -> tuple[Val, ...]:
    """Maximum of the window, the number of its position (the first; NaN wins), and there the element of `extra`."""
    f = at.f
    start: tuple[Val, ...] = at.fill(_lowest(x.dtype), x.dtype), at.fill(-1, i32)
    start += (at.fill(0, extra.dtype),) if extra is not None else ()

    def visit(place: Place, number: Val, carried: tuple[Val, ...]) -> list[Val]:
        best, chosen = carried[:2]
        v = at.load(x, place)
        better = f.or_(f.gt(v, best), f.eq(chosen, at.fill(-1, i32)))
        if x.dtype.is_float:
            better = f.or_(better, f.and_(f.isnan(v), f.not_(f.isnan(best))))
        new = [f.select(better, v, best), f.select(better, at.splat(number), chosen)]
        return new + ([f.select(better, at.load(extra, place), carried[2])] if extra is not None else [])
    return at.window.reduce(start, visit)


def _max_pool(r: KernelRequest[PlainSchedule, window.MaxPool]) -> LoopFunction:
    if pools_by_lines(r.op, r.ins, r.outs):
        return maximum_lines(r, _lowest(r.ins[0].dtype))
    def element(at: PoolLanes, xs: Sequence[View]) -> Val:
        x, = xs
        lowest = at.fill(_lowest(x.dtype), x.dtype)
        return at.window.reduce((lowest,), lambda place, k, best: [at.f.max(best[0], at.load(x, place))])[0]
    return _over_windows(r, element)


def _max_pool_pick(r: KernelRequest[PlainSchedule, window.MaxPoolPick]) -> LoopFunction:
    return _over_windows(r, lambda at, xs: _chosen(at, *xs)[2])


def _avg_pool(r: KernelRequest[PlainSchedule, window.AvgPool]) -> LoopFunction:
    if pools_by_lines(r.op, r.ins, r.outs):
        return average_lines(r)
    def element(at: PoolLanes, xs: Sequence[View]) -> Val:
        x, = xs
        total, = at.window.reduce((at.fill(0, x.dtype),), lambda place, k, sums: [at.f.add(sums[0], at.load(x, place))])
        return at.f.div(total, at.splat(_divisor(at, r.op, x.dtype)))
    return _over_windows(r, element)


def _divisor(at: PoolLanes, op: window.AvgPooling, dtype: DType) -> Val:
    """By what the sum of a window is divided."""
    f = at.f
    if op.count_include_pad and not op.ceil_mode:
        return f.const(prod(op.kernel), dtype)
    return f.cast(at.window.count(op.padding if op.count_include_pad else ((0, 0),) * op.axes), dtype)


def _spread(r: KernelRequest[PlainSchedule, window.Pooling], send: Send) -> LoopFunction:
    """Gradients: `send` adds to dx what one window sends there. Channels are the inner loop, so that the rows of the
    image that a window meets stay in the cache. Windows that do not overlap are taken line by line.
    """
    f, xs, (y,) = function(r)
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)
    size, out = (v.shape[FIRST_SPATIAL_AXIS:] for v in (y, r.ins[-1]))
    xs, dx = [_channels_last(f, x) for x in xs], _channels_last(f, y)
    once = r.op.covers_once(size)
    by_lines = once and row.vector
    with rows(f, row.extents, r.schedule) as at:
        n, first = at[0], Ix() if by_lines else at[1] * CHUNK

        def channels(body: Lanes) -> None:
            if row.vector:
                over_lanes(f, first, f.min_(first + row.lane, y.shape[1]), r.schedule.lanes, body)
            else:
                body(at[1], 1, None)

        def clear(place: Place) -> None:
            channels(lambda c, lanes, mask: f.store(dx, [n, *place, c], f.const(0, dx.dtype, lanes), mask))

        def window_at(place: Place, w: PoolWindow) -> None:
            def body(c: Ix, lanes: int, mask: Val | None) -> None:
                here = PoolLanes(f, w, n, c, lanes, mask)

                def add(to: Place, v: Val) -> None:
                    here.store(dx, to, v if once else f.add(here.load(dx, to), v))
                send(here, xs, place, add)
            channels(body)

        def send_from(place: Place) -> None:
            _for_window(f, r.op, size, out, place, lambda w: window_at(place, w))

        if not once:
            nested(f, size, clear)
        if by_lines:
            nested(f, out[-1:], lambda place: send_from([*at[1:], *place]))
        else:
            nested(f, out, send_from)
    return f


def _max_pool_grad(r: KernelRequest[PlainSchedule, window.MaxPoolGrad]) -> LoopFunction:
    if pools_by_lines(r.op, r.ins, r.outs):
        return maximum_gradient_lines(r, _lowest(r.ins[0].dtype))
    def send(at: PoolLanes, xs: Sequence[View], place: Place, add: Add) -> None:
        f, (x, dy) = at.f, xs
        _, chosen = _chosen(at, x)
        g = at.load(dy, place)

        def visit(to: Place, number: Val, carried: tuple[Val, ...]) -> tuple[Val, ...]:
            add(to, f.select(f.eq(chosen, at.splat(number)), g, at.fill(0, g.dtype)))
            return ()
        at.window.reduce((), visit)
    return _spread(r, send)


def _avg_pool_grad(r: KernelRequest[PlainSchedule, window.AvgPoolGrad]) -> LoopFunction:
    if pools_by_lines(r.op, r.ins, r.outs):
        return gradient_lines(r)
    def send(at: PoolLanes, xs: Sequence[View], place: Place, add: Add) -> None:
        dy, = xs
        share = at.f.div(at.load(dy, place), at.splat(_divisor(at, r.op, dy.dtype)))

        def visit(to: Place, number: Val, carried: tuple[Val, ...]) -> tuple[Val, ...]:
            add(to, share)
            return ()
        at.window.reduce((), visit)
    return _spread(r, send)


LOWERINGS: dict[type[Op], Lowering] = {
    **dict.fromkeys(window.MaxPool.every(), _max_pool), **dict.fromkeys(window.MaxPoolPick.every(), _max_pool_pick),
    **dict.fromkeys(window.AvgPool.every(), _avg_pool), **dict.fromkeys(window.MaxPoolGrad.every(), _max_pool_grad),
    **dict.fromkeys(window.AvgPoolGrad.every(), _avg_pool_grad),
}
