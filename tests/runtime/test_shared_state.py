"""Steps that share one state, called from several threads."""
import threading

import numpy as np

import graphc as gc
from graphc import nn, optim

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def test_no_step_is_lost_whoever_makes_it():
    """Each call has the state to itself, also what is derived from it."""
    net = nn.Linear(64) >> nn.tanh >> nn.Linear(3)
    first = gc.train_step(lambda x: nn.mse(net(x), x), optimizer=optim.Adam(1e-3), x=gc.f32[8, 3])
    second = gc.train_step(lambda x: nn.mse(net(x), x * 2), optimizer=optim.SGD(1e-2), x=gc.f32[8, 3],
                           state=first.state)
    failures = []

    def work(step):
        try:
            for _ in range(300):
                step(X)
        except Exception as error:      # told to the main thread
            failures.append(error)
    threads = [threading.Thread(target=work, args=(step,)) for step in (first, second, second)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    state = first.state.copy()
    assert not failures and (state["step"], state["step.2"]) == (300, 600)
    assert all(np.isfinite(a).all() for a in state.values())
