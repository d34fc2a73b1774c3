"""Sorting: a stable bottom-up merge sort of each row, in per-thread scratch."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import function, put, rows
from graphc.ir.ops import sort
from graphc.ir.types import i64
from graphc.schedule.parallel_rows import rows_of
from graphc.schedule.plain_schedule import PlainSchedule

Pair = tuple[View, View]            # keys and their positions


def _sorted(r: KernelRequest[PlainSchedule], descending: bool, kinds: Sequence[int]) -> LoopFunction:
    """Results of one kind each: 0 the keys, 1 their positions; as many of each as the result's axis has."""
    f, (x,), ys = function(r)
    axis = r.node.op.axis % len(x.shape)
    n = x.shape[axis]
    if 0 in x.shape or 0 in ys[0].shape:
        return f
    with rows(f, rows_of(r.node, r.ins, r.outs).extents, r.schedule) as at:
        pairs = [(f.scratch(f"keys{i}", x.dtype, (n,)), f.scratch(f"positions{i}", i64, (n,))) for i in range(2)]
        with f.loop(0, n) as loop:
            f.store(pairs[0][0], [loop.index], f.load(x, put(at, axis, loop.index)))
            f.store(pairs[0][1], [loop.index], f.value(loop.index))
        done = _merge_sort(f, pairs, n, descending)
        with f.loop(0, ys[0].shape[axis]) as loop:
            for y, kind in zip(ys, kinds):
                f.store(y, put(at, axis, loop.index), f.load(done[kind], [loop.index]))
    return f


def _merge_sort(f: LoopFunction, pairs: list[Pair], n: int, descending: bool) -> Pair:
    """Sorts pairs[0], using pairs[1]; returns the one that holds the result."""
    source, other = pairs
    width = 1
    while width < n:
        with f.loop(0, n, 2 * width, name="run") as run:
            bounds = run.index, f.min_(run.index + width, n), f.min_(run.index + 2 * width, n)
            _merge(f, source, other, bounds, n, descending)
        source, other = other, source
        width *= 2
    return source


def _merge(f: LoopFunction, source: Pair, target: Pair, bounds: tuple[Ix, Ix, Ix], n: int, descending: bool) -> None:
    """Merges the runs lo … middle and middle … hi, for `bounds` = (lo, middle, hi); of equals the left one first."""
    (keys, positions), (lo, middle, hi) = source, bounds
    end_left, end_right = f.value(middle), f.value(hi)
    with f.loop(lo, hi, carry=(f.value(lo), end_left), name="merged") as loop:
        i, j = loop.carried
        at_i, at_j = _clamped(f, i, n), _clamped(f, j, n)
        a, b = f.load(keys, [at_i]), f.load(keys, [at_j])
        right_first = f.and_(f.lt(j, end_right), f.or_(f.ge(i, end_left), _before(f, b, a, descending)))
        f.store(target[0], [loop.index], f.select(right_first, b, a))
        f.store(target[1], [loop.index], f.select(right_first, f.load(positions, [at_j]), f.load(positions, [at_i])))
        loop.next(f.select(right_first, i, f.add(i, 1)), f.select(right_first, f.add(j, 1), j))


def _clamped(f: LoopFunction, at: Val, n: int) -> Ix:
    return f.check_index(f.min(at, n - 1), n, 0)


def _before(f: LoopFunction, b: Val, a: Val, descending: bool) -> Val:
    """Whether b must stand before a; NaN is larger than everything."""
    if not a.dtype.is_float:
        return f.gt(b, a) if descending else f.lt(b, a)
    if descending:
        return f.or_(f.gt(b, a), f.and_(f.isnan(b), f.not_(f.isnan(a))))
    return f.or_(f.lt(b, a), f.and_(f.isnan(a), f.not_(f.isnan(b))))


def _sort(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _sorted(r, r.node.op.descending, (0,))


def _argsort(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _sorted(r, r.node.op.descending, (1,))


def _topk(r: KernelRequest[PlainSchedule]) -> LoopFunction:
    return _sorted(r, True, (0, 1))


LOWERINGS = {sort.Sort: _sort, sort.ArgSort: _argsort, sort.TopK: _topk}
