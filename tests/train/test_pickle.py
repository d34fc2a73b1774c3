"""Steps and compiled functions are copied and pickled, before and after their first call."""
import copy
import pickle

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 3)).astype(np.float32)
Y = (X[:, :1] - X[:, 1:2]).astype(np.float32)
WAYS = {"pickle": lambda x: pickle.loads(pickle.dumps(x)), "copy": copy.deepcopy}
NET = {"mlp": lambda: nn.Linear(64) >> nn.tanh >> nn.BatchNorm1d() >> nn.Dropout(0.1) >> nn.Linear(1),
       "conv": lambda: nn.Conv1d(8, 3, padding=1) >> nn.relu >> nn.Flatten() >> nn.Linear(1)}


def step_of(**options):
    return gc.train_step(NET["mlp"](), loss=nn.mse, optimizer=optim.Adam(0.1), x=gc.f32[16, 3], y=gc.f32[16, 1], **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("calls", [0, 2])
def test_steps(way, calls):
    step = step_of()
    for _ in range(calls):
        step(X, Y)
    if calls:
        step.lr, step.hyper["betas"] = 0.05, (0.8, 0.9)
        step.evaluate(X, Y), step.predict(X), step.fit(X, Y)
    other = WAYS[way](step)
    assert other.lr == step.lr and np.array_equal(step.predict(X), other.predict(X))
    for _ in range(2):
        assert step(X, Y) == other(X, Y)
    assert all(np.array_equal(step.state[n], other.state[n]) for n in step.state)
    before = step.state["0.weight"]
    other(X, Y)
    assert np.array_equal(step.state["0.weight"], before)               # apart from now on
    other.hyper["eps"] = 1e-3
    assert np.isfinite(other(X, Y))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", NET)
@pytest.mark.parametrize("batch", [16, "B"])
def test_compiled_networks_from_a_seed(net, way, batch):
    shape = (batch, 3) if net == "mlp" else (batch, 3, 20)
    run = gc.compile(NET[net](), x=gc.f32[shape], seed=0)
    x = RANDOM.normal(size=(16, *shape[1:])).astype(np.float32)
    y = run(x)
    other = WAYS[way](run)
    assert np.array_equal(other(x), y) and np.array_equal(WAYS[way](other)(x), y)
    assert np.array_equal(run(x), y)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [16, "B"])
def test_compiled_networks_of_a_step_are_apart_from_it(way, batch):
    step = step_of()
    step(X, Y)
    run = gc.compile(step.model, x=gc.f32[batch, 3])
    y = run(X)
    other = WAYS[way](run)
    step(X, Y)
    assert np.array_equal(other(X), y) and not np.array_equal(run(X), y)


@pytest.mark.parametrize("way", WAYS)
def test_a_network_that_writes_its_state(way):
    class Counter(nn.Module):
        def forward(self, x):
            n = self.buffer("n", (), nn.Constant(0.0))
            self.update("n", n + 1)
            return x + n
    run = gc.compile(Counter(), x=gc.f32[2], seed=0)
    zero = np.zeros(2, np.float32)
    run(zero), run(zero)
    other = WAYS[way](run)
    assert other(zero)[0] == 2 and other(zero)[0] == 3 and run(zero)[0] == 2


def test_code_for_another_machine_is_refused(monkeypatch):
    run = gc.compile(nn.Linear(64) >> nn.relu >> nn.Linear(64), x=gc.f32[16, 64], seed=0)
    make, arguments = run.__reduce__()
    with pytest.raises(gc.GraphError, match="was pickled with its parameters in the form that other"):
        make(*arguments[:-1], "other")
