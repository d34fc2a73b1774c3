"""Contractions by micro-tiles: Goto's five loops around a micro-kernel (Goto and van de Geijn, Anatomy of
high-performance matrix multiplication, 2008), with the names that BLIS gives to the sizes of their blocks.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.accumulators import Accumulators, accumulators, add_partials
from graphc.codegen.lower.contraction.any_rows import call_for_rows
from graphc.codegen.lower.contraction.column_source import COLUMN_SOURCES, ColumnSource
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnPanel, MicroTileShape, MicroTileSums, RowPanel, call_micro_kernel)
from graphc.codegen.lower.contraction.prefetch import prefetch_next_block
from graphc.codegen.lower.contraction.row_source import ROW_SOURCES, RowSource
from graphc.codegen.lower.contraction.tile import ContractionTile, MicroTile, RowPanelCount, SumBlock, TiledPhase
from graphc.codegen.lower.ranges import open_range


class TiledContraction(TiledPhase):
    """The loops, from the outermost to the innermost:

        parallel_tiles   jc, ic   tiles of MC × NC elements of the output; with split-K, parts of their sums
        k_blocks         pc       blocks of KC steps of the sum of a tile
        column_panels    jr       panels of NR columns of the block
        row_panels       ir       panels of MR rows of the block
        micro_tile                MR × NR sums: one call of the micro-kernel, which loops over the KC steps

    A schedule by lines has the loops jr and ir the other way round (`lines`).

    Tiles come first, because threads share nothing but them: BLIS has the loop pc around ic, so that all threads use
    one packed block of b, and wait for each other after each block.
    """

    def run(self) -> None:
        """What is packed once, then the loops; with split-K, another loop over tiles adds their partial results."""
        for role, source in self.sources.items():
            if role != self.contraction.prepacked_role:
                source.pack_once()
        self.parallel_tiles()
        if self.schedule.is_split:
            self.add_partials()

    def parallel_tiles(self) -> None:
        """Tiles in any order on any threads; each keeps its sums in `sums` until they are finished."""
        f, splits = self.f, self.schedule.splits
        with f.parallel(self.grid.count * splits, "tiles") as t:
            number, part = f.divmod(t, splits)
            tile = self.grid.open(number, part)
            sums = self.accumulators()
            self.k_blocks(tile, sums)
            sums.finish_tile(tile)

    def k_blocks(self, tile: ContractionTile, sums: Accumulators) -> None:
        """The blocks of a tile's part of the sum, in order. What each tile packs for itself is packed here."""
        f, kc = self.f, self.schedule.blocking.kc
        blocks, share = kc.count(self.k_sizes), self.share
        first = tile.part * share
        end = first + share if blocks % share == 0 else f.min_(first + share, blocks)
        with f.loop(first, end) as loop:
            k = open_range(f, self.phase.k, self.k_sizes, kc, loop.index)
            a, b = self.rows.pack(tile, k), self.columns.pack(tile, k)
            accumulate = f.min_(loop.index - first, 1) if share != 1 else Ix()
            is_last = f.eq(f.value(loop.index + 1), f.value(end)) if share != 1 else None
            block = SumBlock(tile, k, a, b, accumulate, is_last, self.columns.share())
            (self.lines if self.schedule.by_lines else self.column_panels)(block, sums)

    def column_panels(self, block: SumBlock, sums: Accumulators) -> None:
        """A panel of columns stays in L1 while all rows of the tile pass by it."""
        f, nr = self.f, self.schedule.blocking.nr
        rows = self.grid.row_panels(block.tile)
        with f.loop(0, block.tile.columns.length, nr) as loop:
            self.row_panels(block, sums, rows, loop.index, self.columns.panel(block, loop.index))

    def row_panels(self, block: SumBlock, sums: Accumulators, rows: RowPanelCount, column: Ix, b: ColumnPanel) -> None:
        """The last rows of all may have a micro-kernel of their own."""
        f, mr = self.f, self.schedule.blocking.mr
        with f.loop(0, rows.end, mr) as loop:
            at = MicroTile(loop.index, column, block.tile.row + loop.index, mr)
            self.prefetch(block, at)
            self.micro_tile(block, sums, at, b)
        if self.schedule.edge_mr:
            with f.if_(f.gt(f.value(rows.edge), 0)):
                self.micro_tile(block, sums, self.grid.edge(block.tile, rows, column), b)

    def lines(self, block: SumBlock, sums: Accumulators) -> None:
        """A panel of rows stays in L1 while all columns of the tile pass by it: what is stored lies in long runs."""
        f, mr = self.f, self.schedule.blocking.mr
        rows = self.grid.row_panels(block.tile)
        with f.loop(0, rows.end, mr) as loop:
            self.line(block, sums, lambda column: MicroTile(loop.index, column, block.tile.row + loop.index, mr))
        if self.schedule.edge_mr:
            with f.if_(f.gt(f.value(rows.edge), 0)):
                self.line(block, sums, lambda column: self.grid.edge(block.tile, rows, column))

    def line(self, block: SumBlock, sums: Accumulators, at: Callable[[Ix], MicroTile]) -> None:
        with self.f.loop(0, block.tile.columns.length, self.schedule.blocking.nr) as loop:
            here = at(loop.index)
            self.prefetch(block, here)
            self.micro_tile(block, sums, here, self.columns.panel(block, loop.index))

    def micro_tile(self, block: SumBlock, sums: Accumulators, at: MicroTile, b: ColumnPanel) -> None:
        self.add_products(block, sums, at, b)
        sums.finish_micro_tile(block, at)

    def add_products(self, block: SumBlock, sums: Accumulators, at: MicroTile, b: ColumnPanel) -> None:
        """Each `for` opens the branches of one operand: usually it has a single trip, and there is no branch."""
        a = self.rows.panels(block, at)
        for c, is_whole in sums.targets(block, at):
            for columns in self.columns.cases(b, block, at, is_whole):
                for rows in self.rows.cases(a, at):
                    self.multiply(block, at, rows, columns, c)

    def multiply(self, block: SumBlock, at: MicroTile, a: RowPanel, b: ColumnPanel, c: MicroTileSums) -> None:
        """One call of a micro-kernel. Of rows whose number comes with the call any number may be left."""
        f, s = self.f, self.schedule
        shape = MicroTileShape(at.mr, s.vectors, s.lanes, self.fused, s.busy)
        if s.any_edge:
            call_for_rows(f, shape, block.tile.rows - at.row, a, b, c, block.k.length)
        else:
            call_micro_kernel(f, shape, a, b, c, block.k.length)

    def add_partials(self) -> None:
        with self.f.parallel(self.grid.count, "add") as t:
            add_partials(self, self.grid.open(t, Ix()))

    # ---- what the loops ask

    @cached_property
    def rows(self) -> RowSource:
        return ROW_SOURCES[self.schedule.a](self)

    @cached_property
    def columns(self) -> ColumnSource:
        return COLUMN_SOURCES[self.schedule.b](self)

    @property
    def sources(self) -> dict[str, RowSource | ColumnSource]:
        return {"a": self.rows, "b": self.columns}

    def accumulators(self) -> Accumulators:
        return accumulators(self)

    def prefetch(self, block: SumBlock, at: MicroTile) -> None:
        """Prefetches a share of what the next block packs."""
        prefetch_next_block(self, block, self.rows.packed_runs(block.tile) + self.columns.packed_runs(block.tile), at)

    def prepack(self) -> None:
        self.sources[self.contraction.prepacked_role].pack_once()
