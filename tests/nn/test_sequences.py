"""Sequences of unequal length, options that travel through chains, and what stands around sequence layers, against numpy."""
import numpy as np
import pytest
from network import normal, run

import graphc as gc
from graphc import nn
from graphc.nn.network import trace_network

LENGTHS = np.array([5, 2, 1, 4], np.int32)
X = normal(5, 4, 3)


def with_lengths(net, **options):
    def f(x, n):
        return net(x, lengths=n, **options)
    return f


def alone(net, x, n, state):
    """The result for each sequence on its own, without padding."""
    return [run(lambda x: net(x), x[:k, i:i + 1], state=state)[0] for i, k in enumerate(n)]


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"layers": 2, "bidirectional": True}])
def test_padding_changes_nothing(layer, options):
    net = layer(3, **options)
    (y, h), state = run(with_lengths(net, return_state=True) if layer is not nn.LSTM else
                        (lambda x, n: (lambda y, s: (y, s[0]))(*net(x, lengths=n, return_state=True))), X, LENGTHS)
    for i, (k, wanted) in enumerate(zip(LENGTHS, alone(net, X, LENGTHS, state))):
        np.testing.assert_allclose(y[:k, i:i + 1], wanted, rtol=1e-5, atol=1e-6)
        assert not y[k:, i].any()
        np.testing.assert_allclose(h[-1, i], wanted[0 if options else -1, 0, -3:], rtol=1e-5, atol=1e-6)
    changed = X.copy()
    for i, k in enumerate(LENGTHS):
        changed[k:, i] = 1e3
    np.testing.assert_array_equal(run(with_lengths(net), changed, LENGTHS, state=state)[0], y)


@pytest.mark.parametrize("how, wanted", [
    ("first", lambda x, n: x[0]), ("last", lambda x, n: x[n - 1, np.arange(4)]),
    ("average", lambda x, n: np.stack([x[:k, i].mean(0) for i, k in enumerate(n)]))])
def test_collapse(how, wanted):
    full = np.full(4, 5, np.int32)
    np.testing.assert_allclose(run(nn.Collapse(how), X)[0], wanted(X, full), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(with_lengths(nn.Collapse(how)), X, LENGTHS)[0], wanted(X, LENGTHS), rtol=1e-5, atol=1e-6)
    turned = run(with_lengths(nn.Collapse(how, batch_first=True)), X.swapaxes(0, 1).copy(), LENGTHS)[0]
    np.testing.assert_allclose(turned, wanted(X, LENGTHS), rtol=1e-5, atol=1e-6)


def test_options_go_to_the_layers_that_take_them():
    ids = np.random.default_rng(0).integers(0, 7, (5, 4)).astype(np.int32)
    net = nn.Embedding(7, 3) >> nn.residual(nn.LSTM(3)) >> nn.AddNorm(nn.GRU(3)) >> nn.Sequential(nn.Collapse("last"), nn.FeedForward(2))
    assert net.takes() == {"lengths", "state", "return_state"}
    y, state = run(with_lengths(net), ids, LENGTHS)
    state = {name.removeprefix("net."): value for name, value in state.items()}
    for i, k in enumerate(LENGTHS):
        one = gc.compile(net, x=gc.i32[int(k), 1], state=state)(ids[:k, i:i + 1].copy())
        np.testing.assert_allclose(y[i:i + 1], one, rtol=1e-4, atol=1e-5)
    assert np.array_equal(gc.compile(net, x=gc.i32[5, 4], lengths=gc.i32[4], state=state)(ids, LENGTHS).shape, (4, 2))


@pytest.mark.parametrize("make, text", [
    (lambda: run(lambda x: (nn.Linear(2) >> nn.Linear(2))(x, lengths=LENGTHS), X), "no layer of this sequence takes 'lengths'; their options are none"),
    (lambda: run(with_lengths(nn.LSTM(2)), X, LENGTHS[:3]), r"LSTM: lengths are integers \[4\].* got i32\[3\]"),
    (lambda: run(with_lengths(nn.Collapse("last")), X, X[0, :, 0].copy()), r"Collapse: lengths are integers \[4\].* got f32\[4\]"),
    (lambda: nn.Collapse("middle"), "Collapse takes first, last, average, got 'middle'"),
    (lambda: trace_network(nn.Embedding(5, 2) >> nn.LSTM(3), x=gc.i32[3, 2], length=gc.i32[2]), "inputs x, length: .* takes x, lengths, return_state, state"),
    (lambda: run(nn.DecoderBlock(1), X), "give memory="),
    (lambda: nn.MultiHeadAttention(2, position=nn.SinusoidalPosition()), r"nn.RotaryPosition\(\) or nn.RelativePosition\(\)"),
    (lambda: run(nn.residual(nn.Linear(2)), X), r"f made \[5, 4, 2\] of \[5, 4, 3\]"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()
