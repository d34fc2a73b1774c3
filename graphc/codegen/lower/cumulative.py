"""Running sums, products and extremes: one pass along the axis, vectors across it where the layout allows."""
from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, over_lanes, put, rows
from graphc.ir.op import Op
from graphc.ir.ops import scan_ops
from graphc.ir.types import DType, i64
from graphc.records import dataclass
from graphc.schedule.parallel_rows import CHUNK, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

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
    row = rows_of(r.node, r.ins, r.outs)

    def along(place: Callable[[Ix], list[Ix | int]], lanes: int, mask: Val | None) -> None:
        """One pass over the axis for some lanes; `place` gives the full index of a position."""
        with f.loop(0, n, carry=running.start(f, x.dtype, lanes)) as loop:
            index = place(loop.index * -1 + (n - 1) if reverse else loop.index)
            after = running.step(f, tuple(loop.carried), f.load(x, index, lanes, mask), loop.index)
            f.store(y, index, running.result(tuple(loop.carried), after), mask)
            loop.next(*after)

    with rows(f, row.extents, r.schedule) as at:
        if not row.vector:
            along(lambda i: put(at, axis, i), 1, None)
            return f
        lo = at[-1] * CHUNK
        over_lanes(f, lo, f.min_(lo + CHUNK, y.shape[-1]), r.schedule.lanes,
                   lambda j, lanes, mask: along(lambda i: [*put(at[:-1], axis, i), j], lanes, mask))
    return f


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
