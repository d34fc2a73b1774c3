"""Pooling. Lanes run along the channels where these are neighbours in memory. Windows that are inside the image are
unrolled; the bounds of those that reach into the padding are loop bounds.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import Lanes, function, nested, over_lanes, permuted, rows
from graphc.ir.image import channels_last
from graphc.ir.ops import window
from graphc.ir.types import DType, i32
from graphc.schedule.parallel_rows import CHUNK, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

UNROLLED = 16                       # positions of a window, at most
# row, column, number of the position, carried -> carried
Visit = Callable[[Ix, Ix, Val, tuple[Val, ...]], Sequence[Val]]


class PoolWindow:
    """The positions of one pooling window inside the image. `whole`: it is known that all of them are."""

    def __init__(self, f: LoopFunction, op: window.Pooling, size: Sequence[int], out: Sequence[Ix],
                 whole: bool = False):
        self.f, self.op, self.whole = f, op, whole
        self.starts = [o * stride - low for o, stride, (low, _) in zip(out, op.stride, op.padding)]
        self.size = size

    def never_whole(self) -> bool:
        """Whether some position is in the padding, wherever the window is."""
        reach = [(k - 1) * step for k, step in zip(self.op.kernel, self.op.steps)]
        known = [start.const if start.is_const else None for start in self.starts]
        return any(r >= size or at is not None and not 0 <= at <= size - 1 - r
                   for r, size, at in zip(reach, self.size, known))

    def is_whole(self) -> Val:
        """Whether no position is in the padding."""
        f, last = self.f, [(k - 1) * step for k, step in zip(self.op.kernel, self.op.steps)]
        inside = [f.and_(f.ge(f.value(start), f.value(Ix())), f.le(f.value(start + reach), f.value(Ix(size - 1))))
                  for start, reach, size in zip(self.starts, last, self.size)]
        return f.and_(*inside)

    def reduce(self, carry: tuple[Val, ...], visit: Visit) -> tuple[Val, ...]:
        """Visits the positions row by row, carrying values."""
        f = self.f
        if self.whole:
            for number, (i, j) in enumerate(product(*map(range, self.op.kernel))):
                y, x = (start + k * step for start, k, step in zip(self.starts, (i, j), self.op.steps))
                carry = tuple(visit(y, x, f.const(number, i32), carry))
            return carry
        with self._loop(0, carry) as rows_loop:
            with self._loop(1, rows_loop.carried) as columns:
                i, j = rows_loop.index, columns.index
                y = self._inside(self.starts[0] + i * self.op.steps[0], self.size[0])
                x = self._inside(self.starts[1] + j * self.op.steps[1], self.size[1])
                columns.next(*visit(y, x, f.cast(f.value(i * self.op.kernel[1] + j), i32), columns.carried))
            rows_loop.next(*columns.results)
        return rows_loop.results

    def count(self) -> Val:
        """How many positions are inside the image."""
        f = self.f
        if self.whole:
            return f.const(self.op.kernel[0] * self.op.kernel[1], i32)
        spans = [hi - lo for lo, hi in (self._bounds(0), self._bounds(1))]
        return f.mul(f.value(spans[0]), f.value(spans[1]))

    def _loop(self, axis: int, carry: tuple[Val, ...]):
        lo, hi = self._bounds(axis)
        return self.f.loop(lo, hi, carry=carry)

    def _bounds(self, axis: int) -> tuple[Ix, Ix]:
        """The positions k with 0 <= start + k * step < size."""
        f, start, step = self.f, self.starts[axis], self.op.steps[axis]
        first = f.divmod(start * -1 + (step - 1), step)[0]
        behind = f.divmod(start * -1 + (self.size[axis] - 1), step)[0] + 1
        return f.max_(first, 0), f.min_(behind, self.op.kernel[axis])

    def _inside(self, at: Ix, size: int) -> Ix:
        """The index, inside by the loop's bounds, in a form that the verifier believes."""
        return self.f.max_(self.f.min_(at, size - 1), 0)


def _for_window(f: LoopFunction, op: window.Pooling, size: Sequence[int], out: Sequence[Ix],
                do: Callable[[PoolWindow], None]) -> None:
    """`do` for the window of one output: in a form for windows inside the image, where there are such, and in one for
    others.
    """
    if op.kernel[0] * op.kernel[1] > UNROLLED:
        do(PoolWindow(f, op, size, out))
    elif not any(map(any, op.padding)):
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

    def load(self, view: View, row: Ix, column: Ix) -> Val:
        return self.f.load(view, [self.image, row, column, self.channel], self.lanes, self.mask)

    def store(self, view: View, row: Ix, column: Ix, value: Val) -> None:
        self.f.store(view, [self.image, row, column, self.channel], value, self.mask)

    def fill(self, number: float, dtype: DType) -> Val:
        """The number for each channel."""
        return self.f.const(number, dtype, self.lanes)

    def splat(self, value: Val) -> Val:
        """The scalar for each channel."""
        return self.f.splat(value, self.lanes)


Element = Callable[[PoolLanes, Sequence[View]], Val]                    # where, operands -> value of the window
Add = Callable[[Ix, Ix, Val], None]                                     # row, column, what is added to dx there
# where, operands, row and column of the window in the result
Send = Callable[[PoolLanes, Sequence[View], list[Ix], Add], None]


def _over_windows(r: KernelRequest[PlainSchedule], element: Element) -> LoopFunction:
    """`element` gives the value of each window."""
    f, xs, (y,) = function(r)
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)
    xs, result = [_channels_last(f, x) for x in xs], _channels_last(f, y)
    size = r.ins[0].shape[2:]
    with rows(f, row.extents, r.schedule) as at:
        def body(i: Ix, lanes: int, mask: Val | None) -> None:
            n, c, oh, ow = (at[0], i, at[1], at[2]) if row.vector else (at[0], at[1], at[2], i)

            def one(window: PoolWindow) -> None:
                here = PoolLanes(f, window, n, c, lanes, mask)
                here.store(result, oh, ow, element(here, xs))
            _for_window(f, r.node.op, size, (oh, ow), one)
        over_lanes(f, 0, row.lane, r.schedule.lanes, body)
    return f


def _channels_last(f: LoopFunction, view: View) -> View:
    return permuted(f, view, channels_last(len(view.shape)))


def _lowest(dtype: DType) -> float:
    return float("-inf") if dtype.is_float else dtype.range[0]


def _chosen(at: PoolLanes, x: View, extra: View | None = None) -> tuple[Val, ...]:
    """Maximum of the window, the number of its position (the first; NaN wins), and there the element of `extra`."""
    f = at.f
    start = (at.fill(_lowest(x.dtype), x.dtype), at.fill(-1, i32))
    start += (at.fill(0, extra.dtype),) if extra is not None else ()

    def visit(row: Ix, column: Ix, number: Val, carried: tuple[Val, ...]) -> list[Val]:
        best, chosen = carried[:2]
        v = at.load(x, row, column)
        better = f.or_(f.gt(v, best), f.eq(chosen, at.fill(-1, i32)))
        if x.dtype.is_float:
            better = f.or_(better, f.and_(f.isnan(v), f.not_(f.isnan(best))))
        new = [f.select(better, v, best), f.select(better, at.splat(number), chosen)]
        return new + ([f.select(better, at.load(extra, row, column), carried[2])] if extra is not None else [])
    return at.window.reduce(start, visit)


def _max_pool(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    def element(at: PoolLanes, xs: Sequence[View]) -> Val:
        x, = xs
        lowest = at.fill(_lowest(x.dtype), x.dtype)
        return at.window.reduce((lowest,), lambda i, j, k, best: [at.f.max(best[0], at.load(x, i, j))])[0]
    return _over_windows(r, element)


def _max_pool_pick(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _over_windows(r, lambda at, xs: _chosen(at, *xs)[2])


def _avg_pool(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    def element(at: PoolLanes, xs: Sequence[View]) -> Val:
        x, = xs
        total, = at.window.reduce((at.fill(0, x.dtype),), lambda i, j, k, sums: [at.f.add(sums[0], at.load(x, i, j))])
        return at.f.div(total, at.splat(_divisor(at, r.node.op, x.dtype)))
    return _over_windows(r, element)


def _divisor(at: PoolLanes, op: window.AvgPooling, dtype: DType) -> Val:
    f = at.f
    return f.const(op.kernel[0] * op.kernel[1], dtype) if op.count_include_pad else f.cast(at.window.count(), dtype)


def _spread(r: KernelRequest[PlainSchedule], send: Send) -> LoopFunction:
    """Gradients: `send` adds to dx what one window sends there. Channels are the inner loop, so that the rows of the
    image that a window meets stay in the cache. Windows that do not overlap are taken line by line.
    """
    f, xs, (y,) = function(r)
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)
    size, out = y.shape[2:], r.ins[-1].shape[2:]
    xs, dx = [_channels_last(f, x) for x in xs], _channels_last(f, y)
    once = r.node.op.covers_once(size)
    by_lines = once and row.vector
    with rows(f, row.extents, r.schedule) as at:
        n, first = at[0], Ix() if by_lines else at[1] * CHUNK

        def channels(body: Lanes) -> None:
            if row.vector:
                over_lanes(f, first, f.min_(first + row.lane, y.shape[1]), r.schedule.lanes, body)
            else:
                body(at[1], 1, None)

        def clear(place: list[Ix]) -> None:
            channels(lambda c, lanes, mask: f.store(dx, [n, *place, c], f.const(0, dx.dtype, lanes), mask))

        def window_at(place: list[Ix], w: PoolWindow) -> None:
            def body(c: Ix, lanes: int, mask: Val | None) -> None:
                here = PoolLanes(f, w, n, c, lanes, mask)

                def add(i: Ix, j: Ix, v: Val) -> None:
                    here.store(dx, i, j, v if once else f.add(here.load(dx, i, j), v))
                send(here, xs, place, add)
            channels(body)

        def send_from(place: list[Ix]) -> None:
            _for_window(f, r.node.op, size, place, lambda w: window_at(place, w))

        if not once:
            nested(f, size, clear)
        if by_lines:
            nested(f, out[1:], lambda place: send_from([at[1], *place]))
        else:
            nested(f, out, send_from)
    return f


def _max_pool_grad(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    def send(at: PoolLanes, xs: Sequence[View], place: list[Ix], add: Add) -> None:
        f, (x, dy) = at.f, xs
        _, chosen = _chosen(at, x)
        g = at.load(dy, *place)

        def visit(i: Ix, j: Ix, number: Val, carried: tuple[Val, ...]) -> tuple[Val, ...]:
            add(i, j, f.select(f.eq(chosen, at.splat(number)), g, at.fill(0, g.dtype)))
            return ()
        at.window.reduce((), visit)
    return _spread(r, send)


def _avg_pool_grad(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    def send(at: PoolLanes, xs: Sequence[View], place: list[Ix], add: Add) -> None:
        dy, = xs
        share = at.f.div(at.load(dy, *place), at.splat(_divisor(at, r.node.op, dy.dtype)))

        def visit(i: Ix, j: Ix, number: Val, carried: tuple[Val, ...]) -> tuple[Val, ...]:
            add(i, j, share)
            return ()
        at.window.reduce((), visit)
    return _spread(r, send)


LOWERINGS = {window.MaxPool2d: _max_pool, window.MaxPool2dPick: _max_pool_pick, window.AvgPool2d: _avg_pool,
             window.MaxPool2dGrad: _max_pool_grad, window.AvgPool2dGrad: _avg_pool_grad}
