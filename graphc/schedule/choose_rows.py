"""Schedules of products whose number of rows is known only when they run: one for a few, one for some, one for many."""
from __future__ import annotations

from dataclasses import replace

from graphc.ir.dims import Dim, lower, typical
from graphc.schedule.blocking import PackingMode
from graphc.schedule.choose_tiles import tile_ranking
from graphc.schedule.contraction_context import ContractionContext
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import PhaseSchedule, RowsSchedule, TileSchedule
from graphc.schedule.open_phase import at_typical, known
from graphc.schedule.tile_cost import Agreement, TiledProblem, schedule_cycles

FEW_ROWS = 8                    # at most, of the regime in which a micro-tile has all rows
# of the other regimes: the most rows that it is meant for, and how many of them it is chosen for
REGIMES = ((96, 48), (0, 1024))
WORTH = 1.05                    # how much faster a regime must be


def open_tile_schedule(p: Phase[Dim], context: ContractionContext, gates: int = 0,
                       settled: Agreement = Agreement()) -> PhaseSchedule:
    """By micro-tiles. settled: what other products have in common with all of them. The blocks of sums are those of the
    typical number of rows in all regimes, and so are the columns of a micro-tile, of which each kind is code of its
    own. Sums of a length that is not known either have one schedule for all numbers of rows: parts of such sums are
    several blocks long.
    """
    usual = _tiles(p, context, gates, typical(p.extent(p.m)), settled)
    if known(p, p.m) or not known(p, p.k):
        return usual
    agreed = Agreement(usual.blocking.kc, usual.vectors, packed=usual.b is not PackingMode.UNPACKED)
    if context.free[1]:             # packed once for all of them, if it is packed
        agreed = replace(agreed, columns=(usual.blocking.nc, usual.b))
    few, least = _few_rows(p, context, gates, agreed), lower(p.extent(p.m))
    chosen = [(few.blocking.mr, few), *[(most, _tiles(p, context, gates, rows, agreed)) for most, rows in REGIMES]]
    if context.free[0] and any(s.a is PackingMode.ONCE for _, s in chosen):
        return usual                # panels of rows are as high as micro-tiles, which the regimes have of their own
    kept = chosen[-1:]
    tried = (1, FEW_ROWS), *[(rows,) for _, rows in REGIMES]
    for (most, schedule), counts in zip(chosen[-2::-1], tried[-2::-1]):
        if most >= least and any(_saves(p, context, gates, min(max(rows, least), most), schedule, kept[0][1])
                                 for rows in counts):
            kept.insert(0, (most, schedule))
    return RowsSchedule(tuple(most for most, _ in kept[:-1]), tuple(s for _, s in kept))


def _saves(p: Phase[Dim], context: ContractionContext, gates: int, rows: int, schedule: TileSchedule,
           other: TileSchedule) -> bool:
    """Whether a schedule costs so much less than another for so many rows that it is worth its code: loops of its own,
    and often micro-kernels."""
    own, others = (_cycles(p, context, gates, rows, s) for s in (schedule, other))
    return others > WORTH * own + context.machine.handover_cycles / 2


def _cycles(p: Phase[Dim], context: ContractionContext, gates: int, rows: int, s: TileSchedule) -> float:
    """What the schedule costs with so many rows."""
    agreed = Agreement(s.blocking.kc, s.vectors, s.blocking.mr)
    return schedule_cycles(TiledProblem(at_typical(p, rows), context, gates, p, agreed), s)


def _few_rows(p: Phase[Dim], context: ContractionContext, gates: int, agreed: Agreement) -> TileSchedule:
    """Of as many rows as the registers have room for."""
    most = min(FEW_ROWS, context.target.tile_rows(agreed.vectors), context.machine.address_rows)
    return _tiles(p, context, gates, most, replace(agreed, mr=most))


def _tiles(p: Phase[Dim], context: ContractionContext, gates: int, rows: int, agreed: Agreement) -> TileSchedule:
    ranking = tile_ranking(TiledProblem(at_typical(p, rows), context, gates, p, agreed))
    return replace(ranking.best.schedule, ranking=ranking)
