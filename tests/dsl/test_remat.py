"""`gc.remat`: values and gradients as without, in less memory, with everything that composes with functions and
layers."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import GraphError

RNG = np.random.default_rng(0)
W, X = (RNG.normal(size=(32, 32)) / 6).astype(np.float32), RNG.normal(size=(64, 32)).astype(np.float32)


def block(x, w):
    return gc.tanh(gc.tanh(gc.tanh(x @ w) @ w) @ w)


def loss_of(f, times=6):
    @gc.graph
    def loss(w: gc.f32[32, 32], x: gc.f32[64, 32]):
        for _ in range(times):
            x = f(x, w)
        return gc.mean(x * x)
    return loss


PLAIN, AGAIN = loss_of(block), loss_of(gc.remat(block))


@pytest.mark.parametrize("derived, more", [
    (lambda f: f, 0), (lambda f: gc.grad(f, "w"), 0), (lambda f: gc.value_and_grad(f, ("w", "x")), 0),
    (lambda f: gc.hvp(f, "w"), 1), (lambda f: gc.jvp(f, "w"), 1)],
    ids=["value", "gradient", "both", "second", "forward"])
def test_as_without(derived, more):
    arguments = (W, X) + (RNG.normal(size=W.shape).astype(np.float32),) * more
    plain, again = (gc.compile(derived(f))(*arguments) for f in (PLAIN, AGAIN))
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (plain, again)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7)


def test_takes_less_memory():
    plain, again = (gc.plan(gc.grad(loss_of(f, 12), "w")).memory.arena for f in (block, gc.remat(block)))
    assert again < 0.6 * plain


def test_gradients_against_differences():
    gc.check_gradients(AGAIN, w=W, x=X, wrt=("w", "x"), raises=True)


def test_second_gradients_are_computed_again_too():
    """What the gradient of the gradient needs is not kept either: its nodes are remat."""
    twice = gc.grad(_norm_of(gc.grad(AGAIN, "x")), "w")
    assert sum(n.op.name == "remat" for n in twice.graph.nodes) > sum(n.op.name == "remat" for n in AGAIN.graph.nodes)


def _norm_of(gradient):
    @gc.graph
    def norm(w: gc.f32[32, 32], x: gc.f32[64, 32]):
        return gc.sum(gc.square(gradient(w, x)))
    return norm


@pytest.mark.parametrize("reverse", [False, True])
def test_body_of_a_scan(reverse):
    """The forward loop stacks the carry alone."""
    def loss(f):
        @gc.graph
        def loss(w: gc.f32[32, 32], x: gc.f32[64, 32]):
            last, ys = gc.scan(lambda c, _: (f(c, w), gc.mean(c)), x, length=10, reverse=reverse)
            return gc.mean(last) + gc.sum(ys)
        return gc.grad(loss, ("w", "x"))
    plain, again = loss(block), loss(gc.remat(block))
    for a, b in zip(gc.compile(plain)(W, X), gc.compile(again)(W, X)):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7)
    assert gc.plan(again).memory.arena < 0.7 * gc.plan(plain).memory.arena


def test_vmap():
    @gc.graph
    def of_one(w: gc.f32[32, 32], x: gc.f32[4, 32]):
        return gc.mean(gc.remat(block)(x, w))

    @gc.graph
    def plain(w: gc.f32[32, 32], x: gc.f32[4, 32]):
        return gc.mean(block(x, w))
    a, b = (gc.compile(gc.vmap(gc.grad(f, "w"), {"x": 0}, size=16))(W, X.reshape(16, 4, 32)) for f in (plain, of_one))
    assert a.shape == (16, 32, 32)
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7)
    fused = gc.compile(gc.vmap(gc.grad(of_one, "w"), {"x": 0}, size=16)).dump("fused")
    assert "scan" not in fused


def test_in_branches():
    @gc.graph
    def loss(w: gc.f32[32, 32], x: gc.f32[64, 32]):
        f = gc.remat(block)
        return gc.mean(gc.cond(gc.sum(x) > 0, lambda: f(x, w), lambda: f(-x, w)))
    run = gc.compile(gc.grad(loss, "w"))
    np.testing.assert_allclose(run(W, X), run(W, -X), rtol=1e-4, atol=1e-7)


def test_random_numbers_are_drawn_once():
    """The mask of the forward pass is that of the backward pass: the gradient of sum(dropout(x)) is dropout(1)."""
    @gc.graph
    def f(x: gc.f32[1000]):
        return gc.sum(gc.remat(lambda y: gc.dropout(y, 0.5) * y)(x))
    both = gc.compile(gc.value_and_grad(f, "x"), training=True, seed=3)
    x = np.ones(1000, np.float32)
    for _ in range(3):
        value, gradient = both(x)
        assert set(np.unique(gradient)) == {0.0, 4.0} and gradient.sum() == 2 * value


def network(again, *, norm=True):
    inner = nn.Linear(32) >> (nn.BatchNorm1d() if norm else nn.relu) >> nn.relu >> nn.Dropout(0.3) >> nn.Linear(32)
    return nn.Linear(32) >> (gc.remat(inner) if again else inner) ** 3 >> nn.Linear(4)


def test_layers_in_a_training_step():
    """Names, statistics, dropout, losses and parameters are as without."""
    plain, again = (gc.train_step(network(r), loss=nn.cross_entropy, optimizer=optim.AdamW(1e-2), x=gc.f32[64, 32],
                                  y=gc.i32[64], state="own") for r in (False, True))
    y = RNG.integers(0, 4, 64).astype(np.int32)
    assert sorted(plain.state) == sorted(again.state)
    assert any("running_mean" in name for name in again.state)
    for _ in range(4):
        np.testing.assert_allclose(plain(X, y), again(X, y), rtol=1e-5)
    for name in plain.state:
        np.testing.assert_allclose(plain.state[name], again.state[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert again.memory.arena < plain.memory.arena
    run = gc.compile(again.model, x=gc.f32[64, 32])
    np.testing.assert_allclose(run(X), gc.compile(plain.model, x=gc.f32[64, 32])(X), rtol=1e-3, atol=1e-4)


def test_options_go_inside():
    rnn = gc.remat(nn.LSTM(8, batch_first=True))
    net = rnn >> nn.Linear(2)
    run = gc.compile(net, x=gc.f32[2, 5, 3], lengths=gc.i32[2], seed=0)
    plain = gc.compile(nn.LSTM(8, batch_first=True) >> nn.Linear(2), x=gc.f32[2, 5, 3], lengths=gc.i32[2], seed=0)
    x, n = RNG.normal(size=(2, 5, 3)).astype(np.float32), np.array([5, 2], np.int32)
    np.testing.assert_array_equal(run(x, n), plain(x, n))


def test_structures_and_numbers():
    @gc.graph
    def f(x: gc.f32[4], i: gc.i32[4]):
        found = gc.remat(lambda d, k, t: {"a": d["x"] * k, "b": (t[0] + 1, d["x"] > 0)})({"x": x}, 3, (i,))
        return found["a"] + found["b"][0].astype(gc.f32) + gc.where(found["b"][1], 1.0, 0.0)
    x, i = np.array([1, -1, 2, 0], np.float32), np.arange(4, dtype=np.int32)
    np.testing.assert_allclose(gc.compile(f)(x, i), 3 * x + i + 1 + (x > 0))


def test_what_a_condition_hides_stays_hidden():
    @gc.graph
    def f(x: gc.f32[3]):
        return gc.sum(gc.where(x > 0, gc.remat(gc.sqrt)(x), x))
    gradient = gc.compile(gc.grad(f))(np.array([4, 0, -1], np.float32))
    np.testing.assert_allclose(gradient, [0.25, 1, 1])


def test_a_known_mask_stays_known():
    """Attention under a constant mask from outside is the operator inside, too."""
    mask = np.tril(np.ones((16, 16), bool))

    def attend(q, m):
        scores = gc.where(m, q @ gc.transpose(q, (0, 2, 1)) / 4, -1e9)
        return gc.softmax(scores) @ q

    def loss(again):
        @gc.graph
        def f(q: gc.f32[2, 16, 8]):
            return gc.mean((gc.remat(attend) if again else attend)(q, gc.where(mask, True, False)))
        return gc.grad(f)
    q = RNG.normal(size=(2, 16, 8)).astype(np.float32)
    a, b = (gc.compile(loss(again)) for again in (False, True))
    np.testing.assert_allclose(a(q), b(q), rtol=1e-5, atol=1e-7)
    assert ("attention_grad" in a.dump("fused")) == ("attention_grad" in b.dump("fused"))


def test_text_and_back():
    text = str(gc.grad(AGAIN, "w"))
    assert "remat(" in text and "held=2" in text
    assert _without_lines(str(gc.GraphFunction(gc.parse(text)))) == _without_lines(text)


def _without_lines(text):
    return [line.partition("  # ")[0] for line in text.splitlines()]


def test_mistakes():
    with pytest.raises(GraphError, match="gc.remat takes a function of arrays or a layer, got 3"):
        gc.remat(3)
    with pytest.raises(GraphError, match="returned no array"):
        @gc.graph
        def f(x: gc.f32[3]):
            gc.remat(lambda y: None)(x)
            return x
    kept = []
    with pytest.raises(GraphError, match="belongs to another graph"):
        @gc.graph
        def g(x: gc.f32[3]):
            gc.remat(lambda y: kept.append(y * 2) or y)(x)
            return kept[0]
