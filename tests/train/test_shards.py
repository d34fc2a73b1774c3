"""A batch cut into shards: the same training, up to rounding, and what each shard has of its own."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.shard_tree import added, middle, rank_ends, right_edge, shard_rows

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(24, 6)).astype("f4"), DRAW.integers(0, 3, 24).astype("i4")


def mlp():
    return nn.Linear(8) >> nn.tanh >> nn.Linear(3)


def made(net=None, shards=None, rows=24, optimizer=None, **options):
    return gc.train_step(net or mlp(), loss=nn.cross_entropy, optimizer=optimizer or optim.SGD(0.1), shards=shards,
                         x=gc.f32[rows, 6], y=gc.i32[rows], seed=1, **options)


def close(one, other, names=None):
    for name in names or one.state:
        np.testing.assert_allclose(one.state[name], other.state[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7])
def test_means_over_shards_are_means_over_the_batch(shards):
    """Also where the shards are of unequal sizes, with a schedule, clipping, accumulation, averages and reports."""
    def options():
        return {"optimizer": optim.AdamW(optim.cosine(1e-2, 9), clip_norm=0.1, accumulate=2), "ema": 0.5,
                "report": ("grad_norm", "update_ratio")}
    whole, cut = made(**options()), made(shards=shards, **options())
    for _ in range(5):
        expected, found = whole(X, Y), cut(X, Y)
        assert list(expected) == list(found)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
    close(whole, cut)


def test_one_shard_draws_what_no_shards_draw_and_shards_draw_apart():
    def net():
        return nn.Dropout(0.5) >> nn.Linear(3)
    close(whole := made(net()), one := made(net(), shards=1))
    assert whole(X, Y) == pytest.approx(one(X, Y), rel=1e-6)
    same = np.concatenate([X[:4]] * 6)

    def drops(x):
        kept = gc.dropout(x, 0.5)
        return gc.mean(nn.Linear(1)(kept)), {"kept": kept}
    step = gc.train_step(drops, optimizer=optim.SGD(0.1), x=gc.f32[24, 6], seed=1, shards=6)
    first = np.split(step(same)["kept"] != 0, 6)
    assert not any(np.array_equal(first[0], other) for other in first[1:])
    assert not np.array_equal(step(same)["kept"] != 0, np.concatenate(first))         # a step draws anew
    assert step.state["random.key"].tolist() == [1, 2]


def test_batch_norm_takes_the_statistics_of_shards():
    def net():
        return nn.BatchNorm1d(momentum=0.5) >> nn.Linear(3)
    step = made(net(), shards=2)
    step(X, Y)
    parts = X[:12], X[12:]
    mean = np.mean([0.5 * part.mean(0) for part in parts], axis=0)
    var = np.mean([0.5 + 0.5 * part.var(0, ddof=1) for part in parts], axis=0)
    np.testing.assert_allclose(step.state["0.running_mean"], mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(step.state["0.running_var"], var, rtol=1e-5)
    counting = made(nn.BatchNorm1d(momentum=None) >> nn.Linear(3), shards=4)
    for _ in range(3):
        counting(X, Y)
    assert counting.state["0.num_batches_tracked"] == 3


@pytest.mark.parametrize("shards, rows", [(2, 24), (7, "B")])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(shards, rows):
    """Two of them behind each other, also where shards are of unequal sizes."""
    def step(shards, sync):
        net = (nn.Linear(5) >> nn.BatchNorm1d(sync=sync) >> nn.relu >> nn.Linear(4)
               >> nn.BatchNorm1d(sync=sync, momentum=None) >> nn.Linear(3))
        return gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32[rows, 6], y=gc.i32[rows],
                             seed=1, shards=shards, outputs=["1"])
    whole, cut = step(None, False), step(shards, True)
    for _ in range(4):
        expected, found = whole(X, Y), cut(X, Y)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    close(whole, cut)
    assert len(cut.sharded.stages()) == 9 and cut.memory and cut.profile(X, Y)


def test_sums_over_shards_are_for_whoever_wants_a_mean_over_the_batch():
    """Of the targets that count, of which shards have different numbers."""
    targets = np.where(np.arange(24) < 7, Y, -1).astype("i4")

    def loss(x, y):
        scores, counts = mlp()(x), (y >= 0).astype(gc.f32)
        losses = nn.cross_entropy(scores, gc.maximum(y, 0), reduction="none")
        # a step takes the mean over the shards, so each gives its sum as many times as there are shards
        return gc.sum(losses * counts) * gc.shard_sum(gc.ones(())) / gc.shard_sum(gc.sum(counts))
    whole, cut = (gc.train_step(loss, optimizer=optim.SGD(0.1), x=gc.f32[24, 6], y=gc.i32[24], seed=1, shards=shards)
                  for shards in (None, 4))
    for _ in range(3):
        assert cut(X, targets) == pytest.approx(whole(X, targets), rel=1e-5)
    close(whole, cut)


def test_what_is_reported():
    def f(x, y):
        scores = mlp()(x)
        return nn.cross_entropy(scores, y), {"accuracy": nn.accuracy(scores, y), "scores": scores,
                                             "of": gc.mean(scores, axis=0)}
    whole, cut = (gc.train_step(f, optimizer=optim.SGD(0.1), x=gc.f32[24, 6], y=gc.i32[24], seed=1, shards=shards)
                  for shards in (None, 5))
    expected, found = whole(X, Y), cut(X, Y)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    named, cut = made(outputs=["0"]), made(outputs=["0"], shards=3)
    np.testing.assert_allclose(cut(X, Y)["0"], named(X, Y)["0"], rtol=1e-5)


def test_sizes_at_run_time_and_smaller_batches():
    def step(shards):
        return gc.train_step(mlp(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32["B", 6], y=gc.i32["B"],
                             seed=1, shards=shards)
    whole, cut, fixed, parted = step(None), step(4), made(rows=16), made(rows=16, shards=4)
    for rows in (24, 5, 2):
        assert cut(X[:rows], Y[:rows]) == pytest.approx(whole(X[:rows], Y[:rows]), rel=1e-5)
    close(whole, cut)
    weights = np.linspace(0, 2, 24)
    for one in (fixed, parted):
        one.fit(X, Y, epochs=2, sample_weight=weights, batch=10)
    close(fixed, parted)


def test_a_bad_index_leaves_the_state():
    step = made(shards=4)
    before = step.state.copy()
    wrong = Y.copy()
    wrong[-1] = 7
    with pytest.raises(gc.GraphError, match="label 7"):
        step(X, wrong)
    assert all(np.array_equal(step.state[name], a) for name, a in before.items())
    step(X, Y)


def test_copies_checkpoints_and_the_learning_rate(tmp_path):
    step = made(shards=4, optimizer=optim.SGD(0.1, momentum=0.9))
    step(X, Y)
    step.hyper["momentum"] = 0.5
    others = [copy.deepcopy(step), pickle.loads(pickle.dumps(made(shards=4)))]
    step.save(tmp_path / "step.safetensors")
    again = made(shards=4, optimizer=optim.SGD(0.1, momentum=0.9))
    again.load(tmp_path / "step.safetensors")
    losses = [s(X, Y) for s in (step, others[0], again)]
    assert losses[0] == losses[1] == losses[2]
    assert others[1](X, Y) == made(shards=4)(X, Y)


def test_threads_and_the_oracle(monkeypatch):
    one, two = made(shards=3, threads=1), made(shards=3, threads=2)
    for _ in range(3):
        assert one(X, Y) == two(X, Y)
    assert all(np.array_equal(one.state[name], two.state[name]) for name in one.state)
    monkeypatch.setenv("GRAPHC_ORACLE", "1")
    slow = made(shards=3)
    for _ in range(3):
        slow(X, Y)
    close(one, slow)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_the_update_of_the_sums_at_the_edge_is_that_of_the_whole_sum(shards):
    """The same bytes, also of zeros of either sign, infinities and NaN: a rank of a job has the whole sum, and zeros."""
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], "f4")
    odd = np.append(odd, np.uint32([0xFFC00001, 0x7FC00002]).view("f4"))
    parts = np.meshgrid(*[odd] * len(right_edge(shards)))
    states = []
    for whole in (False, True):
        net = nn.Linear(64) >> nn.tanh >> nn.Linear(3)              # as many numbers as there are triples
        step = made(net, shards=shards, optimizer=optim.SGD(0.1, momentum=0.9))
        types = step.sharded.graph().types[1:1 + len(step.sharded.graph().grads)]
        starts = np.cumsum([0, *(type.size for type in types)])
        sums = [[np.resize(np.roll(part, -start), type.shape) for start, type in zip(starts, types)] for part in parts]
        if whole:
            sums = [[added(each) for each in zip(*sums)], *([np.zeros(type.shape, "f4") for type in types],) * (len(sums) - 1)]
        step.sharded.update(*(array for part in sums for array in part))
        states.append({name: array.tobytes() for name, array in step.state.items()})
    assert states[0] == states[1]


def test_sums_at_the_edge_of_the_tree():
    assert [right_edge(n) for n in (1, 2, 3, 4)] == [[(0, 1)], [(0, 1), (1, 2)], [(0, 2), (2, 3)],
                                                     [(0, 2), (2, 3), (3, 4)]]
    assert right_edge(8) == [(0, 4), (4, 6), (6, 8)] and right_edge(5) == [(0, 3), (3, 4), (4, 5)]


def test_memory_and_stages_are_of_both_programs():
    step = made(shards=4)
    gradients = sum(a.nbytes for a in step.weights().values())
    assert step.memory.arena >= 3 * gradients and step.memory.state == step.state.nbytes
    assert "graph shard_" in step.dump() and "graph update_" in step.dump()
    assert step.profile(X, Y)


def test_the_tree_and_its_blocks():
    assert [middle(0, n) for n in (2, 3, 4, 6, 7)] == [1, 2, 2, 3, 4]
    assert shard_rows(10, 4) == [3, 3, 2, 2] and rank_ends(10, 4, 2) == [6, 10] and shard_rows(2, 4) == [1, 1, 0, 0]


def counts(x, y):
    return nn.cross_entropy(mlp()(x), y), {"right": gc.sum(y)}


def looped(x):
    total, _ = gc.scan(lambda total, row: (total + gc.shard_sum(gc.sum(row)), row), gc.zeros(()), x)
    return gc.mean(nn.Linear(1)(x)) + total


def unequal(x):
    return gc.mean(gc.shard_sum(nn.Linear(1)(x)))


@pytest.mark.parametrize("make, words", [
    (lambda: made(shards=0), "shards is an int from 1"),
    (lambda: gc.train_step(counts, optimizer=optim.SGD(0.1), x=gc.f32[24, 6], y=gc.i32[24], shards=2)(X, Y),
     "the step reports 'right', i32\\[\\] of a shard"),
    (lambda: gc.train_step(lambda x, w: gc.mean(nn.Linear(1)(x)) + gc.sum(w), optimizer=optim.SGD(0.1),
                           x=gc.f32[24, 6], w=gc.f32[6], shards=2), "cuts a batch along the first axis"),
    (lambda: gc.train_step(nn.LSTM(4) >> nn.Linear(3), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[5, 8, 3],
                           y=gc.f32[5, 8, 3], shards=2), "LSTM takes x as \\[time, batch, …\\]"),
    (lambda: made(shards=2)(X[:20], Y), "must have shape \\[24, 6\\], got \\[20, 6\\]"),
    (lambda: made(rows="B", shards=2)(X[:0], Y[:0]), "this batch has no rows"),
    (lambda: made().sharded, "this step has no shards"),
    (lambda: gc.train_step(looped, optimizer=optim.SGD(0.1), x=gc.f32[24, 6], shards=2)(X),
     "gc.shard_sum cannot stand inside scan"),
    (lambda: gc.train_step(unequal, optimizer=optim.SGD(0.1), x=gc.f32[24, 6], shards=5)(X),
     "gc.shard_sum takes arrays that have the same shape in all shards"),
])
def test_mistakes(make, words):
    with pytest.raises(gc.GraphError, match=words):
        make()


def test_the_stages_of_a_step_are_those_of_one_function():
    """A step with shards is several, and says so."""
    with pytest.raises(gc.GraphError, match="several functions.*make the step without shards="):
        made(shards=2).compilation
    assert made().compilation.text("graph").startswith("graph ")
