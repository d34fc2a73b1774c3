"""Weights made of others: weight_norm and spectral_norm."""
from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5)).astype(np.float32)
Y = RNG.standard_normal((6, 3)).astype(np.float32)
PLACE = "parametrizations.weight."


def step_of(net, **options):
    return gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[6, 5], y=gc.f32[6, 3], seed=0, **options)


def predicted(step):
    return gc.compile(step.model, x=gc.f32[6, 5])(X)


@pytest.mark.parametrize("axis, kept", [(0, (1,)), (1, (0,)), (-1, (0,)), (None, (0, 1))])
def test_weight_norm_is_length_times_direction(axis, kept):
    step = step_of(nn.weight_norm(nn.Linear(3), axis=axis))
    v, bias = (step.state[name].astype(np.float64) for name in (PLACE + "original1", "bias"))
    g = step.state[PLACE + "original0"].astype(np.float64)
    np.testing.assert_allclose(g, np.sqrt((v * v).sum(kept, keepdims=axis is not None)), rtol=1e-6)     # so that the weight is v
    np.testing.assert_allclose(predicted(step), X @ v.T + bias, rtol=1e-5, atol=1e-6)
    step.state[PLACE + "original0"] = (2 * g).astype(np.float32)
    np.testing.assert_allclose(predicted(step), 2 * X @ v.T + bias, rtol=1e-5, atol=1e-6)
    size = np.linalg.norm(step.state[PLACE + "original1"])
    losses = [step(X, Y) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert np.linalg.norm(step.state[PLACE + "original1"]) >= size          # gradients of v are orthogonal to it


def test_spectral_norm_divides_by_the_largest_singular_value():
    step = step_of(nn.spectral_norm(nn.Linear(3)))
    w, bias = step.state[PLACE + "original"].astype(np.float64), step.state["bias"]
    np.testing.assert_allclose(predicted(step), X @ (w / np.linalg.svd(w)[1][0]).T + bias, rtol=1e-3, atol=1e-4)
    u, v = (step.state[f"{PLACE}0.{name}"].astype(np.float64) for name in ("_u", "_v"))
    np.testing.assert_allclose(predicted(step), X @ (w / (u @ w @ v)).T + bias, rtol=1e-5, atol=1e-6)
    step(X, Y)
    u = w @ v
    u /= np.linalg.norm(u)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    np.testing.assert_allclose(step.state[PLACE + "0._u"], u, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(step.state[PLACE + "0._v"], v, rtol=1e-4, atol=1e-5)
    before = step.state[PLACE + "0._u"]
    predicted(step)
    np.testing.assert_array_equal(step.state[PLACE + "0._u"], before)       # inference leaves the vectors as they are


def test_layers_of_other_kinds_and_copies():
    net = nn.spectral_norm(nn.ConvTranspose1d(2, 3)) >> nn.weight_norm(nn.GRU(4), "weight_hh_l0") >> nn.Flatten() >> nn.Linear(3)
    step = gc.train_step(copy.deepcopy(net), loss=nn.mse, optimizer=optim.SGD(0.01), x=gc.f32[2, 5, 4], y=gc.f32[2, 3], seed=0)
    assert step.state["0.parametrizations.weight.0._u"].shape == (2,) and step.state["0.parametrizations.weight.0._v"].shape == (15,)
    assert step.state["1.parametrizations.weight_hh_l0.original0"].shape == (12, 1) and "1.weight_ih_l0" in step.state
    step(np.ones((2, 5, 4), np.float32), np.ones((2, 3), np.float32))
    again = copy.deepcopy(step)
    assert again(np.ones((2, 5, 4), np.float32), np.ones((2, 3), np.float32)) == step(np.ones((2, 5, 4), np.float32), np.ones((2, 3), np.float32))
    stack = nn.weight_norm(nn.Linear(5)) ** 2                               # fresh copies
    state = step_of(stack >> nn.Linear(3)).state
    assert not np.array_equal(state[f"0.0.{PLACE}original1"], state[f"0.1.{PLACE}original1"])
    for i in (0, 1):
        np.testing.assert_allclose(state[f"0.{i}.{PLACE}original0"][:, 0], np.linalg.norm(state[f"0.{i}.{PLACE}original1"], axis=1), rtol=1e-6)


def test_second_gradients():
    layer = nn.weight_norm(nn.Linear(1, bias=False))

    @gc.graph
    def f(x: gc.f64[3]):
        return gc.sum(gc.tanh(layer(x)))
    gc.check_gradients(f, seed=0)


@pytest.mark.parametrize("make, text", [
    (lambda: nn.weight_norm(gc.relu), "weight_norm takes a layer with parameters, such as nn.Linear"),
    (lambda: nn.weight_norm(nn.weight_norm(nn.Linear(2))), "weight_norm: weight of this layer is made of others already"),
    (lambda: nn.spectral_norm(nn.Linear(2), n_power_iterations=0), "n_power_iterations is at least 1, got 0"),
    (lambda: nn.spectral_norm(nn.Linear(2), n_power_iterations=2.5), "n_power_iterations is an int, got 2.5"),
    (lambda: nn.spectral_norm(nn.Linear(2), eps=0), "eps is a number above 0, got 0"),
    (lambda: gc.compile(nn.weight_norm(nn.Linear(2), "wieght"), x=gc.f32[3, 4], seed=0), "Linear has no parameter 'wieght' to be made of others; it has weight"),
    (lambda: gc.compile(nn.weight_norm(nn.Linear(2), axis=3), x=gc.f32[3, 4], seed=0), "axis 3"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()


def test_a_layer_that_was_called_stays_as_it_is():
    layer = nn.Linear(3)
    gc.compile(layer, x=gc.f32[2, 4], seed=0)
    with pytest.raises(gc.GraphError, match="the layer has been called and has weight, bias already"):
        nn.spectral_norm(layer)
