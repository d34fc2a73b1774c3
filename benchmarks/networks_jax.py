"""The networks in JAX: functions of parameters by PyTorch's names, as users of plain JAX write them; images are NHWC,
weights [in, out] and HWIO.

A network is f(p, x, train) -> (result, new running statistics by name).
"""
from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from graphc.models.mobilenet import STAGES

FIRST = 32


def linear(p, name, x):
    y = x @ p[f"{name}.weight"]
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def conv(p, name, x, stride=1, padding=0, groups=1):
    y = lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), [(padding, padding)] * 2,
                                 feature_group_count=groups,
                                 dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def max_pool(x, kernel, stride, padding=0):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1),
                             [(0, 0), (padding, padding), (padding, padding), (0, 0)])


def flat(x):
    """As PyTorch flattens NCHW."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def batch_norm(p, name, x, train, stats):
    mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if train:
        n = x.size // x.shape[-1]
        batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        stats[f"{name}.running_mean"] = 0.9 * mean + 0.1 * batch_mean
        stats[f"{name}.running_var"] = 0.9 * var + 0.1 * batch_var * (n / (n - 1))
        mean, var = batch_mean, batch_var
    scale = p[f"{name}.weight"] * lax.rsqrt(var + 1e-5)
    return (x - mean) * scale + p[f"{name}.bias"]


def mlp(sizes, p, x, train):
    for i in range(len(sizes) - 1):
        x = linear(p, 2 * i, jax.nn.sigmoid(x) if i else x)
    return x, {}


def lenet(p, x, train, channels=(32, 64), size=28):
    x = jax.nn.relu(conv(p, 2, jax.nn.relu(conv(p, 0, x, 1, 1)), 1, 1))
    return linear(p, 8, jax.nn.relu(linear(p, 6, flat(max_pool(x, 2, 2))))), {}


def alexnet(p, x, train, size=224, classes=1000):
    for name, stride, padding, pooled in ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False),
                                          (10, 1, 1, True)):
        x = jax.nn.relu(conv(p, name, x, stride, padding))
        x = max_pool(x, 3, 2) if pooled else x
    x = jax.nn.relu(linear(p, 15, jax.nn.relu(linear(p, 14, flat(x)))))
    return linear(p, 16, x), {}


def resnet(blocks, p, x, train, bottleneck=False, width=64, size=224, classes=1000):
    stats = {}
    normed = lambda c, b, x, *how: batch_norm(p, b, conv(p, c, x, *how), train, stats)
    x, at = max_pool(jax.nn.relu(normed(0, 1, x, 2, 3)), 3, 2, 1), 4
    strides = [2 if i and not j else 1 for i, count in enumerate(blocks) for j in range(count)]
    for at, stride in enumerate(strides, 4):
        shortcut = normed(f"{at}.downsample.0", f"{at}.downsample.1", x,
                          stride) if f"{at}.downsample.0.weight" in p else x
        steps = ((1, 1, 0), (2, stride, 1), (3, 1, 0)) if bottleneck else ((1, stride, 1), (2, 1, 1))
        for k, s, padding in steps:
            x = normed(f"{at}.conv{k}", f"{at}.bn{k}", x, s, padding)
            x = x if k == len(steps) else jax.nn.relu(x)
        x = jax.nn.relu(x + shortcut)
    return linear(p, at + 2, x.mean((1, 2))), stats


def mobilenet(p, x, train, width=FIRST, size=224, classes=1000):
    stats = {}
    def normed(at, x, *how):
        return jax.nn.relu(batch_norm(p, at + 1, conv(p, at, x, *how), train, stats))
    x, at = normed(0, x, 2, 1), 3
    for _, stride in STAGES:
        x = normed(at + 3, normed(at, x, stride, 1, x.shape[-1]))
        at += 6
    return linear(p, at + 1, x.mean((1, 2))), stats


def recurrent(cell, carries, p, ids, train, hidden=512, layers=2, length=64, vocabulary=1000):
    x = p["0.weight"][ids]
    for i in range(layers):
        inside = p[f"1.bias_hh_l{i}"]
        inputs = x @ p[f"1.weight_ih_l{i}"] + p[f"1.bias_ih_l{i}"]
        step = partial(cell, p[f"1.weight_hh_l{i}"], inside)
        zeros = jnp.zeros((x.shape[1], hidden))
        x = lax.scan(step, (zeros,) * carries, inputs)[1]
    return linear(p, 2, x), {}


def elman(w, b, carry, x):
    h = jnp.tanh(x + carry[0] @ w + b)
    return (h,), h


def lstm(w, b, carry, x):
    h, c = carry
    i, f, g, o = jnp.split(x + h @ w + b, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(w, b, carry, x):
    h, = carry
    xr, xz, xn = jnp.split(x, 3, -1)
    hr, hz, hn = jnp.split(h @ w + b, 3, -1)
    z = jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
    h = (1 - z) * n + z * h
    return (h,), h


def layer_norm(p, name, x, eps=1e-5):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(x.var(-1, keepdims=True) + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def self_attention(p, name, x, heads, causal):
    b, t, width = x.shape
    z = (x @ p[f"{name}.in_proj_weight"] + p[f"{name}.in_proj_bias"]).reshape(b, t, 3, heads, width // heads)
    y = jax.nn.dot_product_attention(z[:, :, 0], z[:, :, 1], z[:, :, 2], is_causal=causal)
    return linear(p, f"{name}.out_proj", y.reshape(b, t, width))


def feed_forward(p, name, x, approximate):
    return linear(p, f"{name}.linear2", jax.nn.gelu(linear(p, f"{name}.linear1", x), approximate=approximate))


def bert(p, ids, train, width, layers, heads, length, vocabulary):
    x = p["0.tokens.weight"][ids] + p["0.positions.weight"][:ids.shape[1]] + p["0.segments.weight"][0]
    x = layer_norm(p, "0.norm", x, 1e-12)
    for i in range(layers):
        x = layer_norm(p, f"1.{i}.norm1", x + self_attention(p, f"1.{i}.self_attn", x, heads, False), 1e-12)
        x = layer_norm(p, f"1.{i}.norm2", x + feed_forward(p, f"1.{i}", x, False), 1e-12)
    return x, {}


def gpt(p, ids, train, width, layers, heads, length, vocabulary):
    x = p["0.weight"][ids] + p["1.weight"][:ids.shape[1]]
    for i in range(layers):
        x = x + self_attention(p, f"3.{i}.self_attn", layer_norm(p, f"3.{i}.norm1", x), heads, True)
        x = x + feed_forward(p, f"3.{i}", layer_norm(p, f"3.{i}.norm2", x), True)
    return linear(p, 5, layer_norm(p, 4, x)), {}


def attention(q, k, v, causal=False):
    """[B, heads, T, D]; JAX's own takes [B, T, heads, D]."""
    turned = [x.transpose(0, 2, 1, 3) for x in (q, k, v)]
    return jax.nn.dot_product_attention(*turned, is_causal=causal).transpose(0, 2, 1, 3)


NETWORKS = {"mlp": mlp, "lenet": lenet, "alexnet": alexnet, "resnet": resnet, "mobilenet": mobilenet,
            "rnn": partial(recurrent, elman, 1),
            "lstm": partial(recurrent, lstm, 2), "gru": partial(recurrent, gru, 1), "bert": bert, "gpt": gpt}
