"""Parameters that nobody can change any more: what is derived from them is made while the network is compiled, and what
only that needs is let go.
"""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import graphc as gc
from graphc import nn

X = gc.f32[4, 24, 9, 9]


def _network():
    """A convolution in Winograd's form, a strided one, a batch norm that is folded, and products."""
    return (nn.Conv2d(32, 3, padding=1, bias=False) >> nn.BatchNorm2d() >> nn.relu >> nn.Conv2d(48, 3, stride=2)
            >> nn.relu >> nn.Flatten()
            >> nn.Linear(40) >> nn.tanh >> nn.Linear(7))


def _weights(net):
    step = gc.train_step(net, loss=nn.mse, optimizer=gc.optim.SGD(0.1), x=X, y=gc.f32[4, 7], seed=3)
    return step.state, step.state.copy()


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=X.shape).astype("f")


def test_parameters_are_taken_as_they_are_while_compiling(x, tmp_path):
    net = _network()
    state, arrays = _weights(net)
    names = [name for name in arrays if not name.startswith("optim") and name != "step"]
    gc.checkpoint.save_arrays(tmp_path / "net.safetensors", {name: arrays[name] for name in names})
    live = gc.compile(net, x=X, state=state, threads=2)(x)
    given, stored = (gc.compile(net, x=X, state=s, threads=2) for s in (arrays, tmp_path / "net.safetensors"))
    for array in arrays.values():
        array[...] = np.full_like(array, 7)
    for _ in range(4):                              # through Python, and through the native entry
        np.testing.assert_array_equal(given(x), live)
        np.testing.assert_array_equal(stored(x), live)


def test_only_what_calls_read_is_kept(x):
    net = _network()
    state, arrays = _weights(net)
    shared, own = (gc.compile(net, x=X, state=s, threads=1) for s in (state, arrays))
    kept = {v.name for v, a in zip(own.graph.state, own.executable.state.arrays) if a.size}
    assert "0.weight" not in kept and "3.weight" not in kept and "6.weight" not in kept
    assert own.memory.state == sum(arrays[name].nbytes for name in kept) < shared.memory.state // 10
    assert own.memory.derived == shared.memory.derived
    np.testing.assert_array_equal(own(x), shared(x))


def test_a_parameter_that_is_a_result_is_kept():
    class Table(nn.Module):
        def forward(self, x):
            w = self.parameter("w", (4, 5), nn.Normal(1.0))
            return x @ w, w, w.T
    y, w, turned = gc.compile(Table(), x=gc.f32[3, 4], seed=0)(np.ones((3, 4), "f"))
    np.testing.assert_allclose(y, np.ones((3, 4), "f") @ w, rtol=1e-5)
    np.testing.assert_array_equal(turned, w.T)


def test_a_parameter_that_a_loop_reads_is_kept():
    net = nn.GRU(33) >> nn.Linear(5)
    state = gc.train_step(net, loss=nn.mse, optimizer=gc.optim.SGD(0.1), x=gc.f32[6, 2, 8], y=gc.f32[6, 2, 5],
                          seed=0).state
    x = np.random.default_rng(0).normal(size=(6, 2, 8)).astype("f")
    own, shared = (gc.compile(net, x=gc.f32[6, 2, 8], state=s)(x) for s in (state.copy(), state))
    np.testing.assert_array_equal(own, shared)


def test_calls_need_no_lock_and_run_side_by_side(x):
    run = gc.compile(_network(), x=X, seed=0, threads=1)
    expected = run(x)
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: run(x), range(40)):
            np.testing.assert_array_equal(y, expected)
    assert run.executable.lock is None


def test_its_profile_runs_on_the_same_arrays(x):
    run = gc.compile(_network(), x=X, seed=0, threads=1)
    expected = run(x)
    profile = run.profile(x, runs=1)
    assert any("conv" in row.kernel for row in profile.rows)
    np.testing.assert_array_equal(run(x), expected)


@pytest.mark.parametrize("state, words", [
    ({"0.weight": np.zeros((4, 5), "f")}, "state has no 1.weight (float32[3, 4]); it holds 0.weight"),
    ({"0.weight": np.zeros((4, 6), "f")}, "state: 0.weight is float32[4, 6], the network wants float32[4, 5]"),
    ("gone.safetensors", "there is no checkpoint gone.safetensors"),
    ([1, 2], "state= takes a safetensors file, a mapping from names to arrays, or a training step's state, got list"),
])
def test_parameters_that_do_not_fit_are_refused_at_the_users_line(state, words):
    with pytest.raises(gc.GraphError) as caught:
        gc.compile(nn.Linear(4, bias=False) >> nn.Linear(3), x=gc.f32[2, 5], state=state)
    assert str(caught.value).startswith(words) and "test_settled.py" in str(caught.value)
