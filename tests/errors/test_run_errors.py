"""Failures while native code runs: bad indices, and NaN where they are looked for. Each names the user's line; state
stays as it was.
"""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim

HERE = __file__


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(open(HERE), 1) if text in line and "line_of" not in line)


@gc.graph
def looked_up(table: gc.f32[5, 3], ids: gc.i32[4]):
    return gc.take(table, ids, axis=0) * 2          # the lookup


@pytest.mark.parametrize("bad", [5, -6, 2**31 - 1, -2**31])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_bad_index_names_the_line(bad, threads):
    run = gc.compile(looked_up, threads=threads)
    table = np.ones((5, 3), np.float32)
    with pytest.raises(gc.GraphError, match=str(bad)) as info:
        run(table, np.array([0, bad, 1, 2], np.int32))
    assert (info.value.loc.file, info.value.loc.line) == (HERE, line_of("# the lookup"))
    np.testing.assert_array_equal(run(table, np.array([0, 4, 1, 2], np.int32)), np.full((4, 3), 2, np.float32))


def test_a_failed_step_leaves_the_state_as_it_was():
    net = nn.Embedding(7, 4) >> nn.Linear(3)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.Adam(0.1), x=gc.i32[6], y=gc.i32[6], seed=1)
    good = np.arange(6, dtype=np.int32) % 3
    step(good, good)
    before = {name: step.state[name] for name in step.state}
    for x, y in ((good + 5, good), (good, good + 3)):
        with pytest.raises(gc.GraphError):
            step(x, y)
    for name, value in before.items():
        assert value.tobytes() == step.state[name].tobytes(), name


def test_check_mode_names_the_first_operator_that_makes_a_nan(monkeypatch):
    monkeypatch.setenv("GRAPHC_CHECK_NAN", "1")

    @gc.graph
    def f(x: gc.f32[8]):
        y = x * 2
        z = gc.log(y)                               # the culprit
        return gc.sum(z + 1)

    run = gc.compile(f)
    x = np.ones(8, np.float32)
    assert np.isfinite(run(x))
    x[5] = -1
    with pytest.raises(gc.GraphError, match="log makes NaN, first in element 5") as info:
        run(x)
    assert info.value.loc.line == line_of("# the culprit")
