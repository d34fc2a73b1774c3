"""Small training steps for the jobs of this folder: every kind of state and of randomness."""
from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

import graphc as gc
from graphc import models, nn, optim

ROWS, STEPS = 16, 6
LSTM = partial(nn.LSTM, batch_first=True)


class Tagger(nn.Module):
    """A class of a sequence, by an LSTM."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = LSTM(8), nn.Linear(3)

    def forward(self, x):
        return self.head(self.lstm(x)[:, -1])


def cnn(**options):
    """Digits: batch norm, dropout, clipping, several calls an update, a second optimizer for some parameters."""
    net = (nn.Conv2d(4, 3) >> nn.BatchNorm2d(momentum=None) >> nn.relu >> nn.MaxPool2d(2) >> nn.Dropout(0.3)
           >> nn.Flatten() >> nn.Linear(10))
    groups = [optim.group(lambda name, shape: len(shape) < 2, optimizer=optim.SGD(1e-2, momentum=0.9))]
    return gc.train_step(net, loss=nn.cross_entropy, x=gc.f32[ROWS, 1, 8, 8], y=gc.i32[ROWS], seed=3, report="grad_norm",
                         ema=0.9, optimizer=optim.AdamW(1e-2, clip_norm=1.0, accumulate=2, groups=groups), **options)


def lstm(**options):
    """A size that comes with the call."""
    return gc.train_step(Tagger(), loss=nn.cross_entropy, x=gc.f32["B", 5, 3], y=gc.i32["B"], seed=3,
                         optimizer=optim.SGD(0.1, momentum=0.9), **options)


def transformer(**options):
    """Named values, a schedule, random numbers within the loss."""
    net = models.gpt(11, 16, 2, 2, 8)

    def loss(x, y):
        scores = net(x)
        return nn.cross_entropy(scores, y) + 0.01 * gc.mean(gc.normal((2,))), {
            "accuracy": nn.accuracy(scores, y), "first": scores[:, 0]}
    return gc.train_step(loss, x=gc.i32[ROWS, 8], y=gc.i32[ROWS, 8], seed=3,
                         optimizer=optim.AdamW(optim.cosine(1e-2, 40), weight_decay=0.1), **options)


def synced(**options):
    """Batch norm over all shards."""
    net = nn.Linear(6) >> nn.BatchNorm1d(sync=True) >> nn.tanh >> nn.Dropout(0.2) >> nn.Linear(3)
    return gc.train_step(net, loss=nn.cross_entropy, x=gc.f32[ROWS, 5], y=gc.i32[ROWS], seed=3,
                         optimizer=optim.Adam(1e-2), **options)


def data(name, rows=ROWS * 3):
    """x and y of a network, by its name."""
    draw = np.random.default_rng(7)
    if name == "cnn":
        return draw.normal(size=(rows, 1, 8, 8)).astype("f4"), draw.integers(0, 10, rows).astype("i4")
    if name == "lstm":
        return draw.normal(size=(rows, 5, 3)).astype("f4"), draw.integers(0, 3, rows).astype("i4")
    if name == "synced":
        return draw.normal(size=(rows, 5)).astype("f4"), draw.integers(0, 3, rows).astype("i4")
    return draw.integers(0, 11, (rows, 8)).astype("i4"), draw.integers(0, 11, (rows, 8)).astype("i4")


NETWORKS = {"cnn": cnn, "lstm": lstm, "transformer": transformer, "synced": synced}


def digest(step, *more):
    """Of the bytes of the state, and of arrays."""
    arrays = [step.state[name] for name in sorted(step.state)] + [np.asarray(a) for a in more]
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]
