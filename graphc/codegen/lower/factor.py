"""Factorisations of matrices: one row of the kernel is one matrix, from start to end; of a triangular solve, some of
its right-hand sides. Vectors run along the last axis where neighbours there are neighbours in memory.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, over_lanes, rows
from graphc.ir.dims import Dim
from graphc.ir.op import Op
from graphc.ir.ops import factor
from graphc.ir.types import i64
from graphc.schedule.parallel_rows import CHUNK, rows_of
from graphc.schedule.plain_schedule import PlainSchedule

At = list[Ix]
Place = Callable[[Ix], At]


def _dot(f: LoopFunction, x: View, x_row: At, y: View, y_row: At, n: Ix | Dim, lanes: int) -> Val:
    """The sum of the products of the first n elements of two rows."""
    n = n if isinstance(n, Ix) else Ix(n)
    if lanes == 1:
        with f.loop(0, n, carry=(f.const(0, x.dtype),)) as loop:
            loop.next(f.fma(f.load(x, [*x_row, loop.index]), f.load(y, [*y_row, loop.index]), loop.carried[0]))
        return loop.results[0]
    whole, rest = f.divmod(n, lanes)
    with f.loop(0, whole, carry=(f.const(0, x.dtype, lanes),)) as loop:
        at = loop.index * lanes
        loop.next(f.fma(f.load(x, [*x_row, at], lanes), f.load(y, [*y_row, at], lanes), loop.carried[0]))
    if rest.is_const and rest.const == 0:
        return f.reduce(loop.results[0], "add")
    with f.loop(0, f.min_(rest, 1), carry=(loop.results[0],)) as tail:
        mask, at = f.tail_mask(rest, lanes), whole * lanes
        tail.next(f.fma(f.load(x, [*x_row, at], lanes, mask), f.load(y, [*y_row, at], lanes, mask), tail.carried[0]))
    return f.reduce(tail.results[0], "add")


def _cholesky(r: KernelRequest[PlainSchedule, factor.Cholesky]) -> LoopFunction:
    """Row by row: an element is what is left of x's after the product of the rows before it."""
    f, (x,), (y,) = function(r)
    n, lanes = y.shape[-1], r.schedule.lanes
    if 0 in y.shape:
        return f
    with rows(f, y.shape[:-2], r.schedule) as at, f.loop(0, n, name="i") as i:
        with f.loop(0, i.index, name="j") as j:
            rest = f.sub(f.load(x, [*at, i.index, j.index]),
                         _dot(f, y, [*at, i.index], y, [*at, j.index], j.index, lanes))
            f.store(y, [*at, i.index, j.index], f.div(rest, f.load(y, [*at, j.index, j.index])))
        rest = f.sub(f.load(x, [*at, i.index, i.index]),
                     _dot(f, y, [*at, i.index], y, [*at, i.index], i.index, lanes))
        f.store(y, [*at, i.index, i.index], f.sqrt(rest))
        over_lanes(f, i.index + 1, n, lanes,
                   lambda k, w, mask: f.store(y, [*at, i.index, k], f.const(0, y.dtype, w), mask))
    return f


def _triangular_solve(r: KernelRequest[PlainSchedule, factor.TriangularSolve]) -> LoopFunction:
    """Some columns at a time, each row of the result after those that it needs."""
    f, (a, y), (x,) = function(r)
    op, n = r.op, a.shape[-1]
    if 0 in x.shape:
        return f
    forward = op.lower != op.transpose
    with rows(f, rows_of(r.node, r.ins, r.outs).extents, r.schedule, "columns") as at:
        batch, lo = at[:-1], at[-1] * CHUNK

        def columns(k: Ix, lanes: int, mask: Val | None) -> None:
            with f.loop(0, n, name="i") as step:
                i = step.index if forward else step.index * -1 + (n - 1)
                first, end = (0, i) if forward else (i + 1, n)
                with f.loop(first, end, carry=(f.load(y, [*batch, i, k], lanes, mask),), name="j") as j:
                    place = [j.index, i] if op.transpose else [i, j.index]
                    factor_ = f.splat(f.neg(f.load(a, [*batch, *place])), lanes)
                    j.next(f.fma(factor_, f.load(x, [*batch, j.index, k], lanes, mask), j.carried[0]))
                rest = j.results[0]
                if not op.unit:
                    rest = f.div(rest, f.splat(f.load(a, [*batch, i, i]), lanes))
                f.store(x, [*batch, i, k], rest, mask)
        over_lanes(f, lo, f.min_(lo + CHUNK, x.shape[-1]), r.schedule.lanes, columns)
    return f


def _lu(r: KernelRequest[PlainSchedule, factor.LU]) -> LoopFunction:
    f, (x,), (y, order, sign) = function(r)
    n, lanes = y.shape[-1], r.schedule.lanes
    if 0 in order.shape:
        with rows(f, sign.shape, r.schedule) as at:         # matrices without elements
            f.store(sign, at, f.const(1, sign.dtype))
        return f
    with rows(f, y.shape[:-2], r.schedule) as at:
        f.store(sign, at, f.const(1, sign.dtype))
        with f.loop(0, n) as i:
            f.store(order, [*at, i.index], f.value(i.index))
            over_lanes(f, 0, n, lanes, lambda k, w, mask: f.store(
                y, [*at, i.index, k], f.load(x, [*at, i.index, k], w, mask), mask))
        with f.loop(0, n, name="k") as k:
            _bring_pivot(f, y, order, sign, at, k.index, lanes)
            pivot = f.load(y, [*at, k.index, k.index])
            divisor = f.select(f.eq(pivot, 0.0), 1.0, pivot)
            with f.loop(k.index + 1, n, name="i") as i:
                multiple = f.div(f.load(y, [*at, i.index, k.index]), divisor)
                f.store(y, [*at, i.index, k.index], multiple)

                def eliminate(c: Ix, w: int, mask: Val | None, row: Ix = i.index, by: Val = f.neg(multiple)) -> None:
                    above = f.load(y, [*at, k.index, c], w, mask)
                    f.store(y, [*at, row, c], f.fma(f.splat(by, w), above, f.load(y, [*at, row, c], w, mask)), mask)
                over_lanes(f, k.index + 1, n, lanes, eliminate)
    return f


def _bring_pivot(f: LoopFunction, y: View, order: View, sign: View, at: At, k: Ix, lanes: int) -> None:
    """Exchanges row k and the one, from k on, with the largest element in column k."""
    n = y.shape[-1]
    with f.loop(k, n, carry=(f.const(-1, y.dtype), f.value(k))) as i:
        size = f.abs(f.load(y, [*at, i.index, k]))
        larger = f.gt(size, i.carried[0])
        i.next(f.select(larger, size, i.carried[0]), f.select(larger, f.value(i.index), i.carried[1]))
    place = i.results[1]
    with f.if_(f.ne(place, f.value(k))):
        p = f.check_index(place, n, 0)

        def exchange(c: Ix, w: int, mask: Val | None) -> None:
            one, other = f.load(y, [*at, k, c], w, mask), f.load(y, [*at, p, c], w, mask)
            f.store(y, [*at, k, c], other, mask)
            f.store(y, [*at, p, c], one, mask)
        over_lanes(f, 0, n, lanes, exchange)
        one, other = f.load(order, [*at, k]), f.load(order, [*at, p])
        f.store(order, [*at, k], other)
        f.store(order, [*at, p], one)
        f.store(sign, at, f.neg(f.load(sign, at)))


def _symmetric_eigen(r: KernelRequest[PlainSchedule, factor.SymmetricEigen]) -> LoopFunction:
    """Jacobi's sweeps over a copy in scratch, until one turns nothing."""
    f, (x,), (w, v) = function(r)
    n, dtype = v.shape[-1], v.dtype
    if 0 in v.shape:
        return f
    with rows(f, v.shape[:-2], r.schedule) as at:
        a, turned = f.scratch("a", dtype, (n, n)), f.scratch("turned", i64, (1,))
        with f.loop(0, n) as i, f.loop(0, n, name="j") as j:
            row, column = f.max_(i.index, j.index), f.min_(i.index, j.index)
            f.store(a, [i.index, j.index], f.load(x, [*at, row, column]))
            same = f.eq(f.value(i.index), f.value(j.index))
            f.store(v, [*at, i.index, j.index], f.select(same, f.const(1, dtype), 0.0))
        with f.loop(0, n, carry=(f.const(0, dtype),)) as i:
            i.next(f.add(i.carried[0], _dot(f, a, [i.index], a, [i.index], n, 1)))
        norm = f.sqrt(i.results[0])
        least = f.mul(norm, float(np.finfo(dtype.np).eps) / 16)
        f.store(turned, [0], f.const(1, i64))
        with f.while_(factor.MOST_SWEEPS) as sweep:
            sweep.condition(f.ne(f.load(turned, [0]), 0))
            f.store(turned, [0], f.const(0, i64))
            with f.loop(0, n, name="p") as p, f.loop(p.index + 1, n, name="q") as q:
                between = f.load(a, [p.index, q.index])
                with f.if_(f.gt(f.abs(between), least)):
                    f.store(turned, [0], f.const(1, i64))
                    _rotate(f, a, v, at, (p.index, q.index), between, r.schedule.lanes)
        nothing = f.sub(norm, norm)                         # NaN, if norm is NaN or infinite
        with f.loop(0, n) as i:
            f.store(w, [*at, i.index], f.add(f.load(a, [i.index, i.index]), nothing))
            with f.loop(0, n, name="j") as j:
                place = [*at, i.index, j.index]
                f.store(v, place, f.add(f.load(v, place), nothing))
    return f


def _rotate(f: LoopFunction, a: View, v: View, at: At, pair: tuple[Ix, Ix], between: Val, lanes: int) -> None:
    """The rotation that makes element (p, q) of a zero: of the rows, then of the columns of a, and of the rows of v."""
    p, q = pair
    theta = f.div(f.sub(f.load(a, [q, q]), f.load(a, [p, p])), f.mul(between, 2.0))
    root = f.sqrt(f.add(f.mul(theta, theta), 1.0))
    t = f.copysign(f.div(f.const(1, a.dtype), f.add(f.abs(theta), root)), theta)
    c = f.div(f.const(1, a.dtype), f.sqrt(f.add(f.mul(t, t), 1.0)))
    s = f.mul(t, c)
    for view, first, second, width in ((a, lambda k: [p, k], lambda k: [q, k], lanes),
                                       (a, lambda k: [k, p], lambda k: [k, q], 1),
                                       (v, lambda k: [*at, p, k], lambda k: [*at, q, k], lanes)):
        def turn(k: Ix, w: int, mask: Val | None, view: View = view, first: Place = first,
                 second: Place = second) -> None:
            one, other = f.load(view, first(k), w, mask), f.load(view, second(k), w, mask)
            cosine, sine = f.splat(c, w), f.splat(s, w)
            f.store(view, first(k), f.sub(f.mul(cosine, one), f.mul(sine, other)), mask)
            f.store(view, second(k), f.add(f.mul(sine, one), f.mul(cosine, other)), mask)
        over_lanes(f, 0, v.shape[-1], width, turn)


def _lq(r: KernelRequest[PlainSchedule, factor.LQ]) -> LoopFunction:
    f, (x,), (low, q) = function(r)
    m, n = q.shape[-2:]
    lanes = r.schedule.lanes
    if 0 in low.shape:
        return f
    with rows(f, q.shape[:-2], r.schedule) as at, f.loop(0, m, name="j") as j:
        row = [*at, j.index]
        over_lanes(f, 0, n, lanes, lambda k, w, mask: f.store(q, [*row, k], f.load(x, [*row, k], w, mask), mask))
        over_lanes(f, 0, m, 1, lambda k, w, mask: f.store(low, [*row, k], f.const(0, low.dtype)))
        with f.loop(0, 2, name="again"), f.loop(0, j.index) as i:
            other = [*at, i.index]
            along = _dot(f, q, other, q, row, n, lanes)
            f.store(low, [*row, i.index], f.add(f.load(low, [*row, i.index]), along))

            def remove(k: Ix, w: int, mask: Val | None, other: At = other, by: Val = f.neg(along)) -> None:
                rest = f.fma(f.splat(by, w), f.load(q, [*other, k], w, mask), f.load(q, [*row, k], w, mask))
                f.store(q, [*row, k], rest, mask)
            over_lanes(f, 0, n, lanes, remove)
        length = f.sqrt(_dot(f, q, row, q, row, n, lanes))
        f.store(low, [*row, j.index], length)
        over_lanes(f, 0, n, lanes, lambda k, w, mask: f.store(
            q, [*row, k], f.div(f.load(q, [*row, k], w, mask), f.splat(length, w)), mask))
    return f


LOWERINGS: dict[type[Op], Lowering] = {
    factor.Cholesky: _cholesky, factor.TriangularSolve: _triangular_solve, factor.LU: _lu,
    factor.SymmetricEigen: _symmetric_eigen, factor.LQ: _lq}
