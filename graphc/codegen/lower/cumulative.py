"""Running sums, products and extremes: one pass along the axis, vectors across it where the layout allows."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, over_lanes, put, rows
from graphc.ir.dims import Dim, static_dim
from graphc.ir.op import Op
from graphc.ir.ops import scan_ops
from graphc.ir.types import DType, i64
from graphc.records import dataclass
from graphc.schedule.parallel_rows import CHUNK, lines_together, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

Place = Callable[[Ix], list[Ix | int]]
State = tuple[Val, ...]         # what is carried from one element to the next
Along = TypeVar("Along", bound="scan_ops.Cumulative | scan_ops.RunningArgExtremum")


@dataclass(frozen=True)
class Running:
    """`start(f, dtype of the elements, lanes)`: the state before the first element; `step(f, state, element, its
    number)`: the one after it; `result(before, after)`: what is stored."""
    start: Callable[[LoopFunction, DType, int], State]
    step: Callable[[LoopFunction, State, Val, Ix], State]
    result: Callable[[State, State], Val]


def _running(r: KernelRequest[PlainSchedule, Along], running: Running, reverse: bool = False) -> LoopFunction:
    f, (x,), (y,) = function(r)
    rank = len(y.shape)
    axis, n = r.op.axis % rank, y.shape[r.op.axis]
    if 0 in y.shape:
        return f
    together = lines_together(r.op, r.ins, r.outs)
    if together:
        views, lines = together
        x, y = (f.reinterpret(view, m.shape, m.strides) for view, m in zip((x, y), views))
        _lines(f, x, y, running, lines, reverse, r.schedule)
        return f
    row = rows_of(r.node, r.ins, r.outs)

    def along(place: Place, lanes: int, mask: Val | None) -> None:
        _pass(f, x, y, running, n, reverse, [place], lanes, mask)

    with rows(f, row.extents, r.schedule) as at:
        if not row.vector:
            along(lambda i: put(at, axis, i), 1, None)
            return f
        lo = at[-1] * CHUNK
        over_lanes(f, lo, f.min_(lo + CHUNK, y.shape[-1]), r.schedule.lanes,
                   lambda j, lanes, mask: along(lambda i: [*put(at[:-1], axis, i), j], lanes, mask))
    return f


def _pass(f: LoopFunction, x: View, y: View, running: Running, n: Dim, reverse: bool, places: Sequence[Place],
          lanes: int = 1, mask: Val | None = None) -> None:
    """One pass over the axis, of n elements, for some lanes at each of the places, side by side; a place gives the full
    index of a position."""
    start = running.start(f, x.dtype, lanes)
    with f.loop(0, n, carry=start * len(places)) as loop:
        position = loop.index * -1 + (n - 1) if reverse else loop.index
        before = [tuple(loop.carried[k:k + len(start)]) for k in range(0, len(loop.carried), len(start))]
        elements = [f.load(x, place(position), lanes, mask) for place in places]
        after = [running.step(f, state, element, loop.index) for state, element in zip(before, elements)]
        for place, *states in zip(places, before, after):
            f.store(y, place(position), running.result(*states), mask)
        loop.next(*[v for state in after for v in state])


def _lines(f: LoopFunction, x: View, y: View, running: Running, lines: int, reverse: bool,
           schedule: PlainSchedule) -> None:
    """Along the rows of matrices: so many side by side, then the rest one after the other."""
    count, n = static_dim(y.shape[0]), y.shape[1]

    def line(number: Ix) -> Place:
        return lambda i: [number, i]
    with rows(f, (count // lines,), schedule) as (block,):
        _pass(f, x, y, running, n, reverse, [line(block * lines + k) for k in range(lines)])
    if count % lines:
        with rows(f, (count % lines,), replace(schedule, tile=1), "rest") as (rest,):
            _pass(f, x, y, running, n, reverse, [line(rest + count // lines * lines)])


def _total(combine: Callable[[LoopFunction, Val, Val], Val], neutral: int) -> Lowering:
    def lower(r: KernelRequest[PlainSchedule, scan_ops.Cumulative]) -> LoopFunction:
        exclusive = r.op.exclusive
        return _running(r, Running(lambda f, dtype, lanes: (f.const(neutral, dtype, lanes),),
                                   lambda f, state, x, number: (combine(f, state[0], x),),
                                   lambda before, after: (before if exclusive else after)[0]), r.op.reverse)
    return lower


def _place(r: KernelRequest[PlainSchedule, scan_ops.RunningArgExtremum]) -> LoopFunction:
    """The state is the extreme and where it stands. It starts with the last number in order, to which every element is
    equal at least."""
    least = r.op.least

    def start(f: LoopFunction, dtype: DType, lanes: int) -> State:
        first = dtype.range[1 if least else 0]
        if dtype.is_float:
            first = float("inf") if least else float("-inf")
        return f.const(first, dtype, lanes), f.const(0, i64, lanes)

    def step(f: LoopFunction, state: State, x: Val, number: Ix) -> State:
        best, place = state
        beats = f.le(x, best) if least else f.ge(x, best)
        beats = f.or_(beats, f.isnan(x)) if x.dtype.is_float else beats
        return f.select(beats, x, best), f.select(beats, f.splat(f.value(number), place.lanes), place)
    return _running(r, Running(start, step, lambda before, after: after[1]))


LOWERINGS: dict[type[Op], Lowering] = {
    scan_ops.CumSum: _total(lambda f, total, x: f.add(total, x), 0),
    scan_ops.CumProd: _total(lambda f, total, x: f.mul(total, x), 1), scan_ops.RunningArgExtremum: _place}
