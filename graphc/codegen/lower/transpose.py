"""Transposes of blocks of vectors, in registers."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import ELEMENTS, Ix, as_ix
from graphc.ir.types import DType


def gathered(f: LoopFunction, memory: View, places: Sequence[Ix]) -> Val:
    """A vector of elements from anywhere."""
    result = f.splat(f.load(memory, [places[0]]), len(places))
    for lane, place in enumerate(places[1:], 1):
        result = f.insert(result, lane, f.load(memory, [place]))
    return result


def transposed(f: LoopFunction, view: View, row: Ix | int, column: Ix | int, lanes: int,
               width: int | None = None) -> list[Val]:
    """The first `width` (all) columns of the square of lanes × lanes at this row and column: vectors across its rows.
    No other columns are read.
    """
    mask = _mask(f, lanes, width)
    return transposed_rows(f, [f.load(view, [as_ix(row) + i, column], lanes, mask) for i in range(lanes)])[:width]


def transposed_runs(f: LoopFunction, memory: View, starts: Sequence[Ix], width: int | None = None) -> list[Val]:
    """The same of the rows that begin at `starts` in memory."""
    mask = _mask(f, len(starts), width)
    return transposed_rows(f, [f.load(memory, [start], len(starts), mask) for start in starts])[:width]


def _mask(f: LoopFunction, lanes: int, width: int | None) -> Val | None:
    return f.tail_mask(width, lanes) if width is not None and width < lanes else None


def turn(f: LoopFunction, source: View, target: View, rows: Ix, columns: Ix, lanes: int) -> None:
    """target[j, i] = source[i, j] of matrices with room for whole squares: a function transposes each, since that is
    much code."""
    square, steps = turned_square(source.dtype, lanes), (source.strides[0], target.strides[0])
    with f.loop(0, rows, lanes) as down, f.loop(0, columns, lanes) as across:
        at = (source, down.index, across.index), (target, across.index, down.index)
        f.call(square, [*[view.view_at([i, j], (1,), (1,)) for view, i, j in at], *map(as_ix, steps)])


def turned_square(dtype: DType, lanes: int, factor: float | None = 1.0) -> LoopFunction:
    """Views: a square of lanes × lanes, and where its transpose, times the factor, is stored; None: a factor for each
    of its rows, in a third view. Integers: the distances of their rows."""
    return _turned_square(dtype, lanes, factor)


@cache
def _turned_square(dtype: DType, lanes: int, factor: float | None) -> LoopFunction:
    name = f"turn_{dtype}_{lanes}" + ("_scaled" if factor is None else f"_by_{factor.hex()}" if factor != 1 else "")
    f = LoopFunction(name, noalias=True)
    source, target = (f.view(name, dtype, (ELEMENTS << 8,), (1,)) for name in ("square", "turned"))
    factors = f.view("factors", dtype, (lanes,), (1,)) if factor is None else None
    rows, columns = f.param("row", 0, ELEMENTS), f.param("column", 0, ELEMENTS)
    for i, vector in enumerate(transposed_runs(f, source, [rows * i for i in range(lanes)])):
        if factors is not None:
            vector = f.mul(vector, f.splat(f.load(factors, [i]), lanes))
        f.store(target, [columns * i], vector if factor in (None, 1) else f.mul(vector, factor))
    return f


def transposed_rows(f: LoopFunction, rows: Sequence[Val]) -> list[Val]:
    """Square transpose of vectors: first inside blocks of 16 bytes at most, where shuffles are cheap, then of the
    blocks. Of short vectors the halves of rows are interleaved, again and again."""
    lanes = len(rows)
    if lanes > 4 and lanes * rows[0].dtype.itemsize <= 16:
        for _ in range(lanes.bit_length() - 1):
            rows = [f.shuffle(rows[i // 2], rows[(i + lanes) // 2], _unpack(lanes, lanes, 1, i % 2))
                    for i in range(lanes)]
        return list(rows)
    block = min(lanes, 4, 16 // rows[0].dtype.itemsize)
    rows = [row for start in range(0, lanes, block)
            for row in blocks_transposed(f, rows[start:start + block], lanes, block)]
    step = block
    while step < lanes:
        low = [i if i & step == 0 else lanes + i - step for i in range(lanes)]
        high = [i + step if i & step == 0 else lanes + i for i in range(lanes)]
        rows = [f.shuffle(rows[i & ~step], rows[i | step], high if i & step else low) for i in range(lanes)]
        step *= 2
    return rows


def blocks_transposed(f: LoopFunction, rows: Sequence[Val], lanes: int, block: int) -> list[Val]:
    """`block` rows (1, 2 or 4): in each block of lanes, their square transpose. Both steps are one machine shuffle a
    vector.
    """
    if block == 1:
        return list(rows)
    if block == 2:
        return [f.shuffle(rows[0], rows[1], _unpack(lanes, block, 1, half)) for half in (0, 1)]
    upper, lower = ([f.shuffle(x, y, _unpack(lanes, block, 1, half)) for half in (0, 1)]
                    for x, y in (rows[:2], rows[2:]))
    return [f.shuffle(upper[i // 2], lower[i // 2], _unpack(lanes, block, 2, i % 2)) for i in range(4)]


def _unpack(lanes: int, block: int, width: int, half: int) -> list[int]:
    """Lane indices that interleave, in each block, one half of both vectors in groups of `width` lanes."""
    indices = []
    for start in range(0, lanes, block):
        for at in range(half * block // 2, (half + 1) * block // 2, width):
            own = [start + at + w for w in range(width)]
            indices += own + [lanes + i for i in own]
    return indices
