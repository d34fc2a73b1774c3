"""Convolutions, pooling and resizing in plain numpy, one window after the other: what the table compares with."""
from __future__ import annotations

import numpy as np


def conv2d(x, w, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kh, kw = w.shape[2:]
    oh, ow = (x.shape[2] - kh) // stride + 1, (x.shape[3] - kw) // stride + 1
    y = np.zeros((len(x), len(w), oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            y[:, :, i, j] = np.einsum("nchw,fchw->nf", x[:, :, i * stride:i * stride + kh, j * stride:j * stride + kw],
                                      w)
    return y


def conv_transpose2d(x, w, stride=1):
    kh, kw = w.shape[2:]
    y = np.zeros((len(x), w.shape[1], (x.shape[2] - 1) * stride + kh, (x.shape[3] - 1) * stride + kw), x.dtype)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            y[:, :, i * stride:i * stride + kh,
              j * stride:j * stride + kw] += np.einsum("nc,cfhw->nfhw", x[:, :, i, j], w)
    return y


def conv1d(x, w):
    return conv2d(x[:, :, None], w[:, :, None])[:, :, 0]


def conv_transpose1d(x, w, stride=1):
    return conv_transpose2d(x[:, :, None], w[:, :, None], stride)[:, :, 0]


def pool2d(x, rule, k):
    n, c, h, w = x.shape
    return rule(x.reshape(n, c, h // k, k, w // k, k), axis=(3, 5))


def pool1d(x, rule, k):
    return rule(x.reshape(*x.shape[:2], x.shape[2] // k, k), axis=3)


def bilinear(x, shape):
    for axis, size in zip((2, 3), shape):
        old = x.shape[axis]
        at = np.maximum((np.arange(size) + 0.5) * old / size - 0.5, 0)
        low = np.minimum(at.astype(int), old - 1)
        part = (at - low).astype(x.dtype).reshape(-1, *(1,) * (3 - axis))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, np.minimum(low + 1, old - 1), axis) * part
    return x


def unfold(x):
    """Windows of 2 x 2 with stride 2 of x with one zero around, as columns."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = [x[:, :, i::2, j::2].reshape(*x.shape[:2], 9) for i in (0, 1) for j in (0, 1)]
    return np.stack(parts, 2).reshape(x.shape[0], 4 * x.shape[1], 9)
