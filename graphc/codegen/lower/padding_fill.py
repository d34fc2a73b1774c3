"""The zeros around the inside of a pad, filled by the kernel that computes the inside: each of its tiles first fills a
share of them.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.rows import permuted, unflattened
from graphc.ir.dims import Dim, ceil_div
from graphc.ir.ops.shape import Pad
from graphc.schedule.parallel_rows import memory_order
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

# elements that one tile fills at least: the border of an image is cut into many pieces, so that every thread has some
PIECE = 128


def fill_border(f: LoopFunction, op: Pad, inside: Sequence[Dim], outside: ViewType, target: Target) -> None:
    """Adds to a finished function, whose result is the inside of `outside`: a view of `outside`, and code that fills
    everything around the inside.
    """
    whole = f.view(f.unused("around"), outside.dtype, outside.shape, outside.strides)
    order = memory_order(outside)
    slabs = [_runs(f, slab) for slab in _slabs(permuted(f, whole, order), [op.low[i] for i in order],
                                               [inside[i] for i in order])]
    lanes = target.lanes(outside.dtype.itemsize) if whole.strides[order[-1]] == 1 else 1
    with f.first_in_tiles() as (tile, tiles):
        value = f.const(op.value, outside.dtype)
        for slab in slabs:
            _fill_share(f, slab, tile, tiles, value, lanes)


def _slabs(y: View, low: Sequence[Dim], inside: Sequence[Dim]) -> Iterator[View]:
    """Along each axis the slabs before and after the inside, on the axes around it the inside only."""
    for axis, (first, size) in enumerate(zip(low, inside)):
        for start, count in ((0, first), (first + size, y.shape[axis] - first - size)):
            shape = (*inside[:axis], count, *y.shape[axis + 1:])
            if 0 not in shape:
                yield y.view_at([*low[:axis], start, *[0] * (len(low) - axis - 1)], shape, y.strides)


def _runs(f: LoopFunction, view: View) -> View:
    """The view with the inner axes that step evenly as one."""
    shape, strides = list(view.shape), list(view.strides)
    while len(shape) > 1 and strides[-2] == strides[-1] * shape[-1]:
        shape[-2:], strides[-2:] = [shape[-2] * shape[-1]], strides[-1:]
    return f.reinterpret(view, shape, strides)


def _fill_share(f: LoopFunction, slab: View, tile: Ix, tiles: Dim, value: Val, lanes: int) -> None:
    """Pieces of the slab's runs, as many for each tile."""
    *rows, run = slab.shape
    in_run = ceil_div(run, PIECE)
    pieces = prod(rows) * in_run
    share = f.divmod(Ix(pieces + tiles - 1), tiles)[0]
    first = f.product(tile, share)
    with f.loop(first, f.min_(first + share, pieces)) as loop:
        row, piece = f.divmod(loop.index, in_run) if rows else (Ix(), loop.index)
        at, start = unflattened(f, row, tuple(rows)), piece * PIECE
        width = Ix(PIECE) if run % PIECE == 0 else f.min_(PIECE, run - start) if in_run != 1 else Ix(run)
        vector_run(f, width, lanes, lambda i, count, mask: f.store(slab, [*at, start + i], f.splat(value, count), mask))
