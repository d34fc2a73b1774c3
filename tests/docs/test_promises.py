"""Promises of the README's first page that no other tier holds as a whole."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.compiler import Compilation

ROOT = Path(__file__).resolve().parent.parent.parent

ALONE = """
import sys
forbidden = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
def watch(event, arguments):
    assert event not in forbidden, (event, arguments)
sys.addaudithook(watch)
import numpy as np, graphc as gc
from graphc import nn, optim
step = gc.train_step(nn.Linear(3), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 2], y=gc.f32[4, 3])
print(step(np.ones((4, 2), np.float32), np.zeros((4, 3), np.float32)) > 0)
"""


def small_step(width: int = 8):
    return gc.train_step(nn.Linear(width) >> nn.tanh >> nn.Linear(3), loss=nn.mse, optimizer=optim.Adam(1e-2),
                         x=gc.f32[4, 2], y=gc.f32[4, 3], seed=0)


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 2), np.float32), rng.standard_normal((4, 3), np.float32)


@pytest.mark.parametrize("cached", [False, True])
def test_1_a_step_is_one_native_call(cached, tmp_path, monkeypatch):
    """Between the arguments and the loss nothing runs in Python but the step's own few lines (the first calls are
    timed, in Python).
    """
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    x, y = batch()
    if cached:
        small_step()(x, y)
    step = small_step()
    for _ in range(4):
        step(x, y)
    called = []
    sys.setprofile(lambda frame, event, argument: called.append(argument if event == "c_call" else frame.f_code.co_name)
                   if event in ("call", "c_call") else None)
    try:
        step(x, y)
    finally:
        sys.setprofile(None)
    assert [c for c in called if c in ("slow", "call_interruptibly")] == [] and len(called) < 12, called


def test_2_a_compile_starts_no_other_program(tmp_path):
    """Neither a C compiler nor a tuning process: there is no PATH, and starting a program would fail."""
    environment = os.environ | {"PATH": "", "GRAPHC_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_4_memory_is_known_before_the_first_run():
    step = small_step()
    before = step.memory
    x, y = batch()
    step(x, y)
    assert step.memory == before
    assert before.state == step.state.nbytes
    assert (before.inputs, before.outputs) == (x.nbytes + y.nbytes, 4)
    assert "arena" in str(before) and before.total >= before.state + before.inputs + before.arena


@pytest.mark.parametrize("order, expected", [(1, 12.0), (2, 12.0), (3, 6.0)])
def test_5_gradients_of_gradients_run_natively(order, expected):
    @gc.graph
    def cube(x: gc.f64[()]):
        return x ** 3
    f = cube
    for _ in range(order):
        f = gc.grad(f)
    assert gc.compile(f)(np.float64(2.0)) == pytest.approx(expected)


def test_6_the_code_of_a_loop_does_not_grow_with_the_sequence():
    sizes = []
    for length in (16, 64):
        net = nn.LSTM(8) >> nn.Linear(2)
        step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[length, 4, 3], y=gc.f32[length, 4, 2])
        sizes.append(Compilation(step.graph).text("llvm").count("\n"))
    assert sizes[1] < 1.2 * sizes[0], sizes
