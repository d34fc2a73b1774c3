"""GRAPHC_FLUSH_SUBNORMALS: numbers below the least normal one are 0, in every thread, and for no other program."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.compiler import Compilation
from graphc.config import Config
from graphc.schedule.platforms import PLATFORMS

TINY = 1e-39
ROWS = 512                              # enough for several threads


def halved(x):
    return x * 0.5


def exponential(x):
    return gc.exp(x * 0 - 90)


def total(x):
    return gc.sum(x, axis=1) * 2.0


def product(x):
    return x @ gc.full((64, 48), 3.0)


def steps(x):
    return gc.scan(lambda carry, row: (carry * 0.5 + row, carry), x[0], x)[0]           # what is only copied stays


CASES = {f.__name__: f for f in (halved, exponential, total, product, steps)}


def compiled(f, monkeypatch, flush, threads):
    monkeypatch.setenv("GRAPHC_FLUSH_SUBNORMALS", str(flush))

    @gc.graph
    def graph(x: gc.f32[ROWS, 64]):
        return f(x)
    return gc.compile(graph, threads=threads)


def results(run, x):
    found = run(x)
    return np.concatenate([np.ravel(a) for a in (found if isinstance(found, tuple) else (found,))])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_they_are_zero_where_that_is_asked_for(monkeypatch, name, threads):
    """And nothing else changes: programs that keep them use the same threads in between, normal numbers have the same bits, and the caller's mode is
    what it was."""
    keeping, flushing = (compiled(CASES[name], monkeypatch, flush, threads) for flush in (0, 1))
    normal = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32) * (name != "exponential")
    for _ in range(3):
        kept = results(keeping, np.full((ROWS, 64), TINY, np.float32))
        assert np.all(kept > 0)
        flushed = results(flushing, np.full((ROWS, 64), TINY, np.float32))
        assert not flushed.any()
        assert np.float32(TINY) * np.float32(0.5) > 0
    if name in ("halved", "total", "product"):
        assert results(keeping, normal).tobytes() == results(flushing, normal).tobytes()


def test_a_call_that_fails_restores_the_mode(monkeypatch):
    monkeypatch.setenv("GRAPHC_FLUSH_SUBNORMALS", "1")

    @gc.graph
    def taken(x: gc.f32[8], i: gc.i32[3]):
        return gc.take(x, i) * 0.5
    run = gc.compile(taken)
    with pytest.raises(gc.GraphError, match="out of range"):
        run(np.full(8, TINY, np.float32), np.array([1, 9, 2], np.int32))
    assert np.float32(TINY) * np.float32(0.5) > 0


def test_training_and_what_is_prepared(monkeypatch):
    """Weights below the least normal number count as 0 in the forward and the backward pass."""
    monkeypatch.setenv("GRAPHC_FLUSH_SUBNORMALS", "1")
    net = nn.Linear(32, bias=False)
    step = gc.train_step(net, loss=lambda y, t: gc.sum((y - t) ** 2), optimizer=optim.SGD(0.0), x=gc.f32[16, 64], y=gc.f32[16, 32], seed=0, threads=2)
    step.state.load({name: np.full_like(step.state[name], TINY) for name in step.state if step.state[name].ndim == 2}, partial=True)
    assert step(np.full((16, 64), 1e30, np.float32), np.zeros((16, 32), np.float32)) == 0


@pytest.mark.parametrize("platform, mode", [("x86_64-linux", "llvm.x86.sse.ldmxcsr"), ("aarch64-macos", "llvm.aarch64.set.fpcr"),
                                            ("riscv64-linux", None), ("wasm32", None)])
def test_code_for_other_systems(platform, mode):
    """By the mode of the CPU; where it has none, as without."""
    @gc.graph
    def graph(x: gc.f32[ROWS, 64]):
        return x * 0.5
    target = PLATFORMS[platform].baseline
    kept, flushed = (Compilation(graph.graph, target, Config(flush_subnormals=flush)).text("llvm") for flush in (False, True))
    assert "gc.flush" not in kept and (kept == flushed if mode is None else mode in flushed)


def test_a_profile_says_which_arrays_hold_them():
    net = nn.Linear(64, bias=False)
    weights = np.ones((64, 8), np.float32)
    weights[:48] = TINY
    run = gc.compile(net, x=gc.f32[2, 8], state={"weight": weights})
    profile = run.profile(np.ones((2, 8), np.float32))
    assert profile.subnormal == (("weight", 0.75),) and "75 % of weight" in str(profile) and "GRAPHC_FLUSH_SUBNORMALS" in str(profile)
    assert gc.compile(net, x=gc.f32[2, 8], seed=0).profile(np.ones((2, 8), np.float32)).subnormal == ()
