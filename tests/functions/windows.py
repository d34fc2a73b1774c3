"""Convolutions, pooling and resizing in plain numpy, one window after the other: what the table compares with."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np


def places(counts, starts, sizes) -> Iterator[tuple[tuple, tuple]]:
    """Each index of a grid, and the slices that begin at starts[axis](index), `sizes` long."""
    for at in product(*map(range, counts)):
        begin = [start(i) for start, i in zip(starts, at)]
        yield (..., *at), (..., *[slice(b, b + n) for b, n in zip(begin, sizes)])


def conv(x, w, stride=1, padding=0):
    axes = x.ndim - 2
    x = np.pad(x, ((0, 0), (0, 0), *((padding, padding),) * axes))
    out = [(n - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:])]
    y = np.zeros((len(x), len(w), *out), x.dtype)
    for at, window in places(out, [lambda i: i * stride] * axes, w.shape[2:]):
        y[at] = np.tensordot(x[window], w, (range(1, x.ndim), range(1, x.ndim)))
    return y


def conv_transpose(x, w, stride=1):
    axes = x.ndim - 2
    out = [(n - 1) * stride + k for n, k in zip(x.shape[2:], w.shape[2:])]
    y = np.zeros((len(x), w.shape[1], *out), x.dtype)
    for at, window in places(x.shape[2:], [lambda i: i * stride] * axes, w.shape[2:]):
        y[window] += np.tensordot(x[at], w, (1, 0))
    return y


def pool(x, rule, k):
    """Windows of k elements along each axis, side by side."""
    out = [n // k for n in x.shape[2:]]
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for at, window in places(out, [lambda i: i * k] * len(out), [k] * len(out)):
        y[at] = rule(x[window], tuple(range(2, x.ndim)))
    return y


def adaptive(x, rule, size):
    """`size` windows along each axis, from floor(i n / size) to ceil((i + 1) n / size)."""
    y = np.zeros((*x.shape[:2], *(size,) * (x.ndim - 2)), x.dtype)
    for at in product(range(size), repeat=x.ndim - 2):
        window = [slice(i * n // size, -(-(i + 1) * n // size)) for i, n in zip(at, x.shape[2:])]
        y[(..., *at)] = rule(x[(..., *window)], tuple(range(2, x.ndim)))
    return y


def norm(x, p, k):
    return pool(x, lambda window, axes: (window ** p).sum(axes) ** (1 / p), k)


def spread(x, k):
    """Each element at the first place of its window."""
    y = np.zeros((*x.shape[:2], *(n * k for n in x.shape[2:])), x.dtype)
    y[(..., *[slice(None, None, k)] * (x.ndim - 2))] = x
    return y


def firsts(x, k):
    """The places of `spread`."""
    size = tuple(n * k for n in x.shape[2:])
    return np.broadcast_to(spread_places(size, k), x.shape)


def spread_places(size, k):
    return np.arange(np.prod(size, dtype=int)).reshape(size)[tuple([slice(None, None, k)] * len(size))]


def bilinear(x, shape):
    for axis, size in zip((2, 3), shape):
        old = x.shape[axis]
        at = np.maximum((np.arange(size) + 0.5) * old / size - 0.5, 0)
        low = np.minimum(at.astype(int), old - 1)
        part = (at - low).astype(x.dtype).reshape(-1, *(1,) * (3 - axis))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, np.minimum(low + 1, old - 1), axis) * part
    return x
