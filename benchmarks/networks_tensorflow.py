"""The networks in TensorFlow: functions of parameters by PyTorch's names, for `tf.function(jit_compile=True)`; images
are NHWC, weights [in, out] and HWIO, as `networks_jax.py` has them.

A network is f(p, x, train) -> (result, new running statistics by name).
"""
from __future__ import annotations

from functools import partial

import tensorflow as tf

from graphc.models.mobilenet import STAGES

FIRST = 32


def linear(p, name, x):
    y = tf.tensordot(x, p[f"{name}.weight"], 1)
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def conv(p, name, x, stride=1, padding=0, groups=1):
    w, around = p[f"{name}.weight"], [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    if groups > 1:
        y = tf.nn.depthwise_conv2d(tf.pad(x, around), tf.transpose(w, (0, 1, 3, 2)), (1, stride, stride, 1), "VALID")
    else:
        y = tf.nn.conv2d(x, w, stride, around)
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def max_pool(x, kernel, stride, padding=0):
    around = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    return tf.nn.max_pool2d(tf.pad(x, around, constant_values=x.dtype.min) if padding else x, kernel, stride, "VALID")


def flat(x):
    """As PyTorch flattens NCHW."""
    return tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (x.shape[0], -1))


def batch_norm(p, name, x, train, stats):
    mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if train:
        n = x.shape.num_elements() // x.shape[-1]
        batch_mean, batch_var = tf.nn.moments(x, (0, 1, 2))
        stats[f"{name}.running_mean"] = 0.9 * mean + 0.1 * batch_mean
        stats[f"{name}.running_var"] = 0.9 * var + 0.1 * batch_var * (n / (n - 1))
        mean, var = batch_mean, batch_var
    return tf.nn.batch_normalization(x, mean, var, p[f"{name}.bias"], p[f"{name}.weight"], 1e-5)


def mlp(sizes, p, x, train):
    for i in range(len(sizes) - 1):
        x = linear(p, 2 * i, tf.sigmoid(x) if i else x)
    return x, {}


def lenet(p, x, train, channels=(32, 64), size=28):
    x = tf.nn.relu(conv(p, 2, tf.nn.relu(conv(p, 0, x, 1, 1)), 1, 1))
    return linear(p, 8, tf.nn.relu(linear(p, 6, flat(max_pool(x, 2, 2))))), {}


def alexnet(p, x, train, size=224, classes=1000):
    for name, stride, padding, pooled in ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False),
                                          (10, 1, 1, True)):
        x = tf.nn.relu(conv(p, name, x, stride, padding))
        x = max_pool(x, 3, 2) if pooled else x
    x = tf.nn.relu(linear(p, 15, tf.nn.relu(linear(p, 14, flat(x)))))
    return linear(p, 16, x), {}


def resnet(blocks, p, x, train, bottleneck=False, width=64, size=224, classes=1000):
    stats = {}
    normed = lambda c, b, x, *how: batch_norm(p, b, conv(p, c, x, *how), train, stats)
    x, at = max_pool(tf.nn.relu(normed(0, 1, x, 2, 3)), 3, 2, 1), 4
    strides = [2 if i and not j else 1 for i, count in enumerate(blocks) for j in range(count)]
    for at, stride in enumerate(strides, 4):
        down = f"{at}.downsample"
        shortcut = normed(f"{down}.0", f"{down}.1", x, stride) if f"{down}.0.weight" in p else x
        steps = ((1, 1, 0), (2, stride, 1), (3, 1, 0)) if bottleneck else ((1, stride, 1), (2, 1, 1))
        for k, s, padding in steps:
            x = normed(f"{at}.conv{k}", f"{at}.bn{k}", x, s, padding)
            x = x if k == len(steps) else tf.nn.relu(x)
        x = tf.nn.relu(x + shortcut)
    return linear(p, at + 2, tf.reduce_mean(x, (1, 2))), stats


def mobilenet(p, x, train, width=FIRST, size=224, classes=1000):
    stats = {}
    def normed(at, x, *how):
        return tf.nn.relu(batch_norm(p, at + 1, conv(p, at, x, *how), train, stats))
    x, at = normed(0, x, 2, 1), 3
    for _, stride in STAGES:
        x = normed(at + 3, normed(at, x, stride, 1, x.shape[-1]))
        at += 6
    return linear(p, at + 1, tf.reduce_mean(x, (1, 2))), stats


def recurrent(cell, carries, p, ids, train, hidden=512, layers=2, length=64, vocabulary=1000):
    x = tf.gather(p["0.weight"], ids)
    for i in range(layers):
        inputs = tf.tensordot(x, p[f"1.weight_ih_l{i}"], 1) + p[f"1.bias_ih_l{i}"]
        step = partial(cell, p[f"1.weight_hh_l{i}"], p[f"1.bias_hh_l{i}"])
        x = tf.scan(step, inputs, (tf.zeros((x.shape[1], hidden)),) * carries)[0]
    return linear(p, 2, x), {}


def elman(w, b, carry, x):
    return (tf.tanh(x + carry[0] @ w + b),)


def lstm(w, b, carry, x):
    h, c = carry
    i, f, g, o = tf.split(x + h @ w + b, 4, -1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def gru(w, b, carry, x):
    h, = carry
    xr, xz, xn = tf.split(x, 3, -1)
    hr, hz, hn = tf.split(h @ w + b, 3, -1)
    z = tf.sigmoid(xz + hz)
    n = tf.tanh(xn + tf.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def layer_norm(p, name, x, eps=1e-5):
    mean, var = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(var + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(q, k, v, causal=False):
    """[B, heads, T, D]; TensorFlow has none of its own."""
    scores = tf.matmul(q, k, transpose_b=True) * q.shape[-1] ** -0.5
    if causal:
        t = q.shape[-2]
        scores = tf.where(tf.linalg.band_part(tf.ones((t, t), tf.bool), -1, 0), scores, -float("inf"))
    return tf.matmul(tf.nn.softmax(scores), v)


def self_attention(p, name, x, heads, causal):
    b, t, width = x.shape
    z = tf.tensordot(x, p[f"{name}.in_proj_weight"], 1) + p[f"{name}.in_proj_bias"]
    q, k, v = tf.unstack(tf.transpose(tf.reshape(z, (b, t, 3, heads, width // heads)), (2, 0, 3, 1, 4)))
    y = tf.reshape(tf.transpose(attention(q, k, v, causal), (0, 2, 1, 3)), (b, t, width))
    return linear(p, f"{name}.out_proj", y)


def feed_forward(p, name, x, approximate):
    return linear(p, f"{name}.linear2", tf.nn.gelu(linear(p, f"{name}.linear1", x), approximate))


def bert(p, ids, train, width, layers, heads, length, vocabulary):
    x = tf.gather(p["0.tokens.weight"], ids) + p["0.positions.weight"][:ids.shape[1]] + p["0.segments.weight"][0]
    x = layer_norm(p, "0.norm", x, 1e-12)
    for i in range(layers):
        x = layer_norm(p, f"1.{i}.norm1", x + self_attention(p, f"1.{i}.self_attn", x, heads, False), 1e-12)
        x = layer_norm(p, f"1.{i}.norm2", x + feed_forward(p, f"1.{i}", x, False), 1e-12)
    return x, {}


def gpt(p, ids, train, width, layers, heads, length, vocabulary):
    x = tf.gather(p["0.weight"], ids) + p["1.weight"][:ids.shape[1]]
    for i in range(layers):
        x = x + self_attention(p, f"3.{i}.self_attn", layer_norm(p, f"3.{i}.norm1", x), heads, True)
        x = x + feed_forward(p, f"3.{i}", layer_norm(p, f"3.{i}.norm2", x), True)
    return linear(p, 5, layer_norm(p, 4, x)), {}


NETWORKS = {"mlp": mlp, "lenet": lenet, "alexnet": alexnet, "resnet": resnet, "mobilenet": mobilenet,
            "rnn": partial(recurrent, elman, 1), "lstm": partial(recurrent, lstm, 2),
            "gru": partial(recurrent, gru, 1), "bert": bert, "gpt": gpt}
