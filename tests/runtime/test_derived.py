"""Derived values while another thread trains."""
from __future__ import annotations

import threading

import numpy as np

import graphc as gc
from graphc import nn, optim

X, Y = gc.f32[4, 16, 10, 10], gc.i32[4]


def test_training_and_prediction_in_two_threads(rng=np.random.default_rng(3)):
    """Every prediction is that of some version of the state, never of a mixture."""
    net = nn.Conv2d(32, 3,
                    bias=False) >> nn.BatchNorm2d() >> nn.relu >> nn.GlobalAvgPool2d() >> nn.Flatten() >> nn.Linear(40)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=X, y=Y, seed=0, threads=2)
    x, y = rng.normal(size=X.shape).astype("f"), rng.integers(0, 40, 4).astype("i")
    predict = gc.compile(step.model, x=X, threads=1)
    seen, versions = [], [predict(x).tobytes()]
    running = True

    def watch():
        while running:
            seen.append(predict(x).tobytes())
    watcher = threading.Thread(target=watch)
    watcher.start()
    fresh = gc.compile(step.model, x=X, threads=2)
    for _ in range(20):
        step(x, y)
        versions.append(fresh(x).tobytes())
    running = False
    watcher.join()
    assert seen and set(seen) <= set(versions)
