"""Short rows, sorted side by side: a row in each lane, a vector for each position, through a network of comparators."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower.rows import rows
from graphc.codegen.lower.sort_keys import key_of, position_of
from graphc.codegen.lower.sort_network import comparators
from graphc.ir.dims import static_dim
from graphc.ir.types import i64
from graphc.schedule.sort_schedule import Sides, SortSchedule


def sort_columns(f: LoopFunction, x: View, results: Sequence[tuple[View, int]], sides: Sides, s: SortSchedule,
                 descending: bool) -> None:
    """`results`: each with its kind, 0 the elements, 1 their positions."""
    size, count = (static_dim(v.shape[sides.axis]) for v in (x, results[0][0]))
    columns, ends = _turned(f, x, sides), [(_turned(f, y, sides), kind) for y, kind in results]
    with rows(f, (*sides.outer, sides.vectors(s.lanes)), s) as at:
        first = at[-1] * s.lanes
        # the last vector begins early where it would reach beyond the end, and stores only what is left
        start = f.min_(first, sides.width - s.lanes) if sides.width > s.lanes else Ix()
        mask = f.tail_mask(sides.width, s.lanes) if sides.width < s.lanes else None
        order = f.scratch("order", i64, (size, s.lanes))
        with f.loop(0, size, name="keys") as loop:
            elements = f.load(columns, [*at[:-1], loop.index, start], s.lanes, mask)
            f.store(order, [loop.index, 0], key_of(f, elements, f.splat(f.value(loop.index), s.lanes), descending))
        keys = [f.load(order, [i, 0], s.lanes) for i in range(size)]
        for a, b in comparators(size):
            keys[a], keys[b] = f.min(keys[a], keys[b]), f.max(keys[a], keys[b])
        for i in range(count):
            f.store(order, [i, 0], position_of(f, keys[i]))

        def put(i: Ix, column: Ix) -> None:
            position = f.load(order, [i, f.min_(column - start, s.lanes - 1)])
            for y, kind in ends:
                source = [*at[:-1], f.check_index(position, size, 0), column]
                f.store(y, [*at[:-1], i, column], position if kind else f.load(columns, source))
        # neighbours in memory one after another
        own, places = (first, f.min_(first + s.lanes, sides.width)), (0, count)
        by_column = ends[0][0].strides[-1] != 1
        with f.loop(*(own if by_column else places)) as outer, f.loop(*(places if by_column else own)) as inner:
            put(*((inner.index, outer.index) if by_column else (outer.index, inner.index)))


def _turned(f: LoopFunction, view: View, sides: Sides) -> View:
    """The view as outer dims, the sorted axis, and the columns."""
    steps = [view.strides[group[-1]] for group in sides.groups]
    return f.reinterpret(view, (*sides.outer, view.shape[sides.axis], sides.width),
                         (*steps[:-1], view.strides[sides.axis], steps[-1]))
