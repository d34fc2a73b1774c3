"""Several shards in one program: what each of them gives alone, to the bit."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.ir.interp import evaluate
from graphc.ir.ops.fused import core_of
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad
from graphc.ir.types import f32
from graphc.passes.join_shards import Shards, called_with
from graphc.schedule.choose_winograd import ConvolutionSizes
from graphc.schedule.target import AVX512
from graphc.schedule.winograd_cost import faster_at_once, kernel_traffic
from graphc.shard_batch import ShardedBatch
from graphc.shard_tree import Sums, additions, tree_sum

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(8, 32, 16, 16)).astype("f4"), DRAW.integers(0, 3, 8).astype("i4")


def made(rows=8, **options):
    """Convolutions with and without an epilogue, an image that is padded for another kernel too, statistics, drops, a
    report by rows."""
    first, second, last = (nn.Conv2d(32, 3, padding=1) for _ in range(3))
    norm, head = nn.BatchNorm2d(), nn.Linear(3)

    def loss(x, y):
        x = nn.relu(norm(first(x)))
        x = gc.dropout(second(x), 0.1) + x
        scores = head(gc.mean(last(x), axis=(2, 3)))
        return nn.cross_entropy(scores, y), {"scores": scores, "steps": gc.mean(scores)}
    options.setdefault("optimizer", optim.SGD(0.1))
    return gc.train_step(loss, x=gc.f32[rows, 32, 16, 16], y=gc.i32[rows], seed=1, shards=4, **options)


def always(monkeypatch):
    """Convolutions are computed of all shards at once, whatever that costs."""
    monkeypatch.setattr("graphc.passes.join_shards.faster_at_once", lambda *_: True)
    monkeypatch.setattr("graphc.shards.any_faster_at_once", lambda *_: True)


@pytest.mark.parametrize("joined", [((0, 4),), pytest.param(((0, 2), (2, 4)), marks=pytest.mark.slow)])
def test_sums_of_joined_shards_are_those_of_single_ones(monkeypatch, joined):
    always(monkeypatch)
    step = made()
    program = step.sharded
    batch = ShardedBatch(program, (X, Y))

    def summed(joined):
        def leaf(number):
            sums = Sums(batch.summed)
            batch.run((number, dict(joined).get(number, number + 1)), sums)
            return sums
        total = tree_sum(leaf, 0, 4, lambda done: None, joined)
        return [array.tobytes() for array in (*total.flats.values(), *batch.by_row)]
    assert summed(()) == summed(joined)
    kernels = program.joined(batch.sizes[:joined[0][1]]).compilation.fused.nodes
    images = [node.outputs[0].type.shape[0] for node in kernels if isinstance(core_of(node).op, WinogradConv2d)]
    assert set(images) == {2 * joined[0][1]} and len(images) == 5              # three forward, two towards images
    gradients = [node.op.shards for node in kernels if isinstance(node.op, WinogradWeightGrad)]
    assert gradients.count(joined[0][1]) == 2               # the image of the first convolution has no gradient


@pytest.mark.parametrize("behind, options", [
    (0, {"optimizer": optim.AdamW(1e-2, clip_norm=0.1), "report": ("grad_norm",), "ema": 0.9}),
    (2, {"optimizer": optim.SGD(1e-2, momentum=0.9)})], ids=("norms", "epilogues"))
def test_a_step_in_one_call_has_the_bits_of_shards_and_update_apart(monkeypatch, behind, options):
    """With norms over all gradients, which the update adds up, and averages; with updates that are the epilogue of the
    kernel which adds the gradients up; what it packs is packed anew in each call; a class out of range leaves the
    state."""
    always(monkeypatch)
    steps = [made(**options) for _ in range(2)]
    kernels = steps[0].sharded.whole_step([2] * 4).compilation.fused.nodes
    at_once = [node for node in kernels if isinstance(op := core_of(node).op, WinogradWeightGrad) and op.shards == 4]
    assert len(at_once) == 2 and behind == sum(core_of(node) is not node for node in at_once)
    monkeypatch.setattr(steps[1].sharded, "whole_step", lambda sizes: None)
    first = steps[0].state.copy()
    with pytest.raises(gc.GraphError, match="label 7"):
        steps[0](X, np.where(np.arange(8) == 6, 7, Y).astype("i4"))
    assert all(np.array_equal(first[name], steps[0].state[name]) for name in first)
    for _ in range(2):
        ours, apart = (step(X, Y) for step in steps)
        assert ours.keys() == apart.keys() == {"loss", "scores", "steps", *options.get("report", ())}
        assert all(np.asarray(ours[name]).tobytes() == np.asarray(apart[name]).tobytes() for name in ours)
        assert all(steps[0].state[name].tobytes() == steps[1].state[name].tobytes() for name in first)
    assert steps[0].memory.arena < steps[1].memory.arena and steps[0].sharded.buffers == 0


def test_uneven_shards_are_computed_one_by_one(monkeypatch):
    always(monkeypatch)
    program = made(7).sharded
    assert program.joined([2, 2, 2, 1]) is None and program.joined([2]) is None and program.joined([0, 0]) is None


def test_the_graph_of_joined_shards_is_that_of_one_several_times():
    """Of an odd number too; and a value that no input changes is summed as often as the others."""
    @gc.graph
    def shard(x: gc.f32[2, 3], share: gc.f64[()], shard: gc.i64[()]):
        return gc.sum(x) * share.astype(gc.f32), gc.ones(()) * 3, x * shard.astype(gc.f32)
    x, share = np.arange(18, dtype="f4").reshape(6, 3), np.array([0.5, 0.25, 0.25])
    joined = called_with(shard.graph, Shards(3, 2, additions(0, 3)))
    total, constant, rows = evaluate(joined, (x, share, np.arange(3)))
    parts = [evaluate(shard.graph, (x[2 * i:2 * i + 2], share[i], np.int64(i))) for i in range(3)]
    assert total == sum(part[0] for part in parts) and constant == 9
    np.testing.assert_array_equal(rows, np.concatenate([part[2] for part in parts]))


def test_shards_are_joined_where_their_weights_are_large():
    traffic = kernel_traffic(True, 32 << 20, AVX512.machine)
    small, large = ConvolutionSizes(64, 64, 4, 56, 56, f32), ConvolutionSizes(512, 512, 4, 7, 7, f32)
    assert not faster_at_once(small, 4, 4, AVX512, traffic) and faster_at_once(large, 4, 4, AVX512, traffic)
