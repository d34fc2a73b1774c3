"""Operands of a nest that are contiguous along another dim than its vectors: squares of them are transposed in
registers and kept in scratch, from where the loop of that dim takes them as vectors."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.transpose import transposed_rows
from graphc.ir.dims import Dim, static_dim
from graphc.ir.graph import Value
from graphc.schedule.loop_nest import Nest, Strides, leaf_of
from graphc.schedule.nest_schedule import NestSchedule

if TYPE_CHECKING:
    from graphc.codegen.lower.body import NestBody, Point

Leaf = tuple[Value, Strides]


class TurnedLeaves:
    """Of one nest, whose inner dims are the vector and then `dim`."""

    def __init__(self, f: LoopFunction, nest: Nest, schedule: NestSchedule, body: NestBody) -> None:
        self.f, self.nest, self.s, self.body = f, nest, schedule, body
        self.dim = schedule.inner[-1]
        self.size = nest.extents[self.dim]
        found = ((leaf_of(use), strides) for use, strides in nest.leaves.items())
        self.leaves = dict.fromkeys(leaf for leaf in found if leaf[0] in body.inputs and self._is_turned(leaf[1]))
        self.squares: dict[Leaf, View] = {}

    def _is_turned(self, strides: Strides) -> bool:
        return strides[self.dim] in (-1, 1) and strides[self.s.vector] not in (-1, 0, 1)

    def allocate(self) -> None:
        """The squares of a tile."""
        for number, leaf in enumerate(self.leaves):
            self.squares[leaf] = self.f.scratch(f"square{number}", leaf[0].type.dtype, (self.s.lanes, self.s.lanes))

    def serve(self, point: Point) -> bool:
        """Whether vectors at the point are read from squares."""
        extent = self.nest.extents[self.s.vector]
        return bool(self.squares) and point.lanes > 1 and isinstance(self.size, int) and isinstance(extent, int)

    def run(self, point: Point, ends: tuple[Ix | Dim, Ix | Dim], work: Callable[[Point], object]) -> None:
        """`work` at all indices of the dim between the ends."""
        f, lanes, size = self.f, point.lanes, static_dim(self.size)
        # so many of the lanes have elements
        rows = static_dim(self.nest.extents[self.s.vector]) % self.s.lanes if point.mask is not None else lanes
        lo, hi = ends[0], f.min_(ends[1], size)
        with f.loop(lo, hi, step=lanes, name="square") as block:
            # the last square begins early where it would reach beyond the end
            first = f.min_(block.index, size - lanes) if size > lanes else Ix()
            for leaf, square in self.squares.items():
                for k, column in enumerate(self._columns(leaf, point, first, rows)):
                    f.store(square, [k, 0], column)
            with f.loop(block.index, f.min_(block.index + lanes, hi), name=f"i{self.dim}") as loop:
                with self._given(f.min_(loop.index - first, lanes - 1), lanes):
                    work(point.at(self.dim, loop.index))

    @contextmanager
    def _given(self, k: Ix, lanes: int) -> Iterator[None]:
        """The operands at hand, as the body looks them up."""
        values = self.body.row.values
        values.update({leaf: self.f.load(square, [k, 0], lanes) for leaf, square in self.squares.items()})
        yield
        for leaf in self.squares:
            del values[leaf]

    def _columns(self, leaf: Leaf, point: Point, first: Ix, rows: int) -> list[Val]:
        """Of a square."""
        f, lanes, size, (v, strides) = self.f, point.lanes, static_dim(self.size), leaf
        order = [d for d in range(len(strides)) if d != self.dim] + [self.dim]
        view = f.reinterpret(self.body.inputs[v], [self.nest.extents[d] for d in order], [strides[d] for d in order])
        mask = f.tail_mask(size, lanes) if size < lanes else None
        loaded = []
        for row in range(rows):
            index = {**point.index, self.s.vector: point.index[self.s.vector] + row, self.dim: first}
            loaded.append(f.load(view, [index.get(d, Ix()) for d in order], lanes, mask))
        loaded += [f.const(0, v.type.dtype, lanes)] * (lanes - rows)
        return transposed_rows(f, loaded)[:size]
