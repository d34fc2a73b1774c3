"""Convolutions of few features: the products of each kernel position with whole runs of the image, by micro-tiles that
read these as they lie; a feature's sums of the positions, which lie apart as windows slide, are added afterwards.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, reduce
from itertools import product

from graphc.codegen.loops.builder import Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, ColumnPanel, MicroTileShape, MicroTileSums, RowLayout, RowPanel, call_micro_kernel, store_as)
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.ranges import Index, Range, offset, open_range, unflatten, vector_run, walk, walk_runs
from graphc.ir.dims import static_dim
from graphc.schedule.blocking import Cut
from graphc.schedule.contraction_form import LinearMap
from graphc.schedule.contraction_schedule import ShiftedSchedule, group_sizes, round_up


class ShiftedContraction(PhaseLowering[ShiftedSchedule]):
    """Rows are those of the phase times `taps`. a is packed in panels of rows; a tile has the sums of a run of b."""

    def run(self) -> None:
        f, p, cut = self.f, self.phase, self.schedule.cut(self.phase)
        if self.contraction.prepacked_role != "a":
            self.prepack()
        tiles = cut.count(self.n_sizes)
        with f.parallel(self.batches * tiles, "shifted") as t:
            number, part = f.divmod(t, tiles)
            batch = unflatten(f, number, p.batch, p.sizes)
            columns = open_range(f, p.n, self.n_sizes, cut, part)
            sums = f.scratch("sums", self.dtype, (self._padded_rows, self._width))
            self._products(number, batch, columns, sums)
            self._add(batch, columns, sums)

    def prepack(self) -> None:
        """Panel after panel, each [k][MR]; rows past the last one repeat it."""
        f, p, mr, rest = self.f, self.phase, self.schedule.mr, self._rest
        sizes = group_sizes(p, rest)
        with f.parallel(self.batches * self._panels, "pack_a") as t:
            number, panel = f.divmod(t, self._panels)
            batch = unflatten(f, number, p.batch, p.sizes)
            starts = [self._row_offset(f.min_(panel * mr + i, self._rows - 1)) for i in range(mr)]
            with walk(f, open_range(f, rest, sizes, Cut(0, static_dim(sizes[0])), Ix())) as (index, step):
                base = offset(p.a, batch | index)
                for i, start in enumerate(starts):
                    store_as(f, self._packed_rows, [(t * self._steps + step) * mr + i], f.load(self.a, [base + start]))

    def _row_offset(self, row: Ix) -> Ix:
        """Distance in a from row 0."""
        f, p = self.f, self.phase
        outer, tap = f.divmod(row, p.extent(self.schedule.taps))
        index = unflatten(f, outer, p.m, p.sizes) | unflatten(f, tap, self.schedule.taps, p.sizes)
        return offset(p.a, index) - p.a.base

    def _products(self, number: Ix, batch: Index, columns: Range, sums: View) -> None:
        """The sums of all rows at the places of b that the columns of a tile reach."""
        f, s, p, rest = self.f, self.schedule, self.phase, self._rest
        start = offset(p.b, batch | columns.first) + s.lowest(p)
        count = (columns.count - 1) * p.b.strides[p.n[columns.split]] + (s.reach(p, 1))
        sizes = group_sizes(p, rest)
        kc = Cut(len(rest) - 1, s.steps)
        with f.loop(0, kc.count(sizes)) as loop:
            k = open_range(f, rest, sizes, kc, loop.index)
            b = start + offset(LinearMap(0, p.b.strides), k.first)
            a = (number * (self._panels * self._steps) + k.flat) * s.mr
            accumulate = f.min_(loop.index, 1)
            with f.loop(0, count, s.vectors * s.lanes) as across:
                for panel in self._column_panels(b + across.index, count - across.index):
                    with f.loop(0, self._padded_rows, s.mr) as down:
                        rows = RowPanel(self._packed_rows.view_at([a + down.index * self._steps], (1,)),
                                        RowLayout(s.mr))
                        c = MicroTileSums(sums.view_at([down.index, across.index], (1,), (1,)), self._width, accumulate)
                        shape = MicroTileShape(s.mr, s.vectors, s.lanes, self.fused)
                        call_micro_kernel(f, shape, rows, panel, c, k.length)

    def _column_panels(self, start: Ix, left: Ix) -> Iterator[ColumnPanel]:
        """Opens the branches of a whole panel, and of the last one, of which nothing behind the run is read."""
        f, s, step = self.f, self.schedule, self.phase.b.strides[self.schedule.inner]
        memory, nr = self.b.view_at([start], (1,)), s.vectors * s.lanes
        with f.if_(f.ge(f.value(left), nr)):
            yield ColumnPanel(memory, ColumnLayout(step))
        with f.else_():
            yield ColumnPanel(memory, ColumnLayout(step, masked=True), f.min_(left, nr))

    def _add(self, batch: Index, columns: Range, sums: View) -> None:
        """Each output is the sum of its row's taps, each as far behind the first as its window says."""
        f, s, p = self.f, self.schedule, self.phase
        last, taps, lowest = p.n[-1], p.extent(s.taps), s.lowest(p)
        shifts = [sum(i * p.b.strides[d] for d, i in zip(s.taps, at)) - lowest
                  for at in product(*[range(p.sizes[d]) for d in s.taps])]
        lanes = s.lanes if self.outputs.takes_vectors(last) else 1
        beyond = offset(LinearMap(0, p.b.strides), columns.first)
        with f.loop(0, self.m) as row, walk_runs(f, columns) as (index, _, first, count):
            at = batch | index | unflatten(f, row.index, p.m, p.sizes) | {last: first}
            start = offset(LinearMap(0, p.b.strides), index | {last: first}) - beyond

            def body(j: Ix, lanes: int, mask: Val | None) -> None:
                values = [f.load(sums, [row.index * taps + tap, start + j + shift], lanes, mask)
                          for tap, shift in enumerate(shifts)]
                self.outputs.store(at | {last: first + j}, last, reduce(f.add, values), lanes, mask)
            if lanes > 1:
                vector_run(f, count, lanes, body)
            else:
                with f.loop(0, count) as loop:
                    body(loop.index, 1, None)

    # ---- sizes

    @cached_property
    def _rest(self) -> tuple[int, ...]:
        return self.schedule.rest(self.phase)

    @cached_property
    def _steps(self) -> int:
        return static_dim(self.phase.extent(self._rest))

    @cached_property
    def _rows(self) -> int:
        return static_dim(self.phase.extent(self.phase.m + self.schedule.taps))

    @property
    def _padded_rows(self) -> int:
        return round_up(self._rows, self.schedule.mr)

    @property
    def _panels(self) -> int:
        return self._padded_rows // self.schedule.mr

    @property
    def _width(self) -> int:
        """Of a line of sums, in whole micro-tiles."""
        s = self.schedule
        return round_up(static_dim(s.reach(self.phase, s.chunk)), s.vectors * s.lanes)

    @property
    def _packed_rows(self) -> View:
        return self.packed("a", self.schedule.packed_rows(self.phase))
