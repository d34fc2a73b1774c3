"""Packing rows of a for the micro-kernel: panels [k][MR]. Vector copies where a is contiguous along its rows, element
by element otherwise.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import store_as
from graphc.codegen.lower.contraction.tile import TiledPhase
from graphc.codegen.lower.ranges import Index, Range, offset, unflatten, walk, walk_runs
from graphc.ir.dims import Dim, ceil_div, static_dim, typical
from graphc.records import dataclass
from graphc.schedule.blocking import Cut, fine_cut
from graphc.schedule.contraction_schedule import STEPS

PACK_STEPS = 16         # steps of k that are packed together: their lines stay in cache while panels are cut from them
# panels that are written side by side: streams of stores, of which the hardware sees no more coming
PACK_PANELS = 16
PACK_TASKS = 8          # into which packing all rows is divided, at least, where there are steps enough


@dataclass(frozen=True)
class RowPanels:
    """Where packed rows go: row i of panel p, step s of k: start + p * panel + s * MR + i."""
    memory: View
    start: Ix
    panel: Dim


@dataclass(frozen=True)
class RowPacker(ABC):
    """How rows are copied. reads_runs: each step of k reads one run of memory."""
    c: TiledPhase
    reads_runs: ClassVar[bool]

    @property
    def mr(self) -> int:
        return self.c.schedule.blocking.mr

    @abstractmethod
    def together(self, panels: Dim) -> tuple[int, Cut]:
        """Of all rows that are packed, how many panels, and which steps of k, one task takes."""

    @abstractmethod
    def pack(self, batch: Index, first: Ix, rows: Ix, k: Range, target: RowPanels) -> None:
        """Packs `rows` rows (whole panels) from row `first` on, for a range of k."""


class CopiedRows(RowPacker):
    """a is contiguous along its rows."""
    reads_runs = True

    def together(self, panels: Dim) -> tuple[int, Cut]:
        """Few panels, along which stores go on and on: of many each store would wait for its line."""
        group = min(PACK_PANELS, typical(panels))
        parts = ceil_div(PACK_TASKS, ceil_div(typical(panels), group))
        return group, fine_cut(self.c.k_sizes, max(PACK_STEPS, ceil_div(typical(self.c.k), parts)))

    def pack(self, batch: Index, first: Ix, rows: Ix, k: Range, target: RowPanels) -> None:
        """MR elements by vectors of falling width. A few steps of k for all panels, then the next: a line of a has rows
        of several panels, and lines at such distances share few sets of a cache.
        """
        f, p, mr = self.c.f, self.c.phase, self.mr
        across = p.a.strides[p.k[-1]]

        def copy(source: Ix, step: Ix, steps: int) -> None:
            with f.loop(0, rows, mr) as loop:
                place = target.start + f.divmod(loop.index, mr)[0] * target.panel + step * mr
                self._copy_panel(source, first + loop.index, target.memory, place, steps)
        with walk_runs(f, k) as (outer, at, start, count):
            source = offset(p.a, batch | outer | {p.k[-1]: start})
            whole = f.divmod(count, STEPS)[0] * STEPS
            with f.loop(0, whole, STEPS) as loop:
                copy(source + loop.index * across, at + loop.index, STEPS)
            with f.loop(whole, count) as loop:
                copy(source + loop.index * across, at + loop.index, 1)

    def _copy_panel(self, source: Ix, row: Ix, memory: View, place: Ix, steps: int) -> None:
        """`steps` steps of the rows of one panel; rows past the end repeat the last one."""
        c, f, ragged = self.c, self.c.f, self.c.grid.has_row_tail
        across = c.phase.a.strides[c.phase.k[-1]]
        for at, lanes in _powers_of_two(self.mr, c.schedule.lanes):
            mask = f.tail_mask(c.m - (row + at), lanes) if ragged and lanes > 1 else None
            column = f.min_(row + at, c.m - 1) if ragged and lanes == 1 else row + at
            for i in range(steps):
                store_as(f, memory, [place + (i * self.mr + at)],
                         f.load(c.a, [source + i * across + column], lanes, mask))


class GatheredRows(RowPacker):
    """Rows that lie in memory in any other way."""
    reads_runs = False

    def together(self, panels: Dim) -> tuple[int, Cut]:
        sizes = self.c.k_sizes
        steps = fine_cut(sizes, PACK_STEPS) if self.c.phase.is_open else Cut(0, static_dim(sizes[0]))
        few = typical(steps.count(sizes)) < PACK_TASKS
        return ceil_div(typical(panels), PACK_TASKS) if few else typical(panels), steps

    def pack(self, batch: Index, first: Ix, rows: Ix, k: Range, target: RowPanels) -> None:
        c, f, mr = self.c, self.c.f, self.mr
        with f.loop(0, rows, mr) as loop:
            place = target.start + f.divmod(loop.index, mr)[0] * target.panel
            offsets = [row_offset(c, first + loop.index + i, self.c.grid.has_row_tail) for i in range(mr)]
            with walk(f, k) as (index, step):
                base = offset(c.phase.a, batch | index)
                for i, row in enumerate(offsets):
                    store_as(f, target.memory, [place + step * mr + i], f.load(c.a, [base + row]))


def row_packer(c: TiledPhase) -> RowPacker:
    p = c.phase
    contiguous = len(p.m) == 1 and p.a.strides[p.m[0]] == 1
    return (CopiedRows if contiguous else GatheredRows)(c)


def _powers_of_two(count: int, limit: int) -> list[tuple[int, int]]:
    """(start, width): 6 is 4 from 0 and 2 from 4."""
    pieces, at, width = [], 0, limit
    while at < count:
        if width <= count - at:
            pieces.append((at, width))
            at += width
        else:
            width //= 2
    return pieces


def row_offset(c: TiledPhase, number: Ix, clamped: bool) -> Ix:
    """Distance in a from row 0 to a row; if clamped, rows past the end repeat the last one."""
    p = c.phase
    row = c.f.min_(number, c.m - 1) if clamped else number
    if p.a.steps_evenly(p.m, p.sizes):             # though the output may not
        return row * p.a.strides[p.m[-1]]
    return offset(p.a, unflatten(c.f, row, p.m, p.sizes)) - p.a.base
