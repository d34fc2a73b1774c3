"""Operators that move elements and cannot be views: concat, pad, flip, slices at run-time positions."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.copy import copied, filled
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import clamped, function, number, over_lanes, rows
from graphc.ir.dims import Dim
from graphc.ir.op import Op
from graphc.ir.ops import shape
from graphc.ir.size_proofs import is_nonnegative
from graphc.schedule.choose_move import flipped_strides
from graphc.schedule.choose_pad import PadAxes, PadSchedule, pad_axes
from graphc.schedule.move_schedule import MoveSchedule
from graphc.schedule.plain_schedule import PlainSchedule


def _concat(r: KernelRequest[MoveSchedule, shape.Concat]) -> LoopFunction:
    f, xs, (y,) = function(r)
    copies = iter(r.schedule.copies)
    axis = r.op.axis % len(y.shape)
    start: Dim = 0
    for x in xs:
        if 0 not in x.shape:
            part = y.view_at([start if i == axis else 0 for i in range(len(y.shape))], x.shape, y.strides)
            copied(f, x, part, next(copies), r.target)
        start += x.shape[axis]
    return f


def _pad(r: KernelRequest[PadSchedule, shape.Pad]) -> LoopFunction:
    f, (x,), (y,) = function(r)
    if not y.shape:
        f.store(y, [], f.load(x, []))
        return f
    if 0 in y.shape:
        return f
    axes = pad_axes(r.op, *r.ins, *r.outs)
    x, y = (f.reinterpret(v, t.shape, t.strides) for v, t in ((x, axes.inside), (y, axes.outside)))
    if isinstance(r.schedule, MoveSchedule):
        _pad_blocks(f, x, y, axes, r.schedule, r)
    else:
        _pad_rows(f, x, y, axes.low, f.const(r.op.value, y.dtype), r.schedule)
    return f


def _pad_blocks(f: LoopFunction, x: View, y: View, axes: PadAxes, schedule: MoveSchedule,
                r: KernelRequest[PadSchedule, shape.Pad]) -> None:
    blocks = iter(schedule.copies)
    if 0 not in x.shape:
        copied(f, x, y.view_at(axes.low, x.shape, y.strides), next(blocks), r.target)
    for corner, sizes in axes.slabs():
        filled(f, r.op.value, y.view_at(corner, sizes, y.strides), next(blocks), r.target)


def _pad_rows(f: LoopFunction, x: View, y: View, low: Sequence[Dim], value: Val, s: PlainSchedule) -> None:
    """Each row of the result is filling, or filling, a row of x, and filling. Rows lie along the axis of the smallest
    step."""
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


def _flip(r: KernelRequest[MoveSchedule, shape.Flip]) -> LoopFunction:
    f, (x,), (y,) = function(r)
    if 0 not in y.shape:
        last = [n - 1 if axis in r.op.axes else 0 for axis, n in enumerate(x.shape)]
        copied(f, x.view_at(last, x.shape, flipped_strides(r.op, x.strides)), y, r.schedule.copies[0], r.target)
    return f


def _dynamic_slice(r: KernelRequest[MoveSchedule, shape.DynamicSlice]) -> LoopFunction:
    f, (x, *starts), (y,) = function(r)
    if 0 not in y.shape:
        part = x.view_at(_corner(f, starts, x.shape, y.shape), y.shape, x.strides)
        copied(f, part, y, r.schedule.copies[0], r.target)
    return f


def _dynamic_update_slice(r: KernelRequest[MoveSchedule, shape.DynamicUpdateSlice]) -> LoopFunction:
    f, (x, update, *starts), (y,) = function(r)
    copies = list(r.schedule.copies)
    if 0 not in y.shape:
        corner = _corner(f, starts, x.shape, update.shape)
        if not r.schedule.aliased:
            copied(f, x, y, copies.pop(0), r.target)
        if 0 not in update.shape:
            copied(f, update, y.view_at(corner, update.shape, y.strides), copies.pop(), r.target)
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
