"""What PyTensor expresses well: dense layers, recurrence by scan, attention; symbolic functions of parameters by
PyTorch's names, weights [in, out].
"""
from __future__ import annotations

from functools import partial

import pytensor
import pytensor.tensor as pt


def linear(p, name, x):
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def mlp(sizes, p, x):
    for i in range(len(sizes) - 1):
        x = linear(p, 2 * i, pt.sigmoid(x) if i else x)
    return x


def recurrent(cell, carries, p, ids, hidden=512, layers=2, length=64, vocabulary=1000):
    x = p["0.weight"][ids]
    for i in range(layers):
        inputs = x @ p[f"1.weight_ih_l{i}"] + p[f"1.bias_ih_l{i}"]
        start = [pt.zeros((ids.shape[1], hidden), dtype="float32")] * carries
        step = partial(cell, p[f"1.weight_hh_l{i}"], p[f"1.bias_hh_l{i}"])
        found = pytensor.scan(lambda x, *carry: step(x, *carry), inputs, start, return_updates=False)
        x = found[0] if isinstance(found, (list, tuple)) else found
    return linear(p, 2, x)


def elman(w, b, x, h):
    return pt.tanh(x + h @ w + b)


def lstm(w, b, x, h, c):
    i, f, g, o = _parts(x + h @ w + b, 4)
    c = pt.sigmoid(f) * c + pt.sigmoid(i) * pt.tanh(g)
    return pt.sigmoid(o) * pt.tanh(c), c


def gru(w, b, x, h):
    xr, xz, xn = _parts(x, 3)
    hr, hz, hn = _parts(h @ w + b, 3)
    z = pt.sigmoid(xz + hz)
    n = pt.tanh(xn + pt.sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h


def _parts(x, count: int):
    width = x.shape[-1] // count
    return [x[..., i * width:(i + 1) * width] for i in range(count)]


def attention(q, k, v):
    scores = q @ k.swapaxes(-1, -2) * (1.0 / pt.sqrt(q.shape[-1].astype("float32")))
    return pt.special.softmax(scores, -1) @ v


NETWORKS = {"mlp": mlp, "rnn": partial(recurrent, elman, 1), "lstm": partial(recurrent, lstm, 2),
            "gru": partial(recurrent, gru, 1)}
