"""Hyperparameters of a step: read, written without compiling again, kept in checkpoints."""
import inspect
from functools import partial

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.optim import Optimizer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 3)).astype(np.float32)
Y = (X[:, :1] - X[:, 1:2]).astype(np.float32)
OPTIMIZERS = {"sgd": lambda **o: optim.SGD(**{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1} | o),
              "adam": lambda **o: optim.Adam(**{"lr": 0.1, "weight_decay": 0.1} | o),
              "adamw": lambda **o: optim.AdamW(**{"lr": 0.1} | o),
              "rmsprop": lambda **o: optim.RMSprop(**{"lr": 0.01, "momentum": 0.5} | o)}
VECTORS = optim.group(lambda name, shape: len(shape) != 2, optimizer=optim.AdamW(1e-3))
for name in ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adamax", "LAMB", "Lion", "Muon", "NAdam", "RAdam", "Rprop", "LBFGS"):
    more = {"groups": [VECTORS]} if name == "Muon" else {}
    OPTIMIZERS[name] = partial(partial, getattr(optim, name), lr=0.05, weight_decay=0.1, **more)
OPTIMIZERS = {name: made() if isinstance(made, partial) else made for name, made in OPTIMIZERS.items()}
NEW = {"d": 2.0, "beta2_decay": -0.25, "etas": (0.7, 1.1)}       # what may not be just any number


def step_with(optimizer, **options):
    return gc.train_step(nn.Linear(4) >> nn.tanh >> nn.Linear(1), loss=nn.mse, optimizer=optimizer,
                         x=gc.f32[16, 3], y=gc.f32[16, 1], **options)


def weights(step):
    return step.state["0.weight"]


def test_learning_rate_is_read_and_written(engine):
    written, declared = step_with(optim.Adam(0.5)), step_with(optim.Adam(0.02))
    assert written.lr == 0.5 and written.hyper["lr"] == 0.5
    written.lr = 0.02
    assert [written(X, Y) for _ in range(3)] == [declared(X, Y) for _ in range(3)]
    assert written.lr == 0.02 and np.array_equal(weights(written), weights(declared))


def test_writing_the_rate_compiles_nothing(monkeypatch):
    step = step_with(optim.SGD(0.1))
    step(X, Y)
    run = step._fixed
    monkeypatch.setattr(type(step), "remade", None)
    step.lr = 0
    before = weights(step)
    step(X, Y)
    assert step._fixed is run and np.array_equal(before, weights(step))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_number_is_written_like_declared(optimizer, engine):
    make = OPTIMIZERS[optimizer]
    written = step_with(make())
    start = written.state.copy()
    for name, old in dict(written.hyper).items():
        if name.startswith("groups."):
            continue
        new = NEW.get(name, (0.7, 0.95) if isinstance(old, tuple) else 0.25)
        written.state.load(start)
        declared = step_with(make(**{name: new}))
        written(X, Y), declared.state.load(written.state.copy(), partial=True)
        declared.hyper[name] = new                  # the file brought the number of the other
        written.hyper[name] = new
        assert written.hyper[name] == new
        for _ in range(3):
            written(X, Y), declared(X, Y)
        np.testing.assert_allclose(weights(written), weights(declared), rtol=1e-6, atol=1e-7, err_msg=name)


def test_momentum_starts_where_there_was_none(engine):
    step, other = step_with(optim.SGD(0.1)), step_with(optim.SGD(0.1, momentum=0.9))
    step.hyper["momentum"] = 0.9
    assert [step(X, Y) for _ in range(4)] == [other(X, Y) for _ in range(4)]


def test_groups_have_their_own_numbers(engine):
    groups = [optim.group(lambda name, shape: name == "0.weight", lr=0.2), optim.no_decay()]
    step = step_with(optim.AdamW(0.1, groups=groups))
    assert dict(step.hyper) == {"lr": 0.1, "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8,
                                "groups.0.lr": 0.2, "groups.1.weight_decay": 0.0}
    step.hyper["groups.0.lr"] = 0.0
    before = step.state.copy()
    step(X, Y)
    assert np.array_equal(weights(step), before["0.weight"])
    assert not np.array_equal(step.state["0.bias"], before["0.bias"])


def test_schedules_are_read_and_not_written(engine):
    schedule = optim.warmup(optim.cosine(0.1, 10), 4)
    step = step_with(optim.SGD(schedule, accumulate=2))
    for calls in range(6):
        assert step.lr == pytest.approx(0.1 * (calls // 2 + 1) / 4)
        step(X, Y)
    with pytest.raises(gc.GraphError, match="lr of this step is a schedule"):
        step.lr = 0.1


def schedules():
    return {name: f for name, f in vars(optim).items() if inspect.isfunction(f)
            and inspect.signature(f).return_annotation in ("Schedule", optim.Schedule) and name != "readable"}


ARGUMENTS = {"lr": 0.1, "steps": 10, "every": 3, "factor": 0.5, "schedule": 0.1, "low": 0.1, "high": 0.2,
             "milestones": [4], "schedules": [0.1, 0.2]}


def test_every_schedule_is_a_number_outside_of_a_graph():
    assert len(schedules()) >= 5
    for name, make in schedules().items():
        needed = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
        rate = make(*(ARGUMENTS[p.name] for p in needed))
        assert isinstance(rate(3), float), f"{name}: make it with @optim.schedule"
    assert optim.cosine(0.1, 100)(50) == pytest.approx(0.05)
    assert optim.step_decay(0.1, 3)(7) == pytest.approx(0.001)


def test_checkpoints_hold_what_was_written(engine, tmp_path):
    first, file = step_with(optim.Adam(0.1)), tmp_path / "a.safetensors"
    first.lr, first.hyper["betas"] = 0.03, (0.5, 0.9)
    first(X, Y)
    first.save(file)
    second = step_with(optim.Adam(0.1))
    second.load(file)
    assert second.lr == 0.03 and second.hyper["betas"] == (0.5, 0.9)
    assert first(X, Y) == second(X, Y) and np.array_equal(weights(first), weights(second))


def test_the_code_decides_what_nobody_wrote(engine, tmp_path):
    first, file = step_with(optim.SGD(0.1)), tmp_path / "a.safetensors"
    first(X, Y)
    first.save(file)
    second = step_with(optim.SGD(0.01))
    second.lr = 5.0
    second.load(file)
    assert second.lr == 0.01


def test_a_shared_state_has_numbers_of_both_steps(engine, tmp_path):
    net = nn.Linear(1)
    make = lambda lr, **o: gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(lr), x=gc.f32[16, 3], y=gc.f32[16, 1],
                                         **o)
    a = make(0.1)
    b = make(0.2, state=a.state)
    b.lr, b.hyper["momentum"] = 0.3, 0.5
    a.save(tmp_path / "a")
    assert (a.lr, b.lr, b.hyper["momentum"], a.hyper["momentum"]) == (0.1, 0.3, 0.5, 0.0)
    assert "optim.2.lr" in a.state and "optim.2.momentum" in a.state
    b.lr = 0.7
    b.load(tmp_path / "a")
    assert (a.lr, b.lr) == (0.1, 0.3)


def test_an_optimizer_of_ones_own_adapts(engine):
    class Signs(Optimizer):
        def update(self, p, g, slots, s):
            return p - s["lr"] * gc.sign(g), {}
    number, schedule = step_with(Signs(0.1)), step_with(Signs(lambda step: 0.1 * gc.exp(step * 0.0)))
    for step in (number, schedule):
        step(X, Y)
    assert np.array_equal(weights(number), weights(schedule))


def test_mistakes():
    step = step_with(optim.SGD(0.1))
    with pytest.raises(gc.GraphError, match="SGD has no hyperparameter 'betas'; it has lr, weight_decay, momentum"):
        step.hyper["betas"]
    for wrong in (-0.1, np.nan, "a", (1, 2), np.ones(2)):
        with pytest.raises(gc.GraphError, match="lr is a"):
            step.lr = wrong
    with pytest.raises(gc.GraphError, match="written, not deleted"):
        del step.hyper["lr"]
    assert repr(step.hyper).startswith("{'lr': 0.1, 'weight_decay': 0.0, 'momentum': 0.0")


def test_what_the_optimizer_refuses_is_not_written():
    class Bounded(Optimizer):
        def __post_init__(self):
            super().__post_init__()
            if not isinstance(self.weight_decay, float) or self.weight_decay > 1:
                raise gc.GraphError(f"Bounded: weight_decay is at most 1, got {self.weight_decay}")

        def update(self, p, g, slots, s):
            return p - s["lr"] * (g + p * self.weight_decay), {}
    step = step_with(Bounded(0.1))
    with pytest.raises(gc.GraphError, match="weight_decay is at most 1, got 2.0"):
        step.hyper["weight_decay"] = 2.0
    step.hyper["weight_decay"] = 0.5
    assert step.hyper["weight_decay"] == 0.5 and np.isfinite(step(X, Y))
