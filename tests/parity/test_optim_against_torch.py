"""Twenty steps of every optimizer and schedule beside torch.optim's."""
import numpy as np
import pytest
import torch

import graphc as gc
from graphc import nn, optim

pytestmark = pytest.mark.peers
X = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
Y = np.sin(X[:, :2]).astype(np.float32)

OPTIMIZERS = {
    "sgd": (optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "nesterov": (optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
                 lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "momentum": (optim.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "adam": (optim.Adam(0.01, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
    "adamw": (optim.AdamW(0.01, betas=(0.8, 0.95)), lambda p: torch.optim.AdamW(p, 0.01, betas=(0.8, 0.95))),
    "rmsprop": (optim.RMSprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "rmsprop momentum": (optim.RMSprop(0.01, momentum=0.9, weight_decay=0.1),
                         lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1)),
}
SCHEDULES = {
    "cosine": (optim.cosine(0.1, 20, 0.01), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, 0.01)),
    "step": (optim.step_decay(0.1, 7, 0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3)),
    "exponential": (optim.exponential(0.1, 0.8), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8)),
    "warmup": (optim.warmup(0.1, 10), lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 9)),
}


def compare(optimizer, make, schedule=None):
    net = nn.Linear(8) >> nn.tanh >> nn.Linear(2)
    step = gc.train_step(net, loss=nn.mse, optimizer=optimizer, x=gc.f32[32, 5], y=gc.f32[32, 2], seed=0)
    peer = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    peer.load_state_dict({n: torch.tensor(step.state[n]) for n in peer.state_dict()})
    other = make(peer.parameters())
    scheduler = schedule(other) if schedule else None
    for _ in range(20):
        loss = torch.nn.functional.mse_loss(peer(torch.tensor(X)), torch.tensor(Y))
        other.zero_grad()
        loss.backward()
        other.step()
        if scheduler:
            scheduler.step()
        assert step(X, Y) == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, value in peer.state_dict().items():
        np.testing.assert_allclose(step.state[name], value.numpy(), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name, engine):
    compare(*OPTIMIZERS[name])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name, engine):
    schedule, make = SCHEDULES[name]
    compare(optim.SGD(schedule), lambda p: torch.optim.SGD(p, 0.1), make)
