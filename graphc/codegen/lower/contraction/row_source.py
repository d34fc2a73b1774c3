"""Where the micro-kernel reads its rows of a: one class for each packing mode, of which the loops know nothing."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from math import prod

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contraction.micro_kernel import RowLayout, RowPanel
from graphc.codegen.lower.contraction.pack_rows import RowPacker, RowPanels, row_offset, row_packer
from graphc.codegen.lower.contraction.prefetch import PackedRun
from graphc.codegen.lower.contraction.tile import ContractionTile, MicroTile, SumBlock, TiledPhase
from graphc.codegen.lower.ranges import Range, offset, open_range, unflatten
from graphc.ir.dims import Dim, ceil_div, static_dim
from graphc.ir.size_proofs import is_nonnegative
from graphc.records import dataclass
from graphc.schedule.blocking import PackingMode
from graphc.schedule.contraction_schedule import MAX_TAPS, packed_row_panels
from graphc.schedule.tile_sizes import linear_from


@dataclass(frozen=True)
class RowSource(ABC):
    """The rows of a: `pack_once` is called before all tiles, `pack` in each KC block, `panels` at each micro-tile."""
    c: TiledPhase

    def pack_once(self) -> None:
        """Packs all rows, unless that is done later or never."""

    @abstractmethod
    def pack(self, tile: ContractionTile, k: Range) -> View:
        """The memory in which `panels` finds the rows of a tile in a KC block; packs them there if nobody else does."""

    @abstractmethod
    def panels(self, block: SumBlock, at: MicroTile) -> tuple[RowPanel, ...]:
        """The rows of a micro-tile, in each way in which they may be read."""

    def cases(self, panels: tuple[RowPanel, ...], at: MicroTile) -> Iterator[RowPanel]:
        """Opens the branches in which the micro-kernel reads rows differently: what it is called with in each."""
        yield from panels

    def packed_runs(self, tile: ContractionTile) -> list[PackedRun]:
        """What the tile packs next, if that are runs of memory."""
        return []


class UnpackedRows(RowSource):
    """Each element is broadcast from its place in memory."""

    @property
    def layout(self) -> RowLayout:
        return RowLayout(self.c.phase.a.strides[self.c.phase.k[-1]], scattered=True, even=self._even)

    @property
    def _even(self) -> bool:
        """Whether rows are told by their distance: of any number of them each would need an argument."""
        p = self.c.phase
        return (self.c.schedule.any_edge and p.a.steps_evenly(p.m, p.sizes)
                and is_nonnegative(p.a.strides[p.m[-1]]))

    def pack(self, tile: ContractionTile, k: Range) -> View:
        return self.c.a

    def panels(self, block: SumBlock, at: MicroTile) -> tuple[RowPanel, ...]:
        clamped = self.c.grid.has_row_tail and not self.c.schedule.edge_mr
        base = offset(self.c.phase.a, block.tile.batch | block.k.first)
        if self._even:
            first = row_offset(self.c, at.global_row, False) + base
            return RowPanel(self.c.a, self.layout, (first, as_ix(self.c.phase.a.strides[self.c.phase.m[-1]]))),
        rows = tuple([row_offset(self.c, at.global_row + i, clamped) + base for i in range(at.mr)])
        return RowPanel(self.c.a, self.layout, rows),


class TapRows(UnpackedRows):
    """The same for a short sum, whose terms lie at offsets that the micro-kernel knows."""

    @property
    def layout(self) -> RowLayout:
        p, counts = self.c.phase, [static_dim(n) for n in self.c.k_sizes]
        steps = [p.a.strides[d] for d in p.k]
        if prod(counts) > MAX_TAPS:         # neighbours are one run
            first = linear_from(p.a, p, p.k)
            counts, steps = [*counts[:first], prod(counts[first:])], [*steps[:first], steps[-1]]
        return replace(super().layout, taps=tuple(zip(counts, steps)))


class PackedRows(RowSource):
    """Panels of MR rows."""

    @property
    def mr(self) -> int:
        return self.c.schedule.blocking.mr

    @property
    def layout(self) -> RowLayout:
        return RowLayout(self.mr)

    @property
    def packer(self) -> RowPacker:
        return row_packer(self.c)


class RowsPackedOnce(PackedRows):
    """All rows, one panel after the other, packed by a parallel loop before all tiles."""

    @property
    def _panels(self) -> Dim:
        return packed_row_panels(self.c.m, self.c.schedule)

    @property
    def panel_step(self) -> Dim:
        return self.mr * self.c.k

    @property
    def _memory(self) -> View:
        return self.c.packed("a", self.c.batches * self._panels * self.panel_step)

    def pack_once(self) -> None:
        """A tile packs some steps of k of some panels."""
        c, f, p, mr, panels, memory = self.c, self.c.f, self.c.phase, self.mr, self._panels, self._memory
        group, steps = self.packer.together(panels)
        blocks = steps.count(c.k_sizes)
        groups = ceil_div(panels, group)
        with f.parallel(c.batches * groups * blocks, "pack_a") as t:
            rest, block = f.divmod(t, blocks)
            batch_number, number = f.divmod(rest, groups)
            batch = unflatten(f, batch_number, p.batch, c.sizes)
            row = number * (group * mr)
            rows = group * mr if panels % group == 0 else f.min_(group * mr, panels * mr - row)
            k = open_range(f, p.k, c.k_sizes, steps, block)
            start = (batch_number * panels + number * group) * self.panel_step + k.flat * mr
            self.packer.pack(batch, row, as_ix(rows), k, RowPanels(memory, start, self.panel_step))

    def pack(self, tile: ContractionTile, k: Range) -> View:
        return self._memory

    def panels(self, block: SumBlock, at: MicroTile) -> tuple[RowPanel, ...]:
        start = block.tile.batch_number * (self._panels * self.panel_step) + block.k.flat * self.mr
        number, _ = self.c.f.divmod(at.global_row, self.mr)
        return RowPanel(block.a.view_at([start + number * self.panel_step], (1,)), self.layout),


class RowsPackedPerTile(PackedRows):
    """Those of a tile in a KC block, in scratch of the thread."""

    @property
    def _longest(self) -> Dim:
        """Steps of the longest block."""
        return self.c.schedule.blocking.kc.length(self.c.k_sizes)

    @property
    def panel_step(self) -> Dim:
        return self.mr * self._longest

    def _scratch(self) -> View:
        return self.c.f.scratch("packed_a", self.c.a.dtype, (self.c.grid.padded_rows * self._longest,))

    def pack(self, tile: ContractionTile, k: Range) -> View:
        memory = self._scratch()
        self.packer.pack(tile.batch, tile.row, tile.rows, k, RowPanels(memory, Ix(), self.panel_step))
        return memory

    def panels(self, block: SumBlock, at: MicroTile) -> tuple[RowPanel, ...]:
        return RowPanel(block.a.view_at([at.row * self._longest], (1,)), self.layout),

    def packed_runs(self, tile: ContractionTile) -> list[PackedRun]:
        if not self.packer.reads_runs:
            return []
        s, linear = self.c.schedule, self.c.phase.a
        advance = 0 if s.by_rows and self.c.grid.across > 1 else s.blocking.mc
        return [PackedRun(self.c.a, linear, tile.batch, tile.row, self.c.grid.rows, advance)]


class RowsPackedByFirstUse(RowsPackedPerTile):
    """The same, packed on the way by the micro-tiles of a tile's first columns, which read rows unpacked."""

    def pack(self, tile: ContractionTile, k: Range) -> View:
        return self._scratch()

    def panels(self, block: SumBlock, at: MicroTile) -> tuple[RowPanel, ...]:
        packed, = super().panels(block, at)
        unpacked, = UnpackedRows(self.c).panels(block, at)
        layout = replace(unpacked.layout, packs=self.mr)
        return replace(unpacked, layout=layout, packed=packed.memory), packed

    def cases(self, panels: tuple[RowPanel, ...], at: MicroTile) -> Iterator[RowPanel]:
        f, (first, later) = self.c.f, panels
        with f.if_(f.eq(f.value(at.column), 0)):
            yield first
        with f.else_():
            yield later


ROW_SOURCES: dict[PackingMode, type[RowSource]] = {
    PackingMode.UNPACKED: UnpackedRows, PackingMode.TAPS: TapRows, PackingMode.ONCE: RowsPackedOnce,
    PackingMode.PER_TILE: RowsPackedPerTile, PackingMode.BY_FIRST_USE: RowsPackedByFirstUse}
