"""How much code a program for all sizes has beside one for some of them: LLVM takes as long for each piece of it."""
from __future__ import annotations

import pytest

import graphc as gc
from graphc import nn
from graphc.api import traced
from graphc.codegen.lower.contraction.any_rows import own_rows
from graphc.codegen.loops.printer import print_function
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, MicroKernelSpec, MicroTileShape, ProductTypes, RowLayout, micro_kernel)
from graphc.compiler import Compilation
from graphc.ir.builder import bind_graph
from graphc.ir.dims import size_name
from graphc.ir.open import open_graph
from graphc.ir.types import f32
from graphc.schedule.target import AVX2, AVX512

MORE = 2.0                      # times as much text
NETWORKS = {
    "products": (nn.Linear(256) >> nn.relu >> nn.Linear(128) >> nn.relu >> nn.Linear(10), gc.f32["B", 200], {"B": 60}),
    "strided convolutions": (nn.Conv2d(32, 3, stride=2, padding=1) >> nn.relu >> nn.Conv2d(32, 3, stride=2, padding=1),
                             gc.f32["B", 3, "H", "W"], {"B": 4, "H": 40, "W": 40})}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
def test_a_program_for_all_sizes_has_little_more_code(name, target):
    network, x, sizes = NETWORKS[name]
    graph = traced(network, False, {"x": x}).graph
    together = Compilation(open_graph(graph, {})[0], target).llvm
    apart = Compilation(bind_graph(graph, sizes), target).llvm
    assert len(together) <= MORE * len(apart)


@pytest.mark.parametrize(("vectors", "mr", "numbers"), [
    (1, 10, [8, 9]), (1, 24, list(range(8, 16))), (2, 6, [4, 5]), (4, 6, [2, 3, 4, 5]), (8, 3, [1, 2]), (1, 4, [3])])
def test_few_sums_share_a_micro_kernel(vectors, mr, numbers):
    """Up to eight are computed in the time of one."""
    assert own_rows(MicroTileShape(mr, vectors, lanes=8)) == numbers


@pytest.mark.parametrize(("line", "mr", "written_out"), [(40, 2, 3 * 3 * 3), (40, 4, 3 * 3), (size_name("W"), 2, 3)])
def test_taps_at_distances_that_come_with_the_call_are_loops(line, mr, written_out):
    """Else each would be computed for each row; numbers are held by instructions, and loops wait for a round that hides
    their jump."""
    taps = (3, line * 8), (3, line), (3, 1)
    spec = MicroKernelSpec(ProductTypes(f32, f32, f32), MicroTileShape(mr, 2, 8), RowLayout(1, scattered=True, taps=taps),
                           ColumnLayout(16))
    assert print_function(micro_kernel(spec)).count("fma") == mr * 2 * written_out
