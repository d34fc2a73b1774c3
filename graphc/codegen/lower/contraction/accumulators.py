"""Where the sums of a tile are until they are finished, and when that is: after each micro-tile, at the end of the
tile, or, as partial results, after all tiles (split-K).
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from math import lcm

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import MicroTileSums
from graphc.codegen.lower.contraction.sweep import Source, TilePart, sums_in
from graphc.codegen.lower.contraction.tile import ContractionTile, MicroTile, SumBlock, TiledPhase
from graphc.codegen.lower.ranges import offset, part_of, vector_run
from graphc.ir.dims import Dim
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import round_up


@dataclass(frozen=True)
class Partials:
    """Split-K: the partial results of all tiles, [part][batch][row][column], in shared scratch."""
    c: TiledPhase

    @property
    def _part_size(self) -> Dim:
        return self.c.batches * self.c.m * self.c.n

    @property
    def _memory(self) -> View:
        return self.c.partials(self.c.schedule.splits * self._part_size)

    def store(self, tile: ContractionTile, part: TilePart, source: Source) -> None:
        """Sums of a tile's part of k."""
        c, f, memory = self.c, self.c.f, self._memory
        with f.loop(0, part.rows) as loop:
            row = part.row + loop.index
            start = ((tile.part * c.batches + tile.batch_number) * c.m + tile.row + row) * c.n + part.columns.flat
            vector_run(f, part.columns.length, c.schedule.lanes, lambda j, lanes, mask: f.store(
                memory, [start + j], source(row, part.column + j, lanes, mask), mask))

    def added(self, tile: ContractionTile) -> Source:
        """The parts of the sums of a tile, added in order."""
        c, f, memory = self.c, self.c.f, self._memory

        def source(row: Ix, column: Ix, lanes: int, mask: Val | None) -> Val:
            start = (tile.batch_number * c.m + tile.row + row) * c.n + tile.columns.flat + column
            total = f.load(memory, [start], lanes, mask)
            with f.loop(1, c.schedule.splits, carry=[total]) as loop:
                loop.next(f.add(loop.carried[0], f.load(memory, [start + loop.index * self._part_size], lanes, mask)))
            return loop.results[0]
        return source


class Accumulators(ABC):
    """The sums of one tile in scratch of the thread. Made inside of the loop over tiles."""

    def __init__(self, c: TiledPhase):
        self.c = c
        self.sums = c.f.scratch("sums", c.dtype, self.shape)

    @property
    def f(self) -> LoopFunction:
        return self.c.f

    @property
    def shape(self) -> tuple[int, Dim]:
        """Of the scratch: room for all sums of a tile."""
        return self.c.grid.padded_rows, self.c.schedule.width(self.c.phase)

    @abstractmethod
    def targets(self, block: SumBlock, at: MicroTile) -> Iterator[tuple[MicroTileSums, bool]]:
        """Opens the branches in which the micro-kernel adds to different memory: which it is in each, and whether it is
        known there that the tile has all rows and columns of the micro-tile.
        """

    def finish_micro_tile(self, block: SumBlock, at: MicroTile) -> None:
        """After the sums of a block of a micro-tile."""

    def finish_tile(self, tile: ContractionTile) -> None:
        """After all sums of a tile."""

    def _finish(self, tile: ContractionTile, part: TilePart, source: Source) -> None:
        """What becomes of sums of all of k, or of the tile's part of it."""
        store = Partials(self.c).store if self.c.schedule.is_split else self.c.sweep.store
        store(tile, part, source)


class BlockedAccumulators(Accumulators):
    """Sums are finished as soon as the last block is added, so that what the sweep waits for, and what its stores wait
    for, passes while the next micro-tile is computed.
    """

    def targets(self, block: SumBlock, at: MicroTile) -> Iterator[tuple[MicroTileSums, bool]]:
        self._prefetch(block, at)
        yield MicroTileSums(self._micro_tile(at), self.sums.shape[1], block.accumulate), False

    def _prefetch(self, block: SumBlock, at: MicroTile) -> None:
        """What the sweep reads and writes, with the last block of the sums; of gates with each."""
        c, contraction = self.c, self.c.contraction
        if contraction.fetches and not c.schedule.is_split:
            with self._with_last(block):
                c.sweep.prefetch(block.tile, at.row, at.mr, at.column, c.schedule.vectors)
        elif contraction.gates:
            c.sweep.prefetch(block.tile, at.row, at.mr, at.column, c.schedule.vectors)

    def _with_last(self, block: SumBlock) -> AbstractContextManager[object]:
        """What is written here runs with the last block only."""
        return self.f.if_(block.is_last) if block.is_last is not None else nullcontext()

    def _micro_tile(self, at: MicroTile) -> View:
        return self.sums.view_at([at.row, at.column], (1,), (1,))

    def _source(self, at: MicroTile) -> Source:
        return sums_in(self.f, self.sums)

    def finish_micro_tile(self, block: SumBlock, at: MicroTile) -> None:
        with self._with_last(block):
            self._finish_columns(block.tile, at)

    def _finish_columns(self, tile: ContractionTile, at: MicroTile) -> None:
        """The sums of a micro-tile, with those to the left of it that are finished together."""
        f, nr, together = self.f, self.c.schedule.blocking.nr, columns_together(self.c)
        rows = f.min_(at.mr, tile.rows - at.row)
        if together == nr:
            columns = part_of(f, tile.columns, at.column, nr)
            return self._finish(tile, TilePart(at.row, rows, at.column, columns), self._source(at))
        start = f.divmod(at.column, together)[0] * together
        end = f.min_(start + together, tile.columns.length)
        with f.if_(f.ge(f.value(at.column + nr), f.value(end))):
            columns = part_of(f, tile.columns, start, together)
            self._finish(tile, TilePart(at.row, rows, start, columns), self._source(at))


class MicroTileAccumulators(BlockedAccumulators):
    """The same for sums of one block, each micro-tile finished alone: all use the same memory."""

    @property
    def shape(self) -> tuple[int, int]:
        s = self.c.schedule
        return s.blocking.mr, s.blocking.nr

    def _micro_tile(self, at: MicroTile) -> View:
        return self.sums.view_at([0, 0], (1,), (1,))

    def _source(self, at: MicroTile) -> Source:
        return sums_in(self.f, self.sums, at.row, at.column)


class TileAccumulators(Accumulators):
    """All sums of a tile, finished at its end."""

    def targets(self, block: SumBlock, at: MicroTile) -> Iterator[tuple[MicroTileSums, bool]]:
        memory = self.sums.view_at([at.row, at.column], (1,), (1,))
        yield MicroTileSums(memory, self.sums.shape[1], block.accumulate), False

    def finish_tile(self, tile: ContractionTile) -> None:
        self._finish(tile, tile.whole, sums_in(self.f, self.sums))


class TransposedAccumulators(TileAccumulators):
    """The same where sums are transposed before they are stored: with room for whole vectors of rows."""

    @property
    def shape(self) -> tuple[int, Dim]:
        rows, columns = super().shape
        return round_up(rows, self.c.schedule.lanes), columns

    def finish_tile(self, tile: ContractionTile) -> None:
        if self.c.schedule.is_split:
            return super().finish_tile(tile)
        self.c.sweep.store_transposed(tile, self.sums)

    def add_partials(self, tile: ContractionTile) -> None:
        f, source = self.f, Partials(self.c).added(tile)
        with f.loop(0, tile.rows) as loop:
            vector_run(f, tile.columns.length, self.c.schedule.lanes, lambda j, lanes, mask: f.store(
                self.sums, [loop.index, j], source(loop.index, j, lanes, mask), mask))
        self.c.sweep.store_transposed(tile, self.sums)


class DirectStore(Accumulators):
    """The micro-kernel stores into the output, which is like a matrix; at its edges through scratch."""

    @property
    def shape(self) -> tuple[int, int]:
        s = self.c.schedule
        return s.blocking.mr, s.blocking.nr

    def targets(self, block: SumBlock, at: MicroTile) -> Iterator[tuple[MicroTileSums, bool]]:
        f, s, p, tile = self.f, self.c.schedule, self.c.phase, block.tile
        mr, nr, row_step = s.blocking.mr, s.blocking.nr, p.out.strides[p.m[-1]]
        rows, columns, out = tile.rows - at.row, tile.columns.length - at.column, self.c.outputs.flat
        start = offset(p.out, tile.batch | tile.columns.first) + at.global_row * row_step + at.column
        direct = MicroTileSums(out.view_at([start], (1,)), row_step, bounded=True)
        edges = [f.ge(f.value(rows), mr)] if self.c.m % mr != 0 and not s.has_edges else []
        edges += [f.ge(f.value(columns), nr)] if self.c.grid.has_column_tail else []
        if not edges:
            yield direct, True
            return
        with f.if_(edges[0] if len(edges) == 1 else f.and_(*edges)):
            yield direct, True
        with f.else_():
            yield MicroTileSums(f.reinterpret(self.sums, (1,), (1,)), nr), False
            with f.loop(0, at.mr if s.edge_mr else f.min_(rows, at.mr)) as loop:
                line = out.view_at([start + loop.index * row_step], (nr,))
                vector_run(f, f.min_(columns, nr), s.lanes, lambda j, lanes, mask: f.store(
                    line, [j], f.load(self.sums, [loop.index, j], lanes, mask), mask))


def accumulators(c: TiledPhase) -> Accumulators:
    """Those with the least memory that the schedule allows."""
    blocks = c.schedule.blocking.kc.count(c.k_sizes)
    if c.schedule.transposed_store:
        return TransposedAccumulators(c)
    if blocks == 1 and _is_matrix(c):
        return DirectStore(c)
    if c.share != 1 or columns_together(c) > c.schedule.blocking.nr:
        return BlockedAccumulators(c)
    return MicroTileAccumulators(c)


def _is_matrix(c: TiledPhase) -> bool:
    """Whether sums are stored as they are, in rows at equal distances."""
    p, split = c.phase, c.schedule.blocking.nc.split
    contiguous = c.epilogue is None and p.out.strides[p.n[-1]] == 1
    return contiguous and p.out.steps_evenly(p.m, p.sizes) and p.out.steps_evenly(p.n[split:], p.sizes)


def columns_together(c: TiledPhase) -> int:
    """Columns that are finished together: whole micro-tiles, and all that is inside the dim that is cut."""
    return lcm(c.schedule.blocking.nr, c.schedule.blocking.nc.inner(c.n_sizes))


def add_partials(c: TiledPhase, tile: ContractionTile) -> None:
    """Split-K: the partial results of a tile, added in order, are its sums."""
    if c.schedule.transposed_store:
        TransposedAccumulators(c).add_partials(tile)
    else:
        c.sweep.store(tile, tile.whole, Partials(c).added(tile))
