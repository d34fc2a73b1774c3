"""What layers compute, against numpy; how their parameters start."""
import numpy as np
import pytest
from network import normal, run

from graphc import nn


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_linear():
    x = normal(2, 3, 4)
    y, s = run(nn.Linear(5), x)
    np.testing.assert_allclose(y, x @ s["weight"].T + s["bias"], rtol=1e-5, atol=1e-6)
    assert "bias" not in run(nn.Linear(5, bias=False), x)[1]


@pytest.mark.parametrize("steps", [5, 16, 40])
def test_a_linear_layer_of_one_feature_on_sequences(steps):
    x = normal(3, steps, 9)
    y, s = run(nn.Linear(1), x)
    np.testing.assert_allclose(y, x @ s["weight"].T + s["bias"], rtol=1e-5, atol=1e-6)


def test_embedding_and_flatten():
    ids = np.array([[0, 3], [2, 2]], np.int32)
    y, s = run(nn.Embedding(4, 3) >> nn.Flatten(), ids)
    np.testing.assert_array_equal(y, s["0.weight"][ids].reshape(2, 6))


def test_batch_norm_normalises_in_training_and_uses_statistics_otherwise():
    x = normal(6, 3, 4, 5) * 3 + 1
    y, s = run(nn.BatchNorm2d(), x, training=True)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, rtol=1e-4)
    np.testing.assert_allclose(s["running_mean"], 0.1 * x.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(s["running_var"], 0.9 + 0.1 * x.var((0, 2, 3), ddof=1), rtol=1e-4)
    y, _ = run(nn.BatchNorm2d(eps=0.5), x)
    np.testing.assert_allclose(y, x / np.sqrt(1.5), rtol=1e-5)


def test_norms():
    x = normal(3, 4, 6)
    y, _ = run(nn.LayerNorm(), x)
    np.testing.assert_allclose(y, (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5), rtol=1e-4,
                               atol=1e-5)
    y, s = run(nn.LayerNorm(axes=2), x)
    np.testing.assert_allclose(y, (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5),
                               rtol=1e-4, atol=1e-5)
    assert s["weight"].shape == (4, 6)
    y, _ = run(nn.RMSNorm(), x)
    np.testing.assert_allclose(y, x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-6), rtol=1e-4)
    y, _ = run(nn.GroupNorm(2), x)
    g = x.reshape(3, 2, 12)
    np.testing.assert_allclose(y.reshape(3, 2, 12),
                               (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5), rtol=1e-4,
                               atol=1e-5)


def test_pooling():
    x = normal(2, 3, 4, 6)
    blocks = x.reshape(2, 3, 2, 2, 3, 2)
    np.testing.assert_array_equal(run(nn.MaxPool2d(2), x)[0], blocks.max((3, 5)))
    np.testing.assert_allclose(run(nn.AvgPool2d(2), x)[0], blocks.mean((3, 5)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(nn.GlobalAvgPool2d(), x)[0], x.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_convolution_shapes_and_names():
    y, s = run(nn.Conv2d(6, 3, padding="same", groups=2), normal(2, 4, 5, 7))
    assert y.shape == (2, 6, 5, 7) and s["weight"].shape == (6, 2, 3, 3)
    y, s = run(nn.ConvTranspose2d(6, 3, stride=2), normal(2, 4, 5, 7))
    assert y.shape == (2, 6, 11, 15) and s["weight"].shape == (4, 6, 3, 3)
    y, s = run(nn.Conv1d(6, 3, stride=2, bias=False), normal(2, 4, 9))
    assert y.shape == (2, 6, 4) and list(s) == ["weight"]


def test_a_1x1_convolution_is_a_matrix_product():
    x = normal(2, 4, 3, 3)
    y, s = run(nn.Conv2d(5, 1), x)
    wanted = np.einsum("oc,bchw->bohw", s["weight"][:, :, 0, 0], x) + s["bias"][:, None, None]
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training():
    x = np.ones((50, 40), np.float32)
    assert np.array_equal(run(nn.Dropout(0.25), x)[0], x)
    y, _ = run(nn.Dropout(0.25), x, training=True)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.75)} and abs((y == 0).mean() - 0.25) < 0.03


def lstm(x, h, c, s, suffix):
    ys = []
    for row in x:
        i, f, g, o = np.split(row @ s[f"weight_ih_{suffix}"].T + s[f"bias_ih_{suffix}"] + h @ s[f"weight_hh_{suffix}"].T
                              + s[f"bias_hh_{suffix}"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return np.array(ys), h, c


def gru(x, h, s, suffix):
    ys = []
    for row in x:
        r, z, n = np.split(row @ s[f"weight_ih_{suffix}"].T + s[f"bias_ih_{suffix}"], 3, -1)
        hr, hz, hn = np.split(h @ s[f"weight_hh_{suffix}"].T + s[f"bias_hh_{suffix}"], 3, -1)
        z = sigmoid(z + hz)
        h = (1 - z) * np.tanh(n + sigmoid(r + hr) * hn) + z * h
        ys.append(h)
    return np.array(ys), h


def test_lstm_layers_and_directions():
    x = normal(5, 2, 3)
    zero = np.zeros((2, 4))
    y, s = run(nn.LSTM(4, layers=2, bidirectional=True), x)
    for layer in range(2):
        forth, back = lstm(x, zero, zero, s, f"l{layer}")[0], lstm(x[::-1], zero, zero, s, f"l{layer}_reverse")[0][::-1]
        x = np.concatenate([forth, back], -1)
    np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5)


def test_lstm_state_is_taken_and_given():
    x, h, c = normal(5, 2, 3), normal(1, 2, 4, seed=1), normal(1, 2, 4, seed=2)
    layer = nn.LSTM(4)

    def with_state(x, h, c):
        y, (h, c) = layer(x, (h, c))
        return y, h, c
    (y, h1, c1), s = run(with_state, x, h, c)
    assert {n.split(".")[-1] for n in s} == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    wanted = lstm(x, h[0], c[0], {n.split(".")[-1]: s[n] for n in s}, "l0")
    for a, b in zip((y, h1[0], c1[0]), wanted):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gru_batch_first_and_returned_state():
    x = normal(2, 5, 3)
    (y, h), s = run(lambda x, layer=nn.GRU(4, batch_first=True): layer(x, return_state=True), x)
    s = {n.split(".")[-1]: s[n] for n in s}
    wanted, last = gru(x.swapaxes(0, 1), np.zeros((2, 4)), s, "l0")
    np.testing.assert_allclose(y, wanted.swapaxes(0, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(h[0], last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation, f", [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))])
def test_rnn(activation, f):
    x, h = normal(4, 2, 3), np.zeros((2, 5))
    y, s = run(nn.RNN(5, activation=activation, bias=False), x)
    for t in range(4):
        h = f(x[t] @ s["weight_ih_l0"].T + h @ s["weight_hh_l0"].T)
        np.testing.assert_allclose(y[t], h, rtol=1e-4, atol=1e-5)


def attend(q, k, v, heads, mask=None):
    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
    q, k, v = map(split, (q, k, v))
    s = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    s = s if mask is None else np.where(mask, s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    y = (p / p.sum(-1, keepdims=True)) @ v
    return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(causal):
    x = normal(2, 5, 6)
    y, s = run(nn.MultiHeadAttention(3, causal=causal), x)
    q, k, v = np.split(x @ s["in_proj_weight"].T + s["in_proj_bias"], 3, -1)
    inner = attend(q, k, v, 3, np.tril(np.ones((5, 5), bool)) if causal else None)
    np.testing.assert_allclose(y, inner @ s["out_proj.weight"].T + s["out_proj.bias"], rtol=1e-4, atol=1e-5)
    assert not s["in_proj_bias"].any() and not s["out_proj.bias"].any()


def test_cross_attention_with_a_mask():
    q, k = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    mask = np.arange(5) < np.array([[[[3]]], [[[5]]]])
    layer = nn.MultiHeadAttention(2)
    y, s = run(lambda q, k, m: layer(q, k, mask=m), q, k, mask)
    w, b = s["layer.in_proj_weight"], s["layer.in_proj_bias"]
    parts = [x @ w[i * 4:i * 4 + 4].T + b[i * 4:i * 4 + 4] for i, x in enumerate((q, k, k))]
    np.testing.assert_allclose(y, attend(*parts, 2, mask) @ s["layer.out_proj.weight"].T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_transformer_block_names_and_sizes(pre_norm):
    y, s = run(nn.TransformerBlock(2, pre_norm=pre_norm), normal(2, 5, 4))
    assert set(s) == {"self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
                      "self_attn.out_proj.bias", "linear1.weight",
                      "linear1.bias", "linear2.weight", "linear2.bias", "norm1.weight", "norm1.bias", "norm2.weight",
                      "norm2.bias"}
    assert s["linear1.weight"].shape == (16, 4) and y.shape == (2, 5, 4)
    if not pre_norm:
        np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)


def test_a_causal_block_does_not_look_ahead():
    x = normal(1, 6, 4)
    changed = x.copy()
    changed[:, 4:] += 1
    net = nn.TransformerBlock(2, causal=True, pre_norm=True) ** 2
    y, s = run(net, x)
    z, _ = run(net, changed, state=s)
    np.testing.assert_array_equal(y[:, :4], z[:, :4])
    assert not np.allclose(y[:, 4:], z[:, 4:])


def test_residual():
    x = normal(3, 4)
    y, s = run(nn.residual(nn.Linear(4)), x)
    np.testing.assert_allclose(y, x + x @ s["body.weight"].T + s["body.bias"], rtol=1e-5, atol=1e-6)


def test_activations_with_options():
    x = normal(50)
    np.testing.assert_allclose(run(nn.leaky_relu(slope=0.3), x)[0], np.where(x > 0, x, 0.3 * x), rtol=1e-6)
    gelu = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))
    np.testing.assert_allclose(run(nn.gelu(approximate="tanh"), x)[0], gelu, rtol=1e-4, atol=1e-6)


STARTS = [
    (nn.Linear(300), (5, 400), "weight", 1 / 20), (nn.Linear(300), (5, 400), "bias", 1 / 20),
    (nn.Conv2d(60, 3), (1, 25, 4, 4), "weight", 1 / 15),
    (nn.LSTM(100), (2, 3, 50), "weight_hh_l0", 0.1),
    (nn.MultiHeadAttention(2), (1, 2, 60), "in_proj_weight", np.sqrt(6 / 240)),
    (nn.ConvTranspose2d(25, 3), (1, 40, 4, 4), "weight", 1 / 15)]


@pytest.mark.parametrize("net, shape, name, bound", STARTS)
def test_uniform_starts_fill_their_range(net, shape, name, bound):
    _, s = run(net, normal(*shape))
    assert 0.97 * bound < np.abs(s[name]).max() <= bound
    assert abs(s[name].std() / bound - 1 / np.sqrt(3)) < 0.05 or s[name].size < 1000


def test_given_starts():
    _, s = run(nn.Linear(2, init=nn.Normal(0.0), bias_init=nn.Constant(3.0)), normal(2, 3))
    assert not s["weight"].any() and (s["bias"] == 3).all()
    _, s = run(nn.Linear(2, bias_init=nn.Value(np.array([1.0, 2.0]))), normal(2, 3))
    assert s["bias"].tolist() == [1, 2]


def test_sinusoidal_positions():
    y, s = run(nn.SinusoidalPosition(), np.zeros((2, 7, 6), np.float32))
    t, i = np.meshgrid(np.arange(7), np.arange(3), indexing="ij")
    np.testing.assert_allclose(y[1, :, ::2], np.sin(t / 10000 ** (i / 3)), atol=1e-6)
    np.testing.assert_allclose(y[0, :, 1::2], np.cos(t / 10000 ** (i / 3)), atol=1e-6)
    assert not s


def test_learned_positions_serve_shorter_inputs():
    layer, x = nn.LearnedPosition(), normal(2, 5, 3)
    y, s = run(layer, x)
    np.testing.assert_allclose(y, x + s["weight"], rtol=1e-6)
    z, _ = run(layer, x[:, :2].copy(), state=s)
    np.testing.assert_array_equal(z, y[:, :2])
