"""Loops whose numbers of steps come with the call: one program, the bits of the programs made for each size."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn

SIZES = ((1, 1), (3, 5), (2, 8), (5, 33))


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module", params=[
    lambda: nn.LSTM(16, layers=2, batch_first=True), lambda: nn.GRU(20, batch_first=True, bidirectional=True),
    lambda: nn.RNN(8, batch_first=False)], ids=["lstm", "gru both ways", "rnn"])
def network(request):
    net = request.param()
    return net, gc.compile(net, x=gc.f32["B", "T", 12], seed=0, threads=2)


def leaves(result) -> list[np.ndarray]:
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in leaves(part)]
    return [np.asarray(result)]


@pytest.mark.parametrize("sizes", SIZES)
def test_recurrent_layers(network, sizes):
    net, run = network
    x = floats(*sizes, 12)
    results = leaves(run(x))
    assert run.sized, run.why_not
    apart = gc.compile(net, x=gc.f32[x.shape], seed=0, threads=2)
    for a, b in zip(results, leaves(apart(x)), strict=True):
        np.testing.assert_array_equal(a, b)


def summed(x, w):
    """Running products: a carry that is also what each step gives."""
    def step(carry, row):
        new = gc.tanh(carry @ w + row)
        return new, new
    return gc.scan(step, gc.zeros(x.shape[1:]), x)


@gc.graph
def forward(x: gc.f32["T", "B", 6], w: gc.f32[6, 6]):
    last, every = summed(x, w)
    return gc.sum(every * every) + gc.sum(last)


@pytest.fixture(scope="module")
def gradient():
    return gc.compile(gc.grad(forward, wrt=("x", "w")), threads=2)


@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_through_a_scan(gradient, sizes):
    x, w = floats(*sizes, 6), floats(6, 6) * np.float32(0.3)
    results = leaves(gradient(x, w))
    assert gradient.sized, gradient.why_not
    apart = gc.compile(gc.grad(forward, wrt=("x", "w")), threads=2, T=sizes[0], B=sizes[1])
    for a, b in zip(results, leaves(apart(x, w)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
