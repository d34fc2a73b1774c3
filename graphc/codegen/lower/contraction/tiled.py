"""Contractions by micro-tiles: Goto's five loops around a micro-kernel (Goto and van de Geijn, Anatomy of high-performance matrix
multiplication, 2008), with the names that BLIS gives to the sizes of their blocks.
"""
from __future__ import annotations

from functools import cached_property

from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.accumulators import Accumulators, Partials, TransposedAccumulators, accumulators
from graphc.codegen.lower.contraction.column_source import COLUMN_SOURCES, ColumnSource
from graphc.codegen.lower.contraction.micro_kernel import ColumnPanel, MicroTileShape, call_micro_kernel
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.contraction.prefetch import has_next_block, prefetch_next_block
from graphc.codegen.lower.contraction.row_source import ROW_SOURCES, RowSource
from graphc.codegen.lower.contraction.sweep import Sweep
from graphc.codegen.lower.contraction.tile import ContractionTile, MicroTile, RowPanelCount, SumBlock, TileGrid
from graphc.codegen.lower.ranges import open_range


class TiledContraction(PhaseLowering):
    """The loops, from the outermost to the innermost:

        parallel_tiles   jc, ic   tiles of MC × NC elements of the output, in parallel; with split-K, parts of their sums
        k_blocks         pc       KC steps of the sum of a tile; what is packed per tile is packed here
        column_panels    jr       NR columns of the block
        row_panels       ir       MR rows of the block
        micro_tile                MR × NR sums: one call of the micro-kernel, which loops over the KC steps

    Tiles come first, because threads share nothing but them: BLIS has the loop pc around ic, so that all threads use one packed block
    of b, and wait for each other after each block.
    """

    def run(self) -> None:
        for role, source in (("a", self.a_source), ("b", self.b_source)):
            if role != self.contraction.ready:
                source.pack_once()
        self.parallel_tiles()
        if self.schedule.splits > 1:
            self.add_partials()

    def parallel_tiles(self) -> None:
        f, splits = self.f, self.schedule.splits
        with f.parallel(self.grid.count * splits, "tiles") as t:
            number, part = f.divmod(t, splits)
            tile = self.grid.open(number, part)
            sums = self.accumulators()
            self.k_blocks(tile, sums)
            sums.finish_tile(tile)

    def k_blocks(self, tile: ContractionTile, sums: Accumulators) -> None:
        f, kc = self.f, self.schedule.blocking.kc
        blocks = kc.count(self.k_sizes)
        share = -(-blocks // self.schedule.splits)
        first = tile.part * share
        end = first + share if blocks % share == 0 else f.min_(first + share, blocks)
        with f.loop(first, end) as loop:
            k = open_range(f, self.phase.k, self.k_sizes, kc, loop.index)
            a, b = self.a_source.pack(tile, k), self.b_source.pack(tile, k)
            accumulate = f.min_(loop.index - first, 1) if share > 1 else Ix()
            is_last = f.eq(f.value(loop.index + 1), f.value(end)) if share > 1 else None
            self.column_panels(SumBlock(tile, k, a, b, accumulate, is_last), sums)

    def column_panels(self, block: SumBlock, sums: Accumulators) -> None:
        f, nr = self.f, self.schedule.blocking.nr
        rows = self.grid.row_panels(block.tile)
        with f.loop(0, block.tile.columns.length, nr) as loop:
            self.row_panels(block, sums, rows, loop.index, self.b_source.panel(block, loop.index))

    def row_panels(self, block: SumBlock, sums: Accumulators, rows: RowPanelCount, column: Ix, b: ColumnPanel) -> None:
        f, mr, edge_mr = self.f, self.schedule.blocking.mr, self.schedule.edge_mr
        with f.loop(0, rows.end, mr) as loop:
            at = MicroTile(loop.index, column, block.tile.row + loop.index, mr)
            self.prefetch(block, at)
            self.micro_tile(block, sums, at, b)
        if edge_mr:
            with f.if_(f.gt(f.value(rows.edge), 0)):
                row = f.min_(rows.whole, self.schedule.blocking.mc // mr - 1) * mr      # minima for the verifier: see RowPanelCount
                self.micro_tile(block, sums, MicroTile(row, column, f.min_(block.tile.row + row, self.m - edge_mr), edge_mr), b)

    def micro_tile(self, block: SumBlock, sums: Accumulators, at: MicroTile, b: ColumnPanel) -> None:
        """Each loop opens the branches of one operand: usually it has a single trip, and there is no branch."""
        a = self.a_source.panel(block, at)
        for c, whole in sums.targets(block, at):
            for columns in self.b_source.cases(b, block, at, whole):
                for rows in self.a_source.cases(a, at):
                    call_micro_kernel(self.f, self.shape(at), rows, columns, c, block.k.length)
        sums.finish_micro_tile(block, at)

    # ---- what the loops ask

    @cached_property
    def grid(self) -> TileGrid:
        return TileGrid(self.f, self.phase, self.schedule)

    @cached_property
    def a_source(self) -> RowSource:
        return ROW_SOURCES[self.schedule.a](self, self.grid)

    @cached_property
    def b_source(self) -> ColumnSource:
        return COLUMN_SOURCES[self.schedule.b](self, self.grid)

    def accumulators(self) -> Accumulators:
        return accumulators(self, self.grid)

    def shape(self, at: MicroTile) -> MicroTileShape:
        return MicroTileShape(at.mr, self.schedule.vectors, self.schedule.lanes, self.fused)

    def prefetch(self, block: SumBlock, at: MicroTile) -> None:
        """Of what the next block packs."""
        if has_next_block(self, self.grid):
            runs = self.a_source.packed_runs(block.tile) + self.b_source.packed_runs(block.tile)
            prefetch_next_block(self, self.grid, block, runs, at)

    def prepack(self) -> None:
        {"a": self.a_source, "b": self.b_source}[self.contraction.ready].pack_once()

    def add_partials(self) -> None:
        """Split-K: the partial results of each tile, added in order, are its sums."""
        with self.f.parallel(self.grid.count, "add") as t:
            tile = self.grid.open(t, Ix())
            if self.schedule.transposed_store:
                TransposedAccumulators(self, self.grid).add_partials(tile)
            else:
                Sweep(self.outputs, self.schedule.lanes, self.contraction.gates).store(tile, tile.whole, Partials(self).added(tile))
