"""Products of rows whose number comes with the call: one function for the last rows of a tile. It calls a micro-kernel
of as many rows, so that the loops around it need no branches of their own.

Few sums take as long as the units need to give one back, however many they are. So up to that number there is one
micro-kernel, which computes the last row again and again, and beyond it one for each number of rows. Twice as many rows
or more are computed by two of these, or three: each does so much work with the columns that it loads them at no cost.
Integers add up in any order: so few rows that steps have sums of their own, which wait for nothing, have one, too.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import ELEMENTS, Ix, as_ix
from graphc.codegen.loops.index_proofs import upper
from graphc.codegen.lower.contraction.micro_kernel import (
    ANY, ColumnPanel, MicroKernelSpec, MicroTileShape, MicroTileSums, RowPanel, arguments_of,
    call_micro_kernel, micro_kernel, spec_of)
from graphc.schedule.register_tiles import APART_SUMS

SHARING_ROWS = 4                # of each part of more: vectors of columns come from L2 while so many rows use them


def call_for_rows(f: LoopFunction, shape: MicroTileShape, left: Ix, a: RowPanel, b: ColumnPanel, c: MicroTileSums,
                  steps: Ix | int) -> None:
    """c (+)= a b over `steps` steps of k: of a whole micro-tile where so many rows are left, else of all that are, at
    least one. Offsets of rows that are not even are those of rows that are left, the last one's repeated. Last rows
    prefetch all of the next panel where they are the only ones and L2 cannot have kept it, else nothing: where they are
    one panel of many they would fetch little of it."""
    if shape.mr == 1:
        return call_micro_kernel(f, shape, a, b, c, steps)
    if upper(left) < shape.mr:
        return _call_for_last(f, shape, left, a, b, c, steps)
    with f.if_(f.ge(f.value(left), shape.mr)):
        call_micro_kernel(f, shape, a, b, c, steps)
    with f.else_():
        _call_for_last(f, shape, left, a, b, c, steps)


def _call_for_last(f: LoopFunction, shape: MicroTileShape, left: Ix, a: RowPanel, b: ColumnPanel, c: MicroTileSums,
                   steps: Ix | int) -> None:
    """By a kernel that prefetches, or by one that does not."""
    def call(lines: int) -> None:
        spec, arguments = _last_rows(shape, left, a, _prefetching(b, lines), c, steps)
        f.call(any_rows_kernel(spec), [*arguments, left])
    lines = b.layout.last_lines
    if not lines or b.row is None or b.row == 0:
        return call(lines)
    with f.if_(f.eq(f.value(b.row), 0)):
        call(lines)
    with f.else_():
        call(0)


def _prefetching(b: ColumnPanel, lines: int) -> ColumnPanel:
    return replace(b, layout=replace(b.layout, prefetch_lines=lines), next=b.next if lines else None)


def _last_rows(shape: MicroTileShape, left: Ix, a: RowPanel, b: ColumnPanel, c: MicroTileSums, steps: Ix | int,
               ) -> tuple[MicroKernelSpec, list[View | Ix]]:
    """The kernel and its arguments as those of the last rows are made from them. Where c has no memory behind its last
    row, that is stored again and again, and must be the same each time."""
    if _repeats(shape) and a.layout.even:
        first, distance = a.offsets
        a = _ending(a, first + (left - 1) * distance.const)
    elif _repeats(shape) and c.bounded and not a.layout.scattered:
        a = _ending(a, left - 1)
    if _repeats(shape) and c.bounded:
        c = replace(c, last=(left - 1) * c.row_step)
    return spec_of(shape, a, b, c), arguments_of(a, b, c, steps)


def _ending(a: RowPanel, last: Ix) -> RowPanel:
    return replace(a, layout=replace(a.layout, ends=True), offsets=(*a.offsets, last))


def _repeats(shape: MicroTileShape) -> bool:
    """Whether a kernel computes more rows than there are."""
    return own_rows(shape)[0] > 1


def own_rows(shape: MicroTileShape) -> list[int]:
    """Numbers of rows, fewer than a micro-tile has, that have a micro-kernel of their own; of those below them the
    least, and of those above several."""
    together = max(1, shape.busy // shape.vectors)
    return list(range(min(together, shape.mr - 1), min(shape.mr, 2 * max(together, SHARING_ROWS))))


def _parts(rows: int, most: int) -> list[int]:
    """The number as a sum of similar ones, none above `most`."""
    count = -(-rows // most)
    return [(rows + i) // count for i in range(count)]


@cache
def any_rows_kernel(spec: MicroKernelSpec) -> LoopFunction:
    """Arguments as of `micro_kernel`, then the number of rows, fewer than its micro-tile has."""
    most = spec.shape.mr - 1
    f = LoopFunction(f"any_{most}_of_{spec.name}", noalias=True)
    operands, own = _Operands(f, spec, most), own_rows(spec.shape)
    apart = [n for n in range(1, own[0]) if spec.types.c.is_int and n * spec.shape.vectors <= APART_SUMS]
    for number in _by_number(f, f.value(operands.count), [*apart, *range(own[0], spec.shape.mr)]):
        first = 0
        for rows in _parts(number, own[-1]):
            operands.multiply(first, rows, repeats=rows == own[0] > 1, ends=number > rows)
            first += rows
    return f


class _Operands:
    """What the function is called with, as it passes it on."""

    def __init__(self, f: LoopFunction, spec: MicroKernelSpec, most: int):
        types, layout, masked = spec.types, spec.a, spec.b.masked
        self.f, self.spec = f, spec
        a, b, c = (f.view(name, dtype, (ANY,), (1,)) for name, dtype in types.named)
        factors = f.view("factors", types.c, (ANY,), (1,)) if spec.scaled else None
        kept = f.view("kept", types.a, (ANY,), (1,)) if layout.packs else None
        self.steps, row_step = f.param("k", 0, ELEMENTS), f.param("row_step", 0, ELEMENTS)
        accumulate = 0 if spec.scaled else f.param("add", 0, 1)
        rows = range(spec.shape.mr)
        names = ["first", "distance"] if layout.even else [f"row{i}" for i in rows] if layout.scattered else []
        names += ["last"] if layout.ends else []
        self.a = RowPanel(a, layout, tuple([f.param(name, 0, ELEMENTS) for name in names]), kept)
        count = f.param("columns", 0, spec.shape.vectors * spec.shape.lanes) if masked else None
        self.b = ColumnPanel(b, spec.b, count)
        last = f.param("last_of_c", 0, ELEMENTS) if spec.ends else None
        self.c = MicroTileSums(c, row_step, accumulate, factors, last=last)
        self.ahead = f.param("ahead", -ELEMENTS, ELEMENTS) if spec.b.prefetch_lines else None
        self.count = f.param("count", 1, most)

    def multiply(self, first: int, rows: int, repeats: bool, ends: bool) -> None:
        """So many rows from a first one on. repeats: by the kernel that takes fewer, too; ends: there are as many. The
        first ones prefetch."""
        a, c = self._rows_of_a(first, rows, repeats, ends), self._rows_of_c(first, rows, repeats, ends)
        b = _prefetching(replace(self.b, next=self.ahead), 0 if first else self.spec.b.prefetch_lines)
        spec = spec_of(replace(self.spec.shape, mr=rows), a, b, c)
        spec = replace(spec, brief=not a.layout.taps) if repeats else spec.in_brief     # it waits for its sums
        self.f.call(micro_kernel(spec), arguments_of(a, b, c, self.steps))

    def _rows_of_a(self, first: int, rows: int, repeats: bool, ends: bool) -> RowPanel:
        a, layout = self.a, self.a.layout
        offsets, last = (a.offsets[:-1], a.offsets[-1]) if layout.ends else (a.offsets, Ix())
        if layout.even:
            begin, distance = offsets
            offsets = begin + distance * first, distance
            last = begin + distance * (first + rows - 1) if ends else last
        elif layout.scattered:
            offsets = offsets[first:first + rows]
        else:
            a = replace(a, memory=a.memory.view_at([first]))
        a = replace(a, packed=a.packed and a.packed.view_at([first]))
        if layout.ends and repeats:
            return replace(a, offsets=(*offsets, last if layout.even or not ends else Ix(rows - 1)))
        return replace(a, layout=replace(layout, ends=False), offsets=offsets)

    def _rows_of_c(self, first: int, rows: int, repeats: bool, ends: bool) -> MicroTileSums:
        c = self.c
        last = as_ix(c.row_step) * (rows - 1) if ends and c.last is not None else c.last
        return replace(c, memory=c.memory.view_at([as_ix(c.row_step) * first]), last=last if repeats else None)


def _by_number(f: LoopFunction, value: Val, numbers: Sequence[int]) -> Iterator[int]:
    """Opens a branch for each of the numbers: taken where it is the least that is no less than the value."""
    middle = len(numbers) // 2
    if not middle:
        yield numbers[0]
        return
    with f.if_(f.le(value, numbers[middle - 1])):
        yield from _by_number(f, value, numbers[:middle])
    with f.else_():
        yield from _by_number(f, value, numbers[middle:])
