"""Networks on processors that are not this one: inference, and ten steps of training, are those of this machine but for
the rounding of sums in other orders."""
from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from machines import MACHINES, run_on

import graphc as gc
from graphc import nn, optim

STEPS = 10
LOSS_ULP, STATE_ULP, OUTPUT_ULP = 4, 64, 32     # of the largest element of an array
ULP = np.finfo(np.float32).eps


class Last(nn.Module):
    """The last output of an LSTM, classified."""

    def __init__(self):
        self.lstm, self.out = nn.LSTM(16), nn.Linear(10)

    def forward(self, x):
        return self.out(self.lstm(x)[-1])


def mlp():
    return nn.Sequential(nn.Linear(32), gc.tanh, nn.Linear(16), nn.relu, nn.Linear(10))


def lenet():
    return nn.Sequential(
        nn.Conv2d(6, 5, padding=2), nn.relu, nn.MaxPool2d(2), nn.Conv2d(16, 5), nn.relu, nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(120), nn.relu, nn.Linear(84), nn.relu, nn.Linear(10))


NETWORKS = {"mlp": (mlp, gc.f32[8, 64], 8), "lenet": (lenet, gc.f32[4, 1, 28, 28], 4), "lstm": (Last, gc.f32[6, 4, 8], 4)}


@cache
def trained(name):
    """Graph, arrays of a batch, state before and after, and the last loss, on this machine."""
    make, x, batch = NETWORKS[name]
    step = gc.train_step(make(), loss=nn.cross_entropy, optimizer=optim.SGD(0.05, momentum=0.9), x=x, y=gc.i32[batch])
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal(x.shape).astype(np.float32), rng.integers(0, 10, batch).astype(np.int32)
    before = state_of(step)
    for _ in range(STEPS):
        loss = step(*arrays)
    return step, arrays, before, state_of(step), loss


def state_of(step):
    return [np.array(step.state[v.name]) for v in step.graph.state]


def machine_of(platform):
    machine = MACHINES[platform]
    if lacking := machine.lacks():
        pytest.skip(f"{lacking} not installed")
    return machine


def error(found, expected):
    """In units of the last place of the largest element."""
    return np.abs(found.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30) / ULP


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("platform", MACHINES)
def test_training_is_that_of_this_machine(platform, name):
    step, arrays, before, after, loss = trained(name)
    found = run_on(machine_of(platform), step.graph, arrays, before, STEPS)
    assert error(found.outputs[0], np.float64(loss)) <= LOSS_ULP
    for value, a, b in zip(step.graph.state, found.state, after):
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, value.name)
        assert error(a, b) <= STATE_ULP, value.name


@pytest.mark.parametrize("platform", MACHINES)
def test_inference_is_that_of_this_machine(platform):
    machine = machine_of(platform)
    for name in NETWORKS:
        step, (x, _), *_ = trained(name)
        run = gc.compile(step.model, x=NETWORKS[name][1])
        found = run_on(machine, run.graph, [x], [np.array(step.state[v.name]) for v in run.graph.state])
        assert error(found.outputs[0], run(x)) <= OUTPUT_ULP, name
