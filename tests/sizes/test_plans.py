"""What is said of programs whose sizes come with the call: plans and profiles."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim


def net():
    return nn.Linear(48) >> nn.relu >> nn.Linear(10)


@pytest.mark.parametrize("batch", (1, 7, 64))
def test_a_plan_of_free_names_is_what_a_call_takes(batch):
    """Promise 4: evaluating the formulas is the plan."""
    free, run = gc.plan(net(), x=gc.f32["B", 20]), gc.compile(net(), x=gc.f32["B", 20], seed=0)
    assert run.sized and free.memory == run.memory
    at, fixed = free.at(B=batch), gc.plan(net(), x=gc.f32["B", 20], B=batch)
    assert at.flops == fixed.flops and at.parameters == fixed.parameters and at.layers == fixed.layers
    assert at.memory.inputs == 4 * 20 * batch and at.memory.outputs == 4 * 10 * batch
    assert at.memory.total == run.memory.at(B=batch).total


def test_the_bytes_of_new_sizes_are_evaluated_when_they_are_asked_for():
    """A first call waits for what it needs, and for no more."""
    run = gc.compile(net(), x=gc.f32["B", 20], seed=0).at(B=3)
    assert "memory" not in vars(run)
    assert run.memory.inputs == 4 * 20 * 3 and "memory" in vars(run)


def test_the_text_of_a_plan_of_free_names():
    text = str(gc.plan(net(), x=gc.f32["B", 20], B=(1, 64)))
    assert "f32[B, 48]" in text and "1.97 k · B" in text and "at most, with B = 64: " in text
    assert "at most" not in str(gc.plan(net(), x=gc.f32["B", 20]))


def test_plans_of_training_steps_of_free_names():
    plan = gc.plan(net(), loss=nn.cross_entropy, optimizer=optim.SGD(0.1), x=gc.f32["B", 20], y=gc.i32["B"], B=(1, 8))
    assert plan.at(B=8).memory.total == plan.memory.at(B=8).total and "at most, with B = 8" in str(plan)


def test_mistakes():
    plan = gc.plan(net(), x=gc.f32["B", 20])
    with pytest.raises(gc.GraphError, match="at needs the sizes of B, for example B=64"):
        plan.at()
    with pytest.raises(gc.GraphError, match="there is no one program for all sizes of N .*give them to plan, for example N=64"):
        gc.plan(lambda x: gc.cholesky(x), x=gc.f32["N", "N"])


def test_a_profile_counts_the_arithmetic_of_the_call(monkeypatch):
    for measured in ("fma_peak", "copy_rate"):          # of the machine, which takes long
        monkeypatch.setattr(f"graphc.profile.{measured}", lambda threads: 1.0)
    run, x = gc.compile(net(), x=gc.f32["B", 20], seed=0), np.zeros((3, 20), np.float32)
    profile, alone = run.profile(x, runs=1), gc.compile(net(), x=gc.f32[3, 20], seed=0).profile(x, runs=1)
    assert run.sized and sum(row.flops for row in profile.rows) == sum(row.flops for row in alone.rows)
