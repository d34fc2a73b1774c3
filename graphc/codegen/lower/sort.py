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
from graphc.codegen.lower.rows import function, number, over_lanes, put, rows
from graphc.codegen.lower.sort_columns import sort_columns
from graphc.codegen.lower.sort_keys import key_of, position_of
from graphc.codegen.lower.sort_network import LAST, all_merged, padded, sort_kernel
from graphc.ir.dims import Dim, Poly, ceil_div, round_up, static_dim
from graphc.ir.op import Op
from graphc.ir.ops import sort
from graphc.ir.types import i64
from graphc.records import dataclass
from graphc.schedule.parallel_rows import without
from graphc.schedule.sort_schedule import COLUMNS, LISTS, PAIRS, ROWS, SEEN_KEYS, SELECTION, SortSchedule, sides_of

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
        elements = self.elements(at, self.lanes, inside)
        return f.select(inside, key_of(f, elements, positions, self.descending), LAST)

    def elements(self, at: Ix, lanes: int, inside: Val | None) -> Val:
        """So many from position `at` on; any behind the end."""
        f = self.f
        if self.is_dense:
            return f.load(self.x, self.place(at), lanes, inside)
        found = f.const(0, self.x.dtype, lanes)
        for lane in range(lanes):
            found = f.insert(found, lane, f.load(self.x, self.place(f.min_(at + lane, self.size - 1))))
        return found

    def element(self, position: Val) -> Val:
        return self.f.load(self.x, self.place(self.f.check_index(position, self.size, 0)))

    def may_precede(self, elements: Val, other: Val) -> Val:
        """Where an element comes before an earlier one, and beside NaN where it does not, too."""
        f = self.f
        if elements.dtype.is_float:
            return f.not_((f.le if self.descending else f.ge)(elements, other))
        return (f.gt if self.descending else f.lt)(elements, other)

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
            return self.element(position), position
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

    A bounded list begins with the first keys; when it is full, it is sorted, and the key at `count` is the threshold
    for those that follow. They are made only where one of some elements side by side comes before that of the
    threshold. Of random elements few ever do; in the worst order each key is sorted with a list twice as long as the
    result.
    """
    f, lanes = row.f, row.lanes
    size = padded(2 * count + lanes, lanes)
    keys, spare = (f.scratch(name, i64, (size,)) for name in ("keys", "spare"))
    held, threshold, last = f.scratch("held", i64, (1,)), f.scratch("threshold", i64, (1,)), f.scratch(
        "last", row.x.dtype, (1,))

    def settle() -> None:
        f.call(sort_kernel(size, lanes), [keys, spare])
        key = f.load(keys, [count - 1])
        f.store(threshold, [0], key)
        f.store(last, [0], row.element(position_of(f, key)))
        f.store(held, [0], f.value(count))

    def take(at: Ix) -> None:
        """Adds those of a vector of keys that are below the threshold."""
        vector, limit = row.keys(at), f.load(threshold, [0])
        with f.if_(f.reduce(f.lt(vector, limit), "or")):
            end = f.load(held, [0])
            for lane in range(lanes):
                key = f.extract(vector, lane)
                f.store(keys, [f.check_index(end, size, 0)], key)
                end = f.add(end, f.select(f.lt(key, limit), f.const(1, i64), 0))
            f.store(held, [0], end)
            with f.if_(f.gt(end, number(f, size - lanes))):
                _fill(row, keys, end)
                settle()

    def look(at: Ix, width: int, mask: Val | None) -> None:
        before = row.may_precede(row.elements(at, width, mask), f.load(last, [0]))
        with f.if_(f.reduce(before if mask is None else f.and_(before, mask), "or")):
            with f.loop(0, width // lanes, name="part") as part:
                take(part.index * lanes + at)

    with f.loop(0, size, lanes, name="first") as first:
        f.store(keys, [first.index], row.keys(first.index))
    settle()
    over_lanes(f, f.min_(Ix(size), row.size), row.size, SEEN_KEYS * lanes, look)
    _fill(row, keys, f.load(held, [0]))
    settle()
    return row.result(keys)


def _listed(row: KeyedRow, count: Dim) -> Result:
    """The first `count` keys in order, of the first that each lane has met: a list of them in registers, into which
    the keys of the lane are inserted one after another."""
    f, lanes, few = row.f, row.lanes, static_dim(count)
    size = padded(few * lanes, lanes)
    none = f.const(LAST, i64, lanes)
    with f.loop(0, ceil_div(row.size, lanes), carry=(none,) * few, name="keys") as loop:
        key, lists = row.keys(loop.index * lanes), list[Val]()
        for held in loop.carried:
            lists.append(f.min(held, key))
            key = f.max(held, key)
        loop.next(*lists)
    keys, spare = (f.scratch(name, i64, (size,)) for name in ("keys", "spare"))
    if few == 1:
        f.store(keys, [0], f.reduce(loop.results[0], "min"))
        return row.result(keys)
    for place, found in enumerate(loop.results):
        f.store(keys, [place * lanes], found)
    _fill(row, keys, few * lanes)
    f.call(sort_kernel(size, lanes), [keys, spare])
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


ORDERS: dict[str, Callable[[KeyedRow, Dim], Result]] = {ROWS: _sorted, SELECTION: _selected, LISTS: _listed,
                                                             PAIRS: _sorted_pairs}

LOWERINGS: dict[type[Op], Lowering] = {sort.Sort: _sort, sort.ArgSort: _argsort, sort.TopK: _topk}
