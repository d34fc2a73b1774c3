"""Random clusters: native code of every fused node against the oracle; with tiny tiles, so that small arrays are cut up too."""
import numpy as np
import pytest
from native import run_op
from random_clusters import RandomGraph

from graphc.ir.interp import evaluate
from graphc.ir.op import as_tuple
from graphc.ir.ops.fused import Fused
from graphc.passes.fuse import Fuse
from graphc.schedule import choose_nest as schedule_nest
from graphc.schedule import choose_plain as schedule_plain

TINY = {"TILE_NS": 60, "SERIAL_NS": 0, "LANE_SUMS": 4, "INNER_ELEMENTS": 16, "MIN_ACROSS": 4}


@pytest.fixture(params=["usual", "tiny"])
def tiles(request, monkeypatch):
    if request.param == "tiny":
        for name, value in TINY.items():
            monkeypatch.setattr(schedule_nest, name, value)
        monkeypatch.setattr(schedule_plain, "TILE_NS", TINY["TILE_NS"])
    schedule_nest._schedule.cache_clear()
    yield request.param
    schedule_nest._schedule.cache_clear()


@pytest.mark.parametrize("seed", range(40))
def test_fused_graph_is_the_graph(seed):
    made = RandomGraph(seed)
    graph = made.grow(14)
    arrays = made.arrays(graph)
    for got, want in zip(evaluate(Fuse().run(graph), arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("seed", range(25))
def test_native_cluster_is_the_oracle(seed, tiles):
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
            for got, reference in zip(run_op(node.op, *arrays, inplace=seed % 2 == 1), want, strict=True):
                np.testing.assert_allclose(got, reference, rtol=2e-5, atol=2e-5)
