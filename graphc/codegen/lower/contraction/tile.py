"""What the five loops count: tiles of the output, blocks of the sum, micro-tiles."""
from __future__ import annotations

from functools import cached_property

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.contraction.sweep import OutputTile, Sweep
from graphc.codegen.lower.ranges import Range, open_range, unflatten
from graphc.ir.dims import Dim, ceil_div, largest, smallest, static_dim
from graphc.records import dataclass
from graphc.schedule.blocking import at_most
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import TileSchedule, group_sizes, round_up


@dataclass(frozen=True)
class ContractionTile(OutputTile):
    """A tile of MC × NC elements of the output, or less at its edges; `part` of the sum (split-K)."""
    batch_number: Ix = Ix()
    column_number: Ix = Ix()
    part: Ix = Ix()


@dataclass(frozen=True)
class SumBlock:
    """A KC block of the sum of a tile. a, b: the memory from which the micro-kernel reads its operands.

    accumulate: whether it is added to the blocks before it (0 or 1); is_last: whether it is the last one, None if it is
    the only one. share: of a panel of columns, the elements that a micro-tile prefetches.
    """
    tile: ContractionTile
    k: Range
    a: View
    b: View
    accumulate: Ix
    is_last: Val | None
    share: Ix


@dataclass(frozen=True)
class MicroTile:
    """`mr` rows from `row` and the columns from `column` of a tile; global_row: the row counted over all tiles."""
    row: Ix
    column: Ix
    global_row: Ix
    mr: int


@dataclass(frozen=True)
class RowPanelCount:
    """The rows of a tile as panels of MR rows: `end`, where the loop over them ends.

    If the last rows of all have a micro-kernel of their own: `whole` panels before these, and how many they are in this
    tile. Only the last tile has any, which the loop IR's verifier does not know.
    """
    end: Ix
    whole: Ix = Ix()
    edge: Ix = Ix()


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a phase."""
    f: LoopFunction
    phase: Phase[Dim]
    schedule: TileSchedule

    @property
    def _m(self) -> Dim:
        return self.phase.extent(self.phase.m)

    @property
    def down(self) -> Dim:
        """Tiles below each other."""
        s = self.schedule
        cut, blocking = s.transposed_store, s.blocking
        if blocking.shares:
            return blocking.shares.down(self._m, blocking.mr, blocking.mc)
        return cut.count(group_sizes(self.phase, self.phase.m)) if cut else ceil_div(self._m, blocking.mc)

    @property
    def across(self) -> Dim:
        """Tiles beside each other."""
        return self.schedule.blocking.nc.count(group_sizes(self.phase, self.phase.n))

    @property
    def count(self) -> Dim:
        return self.phase.extent(self.phase.batch) * self.down * self.across

    @property
    def rows(self) -> int:
        """Rows of the tallest tile."""
        return at_most(self.schedule.blocking.mc, self._m)

    @property
    def padded_rows(self) -> int:
        """The same in whole micro-tiles."""
        return round_up(self.rows, self.schedule.blocking.mr)

    @property
    def whole_panels(self) -> Dim:
        """Micro-tiles of the tallest tile, without one of fewer rows, but one at least."""
        mr = self.schedule.blocking.mr
        return largest(1, smallest(self._m // mr, self.padded_rows // mr))

    @property
    def has_row_tail(self) -> bool:
        """Whether a micro-tile may reach past the last row."""
        blocking, transposed = self.schedule.blocking, self.schedule.transposed_store
        return self._m % blocking.mr != 0 or transposed is not None and blocking.mc % blocking.mr != 0

    @property
    def has_column_tail(self) -> bool:
        """Whether the columns of some tile are not whole micro-tiles."""
        blocking, sizes = self.schedule.blocking, group_sizes(self.phase, self.phase.n)
        cut, inner = blocking.nc, blocking.nc.inner(sizes)
        return sizes[cut.split] * inner % blocking.nr != 0 or cut.chunk * inner % blocking.nr != 0

    def open(self, number: Ix, part: Ix) -> ContractionTile:
        """Tile `number`. Tiles that share rows of a, or columns of b, follow each other."""
        f, s, p = self.f, self.schedule, self.phase
        number, inner = f.divmod(number, self.across if s.by_rows else self.down)
        batch_number, outer = self._batch_of(number, self.down if s.by_rows else self.across)
        down, across = (outer, inner) if s.by_rows else (inner, outer)
        batch = unflatten(f, batch_number, p.batch, p.sizes)
        columns = open_range(f, p.n, group_sizes(p, p.n), s.blocking.nc, across)
        if s.transposed_store:
            rows = open_range(f, p.m, group_sizes(p, p.m), s.transposed_store, down)
            return ContractionTile(batch, rows.flat, rows.length, columns, rows, batch_number, across, part)
        row, count = self._even_rows(down) if s.blocking.shares else self._rows(down)
        return ContractionTile(batch, row, count, columns, None, batch_number, across, part)

    def _rows(self, down: Ix) -> tuple[Ix, Ix]:
        """The first row of the tiles at this height, and how many these have."""
        mc = self.schedule.blocking.mc
        row = down * mc
        return row, as_ix(mc if self._m % mc == 0 else self.f.min_(mc, self._m - row))

    def _even_rows(self, down: Ix) -> tuple[Ix, Ix]:
        """The same of even shares of micro-tiles, of which the first tiles have one more than the others. The extrema
        are for the verifier: they change nothing."""
        f, mr, mc = self.f, self.schedule.blocking.mr, self.schedule.blocking.mc
        each, more = f.divmod(ceil_div(self._m, mr), self.down)
        before = f.min_(down, more)
        row = f.min_((f.product(down, each) + before) * mr, self._m - (1 if self.has_row_tail else mr))
        panels = f.max_(each + f.min_(more - before, 1), 1)
        return row, f.min_(panels * mr, mc, self._m - row)

    def _batch_of(self, number: Ix, tiles: Dim) -> tuple[Ix, Ix]:
        """The batch entry, and the number in it, where each has so many. Of a single one nothing is divided by numbers
        that are known only when the kernel runs: there is the less to prove."""
        if self.phase.batch or isinstance(tiles, int):
            return self.f.divmod(number, tiles)
        return Ix(), number

    def row_panels(self, tile: ContractionTile) -> RowPanelCount:
        mr = self.schedule.blocking.mr
        if not self.schedule.edge_mr:
            return RowPanelCount(tile.rows)
        whole, edge = self.f.divmod(tile.rows, mr)
        return RowPanelCount(whole * mr, whole, edge)

    def edge(self, tile: ContractionTile, rows: RowPanelCount, column: Ix) -> MicroTile:
        """Its minima are for the verifier: where it is computed they change nothing."""
        f, mr, edge_mr = self.f, self.schedule.blocking.mr, self.schedule.edge_mr
        row = f.min_(rows.whole, self.schedule.blocking.mc // mr - 1) * mr
        return MicroTile(row, column, f.min_(tile.row + row, self._m - edge_mr), edge_mr)


class TiledPhase(PhaseLowering[TileSchedule]):
    """A phase by micro-tiles, as those see it that do a part of the work."""

    @cached_property
    def grid(self) -> TileGrid:
        return TileGrid(self.f, self.phase, self.schedule)

    @cached_property
    def share(self) -> Dim:
        """Blocks of the sum in each part of it."""
        s = self.schedule
        blocks = s.blocking.kc.count(self.k_sizes)
        return s.part_blocks or (ceil_div(blocks, static_dim(s.splits)) if s.is_split else blocks)

    @cached_property
    def sweep(self) -> Sweep:
        return self.sweep_by(self.schedule.lanes)
