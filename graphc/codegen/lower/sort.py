"""Sorting and selecting along an axis, stable, each row in per-thread scratch.

An element of at most 32 bits and its position become one i64 key (`sort_keys`), which vectors sort (`sort_network`).
Elements of 64 bits and their positions go through a merge sort of pairs. Short rows are sorted side by side
(`sort_columns`).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, number, put, rows
from graphc.codegen.lower.sort_columns import sort_columns
from graphc.codegen.lower.sort_keys import key_of, position_of
from graphc.codegen.lower.sort_network import LAST, all_merged, padded, sort_kernel
from graphc.ir.dims import Dim, Poly, ceil_div, round_up, static_dim
from graphc.ir.op import Op
from graphc.ir.ops import sort
from graphc.ir.types import i64
from graphc.records import dataclass
from graphc.schedule.parallel_rows import without
from graphc.schedule.sort_schedule import COLUMNS, PAIRS, ROWS, SELECTION, SortSchedule, sides_of

Pair = tuple[View, View]            # elements and their positions
Result = Callable[[Ix], tuple[Val, Val]]        # a place in the order -> element and position


@dataclass(frozen=True)
class KeyedRow:
    """The elements along one axis of `x`: element i is at `place(i)`. `lanes` keys are a vector."""
    f: LoopFunction
    x: View
    axis: int
    place: Callable[[Ix], list[Ix | int]]
    lanes: int
    descending: bool

    @property
    def size(self) -> Dim:
        return self.x.shape[self.axis]

    @property
    def is_dense(self) -> bool:
        return self.axis == len(self.x.shape) - 1 and self.x.strides[-1] == 1

    def keys(self, at: Ix) -> Val:
        """A vector of keys from position `at` on; LAST behind the end."""
        f = self.f
        positions = f.add(f.iota(self.lanes), f.value(at))
        inside = f.tail_mask(self.size - at, self.lanes)
        if self.is_dense:
            elements = f.load(self.x, self.place(at), self.lanes, inside)
        else:
            elements = f.const(0, self.x.dtype, self.lanes)
            for lane in range(self.lanes):
                elements = f.insert(elements, lane, f.load(self.x, self.place(f.min_(at + lane, self.size - 1))))
        return f.select(inside, key_of(f, elements, positions, self.descending), LAST)

    @contextmanager
    def vectors(self, count: Dim | None = None) -> Iterator[tuple[Ix, Val]]:
        """All keys, vector by vector, with the position of their first; so many vectors, of which the last may hold
        nothing."""
        with self.f.loop(0, ceil_div(self.size, self.lanes) if count is None else count, name="keys") as loop:
            yield loop.index * self.lanes, self.keys(loop.index * self.lanes)

    def result(self, keys: View) -> Result:
        """Of sorted keys."""
        def at(i: Ix) -> tuple[Val, Val]:
            position = position_of(self.f, self.f.load(keys, [i]))
            return self.f.load(self.x, self.place(self.f.check_index(position, self.size, 0))), position
        return at


def _lower(r: KernelRequest[SortSchedule, sort.Sorting | sort.TopK], descending: bool,
           kinds: Sequence[int]) -> LoopFunction:
    """Results of one kind each: 0 the elements, 1 their positions; as many of each as the result's axis has."""
    f, (x,), ys = function(r)
    axis = r.op.axis % len(x.shape)
    count = ys[0].shape[axis]
    if 0 in x.shape or 0 in ys[0].shape:
        return f
    sides = sides_of(axis, r.ins, r.outs)
    if r.schedule.order == COLUMNS and sides:
        sort_columns(f, x, list(zip(ys, kinds)), sides, r.schedule, descending)
        return f
    with rows(f, without(x.shape, axis), r.schedule) as at:
        row = KeyedRow(f, x, axis, lambda i: put(at, axis, i), max(2, r.target.lanes(i64.itemsize)), descending)
        result = ORDERS[r.schedule.order](row, count)
        with f.loop(0, count) as loop:
            both = result(loop.index)
            for y, kind in zip(ys, kinds):
                f.store(y, row.place(loop.index), both[kind])
    return f


def _sorted(row: KeyedRow, count: Dim) -> Result:
    """All keys in order."""
    f, size = row.f, padded(row.size, row.lanes)
    keys, spare = (f.scratch(name, i64, (size,)) for name in ("keys", "spare"))
    with row.vectors(size // row.lanes if isinstance(size, Poly) else None) as (at, vector):
        f.store(keys, [at], vector)
    if not isinstance(size, Poly):
        _fill(row, keys, static_dim(round_up(row.size, row.lanes)))
    f.call(sort_kernel(size, row.lanes), [keys, spare])
    return row.result(keys)


def _selected(row: KeyedRow, count: Dim) -> Result:
    """The first `count` keys in order.

    A bounded list takes the keys that are below a threshold; when it is full, it is sorted, and the key at `count` is
    the new threshold. Of random elements few are ever below it; in the worst order each key is sorted with a list twice
    as long as the result.
    """
    f, lanes = row.f, row.lanes
    size = padded(2 * count + lanes, lanes)
    keys, spare = (f.scratch(name, i64, (size,)) for name in ("keys", "spare"))
    held, threshold = f.scratch("held", i64, (1,)), f.scratch("threshold", i64, (1,))
    f.store(held, [0], f.const(0, i64))
    f.store(threshold, [0], f.const(LAST, i64))

    def settle() -> None:
        _fill(row, keys, f.load(held, [0]))
        f.call(sort_kernel(size, lanes), [keys, spare])

    with row.vectors() as (_, vector):
        limit = f.load(threshold, [0])
        with f.if_(f.reduce(f.lt(vector, limit), "or")):
            end = f.load(held, [0])
            for lane in range(lanes):
                key = f.extract(vector, lane)
                f.store(keys, [f.check_index(end, size, 0)], key)
                end = f.add(end, f.select(f.lt(key, limit), f.const(1, i64), 0))
            f.store(held, [0], end)
            with f.if_(f.gt(end, number(f, size - lanes))):
                settle()
                f.store(threshold, [0], f.load(keys, [count - 1]))
                f.store(held, [0], f.value(count))
    settle()
    return row.result(keys)


def _fill(row: KeyedRow, keys: View, end: Val | int) -> None:
    """LAST from position `end` on."""
    f, (size,) = row.f, keys.shape
    if isinstance(end, int):
        with f.loop(end, size, row.lanes) as loop:
            f.store(keys, [loop.index], f.const(LAST, i64, row.lanes))
        return
    with f.loop(0, size, row.lanes) as loop:
        positions = f.add(f.iota(row.lanes), f.value(loop.index))
        f.store(keys, [loop.index], f.select(f.lt(positions, end), f.load(keys, [loop.index], row.lanes), LAST))


def _sorted_pairs(row: KeyedRow, count: Dim) -> Result:
    """A bottom-up merge sort of elements and positions."""
    f, n = row.f, row.size
    pairs = [(f.scratch(f"elements{i}", row.x.dtype, (n,)), f.scratch(f"positions{i}", i64, (n,))) for i in range(2)]
    with f.loop(0, n) as loop:
        f.store(pairs[0][0], [loop.index], f.load(row.x, row.place(loop.index)))
        f.store(pairs[0][1], [loop.index], f.value(loop.index))
    source, other = pairs
    if isinstance(n, Poly):
        all_merged(f, n, 1, lambda back, *ends: _merge_pairs(row, pairs[back], pairs[not back], ends))
        return lambda i: (f.load(source[0], [i]), f.load(source[1], [i]))
    width = 1
    while width < n:
        with f.loop(0, n, 2 * width, name="run") as run:
            ends = run.index, f.min_(run.index + width, n), f.min_(run.index + 2 * width, n)
            _merge_pairs(row, source, other, ends)
        source, other = other, source
        width *= 2
    return lambda i: (f.load(source[0], [i]), f.load(source[1], [i]))


def _merge_pairs(row: KeyedRow, source: Pair, target: Pair, ends: tuple[Ix, Ix, Ix]) -> None:
    """Merges the runs lo … middle and middle … hi; of equals the left one first."""
    f, (lo, middle, hi) = row.f, ends
    elements, positions = source
    end_left, end_right = f.value(middle), f.value(hi)
    last = number(f, row.size - 1)
    clamped = lambda at: f.check_index(f.min(at, last), row.size, 0)
    with f.loop(lo, hi, carry=(f.value(lo), end_left), name="merged") as loop:
        i, j = loop.carried
        at_i, at_j = clamped(i), clamped(j)
        a, b = f.load(elements, [at_i]), f.load(elements, [at_j])
        right = f.and_(f.lt(j, end_right), f.or_(f.ge(i, end_left), _before(f, b, a, row.descending)))
        f.store(target[0], [loop.index], f.select(right, b, a))
        f.store(target[1], [loop.index], f.select(right, f.load(positions, [at_j]), f.load(positions, [at_i])))
        loop.next(f.select(right, i, f.add(i, 1)), f.select(right, f.add(j, 1), j))


def _before(f: LoopFunction, b: Val, a: Val, descending: bool) -> Val:
    """Whether b must stand before a; NaN is larger than everything."""
    if not a.dtype.is_float:
        return f.gt(b, a) if descending else f.lt(b, a)
    if descending:
        return f.or_(f.gt(b, a), f.and_(f.isnan(b), f.not_(f.isnan(a))))
    return f.or_(f.lt(b, a), f.and_(f.isnan(a), f.not_(f.isnan(b))))


def _sort(r: KernelRequest[SortSchedule, sort.Sort]) -> LoopFunction:
    return _lower(r, r.op.descending, (0,))


def _argsort(r: KernelRequest[SortSchedule, sort.ArgSort]) -> LoopFunction:
    return _lower(r, r.op.descending, (1,))


def _topk(r: KernelRequest[SortSchedule, sort.TopK]) -> LoopFunction:
    return _lower(r, True, (0, 1))


ORDERS: dict[str, Callable[[KeyedRow, Dim], Result]] = {ROWS: _sorted, SELECTION: _selected, PAIRS: _sorted_pairs}

LOWERINGS: dict[type[Op], Lowering] = {sort.Sort: _sort, sort.ArgSort: _argsort, sort.TopK: _topk}
