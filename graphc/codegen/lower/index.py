"""Lookups and their transposes. Positions are checked: a bad one is reported with its node, and no memory out of
bounds is read or written.
"""
from __future__ import annotations

from collections.abc import Callable
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.copy import copied
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import clamped, function, nested, over_lanes, put, rows, unflattened
from graphc.ir.dims import Dim, static_dim
from graphc.ir.op import Op
from graphc.ir.ops import embedding_gradients as row_ops
from graphc.ir.ops import index, scatter
from graphc.schedule.choose_scatter import AlongAxis, WholeRows
from graphc.schedule.parallel_rows import MOST_LINES, rows_of, shared_positions
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.scatter_schedule import ScatterSchedule, scatter_rows


def _node_param(f: LoopFunction) -> Ix:
    return f.param("node", 0, 1 << 20)


def _take(r: KernelRequest[PlainSchedule, index.Take]) -> LoopFunction:
    f, (x, idx), (y,) = function(r)
    s, number, axis, positions = r.schedule, _node_param(f), r.op.axis % len(x.shape), len(idx.shape)
    size = x.shape[axis]
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)
    shared = shared_positions(r.op, r.ins, r.outs)
    if shared:
        table, result = (f.reinterpret(view, m.shape, m.strides) for view, m in zip((x, y), shared))
        _take_together(f, table, idx, result, r.schedule, number)
        return f
    with rows(f, row.extents, s) as at:
        def source(full: list[Ix]) -> list[Ix]:
            position = f.check_index(f.load(idx, full[axis:axis + positions]), _some(size), number)
            return full[:axis] + [position] + full[axis + positions:]

        if axis < len(x.shape) - 1:
            before = source([*at, Ix()])[:-1]
            over_lanes(f, 0, row.lane, s.lanes,
                       lambda i, lanes, mask: f.store(y, [*at, i], f.load(x, [*before, i], lanes, mask), mask),
                       narrow=True)
        elif y.shape:
            over_lanes(f, 0, row.lane, 1, lambda i, lanes, mask: f.store(y, [*at, i], f.load(x, source([*at, i]))))
        else:
            f.store(y, [], f.load(x, source([])))
    return f


def _take_together(f: LoopFunction, x: View, idx: View, y: View, schedule: PlainSchedule, number: Ix) -> None:
    """Of matrices: each position for some rows, one below the other, then for those that are left."""
    lines, columns = static_dim(y.shape[0]), y.shape[1]

    def look_up(first: Ix, count: int) -> None:
        with f.loop(0, columns, name="position") as place:
            position = f.check_index(f.load(idx, [place.index]), _some(x.shape[1]), number)
            for line in (first + k for k in range(count)):
                f.store(y, [line, place.index], f.load(x, [line, position]))
    whole, rest = divmod(lines, MOST_LINES)
    if whole:
        with rows(f, (whole,), schedule) as (block,):
            look_up(block * MOST_LINES, MOST_LINES)
    if rest:
        look_up(Ix(whole * MOST_LINES), rest)


def _take_along(r: KernelRequest[PlainSchedule, index.TakeAlongAxis]) -> LoopFunction:
    f, (x, idx), (y,) = function(r)
    number, axis = _node_param(f), r.op.axis % len(x.shape)
    if 0 in y.shape:
        return f
    with rows(f, y.shape[:-1], r.schedule) as at:
        def element(i: Ix, lanes: int, mask: Val | None) -> None:
            full = [*at, i]
            position = f.check_index(f.load(idx, full), _some(x.shape[axis]), number)
            f.store(y, full, f.load(x, full[:axis] + [position] + full[axis + 1:]))
        over_lanes(f, 0, y.shape[-1], 1, element)
    return f


def _scatter(r: KernelRequest[ScatterSchedule, WholeRows]) -> LoopFunction:
    f, (base, idx, updates), (y,) = function(r)
    number, rank = None if isinstance(r.op, row_ops.AddRows) else _node_param(f), len(y.shape)
    s, axis, met = r.schedule, r.op.axis % rank, _meeting(f, r.op)
    if 0 in y.shape:
        return f
    _copy_base(f, base, y, r)
    with rows(f, scatter_rows(r.outs[0], axis, s.chunk), s, "columns") as at:
        lo, hi = _own_columns(f, at, y, axis, s)
        around = at[:-1] if axis < rank - 1 else at

        def column(middle: list[Ix], i: Ix) -> list[Ix]:
            return around[:axis] + middle + around[axis:] + ([i] if axis < rank - 1 else [])

        def change_row(n: list[Ix]) -> None:
            j = [_row(f, f.load(idx, n), y.shape[axis], number)]

            def change(i: Ix, lanes: int, mask: Val | None) -> None:
                place = column(j, i)
                total = met(lambda: f.load(y, place, lanes, mask), f.load(updates, column(n, i), lanes, mask))
                f.store(y, place, total, mask)
            over_lanes(f, lo, hi, s.lanes, change, narrow=True)
        nested(f, idx.shape, change_row)
    return f


def _copy_base(f: LoopFunction, base: View, y: View, r: KernelRequest[ScatterSchedule, Op]) -> None:
    """What is not changed has the elements of the first operand, unless it lies there."""
    if not r.schedule.aliased:
        copied(f, base, y, r.schedule.base, r.target)


def _own_columns(f: LoopFunction, at: list[Ix], y: View, axis: int, s: ScatterSchedule) -> tuple[Ix, Ix]:
    """The columns of the row at hand."""
    if axis == len(y.shape) - 1:
        return Ix(), Ix(1)
    first = at[-1] * s.chunk
    return first, f.min_(first + s.chunk, y.shape[-1])


def _some(size: Dim) -> Dim:
    """The size for a check, which fails where it is 0."""
    return max(size, 1) if isinstance(size, int) else size


def _row(f: LoopFunction, position: Val, size: Dim, number: Ix | None) -> Ix:
    """A position as an index: checked on behalf of node `number`; where there is none it was checked before, and is
    only kept inside.
    """
    return clamped(f, position, size) if number is None else f.check_index(position, size, number)


def _meeting(f: LoopFunction, op: index.Indexing) -> Callable[[Callable[[], Val], Val], Val]:
    """What stands at a position after an update: given how to load what stood there, and the update."""
    reduction = op.reduction if isinstance(op, scatter.Scattering) else "add"
    if reduction == "none":
        return lambda old, update: update
    combine = {"add": f.add, "mul": f.mul, "min": f.min, "max": f.max}[reduction]
    return lambda old, update: combine(old(), update)


def _scatter_along(r: KernelRequest[ScatterSchedule, AlongAxis]) -> LoopFunction:
    f, (base, idx, updates), (y,) = function(r)
    number, axis, met = _node_param(f), r.op.axis % len(y.shape), _meeting(f, r.op)
    if 0 in y.shape:
        return f
    _copy_base(f, base, y, r)
    with rows(f, scatter_rows(r.outs[0], axis, r.schedule.chunk), r.schedule, "columns") as at:
        lo, hi = _own_columns(f, at, y, axis, r.schedule)

        def change(around: list[Ix], n: Ix) -> None:
            source = put(around, axis, n)
            full = put(around, axis, f.check_index(f.load(idx, source), y.shape[axis], number))
            f.store(y, full, met(lambda: f.load(y, full), f.load(updates, source)))

        with f.loop(0, idx.shape[axis]) as loop:
            if axis == len(y.shape) - 1:
                change(at, loop.index)
            else:
                with f.loop(lo, hi, name="column") as columns:
                    change([*at[:-1], columns.index], loop.index)
    return f


def _row_places(r: KernelRequest[PlainSchedule, row_ops.RowPlaces]) -> LoopFunction:
    """Ids from the last to the first: of equal ones the first is written last."""
    f, (ids,), (y,) = function(r)
    number, count = None if r.op.checked else _node_param(f), prod(ids.shape)
    if 0 in y.shape:
        return f
    none = f.const(count, y.dtype) if isinstance(count, int) else f.cast(f.value(Ix(count)), y.dtype)
    over_lanes(f, 0, y.shape[0], r.target.lanes(y.dtype.itemsize),
               lambda i, lanes, mask: f.store(y, [i], f.splat(none, lanes), mask))
    with f.loop(0, count) as loop:
        place = loop.index * -1 + (count - 1)
        row = _row(f, f.load(ids, unflattened(f, place, ids.shape)), y.shape[0], number)
        f.store(y, [row], f.cast(f.value(place), y.dtype))
    return f


def _check_rows(r: KernelRequest[PlainSchedule, row_ops.CheckRows]) -> LoopFunction:
    f, (ids,), (y,) = function(r)
    number = _node_param(f)

    def one(at: list[Ix]) -> None:
        row = f.load(ids, at)
        f.check_index(row, r.op.size, number)
        f.store(y, at, row)
    nested(f, ids.shape, one)
    return f


LOWERINGS: dict[type[Op], Lowering] = {
    row_ops.RowPlaces: _row_places, row_ops.CheckRows: _check_rows, row_ops.AddRows: _scatter,
    index.Take: _take, index.TakeAlongAxis: _take_along,
    index.ScatterAdd: _scatter, index.ScatterAddAlongAxis: _scatter_along,
    scatter.Scatter: _scatter, scatter.ScatterAlongAxis: _scatter_along,
}
