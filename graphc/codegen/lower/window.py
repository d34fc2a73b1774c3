"""Pooling. Lanes run along the channels where these are neighbours in memory. Windows that are inside the image are unrolled; the bounds of
those that reach into the padding are loop bounds.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.lower.rows import function, nested, over_lanes, rows
from graphc.ir.graph import Node
from graphc.ir.image import channels_last
from graphc.ir.ops import window
from graphc.ir.types import i32
from graphc.schedule.parallel_rows import CHUNK, rows_of
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.view import ViewType

UNROLLED = 16                       # positions of a window, at most
Visit = Callable[[Ix, Ix, Val, tuple[Val, ...]], Sequence[Val]]     # row, column, number of the position, carried -> carried


class PoolWindow:
    """The positions of one pooling window inside the image. `whole`: it is known that all of them are."""

    def __init__(self, f: LoopFunction, op: window.Pooling, size: Sequence[int], out: Sequence[Ix], whole: bool = False):
        self.f, self.op, self.whole = f, op, whole
        self.starts = [o * stride - low for o, stride, (low, _) in zip(out, op.stride, op.padding)]
        self.size = size

    def never_whole(self) -> bool:
        """Whether some position is in the padding, wherever the window is."""
        reach = [(k - 1) * step for k, step in zip(self.op.kernel, self.op.steps)]
        known = [start.const if start.is_const else None for start in self.starts]
        return any(r >= size or at is not None and not 0 <= at <= size - 1 - r for r, size, at in zip(reach, self.size, known))

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


def _for_window(f: LoopFunction, op: window.Pooling, size: Sequence[int], out: Sequence[Ix], do: Callable[[PoolWindow], None]) -> None:
    """`do` for the window of one output: in a form for windows inside the image, where there are such, and in one for others."""
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


def _over_windows(node: Node, ins: Sequence[ViewType], outs: Sequence[ViewType], s: PlainSchedule, name: str, element) -> LoopFunction:
    """`element(f, xs, Window, n, c, lanes, mask)` gives the value of each window."""
    f, xs, (y,) = function(name, ins, outs)
    if 0 in y.shape:
        return f
    row = rows_of(node, ins, outs)
    xs, result = [_channels_last(f, x) for x in xs], _channels_last(f, y)
    size = ins[0].shape[2:]
    with rows(f, row.extents, s) as at:
        def body(i: Ix, lanes: int, mask: Val | None) -> None:
            n, c, oh, ow = (at[0], i, at[1], at[2]) if row.vector else (at[0], at[1], at[2], i)
            _for_window(f, node.op, size, (oh, ow),
                        lambda w: f.store(result, [n, oh, ow, c], element(f, xs, w, n, c, lanes, mask), mask))
        over_lanes(f, 0, row.lane, s.lanes, body)
    return f


def _channels_last(f: LoopFunction, view):
    order = channels_last(len(view.shape))
    return f.reinterpret(view, [view.shape[i] for i in order], [view.strides[i] for i in order])


def _chosen(f: LoopFunction, x, w: PoolWindow, n: Ix, c: Ix, lanes: int, mask, extra=None) -> tuple[Val, ...]:
    """Maximum of the window, the number of its position (the first; NaN wins), and there the element of `extra`."""
    lowest = float("-inf") if x.dtype.is_float else -(1 << (8 * x.dtype.itemsize - 1))
    start = (f.const(lowest, x.dtype, lanes), f.const(-1, i32, lanes)) + ((f.const(0, extra.dtype, lanes),) if extra is not None else ())

    def visit(row: Ix, column: Ix, number: Val, carried: tuple[Val, ...]) -> list[Val]:
        best, chosen = carried[:2]
        v = f.load(x, [n, row, column, c], lanes, mask)
        better = f.or_(f.gt(v, best), f.eq(chosen, f.const(-1, i32, lanes)))
        if x.dtype.is_float:
            better = f.or_(better, f.and_(f.isnan(v), f.not_(f.isnan(best))))
        new = [f.select(better, v, best), f.select(better, f.splat(number, lanes), chosen)]
        return new + ([f.select(better, f.load(extra, [n, row, column, c], lanes, mask), carried[2])] if extra is not None else [])
    return w.reduce(start, visit)


def _max_pool(name, node, ins, outs, s, target):
    def element(f, xs, w, n, c, lanes, mask):
        x, = xs
        lowest = float("-inf") if x.dtype.is_float else -(1 << (8 * x.dtype.itemsize - 1))
        return w.reduce((f.const(lowest, x.dtype, lanes),),
                        lambda i, j, k, best: [f.max(best[0], f.load(x, [n, i, j, c], lanes, mask))])[0]
    return _over_windows(node, ins, outs, s, name, element)


def _max_pool_pick(name, node, ins, outs, s, target):
    return _over_windows(node, ins, outs, s, name,
                         lambda f, xs, w, n, c, lanes, mask: _chosen(f, xs[0], w, n, c, lanes, mask, xs[1])[2])


def _avg_pool(name, node, ins, outs, s, target):
    def element(f, xs, w, n, c, lanes, mask):
        x, = xs
        total, = w.reduce((f.const(0, x.dtype, lanes),), lambda i, j, k, sums: [f.add(sums[0], f.load(x, [n, i, j, c], lanes, mask))])
        return f.div(total, f.splat(_divisor(f, node.op, w, x.dtype), lanes))
    return _over_windows(node, ins, outs, s, name, element)


def _divisor(f: LoopFunction, op: window.AvgPooling, w: PoolWindow, dtype) -> Val:
    return f.const(op.kernel[0] * op.kernel[1], dtype) if op.count_include_pad else f.cast(w.count(), dtype)


def _spread(node: Node, ins, outs, s: PlainSchedule, name: str, send) -> LoopFunction:
    """Gradients: `send(f, xs, Window, n, c, place, lanes, mask, add)` adds to dx what one window sends there. Channels are the inner loop,
    so that the rows of the image that a window meets stay in the cache. Windows that do not overlap are taken line by line.
    """
    f, xs, (y,) = function(name, ins, outs)
    if 0 in y.shape:
        return f
    row = rows_of(node, ins, outs)
    size, out = outs[0].shape[2:], ins[-1].shape[2:]
    xs, dx = [_channels_last(f, x) for x in xs], _channels_last(f, y)
    once = node.op.covers_once(size)
    by_lines = once and row.vector
    with rows(f, row.extents, s) as at:
        n, first = at[0], Ix() if by_lines else at[1] * CHUNK

        def channels(body) -> None:
            if row.vector:
                over_lanes(f, first, f.min_(first + row.lane, outs[0].shape[1]), s.lanes, body)
            else:
                body(at[1], 1, None)

        def clear(place: list[Ix]) -> None:
            channels(lambda c, lanes, mask: f.store(dx, [n, *place, c], f.const(0, dx.dtype, lanes), mask))

        def window_at(place: list[Ix], w: PoolWindow) -> None:
            def body(c: Ix, lanes: int, mask: Val | None) -> None:
                def add(i: Ix, j: Ix, v: Val) -> None:
                    f.store(dx, [n, i, j, c], v if once else f.add(f.load(dx, [n, i, j, c], lanes, mask), v), mask)
                send(f, xs, w, n, c, place, lanes, mask, add)
            channels(body)

        def send_from(place: list[Ix]) -> None:
            _for_window(f, node.op, size, place, lambda w: window_at(place, w))

        if not once:
            nested(f, size, clear)
        if by_lines:
            nested(f, out[1:], lambda place: send_from([at[1], *place]))
        else:
            nested(f, out, send_from)
    return f


def _max_pool_grad(name, node, ins, outs, s, target):
    def send(f, xs, w, n, c, place, lanes, mask, add):
        x, dy = xs
        _, chosen = _chosen(f, x, w, n, c, lanes, mask)
        g = f.load(dy, [n, *place, c], lanes, mask)

        def visit(i, j, number, carried):
            add(i, j, f.select(f.eq(chosen, f.splat(number, lanes)), g, f.const(0, g.dtype, lanes)))
            return ()
        w.reduce((), visit)
    return _spread(node, ins, outs, s, name, send)


def _avg_pool_grad(name, node, ins, outs, s, target):
    def send(f, xs, w, n, c, place, lanes, mask, add):
        dy, = xs
        share = f.div(f.load(dy, [n, *place, c], lanes, mask), f.splat(_divisor(f, node.op, w, dy.dtype), lanes))

        def visit(i, j, number, carried):
            add(i, j, share)
            return ()
        w.reduce((), visit)
    return _spread(node, ins, outs, s, name, send)


ROWS = {window.MaxPool2d: _max_pool, window.MaxPool2dPick: _max_pool_pick, window.AvgPool2d: _avg_pool,
        window.MaxPool2dGrad: _max_pool_grad, window.AvgPool2dGrad: _avg_pool_grad}
