"""Operators that move elements and cannot be views: concat, pad, flip, slices at run-time positions."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import clamped, function, number, over_lanes, permuted, rows
from graphc.ir.dims import Dim
from graphc.ir.op import Op
from graphc.ir.ops import shape
from graphc.ir.size_proofs import is_nonnegative
from graphc.schedule.parallel_rows import memory_order
from graphc.schedule.plain_schedule import PlainSchedule


def _concat(r: KernelRequest[PlainSchedule, shape.Concat]) -> LoopFunction:
    f, xs, (y,) = function(r)
    axis = r.op.axis % len(y.shape)
    start: Dim = 0
    for x in xs:
        if 0 not in x.shape:
            part = y.view_at([start if i == axis else 0 for i in range(len(y.shape))], x.shape, y.strides)
            _copy(f, x, part, r.schedule)
        start += x.shape[axis]
    return f


def _copy(f: LoopFunction, x: View, y: View, s: PlainSchedule) -> None:
    with rows(f, x.shape[:-1], s) as at:
        over_lanes(f, 0, x.shape[-1], s.lanes,
                   lambda i, lanes, mask: f.store(y, [*at, i], f.load(x, [*at, i], lanes, mask), mask))


def _pad(r: KernelRequest[PlainSchedule, shape.Pad]) -> LoopFunction:
    """Each row of the result is filling, or filling, a row of x, and filling. Rows lie along the axis of the smallest
    step.
    """
    f, (x,), (y,) = function(r)
    if not y.shape:
        f.store(y, [], f.load(x, []))
        return f
    if 0 in y.shape:
        return f
    order = memory_order(r.outs[0])
    x, y = permuted(f, x, order), permuted(f, y, order)
    low, value = [r.op.low[axis] for axis in order], f.const(r.op.value, y.dtype)
    _pad_rows(f, x, y, low, value, r.schedule)
    return f


def _pad_rows(f: LoopFunction, x: View, y: View, low: Sequence[Dim], value: Val, s: PlainSchedule) -> None:
    def fill(at: list[Ix], lo: Dim, hi: Dim) -> None:
        over_lanes(f, lo, hi, s.lanes, lambda i, lanes, mask: f.store(y, [*at, i], f.splat(value, lanes), mask))

    def copy(at: list[Ix], source: list[Ix]) -> None:
        over_lanes(f, 0, x.shape[-1], s.lanes,
                   lambda i, lanes, mask: f.store(y, [*at, i + low[-1]], f.load(x, [*source, i], lanes, mask), mask))

    with rows(f, y.shape[:-1], s) as at:
        if 0 in x.shape:
            return fill(at, 0, y.shape[-1])
        inside = _inside(f, at, low, x.shape)
        fill(at, 0, low[-1])
        fill(at, low[-1] + x.shape[-1], y.shape[-1])
        if inside is None:
            return copy(at, at)
        with f.if_(inside):
            copy(at, [_within(f, i - a, n) for i, a, n in zip(at, low, x.shape)])
        with f.else_():
            fill(at, low[-1], low[-1] + x.shape[-1])


def _inside(f: LoopFunction, at: Sequence[Ix], low: Sequence[Dim], sizes: Sequence[Dim]) -> Val | None:
    """Whether the row lies inside x; None when every row does."""
    inside = None
    for i, a, n, whole in zip(at, low, sizes, at):
        if a == 0 and _bounded(whole, n):
            continue
        here = f.and_(f.ge(f.value(i), number(f, a)), f.lt(f.value(i), number(f, a + n)))
        inside = here if inside is None else f.and_(inside, here)
    return inside


def _bounded(i: Ix, size: Dim) -> bool:
    return i.is_const and is_nonnegative(size - 1 - i.const)


def _within(f: LoopFunction, i: Ix, size: Dim) -> Ix:
    """The index, which is known to be inside at run time, in a form that the verifier believes."""
    return f.max_(f.min_(i, size - 1), 0)


def _flip(r: KernelRequest[PlainSchedule, shape.Flip]) -> LoopFunction:
    f, (x,), (y,) = function(r)
    if not y.shape:
        f.store(y, [], f.load(x, []))
        return f
    if 0 in y.shape:
        return f

    def source(at: list[Ix]) -> list[Ix]:
        return [i * -1 + (x.shape[axis] - 1) if axis in r.op.axes else i for axis, i in enumerate(at)]

    with rows(f, y.shape[:-1], r.schedule) as at:
        over_lanes(f, 0, y.shape[-1], r.schedule.lanes,
                   lambda i, lanes, mask: f.store(y, [*at, i], f.load(x, source([*at, i]), lanes, mask), mask))
    return f


def _dynamic_slice(r: KernelRequest[PlainSchedule, shape.DynamicSlice]) -> LoopFunction:
    f, (x, *starts), (y,) = function(r)
    if not y.shape:
        f.store(y, [], f.load(x, []))
        return f
    if 0 in y.shape:
        return f
    corner = _corner(f, starts, x.shape, y.shape)
    _copy(f, x.view_at(corner, y.shape, x.strides), y, r.schedule)
    return f


def _dynamic_update_slice(r: KernelRequest[PlainSchedule, shape.DynamicUpdateSlice]) -> LoopFunction:
    f, (x, update, *starts), (y,) = function(r)
    if not y.shape:
        f.store(y, [], f.load(update, []))
        return f
    if 0 in y.shape:
        return f
    corner = _corner(f, starts, x.shape, update.shape)
    if not r.schedule.aliased:
        _copy(f, x, y, r.schedule)
    if 0 not in update.shape:
        _copy(f, update, y.view_at(corner, update.shape, y.strides), r.schedule)
    return f


def _corner(f: LoopFunction, starts: Sequence[View], sizes: Sequence[Dim], part: Sequence[Dim]) -> list[Ix]:
    """The starts, clamped so that the part fits: they cannot fail, so they report as no node."""
    corner = []
    for start, size, n in zip(starts, sizes, part):
        corner.append(clamped(f, f.load(start, []), size - n + 1))
    return corner


LOWERINGS: dict[type[Op], Lowering] = {
    shape.Concat: _concat, shape.Pad: _pad, shape.Flip: _flip, shape.DynamicSlice: _dynamic_slice,
    shape.DynamicUpdateSlice: _dynamic_update_slice}
