"""Schedules of phases some of whose sizes are known only when they run: typical sizes say what is best, and what holds
for all sizes says what is possible."""
from __future__ import annotations

from graphc.ir.dims import Dim
from graphc.schedule.choose_few_rows import dot_schedule, is_dots
from graphc.schedule.choose_rows import open_tile_schedule
from graphc.schedule.contraction_context import DOT_ROWS, ContractionContext
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import PhaseSchedule
from graphc.schedule.open_phase import at_typical, known


def open_phase_schedule(p: Phase[Dim], context: ContractionContext) -> PhaseSchedule:
    """Dot products where rows are few whatever the sizes are, else micro-tiles."""
    few = known(p, p.k, p.m) and p.extent(p.m) <= DOT_ROWS
    usual = at_typical(p)
    if few and is_dots(p, context):
        return dot_schedule(usual, context)
    return open_tile_schedule(p, context)
