"""Twenty steps of every optimizer and schedule beside torch.optim's."""
from functools import partial

import numpy as np
import pytest
import torch

import graphc as gc
from graphc import nn, optim
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate

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
OPTIMIZERS |= {                         # the same name and the same options, by name
    f"{name} {i}": (lambda name=name, options=options: getattr(optim, name)(**options),
                    lambda p, name=name, options=options: getattr(torch.optim, name)(p, **options))
    for name, i, options in [
        ("SGD", 1, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}), ("SGD", 2, {"lr": 0.01, "maximize": True}),
        ("Adam", 1, {"lr": 0.01, "amsgrad": True}), ("AdamW", 1, {"lr": 0.01, "amsgrad": True}),
        ("RMSprop", 1, {"lr": 0.01, "centered": True}), ("Adamax", 1, {}), ("Adamax", 2, {"lr": 0.02, "weight_decay": 0.1}),
        ("NAdam", 1, {"lr": 0.01}), ("NAdam", 2, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("NAdam", 3, {"weight_decay": 0.1, "momentum_decay": 0.1}), ("RAdam", 1, {"lr": 0.01}),
        ("RAdam", 2, {"lr": 0.01, "weight_decay": 0.1}), ("RAdam", 3, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("Adagrad", 1, {"lr": 0.1}), ("Adagrad", 2, {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1}),
        ("Adadelta", 1, {}), ("Adadelta", 2, {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}),
        ("Adafactor", 1, {}), ("Adafactor", 2, {"lr": 0.1, "weight_decay": 0.1, "d": 1.5, "eps": (1e-4, 1e-2)}),
        ("ASGD", 1, {"lr": 0.1}), ("ASGD", 2, {"lr": 0.1, "lambd": 0.1, "t0": 3.0, "weight_decay": 0.1}),
        ("Rprop", 1, {}), ("Rprop", 2, {"lr": 0.1, "etas": (0.4, 1.1), "step_sizes": (1e-3, 0.05)})]}


class OneIteration:
    """torch's L-BFGS of one iteration in a step, which asks for the loss by a function."""

    def __init__(self, parameters, **options):
        self.parameters = list(parameters)
        self.inner = torch.optim.LBFGS(self.parameters, max_iter=1, **options)
        self.zero_grad = self.inner.zero_grad

    def step(self):
        self.inner.step(lambda: torch.zeros(()))


for at, chosen in enumerate(({"lr": 0.5, "history_size": 4}, {"lr": 0.2, "history_size": 30})):
    OPTIMIZERS[f"LBFGS {at}"] = (partial(optim.LBFGS, **chosen), partial(OneIteration, **chosen))
R = torch.optim.lr_scheduler
SCHEDULES = {
    "cosine": (optim.cosine(0.1, 20, 0.01), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, 0.01)),
    "step": (optim.step_decay(0.1, 7, 0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3)),
    "exponential": (optim.exponential(0.1, 0.8), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8)),
    "constant": (optim.constant(0.1, 0.2, 7), lambda o: R.ConstantLR(o, 0.2, 7)),
    "linear": (optim.linear(0.1, 7, 0.2, 0.9), lambda o: R.LinearLR(o, 0.2, 0.9, 7)),
    "polynomial": (optim.polynomial(0.1, 9, 1.5), lambda o: R.PolynomialLR(o, 9, 1.5)),
    "multi_step": (optim.multi_step(0.1, [3, 4, 11], 0.3), lambda o: R.MultiStepLR(o, [3, 4, 11], 0.3)),
    "cosine_restarts": (optim.cosine_restarts(0.1, 4, final=0.01), lambda o: R.CosineAnnealingWarmRestarts(o, 4, 1, 0.01)),
    "cosine_restarts 2": (optim.cosine_restarts(0.1, 3, 2), lambda o: R.CosineAnnealingWarmRestarts(o, 3, 2)),
    "one_cycle": (optim.one_cycle(0.1, 20), lambda o: R.OneCycleLR(o, 0.1, 20, cycle_momentum=False)),
    "one_cycle 2": (optim.one_cycle(0.1, 25, 0.4, 5.0, 100.0),
                    lambda o: R.OneCycleLR(o, 0.1, 25, pct_start=0.4, div_factor=5, final_div_factor=100, cycle_momentum=False)),
    **{f"cyclic {mode}": (optim.cyclic(0.01, 0.1, 3, 4, mode, 0.9), lambda o, mode=mode: R.CyclicLR(
        o, 0.01, 0.1, 3, 4, mode, 0.9, cycle_momentum=False)) for mode in ("triangular", "triangular2", "exp_range")},
    "sequential": (optim.sequential([optim.exponential(0.1, 0.8), optim.constant(0.1, 0.2, 3), optim.step_decay(0.1, 2)], [5, 9]),
                   lambda o: R.SequentialLR(o, [R.ExponentialLR(o, 0.8), R.ConstantLR(o, 0.2, 3), R.StepLR(o, 2)], [5, 9])),
    "lambda": (lambda step: 0.1 / (step + 1.0), lambda o: R.LambdaLR(o, lambda t: 1 / (t + 1))),
    "warmup": (optim.warmup(0.1, 10), lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 9)),
}


def compare(optimizer, make):
    optimizer = optimizer if isinstance(optimizer, optim.Optimizer) else optimizer()
    net = nn.Linear(8) >> nn.tanh >> nn.Linear(2)
    step = gc.train_step(net, loss=nn.mse, optimizer=optimizer, x=gc.f32[32, 5], y=gc.f32[32, 2], seed=0)
    peer = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    peer.load_state_dict({n: torch.tensor(step.state[n]) for n in peer.state_dict()})
    other = make(peer.parameters())
    for _ in range(20):
        loss = torch.nn.functional.mse_loss(peer(torch.tensor(X)), torch.tensor(Y))
        other.zero_grad()
        loss.backward()
        other.step()
        assert step(X, Y) == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, value in peer.state_dict().items():
        np.testing.assert_allclose(step.state[name], value.numpy(), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name, engine):
    compare(*OPTIMIZERS[name])


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_muon(adjust):
    """torch orthogonalises in bfloat16, of 8 bits: after one step the change of a matrix agrees to some of 2^-8."""
    net = nn.Linear(8, bias=False)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.Muon(0.1, adjust_lr_fn=adjust), x=gc.f32[32, 5],
                         y=gc.f32[32, 8], seed=0)
    peer = torch.nn.Linear(5, 8, bias=False)
    peer.load_state_dict({"weight": torch.tensor(step.state["weight"])})
    before, other = step.state["weight"], torch.optim.Muon(peer.parameters(), 0.1, adjust_lr_fn=adjust)
    y = np.tanh(X @ np.random.default_rng(1).normal(size=(5, 8))).astype(np.float32)
    torch.nn.functional.mse_loss(peer(torch.tensor(X)), torch.tensor(y)).backward()
    other.step()
    step(X, y)
    change, wanted = step.state["weight"] - before, peer.weight.detach().numpy() - before
    assert np.linalg.norm(change - wanted) < 0.02 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    schedule, make = SCHEDULES[name]
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    theirs, wanted = make(other), []
    for _ in range(20):
        wanted.append(other.param_groups[0]["lr"])
        other.step()
        theirs.step()
    steps = np.arange(20, dtype=np.float64)
    one = trace_function(schedule, [Argument("step", gc.f64[()])], "schedule").graph
    np.testing.assert_allclose([evaluate(one, [s])[0] for s in steps], wanted, rtol=1e-9, atol=1e-12)
