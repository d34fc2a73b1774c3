"""Rows and columns change places, in registers."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.index import Ix, as_ix
from graphc.codegen.loops import Function, Val, View


def gathered(f: Function, memory: View, places: Sequence[Ix]) -> Val:
    """A vector of elements from anywhere."""
    result = f.splat(f.load(memory, [places[0]]), len(places))
    for lane, place in enumerate(places[1:], 1):
        result = f.insert(result, lane, f.load(memory, [place]))
    return result


def transposed(f: Function, view: View, row: Ix | int, column: Ix | int, lanes: int, width: int | None = None) -> list[Val]:
    """The first `width` (all) columns of the square of lanes × lanes at this row and column: vectors across its rows. No other columns are read."""
    row, column = as_ix(row), as_ix(column)
    return _columns(f, lambda i, j, n, mask: f.load(view, [row + i, column + j], n, mask), view.dtype.itemsize, lanes, width or lanes)


def transposed_runs(f: Function, memory: View, starts: Sequence[Ix], width: int | None = None) -> list[Val]:
    """The same of the rows that begin at `starts` in memory."""
    lanes = len(starts)
    return _columns(f, lambda i, j, n, mask: f.load(memory, [starts[i] + j], n, mask), memory.dtype.itemsize, lanes, width or lanes)


def _columns(f: Function, load: Callable[[int, int, int, Val | None], Val], itemsize: int, lanes: int, width: int) -> list[Val]:
    """load(row, column, n, mask): n elements of a row. Blocks of 16 bytes come from memory to their places; what is left are transposes inside
    blocks, where shuffles are cheap."""
    block = min(lanes, 16 // itemsize)
    columns = []
    for column in range(0, width, block):
        mask = f.tail_mask(width - column, block) if width - column < block else None
        rows = [_joined(f, [load(row, column, block, mask) for row in range(first, lanes, block)]) for first in range(block)]
        columns += _transposed_blocks(f, rows, lanes, block)
    return columns[:width]


def _joined(f: Function, parts: Sequence[Val]) -> Val:
    """Vectors one after the other."""
    while len(parts) > 1:
        parts = [f.shuffle(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]


def _transposed_blocks(f: Function, rows: Sequence[Val], lanes: int, block: int) -> list[Val]:
    """`block` rows (2 or 4): in each block of lanes, their square transpose. Both steps are one machine shuffle a vector."""
    if block == 2:
        return [f.shuffle(rows[0], rows[1], _unpack(lanes, block, 1, half)) for half in (0, 1)]
    upper, lower = ([f.shuffle(x, y, _unpack(lanes, block, 1, half)) for half in (0, 1)] for x, y in (rows[:2], rows[2:]))
    return [f.shuffle(upper[i // 2], lower[i // 2], _unpack(lanes, block, 2, i % 2)) for i in range(4)]


def _unpack(lanes: int, block: int, width: int, half: int) -> list[int]:
    """Lane indices that interleave, in each block, one half of both vectors in groups of `width` lanes."""
    indices = []
    for start in range(0, lanes, block):
        for at in range(half * block // 2, (half + 1) * block // 2, width):
            own = [start + at + w for w in range(width)]
            indices += own + [lanes + i for i in own]
    return indices
