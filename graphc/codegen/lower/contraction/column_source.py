"""Where the micro-kernel reads its columns of b: one class for each packing mode, of which the loops know nothing."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contraction.micro_kernel import ColumnLayout, ColumnPanel
from graphc.codegen.lower.contraction.pack_columns import ColumnPacker, ColumnPanels, column_packer
from graphc.codegen.lower.contraction.prefetch import PackedRun
from graphc.codegen.lower.contraction.tile import ContractionTile, MicroTile, SumBlock, TiledPhase
from graphc.codegen.lower.ranges import Range, offset, open_range, unflatten
from graphc.ir.dims import static_dim
from graphc.records import dataclass
from graphc.schedule.blocking import Cut, PackingMode, at_most


@dataclass(frozen=True)
class ColumnSource(ABC):
    """The columns of b: `pack_once` is called before all tiles, `pack` in each KC block, `panel` at each NR columns."""
    c: TiledPhase

    def pack_once(self) -> None:
        """Packs all columns, unless that is done later or never."""

    @abstractmethod
    def pack(self, tile: ContractionTile, k: Range) -> View:
        """The memory in which `panel` finds the columns of a tile in a KC block; packed there if nobody else does."""

    @abstractmethod
    def panel(self, block: SumBlock, column: Ix) -> ColumnPanel:
        """NR columns of a tile, from `column` on."""

    def share(self) -> Ix:
        """Elements of the next panel that each micro-tile prefetches."""
        return Ix()

    def cases(self, panel: ColumnPanel, block: SumBlock, at: MicroTile, whole: bool) -> Iterator[ColumnPanel]:
        """Opens the branches in which the micro-kernel reads columns differently: what it is called with in each.
        whole: the tile is known to have all of the columns.
        """
        yield panel

    def packed_runs(self, tile: ContractionTile) -> list[PackedRun]:
        """What the tile packs next, if that are runs of memory."""
        return []


class UnpackedColumns(ColumnSource):
    """Vectors from their place in memory, the last ones under a mask."""

    def pack(self, tile: ContractionTile, k: Range) -> View:
        return self.c.b

    def panel(self, block: SumBlock, column: Ix) -> ColumnPanel:
        p = self.c.phase
        start = offset(p.b, block.tile.batch | block.tile.columns.first | block.k.first)
        return ColumnPanel(block.b.view_at([start + column], (1,)), ColumnLayout(p.b.strides[p.k[-1]]))

    def cases(self, panel: ColumnPanel, block: SumBlock, at: MicroTile, whole: bool) -> Iterator[ColumnPanel]:
        f, n, nr = self.c.f, self.c.n, self.c.schedule.blocking.nr
        if whole or n % nr == 0:
            yield panel
            return
        left = block.tile.columns.length - at.column
        masked = replace(panel, layout=replace(panel.layout, masked=True), count=left)
        if isinstance(n, int) and n < nr:
            yield masked
            return
        with f.if_(f.ge(f.value(left), nr)):
            yield panel
        with f.else_():
            yield replace(masked, count=f.min_(left, nr))


class PackedColumns(ColumnSource):
    """Panels of NR columns."""

    @property
    def layout(self) -> ColumnLayout:
        return ColumnLayout(self.packer.width)

    @property
    def packer(self) -> ColumnPacker:
        return column_packer(self.c)

    def panel(self, block: SumBlock, column: Ix) -> ColumnPanel:
        panels = self._panels(block.tile, block.k, block.b)
        return ColumnPanel(panels.memory.view_at([panels.at(self.c.f, column)], (1,)), self.layout)

    @abstractmethod
    def _panels(self, tile: ContractionTile, k: Range, memory: View) -> ColumnPanels:
        """Where a tile has its columns in a KC block."""


class ColumnsPackedOnce(PackedColumns):
    """All columns, tile after tile, packed by a parallel loop before all tiles."""

    @property
    def layout(self) -> ColumnLayout:
        s = self.c.schedule
        return ColumnLayout(self.packer.width, prefetch_lines=s.prefetch_lines, last_lines=s.last_lines)

    @property
    def _memory(self) -> View:
        c = self.c
        return c.packed("b", c.batches * self.c.grid.across * c.schedule.width(c.phase) * c.k)

    def pack_once(self) -> None:
        """Some steps of k for the columns of one tile after the other; packed_in_runs: a few for those of all tiles."""
        c, f, p, s, memory = self.c, self.c.f, self.c.phase, self.c.schedule, self._memory
        steps = self.packer.steps
        cut = Cut(0, static_dim(c.n)) if s.packed_in_runs else s.blocking.nc
        tiles, blocks = 1 if s.packed_in_runs else self.c.grid.across, steps.count(c.k_sizes)
        with f.parallel(c.batches * tiles * blocks, "pack_b") as t:
            number, block = f.divmod(t, blocks)
            batch_number, across = f.divmod(number, tiles)
            batch = unflatten(f, batch_number, p.batch, c.sizes)
            columns = open_range(f, p.n, c.n_sizes, cut, across)
            k = open_range(f, p.k, c.k_sizes, steps, block)
            self.packer.pack(batch, columns, k, self._panels_of(batch_number * self.c.grid.across + across, k, memory))

    def pack(self, tile: ContractionTile, k: Range) -> View:
        return self._memory

    def _panels(self, tile: ContractionTile, k: Range, memory: View) -> ColumnPanels:
        return self._panels_of(tile.batch_number * self.c.grid.across + tile.column_number, k, memory)

    def _panels_of(self, number: Ix, k: Range, memory: View) -> ColumnPanels:
        """`number`: of the tile's columns, counted over batches."""
        c, width = self.c, self.packer.width
        start = number * (c.schedule.width(c.phase) * c.k) + k.flat * width
        return ColumnPanels(memory, start, width, width * c.k, private=False)

    def share(self) -> Ix:
        """All micro-tiles together one panel, however few rows a tile has."""
        c, s = self.c, self.c.schedule
        panel = s.blocking.nr * s.blocking.kc.length(c.k_sizes)
        if isinstance(c.m, int):
            return Ix(-(-panel // -(-c.grid.rows // s.blocking.mr)))
        return c.f.divmod(panel, c.grid.whole_panels)[0] if s.prefetch_lines else Ix()

    def cases(self, panel: ColumnPanel, block: SumBlock, at: MicroTile, whole: bool) -> Iterator[ColumnPanel]:
        """Prefetches of the next panel of the tile; of the last panel the next block of the sum."""
        c, s = self.c, self.c.schedule
        if not s.prefetch_lines:
            yield panel
            return
        mr, nr = s.blocking.mr, s.blocking.nr
        number, distance = c.f.divmod(at.row, mr)[0], self._next_panel(block, at) * nr
        yield replace(panel, next=c.f.product(number, block.share) + distance, row=at.row)

    def _next_panel(self, block: SumBlock, at: MicroTile) -> Ix:
        """Steps from a panel of a block to that which the thread reads next. Behind the last block of the sum lies the
        next panel, and behind the last panel of a tile the next tile."""
        c, f, nr = self.c, self.c.f, self.c.schedule.blocking.nr
        width = c.schedule.width(c.phase)
        if width == nr:
            return block.k.length
        if not isinstance(width, int) or not isinstance(c.k, int) or c.schedule.blocking.kc.count(c.k_sizes) == 1:
            return as_ix(c.k)
        last = width // nr - 1
        on = f.min_(last - f.divmod(at.column, nr)[0], 1)        # 0: the last panel
        return f.product(on, c.k * (last + 1) - block.k.length) + block.k.length - c.k * last


class ColumnsPackedPerTile(PackedColumns):
    """Those of a tile in a KC block, in scratch of the thread."""

    def pack(self, tile: ContractionTile, k: Range) -> View:
        c, s = self.c, self.c.schedule
        size = s.width(c.phase) * s.blocking.kc.length(c.k_sizes) + s.lanes
        memory = c.f.scratch("packed_b", self.packer.dtype, (size,))
        self.packer.pack(tile.batch, tile.columns, k, self._panels(tile, k, memory))
        return memory

    def _panels(self, tile: ContractionTile, k: Range, memory: View) -> ColumnPanels:
        width, longest = self.packer.width, self.c.schedule.blocking.kc.length(self.c.k_sizes)
        return ColumnPanels(memory, Ix(), width, width * longest, private=True)

    def packed_runs(self, tile: ContractionTile) -> list[PackedRun]:
        if not self.packer.reads_runs:
            return []
        c, s, chunk = self.c, self.c.schedule, self.c.schedule.blocking.nc.chunk
        advance = chunk if s.by_rows or self.c.grid.down == 1 else 0
        return [PackedRun(c.b, c.phase.b, tile.batch, tile.columns.start, at_most(chunk, c.n), advance)]


COLUMN_SOURCES: dict[PackingMode, type[ColumnSource]] = {
    PackingMode.UNPACKED: UnpackedColumns, PackingMode.ONCE: ColumnsPackedOnce,
    PackingMode.PER_TILE: ColumnsPackedPerTile}
