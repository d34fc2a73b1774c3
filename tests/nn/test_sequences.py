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
    assert {"lengths", "state", "return_state"} <= net.takes() and "x" not in net.takes()
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
    (lambda: run(lambda x, n: nn.Attention()(x, lengths=n), X[0], LENGTHS), r"Attention: lengths belong to a batch .* got keys \[4, 3\]"),
    (lambda: run(lambda y, t: nn.sequence_loss(y, t, reduction="steps"), X, LENGTHS), "reduction is one of mean, sum, none, step, got 'steps'"),
    (lambda: run(lambda y, t: nn.sequence_loss(y, t), X, np.zeros((4, 5), np.int32)), r"agree in time and batch, got \[5, 4, 3\] and \[4, 5\]"),
    (lambda: nn.FeedForward(2, "sin"), "activation is one of relu, .* or a function of one array, got 'sin'"),
    (lambda: nn.AddNorm(nn.Linear(2), norm="batch"), "norm is one of layer, rms, or a function that makes a norm layer, got 'batch'"),
    (lambda: nn.RelativePosition(32, max_distance=8), "a max_distance above those of one distance each, got 32 and 8"),
    (lambda: run(nn.RotaryPosition(), X), r"even number of features, got \[5, 4, 3\]"),
    (lambda: nn.RotaryPosition(base=0.0), "base is a number above 0"), (lambda: nn.RotaryPosition(base=float("nan")), "base is a number above 0"),
    (lambda: run(nn.MultiHeadAttention(1), normal(4, 2, 3), normal(3, 2, 3)), r"must agree in the batch, .* got \[4, 2, 3\], \[3, 2, 3\], \[3, 2, 3\]"),
    (lambda: run(nn.MultiHeadAttention(1), X[0]), r"MultiHeadAttention takes \[batch, time, features\], got \[4, 3\]"),
    (lambda: run(lambda x, m: nn.MultiHeadAttention(1)(x, mask=m), X, np.ones((5, 3), bool)), r"mask of attention .*does not broadcast to .*5, 1, 4, 4"),
    (lambda: nn.Collapse("middle"), "Collapse takes first, last, average, got 'middle'"),
    (lambda: trace_network(nn.Embedding(5, 2) >> nn.LSTM(3), x=gc.i32[3, 2], length=gc.i32[2]), "inputs x, length: .* takes x, lengths, return_state"),
    (lambda: run(nn.DecoderBlock(1), X), "give memory="),
    (lambda: nn.MultiHeadAttention(2, position=nn.SinusoidalPosition()), r"nn.RotaryPosition\(\) or nn.RelativePosition\(\)"),
    (lambda: run(nn.residual(nn.Linear(2)), X), r"f made \[5, 4, 2\] of \[5, 4, 3\]"),
])
def test_mistakes(make, text):
    with pytest.raises(gc.GraphError, match=text):
        make()


NAMED = {
    "recurrent": (lambda: nn.Embedding(9, 4) >> nn.LSTM(3, bidirectional=True) >> nn.Collapse("last"), gc.i32["T", "B"]),
    "average": (lambda: nn.Embedding(9, 4) >> nn.GRU(3, batch_first=True) >> nn.Collapse("average", batch_first=True), gc.i32["B", "T"]),
    "sinusoidal": (lambda: nn.Embedding(9, 4) >> nn.SinusoidalPosition() >> nn.TransformerBlock(2), gc.i32["B", "T"]),
    "learned, rotary": (lambda: nn.Embedding(9, 4) >> nn.LearnedPosition(8) >> nn.TransformerBlock(2, position=nn.RotaryPosition()), gc.i32["B", "T"]),
}


@pytest.mark.parametrize("name", NAMED)
def test_batch_and_time_may_be_names(name):
    make, named = NAMED[name]
    net, lengths, ids = make(), np.int32([6, 2, 4]), np.random.default_rng(0).integers(0, 9, (6, 3)).astype(np.int32)
    ids = ids if name == "recurrent" else ids.T.copy()
    y = gc.compile(net, x=gc.i32[ids.shape], lengths=gc.i32[3], seed=0)(ids, lengths)
    # the program for all sizes adds up in another order than the one for these: a unit in the last place or two
    close = {"rtol": 0, "atol": 2.5e-7} if name in ("sinusoidal", "learned, rotary") else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(gc.compile(net, x=named, lengths=gc.i32["B"], seed=0)(ids, lengths), y, **close)


def test_rotated_scores_depend_on_distances_alone():
    q, k = np.broadcast_to(normal(6), (9, 6)).copy(), np.broadcast_to(normal(6, seed=1), (9, 6)).copy()
    for layer in (nn.RotaryPosition(), nn.RotaryPosition(halves=True, base=50.0)):
        scores = run(layer, q)[0] @ run(layer, k)[0].T
        for d in range(-8, 9):
            diagonal = np.diagonal(scores, d)
            np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)
        assert np.ptp(scores[0]) > 0.1


def test_relative_positions_add_one_number_for_each_distance():
    q = np.zeros((1, 2, 7, 3), np.float32)
    bias, s = run(nn.RelativePosition(4, max_distance=3), q, q)
    assert s["weight"].shape == (4, 2) and bias.shape == (2, 7, 7)
    for d in range(-6, 7):
        assert len(np.unique(np.diagonal(bias[0], d))) == 1
    assert bias[1, 0, 0] == s["weight"][0, 1] and bias[1, 6, 0] == s["weight"][1, 1] and bias[1, 0, 6] == s["weight"][3, 1]


def test_accuracy_of_real_steps():
    logits, target = normal(5, 4, 3), np.random.default_rng(0).integers(0, 3, (5, 4)).astype(np.int32)
    hits, real = logits.argmax(-1) == target, np.arange(5)[:, None] < LENGTHS
    assert run(lambda y, t: nn.accuracy(y, t), logits, target)[0] == np.float32(hits.mean())
    assert run(lambda y, t, n: nn.accuracy(y, t, lengths=n), logits, target, LENGTHS)[0] == np.float32(hits[real].mean())
    padded = np.where(real, target, -1).astype(np.int32)
    assert run(lambda y, t: nn.accuracy(y, t, ignore_index=-1), logits, padded)[0] == np.float32(hits[real].mean())


def test_a_position_may_be_shared_by_blocks():
    """As in T5; `**` makes one for each block."""
    position = nn.RelativePosition(8, max_distance=20)
    shared = nn.Sequential(*(nn.TransformerBlock(2, position=position) for _ in range(3)))
    for net, count in ((shared, 1), (nn.TransformerBlock(2, position=position) ** 3, 3)):
        names = run(net, normal(2, 5, 4))[1]
        assert sum("position" in name for name in names) == count


def test_an_encoder_and_a_decoder():
    """Padding of the source changes nothing, and no step of the target sees later ones."""
    encoder = nn.Embedding(9, 4) >> nn.SinusoidalPosition() >> nn.TransformerBlock(2) ** 2
    decoder = nn.Embedding(9, 4) >> nn.SinusoidalPosition() >> nn.DecoderBlock(2, pre_norm=True) ** 2

    def net(x, y, n):
        return decoder(y, memory=encoder(x, lengths=n), memory_lengths=n)
    random = np.random.default_rng(0)
    x, y, n = random.integers(0, 9, (2, 6)).astype(np.int32), random.integers(0, 9, (2, 5)).astype(np.int32), np.int32([4, 6])
    z, state = run(net, x, y, n)
    assert any(name.startswith("decoder.2.1.multihead_attn.") for name in state)
    x[0, 4:] = 0
    y[:, 3:] = 1
    changed, _ = run(net, x, y, n, state=state)
    np.testing.assert_array_equal(changed[:, :3], z[:, :3])
    x[0, 3] += 1
    assert not np.allclose(run(net, x % 9, y, n, state=state)[0][0, :3], z[0, :3])
