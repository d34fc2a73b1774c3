"""Rows whose number comes with the call are divided evenly among tiles."""
from __future__ import annotations

from itertools import product

import pytest

import graphc as gc
from graphc import nn
from graphc.api import traced
from graphc.compiler import Compilation
from graphc.memory.plan import ProgramPlan
from graphc.ir.dims import evaluate, size_name
from graphc.ir.open import open_graph
from graphc.schedule.blocking import RowShares
from graphc.schedule.contraction_schedule import ContractionSchedule, RowsSchedule
from graphc.schedule.target import AVX512

ROWS = size_name("M", 1, None, 64)


@pytest.mark.parametrize("mr, mc, tiles, panels", [*product((4, 6, 8), (48, 96), (2, 4, 8), (1, 3))])
def test_as_many_tiles_as_are_wanted_while_they_are_worth_it(mr, mc, tiles, panels):
    shares = RowShares(tiles, panels)
    for rows in (*range(1, 200), 1000, 12345):
        down = shares.down(rows, mr, mc)
        assert down == evaluate(shares.down(ROWS, mr, mc), {"M": rows})
        each = -(-(-(-rows // mr)) // down) * mr                # of the tallest tile
        assert each <= mc and (down == 1 or down <= -(-rows // mc) or rows // down >= mr * panels)
        assert down >= min(tiles, rows // (mr * panels))


def test_few_rows_of_a_program_for_all_sizes_keep_cores_busy():
    """Of 80 rows in tiles of 64 one core would have four fifths."""
    graph = traced(nn.Conv2d(384, 1, bias=False), False, {"x": gc.f32["B", 768, "H", "W"]}).graph
    schedule, = (s for _, s in Compilation(open_graph(graph, {})[0], AVX512).stage(ProgramPlan).scheduled() if isinstance(s, ContractionSchedule))
    phase, = schedule.phases
    blocking = (phase.regimes[-1] if isinstance(phase, RowsSchedule) else phase).blocking
    assert blocking.mc > 40 and blocking.shares.down(80, blocking.mr, blocking.mc) >= 4
