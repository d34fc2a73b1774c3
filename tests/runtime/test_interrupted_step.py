"""Ctrl-C at any moment of a long training step, between kernels and inside them: the state is that of before or after
it.

It stands among the tests of the runtime because the suite repeats the native calls of all others and restores the state
in between, which Ctrl-C would meet too.
"""
from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

SHARE = 24                      # interrupted steps


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1), optim.AdamW(0.01)], ids=["SGD", "AdamW"])
def test_a_state_is_old_or_new(optimizer, monkeypatch):
    monkeypatch.setenv("GRAPHC_ORACLE", "0")
    net = nn.Linear(512) >> gc.tanh >> nn.Linear(512) >> gc.tanh >> nn.Linear(512) >> gc.tanh >> nn.Linear(64)
    step = gc.train_step(net, loss=nn.mse, optimizer=optimizer, x=gc.f32[1024, 256], y=gc.f32[1024, 64], seed=0,
                         threads=2)
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((1024, 256)).astype("f"), rng.standard_normal((1024, 64)).astype("f")
    step(*batch)
    run = step._fixed.executable
    old = step.state.copy()

    def called() -> float:
        run._descriptor.switch(enabled=False, release=True)     # as a call that is known to be long
        start = time.perf_counter()
        loss = step(*batch)
        seconds.append(time.perf_counter() - start)
        return loss

    seconds: list[float] = []
    loss, new, seen = called(), step.state.copy(), set()
    for k in range(SHARE):
        step.state.load(old, "test")
        timer = threading.Timer(min(seconds) * k / SHARE, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            called()
            time.sleep(10)
        except KeyboardInterrupt:
            pass
        timer.join()
        found = step.state.copy()
        whole = [name for name, values in (("old", old), ("new", new))
                 if all(found[n].tobytes() == a.tobytes() for n, a in values.items())]
        assert whole, k
        seen.update(whole)
    step.state.load(old, "test")
    assert called() == loss and seen <= {"old", "new"}
