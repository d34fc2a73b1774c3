"""Schedules against their formulas, written with Python's numbers for one update at a time."""
from math import cos, pi, sqrt

import numpy as np
import pytest

import graphc as gc
from graphc import optim
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.ir.interp import evaluate

STEPS = 40


def restarts(t, length, growth):
    while t >= length:
        t, length = t - length, length * growth
    return 0.01 + 0.09 * (1 + cos(pi * t / length)) / 2


def one_cycle(t):
    t, top, last = min(t, 29), 0.4 * 30 - 1, 29
    if t <= top:
        return 0.02 + (0.1 - 0.02) * (1 - cos(pi * t / top)) / 2
    return 0.0002 + (0.1 - 0.0002) * (1 + cos(pi * (t - top) / (last - top))) / 2


def triangle(t):
    t %= 7
    return t / 3 if t <= 3 else (7 - t) / 4


SCHEDULES = {
    "constant": (optim.constant(0.1, 0.5, 3), lambda t: 0.05 if t < 3 else 0.1),
    "linear": (optim.linear(0.1, 10, 0.2, 0.8), lambda t: 0.1 * (0.2 + 0.6 * min(t / 10, 1))),
    "polynomial": (optim.polynomial(0.1, 10, 2.0, 0.01), lambda t: 0.01 + 0.09 * max(1 - t / 10, 0) ** 2),
    "multi_step": (optim.multi_step(0.1, [0, 5, 9], 0.5), lambda t: 0.1 * 0.5 ** (1 + (t >= 5) + (t >= 9))),
    "multi_step never": (optim.multi_step(0.1, []), lambda t: 0.1),
    "cosine_restarts": (optim.cosine_restarts(0.1, 7, final=0.01), lambda t: restarts(t, 7, 1)),
    "cosine_restarts 2": (optim.cosine_restarts(0.1, 5, 2, 0.01), lambda t: restarts(t, 5, 2)),
    "cosine_restarts 3": (optim.cosine_restarts(0.1, 3, 3, 0.01), lambda t: restarts(t, 3, 3)),
    "one_cycle": (optim.one_cycle(0.1, 30, 0.4, 5.0, 100.0), one_cycle),
    "cyclic": (optim.cyclic(0.01, 0.1, 3, 4), lambda t: 0.01 + 0.09 * triangle(t)),
    "cyclic 2": (optim.cyclic(0.01, 0.1, 3, 4, "triangular2"), lambda t: 0.01 + 0.09 * triangle(t) * 0.5 ** (t // 7)),
    "cyclic exp": (optim.cyclic(0.01, 0.1, 3, 4, "exp_range", 0.9), lambda t: 0.01 + 0.09 * triangle(t) * 0.9 ** t),
    "inverse_sqrt": (optim.inverse_sqrt(0.1, 8), lambda t: 0.1 * min((t + 1) / 8, sqrt(8 / (t + 1)))),
    "sequential": (optim.sequential([0.3, optim.exponential(0.1, 0.5), optim.constant(0.2)], [4, 9]),
                   lambda t: 0.3 if t < 4 else 0.1 * 0.5 ** (t - 4) if t < 9 else 0.2),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_formula(name):
    schedule, formula = SCHEDULES[name]
    graph = trace_function(schedule, [Argument("step", gc.f64[()])], "schedule").graph
    found = [evaluate(graph, [np.float64(t)])[0] for t in range(STEPS)]
    np.testing.assert_allclose(found, [formula(t) for t in range(STEPS)], rtol=1e-9, atol=1e-12)


def test_the_first_update_of_a_cycle_is_the_first():
    """Cycles that begin after thousands of updates, where a logarithm is rounded."""
    for growth in (2, 3, 5):
        schedule = optim.cosine_restarts(0.1, 7, growth)
        graph = trace_function(schedule, [Argument("step", gc.f64[()])], "schedule").graph
        starts = [7 * (growth ** n - 1) // (growth - 1) for n in range(1, 9)]
        np.testing.assert_allclose([evaluate(graph, [np.float64(t)])[0] for t in starts], 0.1, rtol=1e-9)
        assert all(evaluate(graph, [np.float64(t - 1)])[0] < 0.006 for t in starts)


NUMBERS = {         # of each schedule: what it is given, and which of that are rates and factors
    "constant": ((0.1, 0.5, 3), (0, 1)), "linear": ((0.1, 9, 0.5, 1.0), (0, 2, 3)),
    "polynomial": ((0.1, 9, 1.0, 0.01), (0, 2, 3)), "cosine": ((0.1, 9, 0.01), (0, 2)),
    "step_decay": ((0.1, 3, 0.5), (0, 2)), "multi_step": ((0.1, [2, 4], 0.5), (0, 2)),
    "cosine_restarts": ((0.1, 5, 2, 0.01), (0, 3)), "cyclic": ((0.01, 0.1, 3, 4, "exp_range", 0.9), (0, 1, 5)),
    "inverse_sqrt": ((0.1, 4), (0,)), "exponential": ((0.1, 0.9), (0, 1)), "warmup": ((0.1, 3), (0,)),
    "one_cycle": ((0.1, 20), (0,))}


def changed(name, at, value):
    """A schedule, made with another number."""
    given, _ = NUMBERS[name]
    assert callable(getattr(optim, name)(*given))
    return getattr(optim, name)(*given[:at], value, *given[at + 1:])


@pytest.mark.parametrize("call, text", [
    (lambda: optim.multi_step(0.1, [3, 2]), r"multi_step: milestones are increasing numbers of updates, got \[3, 2\]"),
    (lambda: optim.sequential([0.1], [3]), "sequential takes one schedule more than milestones"),
    (lambda: optim.cyclic(0.1, 0.2, mode="square"), "cyclic: mode is one of triangular, triangular2, exp_range"),
    (lambda: optim.one_cycle(0.1, 10, rise=1.0), "one_cycle: rise is a share of the updates"),
    (lambda: optim.linear(0.1, 0), "linear takes a number of updates >= 1, got 0"),
    *((lambda name=name, at=at, value=value: changed(name, at, value), f"{name}: .* a.* number")
      for name, (given, places) in NUMBERS.items() for at in places for value in (np.nan, np.inf, -1.0))])
def test_what_does_not_fit(call, text):
    with pytest.raises(gc.GraphError, match=text):
        call()
