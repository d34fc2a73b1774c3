"""Schedules of products whose number of rows, or of columns, is known only when they run: one for a few, one for some,
one for many."""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from graphc.ir.dims import Dim, lower, typical
from graphc.records import dataclass
from graphc.schedule.blocking import PackingMode
from graphc.schedule.choose_tiles import tile_ranking
from graphc.schedule.contraction_context import ContractionContext
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import (
    MatrixSchedule, PhaseSchedule, RowsSchedule, TileSchedule, round_up)
from graphc.schedule.open_phase import at_typical, known
from graphc.schedule.tile_cost import Agreement, TiledProblem, schedule_cycles

FEW_ROWS = 8                    # at most, of the regime in which a micro-tile has all rows
# of the other regimes: the most rows that it is meant for, and how many of them it is chosen for
REGIMES = ((96, 48), (0, 1024))
WORTH = 1.05                    # how much faster a regime must be
Regime = tuple[int, TileSchedule, tuple[int, ...]]      # the most it takes (0: any), and for which numbers it is tried


@lru_cache(maxsize=1024)
def open_tile_schedule(p: Phase[Dim], context: ContractionContext, gates: int = 0,
                       settled: Agreement = Agreement()) -> PhaseSchedule:
    """By micro-tiles. settled: what other products have in common with all of them. The blocks of sums are those of the
    typical size in all regimes. Sums of a length that is not known either have one schedule for all sizes: parts of
    such sums are several blocks long.
    """
    product = _OpenProduct(p, context, gates, p.n if known(p, p.m) else p.m)
    usual = product.tiles(typical(p.extent(product.counted)), settled)
    if known(p, p.m, p.n) or not known(p, p.k):
        return usual
    return product.by_columns(usual) if known(p, p.m) else product.by_rows(usual)


@dataclass(frozen=True)
class _OpenProduct:
    """A product, and the dims whose sizes decide between regimes: those of its rows, or of its columns."""
    p: Phase[Dim]
    context: ContractionContext
    gates: int
    counted: tuple[int, ...]

    def by_rows(self, usual: TileSchedule) -> PhaseSchedule:
        """The columns of a micro-tile are the same in all regimes: each kind is code of its own."""
        free = self.context.free
        agreed = Agreement(usual.blocking.kc, usual.vectors, packed=usual.b is not PackingMode.UNPACKED,
                           matrices=isinstance(usual, MatrixSchedule))
        if free[1]:                 # packed once for all of them, if it is packed
            agreed = replace(agreed, columns=(usual.blocking.nc, usual.b))
        if self.context.exact:      # by vectors too, of the same panels, where rows do not fill matrix registers
            agreed = replace(agreed, matrices=None)
        few = self._few_rows(agreed if free[1] else replace(agreed, packed=False))      # few rows repay no packing
        regimes: list[Regime] = [(few.blocking.mr, few, (1, FEW_ROWS))]
        regimes += [(most, _undivided(self.tiles(rows, agreed), rows, most), (rows,)) for most, rows in REGIMES]
        if free[0] and any(s.a is PackingMode.ONCE for _, s, _ in regimes):
            return usual            # panels of rows are as high as micro-tiles, which the regimes have of their own
        return self._worth(regimes)

    def by_columns(self, usual: TileSchedule) -> PhaseSchedule:
        """Fewer columns than a micro-tile has leave vectors of it without work: regimes of half as many vectors each.
        """
        if self.context.free[1] or self.context.free[0] and usual.a is PackingMode.ONCE:
            return usual            # panels of columns and of rows are as large as micro-tiles
        narrower = [usual.vectors >> shift for shift in range(usual.vectors.bit_length() - 1, 0, -1)]
        regimes: list[Regime] = []
        for vectors in narrower:
            most = vectors * usual.lanes
            regimes.append((most, self.tiles(most, Agreement(usual.blocking.kc, vectors)), (most,)))
        return self._worth([*regimes, (0, usual, ())])

    def _worth(self, regimes: list[Regime]) -> RowsSchedule:
        """Those that are worth their code."""
        least = lower(self.p.extent(self.counted))
        kept = regimes[-1:]
        for most, schedule, counts in regimes[-2::-1]:
            if most >= least and any(self._saves(min(max(n, least), most), schedule, kept[0][1]) for n in counts):
                kept.insert(0, (most, schedule, counts))
        return RowsSchedule(tuple(most for most, *_ in kept[:-1]), tuple(s for _, s, _ in kept),
                            of_columns=self.counted == self.p.n)

    def _saves(self, count: int, schedule: TileSchedule, other: TileSchedule) -> bool:
        """Whether a schedule costs so much less than another for so many rows or columns that it is worth its code:
        loops of its own, and often micro-kernels. With gates it is saved in every step."""
        own, others = (self._cycles(count, s) for s in (schedule, other))
        code = 0 if self.gates and self.context.exact else self.context.machine.handover_cycles / 2
        return others > WORTH * own + code

    def _cycles(self, count: int, s: TileSchedule) -> float:
        """What the schedule costs with so many rows or columns."""
        matrices = isinstance(s, MatrixSchedule)
        agreed = Agreement(s.blocking.kc, s.vectors, 0 if matrices else s.blocking.mr)
        problem = TiledProblem(self._sized(count), self.context, self.gates, self.p, agreed, matrices)
        return schedule_cycles(problem, s)

    def _few_rows(self, agreed: Agreement) -> TileSchedule:
        """Of as many rows as the registers have room for."""
        context = self.context
        most = min(FEW_ROWS, context.target.tile_rows(agreed.vectors), context.machine.address_rows)
        return self.tiles(most, replace(agreed, mr=most, matrices=agreed.matrices or False))

    def tiles(self, count: int, agreed: Agreement) -> TileSchedule:
        """The best micro-tiles for so many rows or columns."""
        ranking = tile_ranking(self._sized(count), self.context, self.gates, self.p, agreed)
        return replace(ranking.best.schedule, ranking=ranking)

    def _sized(self, count: int) -> Phase[int]:
        return at_typical(self.p, count, self.counted)


def _undivided(s: TileSchedule, rows: int, most: int) -> TileSchedule:
    """Where it does not divide so many rows, it divides no more of them up to `most`: columns are read once."""
    mr = s.blocking.mr
    if s.blocking.mc < rows or s.transposed_store or isinstance(s, MatrixSchedule):
        return s
    return replace(s, blocking=replace(s.blocking, mc=max(s.blocking.mc, round_up(most, mr))))
