"""Training steps with compute="int8": the forward pass rounds as compiled networks of 8-bit integers do."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import demo, nn, optim
from graphc.errors import GraphError

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


NETWORKS = {
    "layers": (lambda: nn.Linear(32) >> nn.relu >> nn.Linear(16), (24,)),
    "convolutions": (lambda: nn.Conv2d(16, 3, padding=1) >> nn.relu >> nn.Conv2d(16, 3) >> nn.Flatten() >> nn.Linear(16),
                     (8, 8, 8)),
    "loop": (lambda: nn.LSTM(32, batch_first=True) >> nn.Collapse("last", batch_first=True) >> nn.Linear(16), (5, 24)),
    "computed again": (lambda: gc.remat(nn.Linear(32) >> nn.relu) >> nn.Linear(16), (24,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_is_that_of_the_compiled_integers(name):
    make, shape = NETWORKS[name]
    net, x, y = make(), drawn(6, *shape), drawn(6, 16)
    types = {"x": gc.f32[(6, *shape)], "y": gc.f32[6, 16]}
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.0), compute="int8", seed=0, **types)
    loss = step(x, y)
    served = gc.compile(step.model, x=types["x"], compute="int8")
    whole = gc.compile(step.model, x=types["x"])
    expected, other = (float(((run(x) - y) ** 2).mean()) for run in (served, whole))
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    assert abs(other - expected) > 1e-5 * abs(expected)


def test_gradients_go_straight_through():
    """Of a layer without others: that of the f32 product at the rounded factors."""
    x, y = drawn(6, 24), drawn(6, 32)
    step = gc.train_step(nn.Linear(32, bias=False), loss=nn.mse, optimizer=optim.SGD(1.0), compute="int8", seed=0,
                         x=gc.f32[6, 24], y=gc.f32[6, 32])
    w = np.array(step.state["weight"])
    step(x, y)

    def rounded(a):
        scale = np.abs(a).max(axis=1, keepdims=True) / 127
        return np.rint(a / scale) * scale
    slope = 2 / y.size * (rounded(x) @ rounded(w).T - y).T @ rounded(x)
    np.testing.assert_allclose(w - step.state["weight"], slope, rtol=1e-4, atol=1e-6)


def test_outputs_and_statistics_are_those_of_the_rounded_network():
    net = nn.Linear(32) >> nn.BatchNorm1d() >> nn.Linear(16)
    x, y = drawn(6, 24), drawn(6, 16)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.0), compute="int8", seed=0, outputs=["0"],
                         x=gc.f32[6, 24], y=gc.f32[6, 16])
    first = step(x, y)["0"]
    served = gc.compile(nn.Linear(32), x=gc.f32[6, 24], compute="int8",
                        state={name: step.state[f"0.{name}"] for name in ("weight", "bias")})
    np.testing.assert_allclose(first, served(x), rtol=0, atol=1e-6)
    np.testing.assert_allclose(step.state["1.running_mean"], 0.1 * first.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_shards_round_alike():
    x, y = drawn(8, 24), drawn(8, 16)
    steps = [gc.train_step(nn.Linear(32) >> nn.Linear(16), loss=nn.mse, optimizer=optim.SGD(0.1), compute="int8", seed=0,
                           shards=shards, x=gc.f32[8, 24], y=gc.f32[8, 16]) for shards in (None, 2)]
    np.testing.assert_allclose(*(step(x, y) for step in steps), rtol=1e-5)


def test_digits_after_training_for_integers():
    data = demo.digits()
    step = gc.train_step(demo.network(), loss=nn.cross_entropy, optimizer=optim.AdamW(3e-3), compute="int8", seed=0,
                         x=gc.f32[demo.BATCH, 1, 8, 8], y=gc.i32[demo.BATCH])
    for epoch in range(8):
        for x, y in demo.batches(data, 0, epoch):
            step(x, y)
    run = gc.compile(step.model, x=gc.f32["B", 1, 8, 8], compute="int8")
    assert (run(data.x_held_out).argmax(1) == data.y_held_out).mean() >= 0.985


@pytest.mark.parametrize(("make", "message"), [
    (lambda **types: gc.train_step(nn.Linear(3), loss=nn.mse, optimizer=optim.SGD(0.1), compute="int8",
                                   x=gc.f32[4, 5], y=gc.f32[4, 3]), "no product by weights"),
])
def test_what_is_refused(make, message):
    with pytest.raises(GraphError, match=message):
        step = make()
        step(drawn(4, 5), drawn(4, 3))
