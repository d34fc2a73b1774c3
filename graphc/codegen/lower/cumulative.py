"""Running sums and products: one pass along the axis, vectors across it where the layout allows."""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, over_lanes, put, rows
from graphc.ir.op import Op
from graphc.ir.ops import scan_ops
from graphc.schedule.parallel_rows import CHUNK, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

Step = Callable[[LoopFunction, Val, Val], Val]          # running value, element at the position -> new running value


def _running(r: KernelRequest[PlainSchedule, scan_ops.Cumulative], step: Step, neutral: int,
             exclusive: bool) -> LoopFunction:
    """`neutral`: the value before the first element."""
    f, (x,), (y,) = function(r)
    rank = len(y.shape)
    axis, n = r.op.axis % rank, y.shape[r.op.axis]
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)

    def along(place: Callable[[Ix], list[Ix | int]], lanes: int, mask: Val | None) -> None:
        """One pass over the axis for some lanes; `place` gives the full index of a position."""
        with f.loop(0, n, carry=(f.const(neutral, y.dtype, lanes),)) as loop:
            index = place(loop.index * -1 + (n - 1) if r.op.reverse else loop.index)
            before, = loop.carried
            after = step(f, before, f.load(x, index, lanes, mask))
            f.store(y, index, before if exclusive else after, mask)
            loop.next(after)

    with rows(f, row.extents, r.schedule) as at:
        if not row.vector:
            along(lambda i: put(at, axis, i), 1, None)
            return f
        lo = at[-1] * CHUNK
        over_lanes(f, lo, f.min_(lo + CHUNK, y.shape[-1]), r.schedule.lanes,
                   lambda j, lanes, mask: along(lambda i: [*put(at[:-1], axis, i), j], lanes, mask))
    return f


def _sum(r: KernelRequest[PlainSchedule, scan_ops.CumSum]) -> LoopFunction:
    return _running(r, lambda f, total, x: f.add(total, x), 0, r.op.exclusive)


def _product(r: KernelRequest[PlainSchedule, scan_ops.CumProd]) -> LoopFunction:
    return _running(r, lambda f, total, x: f.mul(total, x), 1, r.op.exclusive)


LOWERINGS: dict[type[Op], Lowering] = {scan_ops.CumSum: _sum, scan_ops.CumProd: _product}
