"""Layers, first values and losses that people look for, against numpy (PyTorch: tests/parity)."""
from itertools import product

import numpy as np
import pytest
from network import normal, run

import graphc as gc
from graphc import nn, optim

IMAGE = normal(2, 3, 4, 5)


@pytest.mark.parametrize("cell, layer", [(nn.RNNCell, nn.RNN), (nn.LSTMCell, nn.LSTM), (nn.GRUCell, nn.GRU)])
def test_a_cell_in_a_loop_is_the_layer(cell, layer):
    x, one = normal(6, 2, 3), cell(4)

    def loop(x):
        zeros = gc.zeros((2, 4))
        start = (zeros, zeros) if cell is nn.LSTMCell else zeros

        def step(state, row):
            new = one(row, state)
            return new, new[0] if cell is nn.LSTMCell else new
        return gc.scan(step, start, x)[1]
    y, state = run(layer(4), x)
    names = {f"one.{n.removesuffix('_l0')}": state[n] for n in state}
    np.testing.assert_allclose(gc.compile(loop, x=gc.f32[6, 2, 3], state=names)(x), y, rtol=1e-5, atol=1e-6)


def test_a_cell_says_what_state_it_takes():
    with pytest.raises(gc.GraphError, match=r"the state of LSTMCell is 2 array\(s\) of shape \[2, 4\]"):
        run(nn.LSTMCell(4) >> (lambda s: s[0]), normal(2, 3)) and gc.compile(
            lambda x: nn.LSTMCell(4)(x, x), x=gc.f32[2, 3], seed=0)


def test_norms():
    def standard(x, axes):
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(nn.InstanceNorm2d(), IMAGE)[0], standard(IMAGE, (2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(nn.BatchNorm2d(track_running_stats=False), IMAGE)[0], standard(IMAGE, (0, 2, 3)), rtol=1e-4, atol=1e-5)
    square = np.pad(IMAGE ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = square[:, :3] + square[:, 1:4] + square[:, 2:]
    np.testing.assert_allclose(run(nn.LocalResponseNorm(3, 0.6, 0.5, 2.0), IMAGE)[0], IMAGE / np.sqrt(2 + 0.2 * total), rtol=1e-5)
    every = run(nn.LocalResponseNorm(10 ** 9, 1e9, 0.5), IMAGE)[0]           # all channels, whatever the size
    np.testing.assert_allclose(every, IMAGE / np.sqrt(1 + (IMAGE ** 2).sum(1, keepdims=True)), rtol=1e-5)


def test_the_mean_of_all_batches():
    net = nn.BatchNorm1d(momentum=None)
    step = gc.train_step(lambda x: gc.mean(net(x) * 2), optimizer=optim.SGD(0.0), x=gc.f32[8, 3])
    batches = [normal(8, 3) for _ in range(4)]
    for x in batches:
        step(x)
    np.testing.assert_allclose(step.state["net.running_mean"], np.mean([x.mean(0) for x in batches], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(step.state["net.running_var"], np.mean([x.var(0, ddof=1) for x in batches], 0), rtol=1e-5)


def test_embeddings():
    ids, bags = np.int32([[1, 0, 2], [0, 0, 0]]), nn.EmbeddingBag(3, 4, padding_idx=0)
    y, state = run(bags, ids)
    table = state["weight"]
    assert not table[0].any() and table[1:].all()
    np.testing.assert_allclose(y, [(table[1] + table[2]) / 2, np.zeros(4)], rtol=1e-6)
    for mode, wanted in (("sum", table[1] + table[2]), ("max", np.maximum(table[1], table[2]))):
        np.testing.assert_allclose(run(nn.EmbeddingBag(3, 4, mode=mode, padding_idx=0), ids, state=state)[0], [wanted, np.zeros(4)], rtol=1e-6)
    step = gc.train_step(nn.Embedding(3, 4, padding_idx=-3), loss=lambda y, t: gc.sum(y * t), optimizer=optim.SGD(0.5), x=gc.i32[2, 3], t=gc.f32[2, 3, 4])
    before = step.state["weight"]
    step(ids, np.ones((2, 3, 4), np.float32))
    np.testing.assert_allclose(step.state["weight"] - before, [[0] * 4, [-0.5] * 4, [-0.5] * 4], rtol=1e-5)


def test_what_learns():
    x, y = normal(2, 3, 4), normal(2, 5)
    z, state = run(nn.PReLU(3, 0.5), x)
    np.testing.assert_array_equal(z, np.where(x > 0, x, 0.5 * x))
    assert state["weight"].shape == (3,)
    x = x[:, 0]
    found = gc.compile(nn.Bilinear(6), x=gc.f32[2, 4], y=gc.f32[2, 5], state={"weight": (w := normal(6, 4, 5)), "bias": (b := normal(6))})(x, y)
    np.testing.assert_allclose(found, np.einsum("bi,kij,bj->bk", x, w, y) + b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer, mode", [("ReflectionPad2d", "reflect"), ("ReplicationPad2d", "edge"), ("CircularPad2d", "wrap"), ("ZeroPad2d", "constant")])
def test_pads(layer, mode):
    y, _ = run(getattr(nn, layer)((1, 2, 0, 3)), IMAGE)
    np.testing.assert_array_equal(y, np.pad(IMAGE, ((0, 0), (0, 0), (0, 3), (1, 2)), mode=mode))
    cut, _ = run(getattr(nn, layer)((-1, 2, 1, -2)), IMAGE)
    np.testing.assert_array_equal(cut, np.pad(IMAGE[:, :, :-2, 1:], ((0, 0), (0, 0), (1, 0), (0, 2)), mode=mode))
    with pytest.raises(gc.GraphError, match=f"{layer} takes one number, or 4: before and behind the last axis"):
        getattr(nn, layer)((1, 2))


def trained(layer, x, seed=0):
    return gc.compile(layer, x=gc.f32[x.shape], seed=seed, training=True)(x)


def test_dropout_of_channels():
    x = np.ones((50, 40, 2, 3), np.float32)
    y = trained(nn.Dropout2d(0.25), x)
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)} and (y == y[:, :, :1, :1]).all()
    assert abs((y[:, :, 0, 0] > 0).mean() - 0.75) < 0.03
    np.testing.assert_array_equal(run(nn.Dropout2d(0.25), x)[0], x)
    with pytest.raises(gc.GraphError, match=r"Dropout3d takes \[batch, channels\] and 3 axes more"):
        trained(nn.Dropout3d(0.25), x[:, 0, 0])


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)])
def test_alpha_dropout_keeps_mean_and_variance(layer):
    y = trained(layer, normal(400, 300, 2))
    assert abs(y.mean()) < 0.03 and abs(y.var() - 1) < 0.05
    value = -1.7580993408473766                     # SELU at minus infinity
    low = np.isclose(y, 0.7 * value / np.sqrt(0.7 * (1 + 0.3 * value ** 2)), atol=1e-6)
    assert 0.28 < low.mean() < 0.32 and ((low == low[:, :, :1]).mean() > 0.999) == isinstance(layer, nn.FeatureAlphaDropout)


def test_rrelu():
    x = -np.ones((100, 100), np.float32)
    y = trained(nn.RReLU(0.1, 0.3), x)
    assert -0.3 <= y.min() < -0.29 and -0.11 < y.max() <= -0.1
    np.testing.assert_allclose(run(nn.RReLU(0.1, 0.3), x)[0], -0.2, rtol=1e-6)


def test_first_values():
    draw = np.random.default_rng(0)
    q = nn.Orthogonal(2.0)(draw, (6, 3, 4))
    np.testing.assert_allclose(q.reshape(6, 12) @ q.reshape(6, 12).T, 4 * np.eye(6), atol=1e-12)
    q = nn.Orthogonal()(draw, (9, 4))
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-12)
    for init, std in ((nn.XavierNormal(), np.sqrt(2 / 1200)), (nn.KaimingNormal(), np.sqrt(2 / 900)), (nn.LecunNormal(), np.sqrt(1 / 900)),
                      (nn.KaimingNormal(mode="fan_out", nonlinearity="tanh"), 5 / 3 / np.sqrt(300))):
        assert init(draw, (100, 300, 3)).std() == pytest.approx(std, rel=0.02)
    w = nn.KaimingUniform(1.0)(draw, (200, 300))
    assert np.abs(w).max() == pytest.approx(np.sqrt(3 / 300), rel=0.01) and w.min() < 0
    t = nn.TruncNormal(1.0, 0.5, 0.0, 2.0)(draw, (100, 100))
    assert t.min() >= 0 and t.max() <= 2 and t.mean() == pytest.approx(0.8563, abs=0.02)
    s = nn.Sparse(0.25, 2.0)(draw, (40, 200))
    assert ((s == 0).sum(0) == 10).all() and s[s != 0].std() == pytest.approx(2, rel=0.05)
    np.testing.assert_array_equal(nn.Eye()(draw, (2, 3)), np.eye(2, 3))
    x = normal(1, 4, 5)
    np.testing.assert_array_equal(gc.compile(lambda x: gc.conv1d(x, nn.Dirac(2)(draw, (4, 2, 3)).astype(np.float32), padding=1, groups=2), x=gc.f32[1, 4, 5])(x), x)
    net = nn.Linear(5, init=nn.Orthogonal(), bias_init=nn.Constant(0.5))
    _, state = run(net, normal(2, 5))
    np.testing.assert_allclose(state["weight"] @ state["weight"].T, np.eye(5), atol=1e-6)


@pytest.mark.parametrize("call, text", [
    (lambda: nn.Orthogonal()(np.random.default_rng(0), (3,)), r"Orthogonal is for weights \[out, in, …\], not for a parameter of shape \[3\]"),
    (lambda: nn.KaimingNormal(nonlinearity="gelu"), "calculate_gain knows linear, sigmoid"), (lambda: nn.TruncNormal(1.0, 0.0, 5.0, 6.0), "more than 2.0 standard deviations"),
    (lambda: nn.KaimingUniform(mode="fan"), "mode is one of fan_in, fan_out")])
def test_first_values_that_do_not_fit(call, text):
    with pytest.raises(gc.GraphError, match=text):
        call()


def aligned_probability(p, labels, blank):
    """The sum over all alignments whose repetitions and blanks go, one by one."""
    total = 0.0
    for path in product(range(p.shape[1]), repeat=len(p)):
        shortened = [c for i, c in enumerate(path) if c != blank and (i == 0 or c != path[i - 1])]
        total += np.prod([p[t, c] for t, c in enumerate(path)]) if shortened == list(labels) else 0.0
    return total


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_is_the_sum_over_all_alignments(blank):
    x = np.random.default_rng(1).normal(size=(5, 4, 3))
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    other = [c for c in range(3) if c != blank]
    y, n, m = np.int32([[other[0], other[1]], [other[0], other[0]], [other[1], blank], [blank, blank]]), np.int32([5, 4, 3, 2]), np.int32([2, 2, 1, 0])
    wanted = [-np.log(aligned_probability(p[:n[i], i], y[i, :m[i]], blank)) for i in range(4)]
    losses = {r: gc.compile(lambda x: nn.ctc_loss(gc.log_softmax(x), y, n, m, blank=blank, reduction=r), x=gc.f64[5, 4, 3])(x) for r in ("none", "sum", "mean")}
    np.testing.assert_allclose(losses["none"], wanted, rtol=1e-10)
    assert losses["sum"] == pytest.approx(sum(wanted)) and losses["mean"] == pytest.approx(np.mean(np.array(wanted) / [2, 2, 1, 1]))
    for k in (4, 1):                            # with one sequence some conditions of the gradient are single bools
        assert gc.check_gradients(lambda x: nn.ctc_loss(gc.log_softmax(x), y[:k], n[:k], m[:k], blank=blank), x=x[:, :k])


def test_gumbel_softmax_draws_by_the_probabilities():
    p = np.array([0.2, 0.5, 0.3], np.float32)
    logits = np.tile(np.log(p), (20_000, 1))
    soft, hard = gc.compile(lambda x: (gc.gumbel_softmax(x, 0.5, key=3), gc.gumbel_softmax(x, 0.5, True, key=3)), x=gc.f32[20_000, 3])(logits)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.eye(3)[soft.argmax(1)], hard, atol=1e-6)
    np.testing.assert_allclose(hard.mean(0), p, atol=0.02)


def test_adaptive_softmax():
    """What a target gets is what log_prob gives of it, and these are log-probabilities; ids of no class are refused."""
    layer = nn.AdaptiveLogSoftmaxWithLoss(7, [2, 4], div_value=2.0)

    def f(x, target):
        return *layer(x, target), layer.log_prob(x), layer.predict(x)
    run = gc.compile(f, x=gc.f32[7, 8], target=gc.i64[7], seed=0)
    x = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)
    found, loss, every, best = run(x, np.arange(7))
    np.testing.assert_allclose(np.exp(every).sum(1), np.ones(7), rtol=1e-5)
    np.testing.assert_allclose(found, np.diagonal(every), rtol=1e-5)
    assert loss == pytest.approx(-found.mean(), rel=1e-5) and best.tolist() == every.argmax(1).tolist()
    for wrong in (-1, 7):
        with pytest.raises(gc.GraphError, match=f"got id {wrong}, which is out of range: there are 7 rows"):
            run(x, np.full(7, wrong))
