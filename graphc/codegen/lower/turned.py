"""Operands and results of a nest that are contiguous along another dim than its vectors: squares of them are transposed
in registers and kept in scratch, from where the loop of that dim takes operands as vectors, and where it puts results.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.reduce import Accumulator
from graphc.codegen.lower.transpose import transposed_rows
from graphc.codegen.lower.trips import Trips
from graphc.ir.dims import Dim, ceil_div, static_dim
from graphc.ir.graph import Node, Value
from graphc.schedule.loop_nest import Nest, Strides, leaf_of
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.target import LINE_BYTES

if TYPE_CHECKING:
    from graphc.codegen.lower.body import NestBody, Point

LINES_AHEAD = 2                 # of rows of results that are written side by side: no hardware sees so many coming
Leaf = tuple[Value, Strides]
Work = Callable[["Point", Accumulator], Accumulator]
Counted = Callable[[Trips, Accumulator, Callable[[Ix, Accumulator], Accumulator]], Accumulator]


class Turned:
    """Of one nest, whose last inner dim is `dim`."""

    def __init__(self, f: LoopFunction, nest: Nest, schedule: NestSchedule, body: NestBody, ys: Sequence[View]) -> None:
        self.f, self.nest, self.s, self.body, self.ys = f, nest, schedule, body, ys
        self.dim = schedule.inner[-1]
        self.size = nest.extents[self.dim]
        found = ((leaf_of(use), strides) for use, strides in nest.leaves.items())
        self.leaves = dict.fromkeys(leaf for leaf in found if leaf[0] in body.inputs and self._is_turned(leaf[1]))
        self.outputs = [k for k, strides in enumerate(nest.outputs) if self._is_turned(strides)]
        self.squares: dict[Leaf | int, View] = {}
        # what the loops being written read and write in squares; the row of squares at hand, while inside of one
        self.read: list[Leaf] = []
        self.written: list[int] = []
        self.row: Ix | None = None

    def _is_turned(self, strides: Strides) -> bool:
        return strides[self.dim] in (-1, 1) and strides[self.s.vector] not in (-1, 0, 1)

    def allocate(self) -> None:
        """The squares of a tile: as many as there are in a vector, side by side."""
        shape = self.s.squares, self.s.lanes
        for number, leaf in enumerate(self.leaves):
            self.squares[leaf] = self.f.scratch(f"square{number}", leaf[0].type.dtype, shape)
        for k in self.outputs:
            self.squares[k] = self.f.scratch(f"result{k}", self.ys[k].dtype, shape)

    def start(self, nodes: Iterable[Node], outs: Collection[int]) -> None:
        """The loops that follow evaluate these nodes and write these outputs."""
        uses = [(n, k) for n in nodes for k in range(len(n.inputs)) if (n, k) in self.nest.leaves]
        used = {(leaf_of(use), self.nest.leaves[use]) for use in uses}
        self.read = [leaf for leaf in self.leaves if leaf in used]
        self.written = [k for k in self.outputs if k in outs]

    def serves(self, point: Point) -> bool:
        """Whether vectors at the point lie in squares."""
        extent = self.nest.extents[self.s.vector]
        some = bool(self.read or self.written)
        return some and point.lanes > 1 and isinstance(self.size, int) and isinstance(extent, int)

    def run(self, point: Point, ends: tuple[Ix | Dim, Ix | Dim], carried: Accumulator, work: Work,
            counted: Counted) -> Accumulator:
        """`work` at all indices of the dim between the ends; `counted` writes the loop over squares."""
        f, size, side = self.f, static_dim(self.size), min(self.s.squares, point.lanes)
        lo, hi = ends
        # results of what fills no square are stored apart
        main = size // side * side if self.written else size
        if main:
            trips = Trips("square", lo, f.min_(hi, main), side, ceil_div(main, side), side)
            carried = counted(trips, carried, lambda i, c: self._square(point, i, f.min_(i + side, trips.hi), c, work))
        if main == size:
            return carried
        if isinstance(lo, int) and isinstance(hi, int):
            return self._square(point, Ix(main), size, carried, work, size - main)
        with f.loop(f.max_(lo, main), f.min_(hi, main + 1), step=side, carry=carried, name="rest") as L:
            L.next(*self._square(point, L.index, size, L.carried, work, size - main))
        return L.results

    def _square(self, point: Point, start: Ix, end: Ix | Dim, carried: Accumulator, work: Work,
                count: int = 0) -> Accumulator:
        """Indices from start to the end, as many as a square has at most; count: fewer, if that is known."""
        f, size, side = self.f, static_dim(self.size), min(self.s.squares, point.lanes)
        # the last square begins early where it would reach beyond the end
        first = f.min_(start, size - side) if size > side else Ix()
        for leaf in self.read:
            for at in range(0, point.lanes, side):
                for k, column in enumerate(self._columns(leaf, point, first, at, side)):
                    f.store(self.squares[leaf], [k, at], column)
        with f.loop(start, end, carry=carried, name=f"i{self.dim}") as loop:
            with self._inside(f.min_(loop.index - first, side - 1), f.min_(loop.index - start, side - 1), point.lanes):
                loop.next(*work(point.at(self.dim, loop.index), loop.carried))
        for k in self.written:
            self._store(k, point, start, side, count or side)
        return loop.results

    @contextmanager
    def _inside(self, k: Ix, row: Ix, lanes: int) -> Iterator[None]:
        """The operands at hand, row k of squares, as the body looks them up; results go to the other row."""
        values, before = self.body.row.values, self.row
        values.update({leaf: self.f.load(self.squares[leaf], [k, 0], lanes) for leaf in self.read})
        self.row = row
        yield
        self.row = before
        for leaf in self.read:
            del values[leaf]

    def take(self, k: int, value: Val, lanes: int) -> bool:
        """Puts an output's value into its square, if that is where it goes."""
        if self.row is None or k not in self.written:
            return False
        self.f.store(self.squares[k], [self.row, 0], self.f.splat(value, lanes))
        return True

    def claim(self, view: View, index: Sequence[Ix | int]) -> None:
        """Asks for the lines that are written soon after these, of a row of a result."""
        ahead = LINES_AHEAD * LINE_BYTES // view.dtype.itemsize
        self.f.prefetch(view, [*index[:-1], index[-1] + ahead])

    # ---- squares in registers
    def _rows(self, point: Point) -> int:
        """So many of the lanes have elements."""
        return static_dim(self.nest.extents[self.s.vector]) % self.s.lanes if point.mask is not None else point.lanes

    def _view(self, view: View, strides: Strides, point: Point, row: int, start: Ix) -> tuple[View, list[Ix]]:
        """With the dim last, and the place of its index `start` in the lane `row`."""
        order = [d for d in range(len(strides)) if d != self.dim] + [self.dim]
        flat = self.f.reinterpret(view, [self.nest.extents[d] for d in order], [strides[d] for d in order])
        index = {**point.index, self.s.vector: point.index[self.s.vector] + row, self.dim: start}
        return flat, [index.get(d, Ix()) for d in order]

    def _columns(self, leaf: Leaf, point: Point, first: Ix, at: int, side: int) -> list[Val]:
        """Of the square whose first lane is `at`."""
        f, size, (v, strides) = self.f, static_dim(self.size), leaf
        mask = f.tail_mask(size, side) if size < side else None
        loaded = [f.load(*self._view(self.body.inputs[v], strides, point, row, first), side, mask)
                  for row in range(at, min(at + side, self._rows(point)))]
        fetch = self.s.fetch
        if fetch and fetch.dim == self.s.vector and point.mask is None:
            for row in range(at, at + side):
                f.prefetch(*self._view(self.body.inputs[v], strides, point, row + fetch.distance, first), fetch.level)
        loaded += [f.const(0, v.type.dtype, side)] * (side - len(loaded))
        return transposed_rows(f, loaded)[:size]

    def _store(self, k: int, point: Point, start: Ix, side: int, count: int) -> None:
        """The squares of output k, of which so many rows are filled."""
        f, square = self.f, self.squares[k]
        mask = f.tail_mask(count, side) if count < side else None
        for at in range(0, self._rows(point), side):
            filled = [f.load(square, [row, at], side) for row in range(count)]
            filled += [f.const(0, square.dtype, side)] * (side - count)
            for row, value in enumerate(transposed_rows(f, filled)[:self._rows(point) - at], at):
                view, index = self._view(self.ys[k], self.nest.outputs[k], point, row, start)
                if mask is None:
                    self.claim(view, index)
                f.store(view, index, value, mask)
