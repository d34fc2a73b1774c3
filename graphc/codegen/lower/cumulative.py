"""Running sums, products and linear recurrences: one pass along the axis, vectors across it where the layout allows."""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, over_lanes, put, rows
from graphc.ir.ops import scan_ops
from graphc.schedule.parallel_rows import CHUNK, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

Step = Callable[[LoopFunction, Val, list[Val]], Val]    # running value, operands at the position -> new running value


def _running(r: KernelRequest[PlainSchedule], step: Step, neutral: int | None, exclusive: bool) -> LoopFunction:
    """`neutral`: the value before the first element; None: the first value is the first element of the last operand."""
    f, xs, (y,) = function(r)
    rank = len(y.shape)
    axis, n = r.node.op.axis % rank, y.shape[r.node.op.axis]
    if 0 in y.shape:
        return f
    row = rows_of(r.node, r.ins, r.outs)

    def along(place: Callable[[Ix | int], list[Ix]], lanes: int, mask: Val | None) -> None:
        """One pass over the axis for some lanes; `place` gives the full index of a position."""
        if neutral is None:
            index = place(n - 1 if r.node.op.reverse else 0)
            start = f.load(xs[-1], index, lanes, mask)
            f.store(y, index, start, mask)
        else:
            start = f.const(neutral, y.dtype, lanes)
        with f.loop(int(neutral is None), n, carry=(start,)) as loop:
            index = place(loop.index * -1 + (n - 1) if r.node.op.reverse else loop.index)
            before, = loop.carried
            after = step(f, before, [f.load(x, index, lanes, mask) for x in xs])
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


def _sum(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _running(r, lambda f, total, xs: f.add(total, xs[0]), 0, r.node.op.exclusive)


def _product(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _running(r, lambda f, total, xs: f.mul(total, xs[0]), 1, r.node.op.exclusive)


def _linear(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _running(r, lambda f, y, xs: f.add(f.mul(xs[0], y), xs[1]), None, False)


LOWERINGS = {scan_ops.CumSum: _sum, scan_ops.CumProd: _product, scan_ops.LinearScan: _linear}
