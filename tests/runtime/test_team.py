"""Several calls of one executable at once, each by one thread alone."""
from __future__ import annotations

import numpy as np
import pytest
from native_programs import ENDLESS, executable, tiles
from test_interrupt import answered

import graphc as gc
from graphc.dsl.function import trace_function
from graphc.dsl.signature import Argument
from graphc.errors import InternalError
from graphc.execute import make_executable
from graphc.runtime.lock import StateLock

COUNT = 64


@pytest.mark.parametrize("threads, calls", [(1, 3), (2, 2), (2, 5), (4, 4), (5, 2)])
def test_every_call_is_made_with_memory_of_its_own(threads, calls):
    """More calls than threads too; the team is used again and again."""
    team, draw = tiles(COUNT, 3, 300).team(threads), np.random.default_rng(0)
    for _ in range(20):
        given = [draw.normal(size=COUNT).astype("f4") for _ in range(calls)]
        made = [(np.full(COUNT, np.nan, "f4"), np.zeros(COUNT, np.int64)) for _ in given]
        team.run([([x], list(outputs)) for x, outputs in zip(given, made)])
        for x, (y, z) in zip(given, made):
            assert (z == 1).all()
            np.testing.assert_array_equal(y, x * np.float32(3) + np.arange(COUNT, dtype="f4"))


def lookups(threads=2):
    """Reads rows of a table."""
    def f(i, x):
        return gc.sum(x[i] * x[i], axis=1)
    graph = trace_function(f, [Argument("i", gc.i32[6]), Argument("x", gc.f32[9, 4])], "f").graph
    return make_executable(graph, [], StateLock(), threads)


def test_the_first_call_that_fails_says_so():
    run, x = lookups(), np.arange(36, dtype="f4").reshape(9, 4)
    team, outputs = run.executable.team(2), [np.empty(6, "f4") for _ in range(3)]
    places = [np.full(6, n, "i4") for n in (1, 50, 70)]
    with pytest.raises(gc.GraphError, match="index 50"):
        team.run([([p, x], [y]) for p, y in zip(places, outputs)])
    places = [np.full(6, n, "i4") for n in (1, 2, 8)]
    team.run([([p, x], [y]) for p, y in zip(places, outputs)])
    assert [y[0] for y in outputs] == [(x[n] ** 2).sum() for n in (1, 2, 8)]


def test_ctrl_c_ends_all_calls():
    team = executable(ENDLESS, {}, {}, state=[np.zeros(1, np.int64)]).team(2)
    answered(lambda: team.run([([], [])] * 3), 0.1)


def test_what_is_derived_is_made_anew_when_the_state_has_changed():
    net = gc.nn.Linear(64)
    step = gc.train_step(net, loss=gc.nn.mse, optimizer=gc.optim.SGD(0.5), seed=0, x=gc.f32[32, 64], y=gc.f32[32, 64])
    run = gc.compile(step.model, x=gc.f32[8, 64], threads=2)
    team, draw = run.executable.team(2), np.random.default_rng(1)
    x = [draw.normal(size=(8, 64)).astype("f4") for _ in range(4)]
    for _ in range(3):
        found = [np.empty((8, 64), "f4") for _ in x]
        team.run([([a], [y]) for a, y in zip(x, found)])
        for a, y in zip(x, found):
            np.testing.assert_array_equal(y, run(a))
        step(draw.normal(size=(32, 64)).astype("f4"), draw.normal(size=(32, 64)).astype("f4"))


def test_calls_that_write_state_are_made_one_after_the_other():
    exe = executable(ENDLESS, {}, {}, state=[np.zeros(1, np.int64)], writes=True)
    with pytest.raises(InternalError, match="one after the other"):
        exe.team(2)
