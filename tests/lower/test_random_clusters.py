"""Random clusters: native code of every fused node against the oracle; with tiny tiles, so that small arrays are cut up
too.
"""
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from native import run_op
from random_clusters import RandomGraph

from graphc.ir.interp import evaluate
from graphc.ir.op import as_tuple
from graphc.ir.ops.fused import Fused
from graphc.passes.fuse import Fuse
from graphc.schedule import choose_nest, nest_facts, nest_grid
from graphc.schedule.target import AVX2, Target

TINY_NUMBERS = {nest_grid: {"LANE_SUMS": 4},
                nest_facts: {"INNER_ELEMENTS": 16, "STATE_CYCLES": 0, "MASKED_STATE_CYCLES": 0}}
TINY = replace(AVX2, machine=replace(AVX2.machine, handover_ns=0.0, long_tile_ns=24.0, l2_bytes=256))


@pytest.fixture(params=["usual", "tiny"])
def target(request, monkeypatch) -> Iterator[Target]:
    """For tiny tiles a machine on which handing work to other threads costs nothing."""
    if request.param == "tiny":
        for module, numbers in TINY_NUMBERS.items():
            for name, value in numbers.items():
                monkeypatch.setattr(module, name, value)
    choose_nest.cluster_schedule.cache_clear()
    yield TINY if request.param == "tiny" else AVX2
    choose_nest.cluster_schedule.cache_clear()


@pytest.mark.parametrize("seed", range(40))
def test_fused_graph_is_the_graph(seed):
    made = RandomGraph(seed)
    graph = made.grow(14)
    arrays = made.arrays(graph)
    for got, want in zip(evaluate(Fuse().run(graph), arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("seed", range(25))
def test_native_cluster_is_the_oracle(seed, target):
    made = RandomGraph(seed)
    graph = made.grow(12)
    env = dict(zip(graph.inputs, made.arrays(graph)))
    fused = Fuse().run(graph)
    env = dict(zip(fused.inputs, env.values()))
    for node in fused.nodes:
        arrays = [env[v] for v in node.inputs]
        want = as_tuple(node.op.reference(*arrays))
        env.update(zip(node.outputs, want))
        if isinstance(node.op, Fused):
            for got, reference in zip(run_op(node.op, *arrays, inplace=seed % 2 == 1, target=target), want,
                                      strict=True):
                np.testing.assert_allclose(got, reference, rtol=2e-5, atol=2e-5)
