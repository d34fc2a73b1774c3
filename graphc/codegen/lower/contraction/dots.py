"""Contractions with few rows or columns, both operands contiguous along k: dot products. Nothing is packed."""
from __future__ import annotations

from math import prod

from graphc.codegen.loops.builder import Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contraction.micro_kernel import load_as, multiply_add
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.contraction.sweep import OutputTile, sums_in
from graphc.codegen.lower.ranges import offset, open_range, unflatten
from graphc.ir.dims import Dim, static_dim, typical
from graphc.schedule.blocking import Cut
from graphc.schedule.contraction_form import LinearMap
from graphc.schedule.contraction_schedule import DotSchedule, round_up
from graphc.schedule.target import AHEAD_BYTES


class DotContraction(PhaseLowering[DotSchedule]):
    def run(self) -> None:
        """Tiles of all rows × some columns of one batch entry."""
        f, s = self.f, self.schedule
        cut = self._column_cut()
        tiles = cut.count(self.n_sizes)
        with f.parallel(self.batches * tiles, "dots") as t:
            batch_number, across = f.divmod(t, tiles)
            batch = unflatten(f, batch_number, self.phase.batch, self.sizes)
            tile = OutputTile(batch, Ix(), Ix(self.m), open_range(f, self.phase.n, self.n_sizes, cut, across))
            apart = -(-cut.chunk * cut.inner(self.n_sizes) // s.columns)
            sums = f.scratch("sums", self.dtype, (round_up(self.m, s.rows), round_up(apart * s.columns, s.lanes)))
            self._dot_tile(tile, apart, sums)
            self.sweep_by(s.lanes).store(tile, tile.whole, sums_in(f, sums))

    def _column_cut(self) -> Cut:
        """About as many columns as the schedule says; with gates, all that belong to the same units."""
        sizes, s = self.n_sizes, self.schedule
        gates = self.contraction.gates
        split = 0 if gates else len(sizes) - 1
        inner = prod(sizes[split + 1:])
        return Cut(split, _even_tile(typical(sizes[split]), max(1, s.tile // inner), 1 if gates else s.columns))

    def _dot_tile(self, tile: OutputTile, apart: Dim, sums: View) -> None:
        """Columns that are taken together are `apart` columns from each other: each is then one long stream through
        memory, which the CPU prefetches. Neighbours would be short streams in the same pages, at half the speed where
        columns have some hundred elements.
        """
        f, s, p = self.f, self.schedule, self.phase
        with f.loop(0, self.m, s.rows) as down, f.loop(0, apart) as across:
            rows = [self._start(p.a, p.m, down.index + i, self.m) for i in range(s.rows)]
            columns = [self._start(p.b, p.n, tile.columns.flat + across.index + j * apart, self.n)
                       for j in range(s.columns)]
            batch_a, batch_b = offset(p.a, tile.batch), offset(p.b, tile.batch)
            dots = self._dots([batch_a + r for r in rows], [batch_b + c for c in columns])
            for i in range(s.rows):
                for j in range(s.columns):
                    f.store(sums, [down.index + i, across.index + j * apart], dots[i * s.columns + j])

    def _start(self, t: LinearMap[Dim], dims: tuple[int, ...], flat: Ix, size: Dim) -> Ix:
        """Distance of a row or column from the first; past the end the last is repeated."""
        return offset(t, unflatten(self.f, self.f.min_(flat, size - 1), dims, self.sizes)) - t.base

    def _dots(self, rows: list[Ix], columns: list[Ix]) -> list[Val]:
        """Dot products of each row with each column: `vectors` accumulators each, then a tree over these and lanes."""
        f, s = self.f, self.schedule
        pairs = len(rows) * len(columns)
        zeros = [f.const(0, self.dtype, s.lanes)] * (pairs * s.vectors)
        sums = self._over_runs(rows, columns, self.phase.k[:-1], zeros)
        totals = sums[:pairs]
        for v in range(1, s.vectors):
            totals = [f.add(a, b) for a, b in zip(totals, sums[v * pairs:(v + 1) * pairs])]
        return [f.reduce(total, "add") for total in totals]

    def _over_runs(self, rows: list[Ix], columns: list[Ix], outer: tuple[int, ...], sums: list[Val]) -> list[Val]:
        """The sums, to which those of all runs are added; `outer`: the dims that count these."""
        if not outer:
            return self._run_sums(rows, columns, sums)
        f, d = self.f, outer[0]
        a, b = self.phase.a.strides[d], self.phase.b.strides[d]
        with f.loop(0, self.sizes[d], carry=sums) as loop:
            loop.next(*self._over_runs([r + loop.index * a for r in rows], [c + loop.index * b for c in columns],
                                       outer[1:], list(loop.carried)))
        return list(loop.results)

    def _run_sums(self, rows: list[Ix], columns: list[Ix], sums: list[Val]) -> list[Val]:
        """Those of a run, whose last elements go to the first accumulators."""
        f, s = self.f, self.schedule
        pairs, k = len(rows) * len(columns), static_dim(self.sizes[self.phase.k[-1]])
        whole = k // (s.lanes * s.vectors) * (s.lanes * s.vectors)
        with f.loop(0, whole, s.lanes * s.vectors, carry=sums) as loop:
            sums = list(loop.carried)
            self._prefetch([c + loop.index for c in columns])
            for v in range(s.vectors):
                own = slice(v * pairs, (v + 1) * pairs)
                sums[own] = self._step(rows, columns, loop.index + v * s.lanes, None, sums[own])
            loop.next(*sums)
        sums = list(loop.results)
        for at in range(whole, k, s.lanes):
            mask = f.tail_mask(k - at, s.lanes) if k - at < s.lanes else None
            sums[:pairs] = self._step(rows, columns, as_ix(at), mask, sums[:pairs])
        return sums

    def _prefetch(self, places: list[Ix]) -> None:
        """What comes later of a narrow operand: the hardware alone fetches too little of short steps."""
        itemsize = self.b.dtype.itemsize
        for place in places if itemsize < self.dtype.itemsize else ():
            self.f.prefetch(self.b, [place + AHEAD_BYTES // itemsize])

    def _step(self, rows: list[Ix], columns: list[Ix], k: Ix, mask: Val | None, sums: list[Val]) -> list[Val]:
        f, lanes = self.f, self.schedule.lanes
        a = [load_as(f, self.dtype, self.a, [r + k], lanes, mask) for r in rows]
        b = [load_as(f, self.dtype, self.b, [c + k], lanes, mask) for c in columns]
        return [multiply_add(f, x, y, sums[i * len(b) + j], self.fused)
                for i, x in enumerate(a) for j, y in enumerate(b)]


def _even_tile(size: int, largest: int, columns: int) -> int:
    """Columns of a tile, a multiple of `columns`, so that the last tile is about as long as the others."""
    return round_up(-(-size // max(1, -(-size // largest))), columns)
