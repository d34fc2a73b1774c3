"""Padded copies of operands: made once, so that the loops that read them need no tests."""
from __future__ import annotations

from math import prod

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.ranges import unflatten
from graphc.codegen.lower.transpose import transposed
from graphc.schedule.contraction_form import PaddedCopy

ROWS_BYTES = 64 << 10           # copied by one tile


def pad_copy(f: LoopFunction, source: View, copy: PaddedCopy, target: View, lanes: int) -> View:
    """Fills `target` (flat): zeros outside the source. A row is the innermost padded axis (of a turned copy at least the axis
    around the channels) with all that lies inside it.
    """
    axes = tuple(sorted(range(len(copy.shape)), key=lambda x: (-copy.strides[x], x)))
    padded = [p for p, x in enumerate(axes) if copy.low[x] != 0 or copy.shape[x] != source.shape[x]]
    start = min(padded[-1:] + [len(axes) - 2] * copy.turned)
    rows, row = axes[:start], axes[start:]
    count = prod(copy.shape[x] for x in rows)
    row_size = prod(copy.shape[x] for x in row)
    per_tile = max(1, min(count, ROWS_BYTES // (row_size * source.dtype.itemsize), -(-count // 32)))
    with f.parallel(-(-count // per_tile), "pad") as tile:
        with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - tile * per_tile)) as loop:
            _row(f, source, copy, target, rows, row, tile * per_tile + loop.index, lanes)
    return target


def _row(f: LoopFunction, source: View, copy: PaddedCopy, target: View, rows: tuple[int, ...], row: tuple[int, ...], number: Ix, lanes: int) -> None:
    """One row: the source's row between zeros when the row lies inside the source, else all zeros."""
    index = unflatten(f, number, rows, dict(enumerate(copy.shape)))
    size = prod(copy.shape[x] for x in row)
    start = number * size
    inside, origin = _source_position(f, source, copy, index)
    if inside is None:
        return _copy_row(f, source, copy, target, row, origin, start, lanes)
    with f.if_(inside):
        _copy_row(f, source, copy, target, row, origin, start, lanes)
    with f.else_():
        _fill(f, target, start, size, lanes)


def _source_position(f: LoopFunction, source: View, copy: PaddedCopy, index: dict[int, Ix]) -> tuple[Val | None, list[Ix]]:
    """Whether the row is inside the source (None: always), and its place there (clamped, so that it always is one)."""
    inside, origin = None, [Ix()] * len(copy.shape)
    for x, ix in index.items():
        at = ix + copy.low[x]
        if copy.low[x] < 0:
            inside = _both(f, inside, f.ge(f.value(at), 0))
            at = f.max_(at, 0)
        if copy.low[x] + copy.shape[x] > source.shape[x]:
            inside = _both(f, inside, f.lt(f.value(ix + copy.low[x]), source.shape[x]))
            at = f.min_(at, source.shape[x] - 1)
        origin[x] = at
    return inside, origin


def _both(f: LoopFunction, a: Val | None, b: Val) -> Val:
    return b if a is None else f.and_(a, b)


def _copy_row(f: LoopFunction, source: View, copy: PaddedCopy, target: View, row: tuple[int, ...], origin: list[Ix], start: Ix, lanes: int) -> None:
    """Zeros before, the source's elements, zeros after."""
    x = row[0]
    inner = prod(copy.shape[y] for y in row[1:])
    before = max(0, -copy.low[x])
    first = max(0, copy.low[x])
    count = min(source.shape[x], copy.low[x] + copy.shape[x]) - first
    after = copy.shape[x] - before - max(0, count)
    _fill(f, target, start, before * inner, lanes)
    if count > 0:
        begin = list(origin)
        begin[x] = Ix(first)
        _copy_axes(f, source.view_at(begin), row, [count, *[copy.shape[y] for y in row[1:]]], target, start + before * inner, lanes)
    _fill(f, target, start + (copy.shape[x] - after) * inner, after * inner, lanes)


def _copy_axes(f: LoopFunction, source: View, axes: tuple[int, ...], counts: list[int], target: View, start: Ix, lanes: int) -> None:
    """Copies a block of the source, whose axes `axes` have `counts` elements from its start, to contiguous memory."""
    if len(axes) > 1 and source.strides[axes[-2]] == source.strides[axes[-1]] * counts[-1]:
        return _copy_axes(f, source, axes[:-2] + axes[-1:], counts[:-2] + [counts[-2] * counts[-1]], target, start, lanes)
    if len(axes) == 2 and counts[1] >= lanes and source.strides[axes[0]] == 1:
        block = f.reinterpret(source, (counts[1], counts[0]), (source.strides[axes[1]], 1))
        return _turn(f, block, target, start, lanes)
    if len(axes) == 1:
        run = f.reinterpret(source, (counts[0],), (source.strides[axes[0]],))
        return copy_run(f, run, target, start, counts[0], lanes)
    with f.loop(0, counts[0]) as loop:
        shifted = source.view_at([loop.index if x == axes[0] else Ix() for x in range(len(source.shape))])
        _copy_axes(f, shifted, axes[1:], counts[1:], target, start + loop.index * prod(counts[1:]), lanes)


def _turn(f: LoopFunction, source: View, target: View, start: Ix, lanes: int) -> None:
    """target[start + j * rows + i] = source[i, j], by square blocks; the last rows overlap those before them."""
    rows, columns = source.shape
    with f.loop(0, -(-rows // lanes)) as loop:
        i = f.min_(loop.index * lanes, rows - lanes)

        def block(j: Ix | int, count: int) -> None:
            for step, column in enumerate(transposed(f, source, i, j, lanes, count)):
                f.store(target, [start + (j + step) * rows + i], column)
        with f.loop(0, columns // lanes * lanes, lanes) as inner:
            block(inner.index, lanes)
        if columns % lanes:
            block(columns // lanes * lanes, columns % lanes)


def copy_run(f: LoopFunction, source: View, target: View, start: Ix, count: int, lanes: int) -> None:
    """target[start + i] = source[i]"""
    with f.loop(0, count // lanes * lanes, lanes) as loop:
        f.store(target, [start + loop.index], f.load(source, [loop.index], lanes))
    rest = count % lanes
    if rest:
        _pieces(f, source, target, start, count - rest, rest, lanes // 2)


def _pieces(f: LoopFunction, source: View, target: View, start: Ix, at: int, rest: int, lanes: int) -> None:
    """The tail by halves: 7 elements are 4, 2 and 1."""
    while rest:
        if lanes <= rest:
            f.store(target, [start + at], f.load(source, [at], lanes))
            at, rest = at + lanes, rest - lanes
        lanes //= 2


def _fill(f: LoopFunction, target: View, start: Ix, count: int, lanes: int) -> None:
    zero = f.const(0, target.dtype, lanes)
    with f.loop(0, count // lanes * lanes, lanes) as loop:
        f.store(target, [start + loop.index], zero)
    rest, at, width = count % lanes, count // lanes * lanes, lanes // 2
    while rest:
        if width <= rest:
            f.store(target, [start + at], f.const(0, target.dtype, width))
            at, rest = at + width, rest - width
        width //= 2
