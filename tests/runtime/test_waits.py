"""Nobody waits for ever: not where a thread cannot start, not at the exit of the interpreter, not in signal handlers
and finalizers that use a state.
"""
from __future__ import annotations

import _thread
import gc as collector
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from native_programs import COUNTER, add_one, executable, held

import graphc as gc
from graphc.ir.types import i64
from graphc.runtime import interrupt
from graphc.runtime.lock import StateLock

SETUP = """
import atexit, os, signal, sys, threading, time
import numpy as np, graphc as gc
from graphc import nn, optim
x, y = np.ones((4, 6), np.float32), np.zeros((4, 3), np.float32)
step = gc.train_step(nn.Linear(3), loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 6], y=gc.f32[4, 3])
"""


def run(script: str, seconds: int = 60) -> str:
    """What the script prints; it ends by itself, with status 0."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    done = subprocess.run([sys.executable, "-c", SETUP + script], env=env, timeout=seconds, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


FINALIZER = """
class Last:
    def __del__(self, step=step, x=x, y=y, out=os.write):
        out(1, b"%.6f %d\\n" % (step(x, y), step.state["step"]))
"""


@pytest.mark.parametrize("before, result", [
    ("", ["ignored"]),                       # too late to import the compiler: Python says so and goes on
    ("step(x, y)", ["2"]),          # a call through Python, whose helper thread does not run any more
    ("for _ in range(5): step(x, y)", ["6"])])
def test_a_call_in_a_finalizer_at_exit(before, result):
    assert run(f"{FINALIZER}\n{before}\nlast = Last()\n").split()[1:2] == result


@pytest.mark.parametrize("way",
                         ["atexit.register(step, x, y)",
                          "threading.Thread(target=lambda: (time.sleep(0.2), step(x, y))).start()"])
def test_calls_at_other_stages_of_exit(way):
    run(f"step(x, y)\n{way}\n")


def test_an_endless_daemon_thread_does_not_stop_a_finalizer_at_exit():
    """It has the lock of the state, and the only frame, for ever: the finalizer is told, and the process ends."""
    told = run("""
from native_programs import ENDLESS, executable
from graphc.runtime import lock as locks
locks.EXIT_SECONDS = 0.3
lock, count = locks.StateLock(), np.zeros(1, np.int64)
endless = executable(ENDLESS, {}, {}, state=[count], writes=True, lock=lock)
threading.Thread(target=endless.call, daemon=True).start()
while count[0] == 0:
    time.sleep(0.001)
class Last:
    def __del__(self, call=endless.call, read=lock.read, count=count):
        for wait in (call, lambda: read([count])):
            try:
                wait()
            except Exception as error:
                os.write(2, b"told " + str(error).encode())
last = Last()
""")
    assert told.count("told the interpreter exits while a daemon thread") == 2


def test_no_thread_for_the_helper(monkeypatch):
    """A limit on threads: calls are made without it, now and later, and with it as soon as there may be one."""
    def refused(*arguments):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(interrupt, "_jobs", None)
    monkeypatch.setattr(interrupt, "start_new_thread", refused)
    exe, x = add_one(), np.array([1], np.float32)
    for _ in range(5):
        exe._descriptor.switch(enabled=False, release=True)
        assert exe.call(x)[0] == 2
    assert interrupt._jobs is None
    monkeypatch.setattr(interrupt, "start_new_thread", _thread.start_new_thread)
    exe._descriptor.switch(enabled=False, release=True)
    assert exe.call(x)[0] == 2 and interrupt._jobs is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_exception_while_the_helper_starts(monkeypatch, error):
    def interrupted(*arguments):
        raise error
    monkeypatch.setattr(interrupt, "_jobs", None)
    monkeypatch.setattr(interrupt, "start_new_thread", interrupted)
    exe, x = add_one(), np.array([1], np.float32)
    with pytest.raises(error):
        exe.call(x)
    monkeypatch.setattr(interrupt, "start_new_thread", _thread.start_new_thread)
    assert exe.call(x)[0] == 2


def trained():
    step = gc.train_step(gc.nn.Linear(64), loss=gc.nn.mse, optimizer=gc.optim.AdamW(0.01), x=gc.f32[8, 64],
                         y=gc.f32[8, 64])
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((8, 64)).astype("f"), rng.standard_normal((8, 64)).astype("f")
    return step, batch


def test_a_handler_that_saves(tmp_path):
    """At any moment of steps, reads, writes, loads and saves of the main thread. What it interrupted may be with the
    helper thread, which goes on: that step falls before, between or behind those of the handler.
    """
    step, batch = trained()
    saved, path = [], tmp_path / "state.safetensors"

    def handler(number, frame):
        start = int(step.state["step"])
        step.save(path)
        step(*batch)
        saved.append((start, int(step.state["step"])))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for k in range(60):
            signal.setitimer(signal.ITIMER_REAL, 0.0003 + 0.00005 * k)
            before_it = len(saved)
            end = time.monotonic() + 10
            while len(saved) == before_it and time.monotonic() < end:
                step(*batch)
                step.state.load(step.state.copy(), "test")
                step.state["weight"] = step.state["weight"]
                step(x=batch[0], y=batch[1])
                if k % 2:
                    step.save(tmp_path / "other.safetensors")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(saved) == 60
    assert all(end - start in (1, 2) for start, end in saved)
    step.load(path)
    assert saved[-1][0] <= step.state["step"] < saved[-1][1]


def test_finalizers_that_step():
    """The collector may run between any two allocations: a finalizer in it uses the state that is being read or
    written.
    """
    step, batch = trained()
    calls = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            calls.append(step(*batch))
            step.state["bias"] = step.state["bias"]

    threshold = collector.get_threshold()
    collector.set_threshold(3, 1, 1)
    try:
        for _ in range(50):
            Cycle()
            step.state.load(step.state.copy(), "test")
            step(*batch)
            step(x=batch[0], y=batch[1])
    finally:
        collector.set_threshold(*threshold)
    collector.collect()
    assert len(calls) == 50


def test_readers_and_writers_meet_whole_states():
    """Threads that load and copy while others step: nobody sees half of a load."""
    step, batch = trained()
    stop, torn = threading.Event(), []

    def filled(value):
        return {name: np.full_like(a, value) for name, a in step.state.copy().items()}

    fills = [filled(1), filled(2)]

    def writing():
        while not stop.is_set():
            for values in fills:
                step.state.load(values, "test")

    def reading():
        while not stop.is_set():
            seen = {float(a.reshape(-1)[k]) for a in step.state.copy().values() for k in (0, -1)}
            if len(seen) != 1:
                torn.append(seen)

    step.state.load(fills[0], "test")
    threads = [threading.Thread(target=f) for f in (writing, reading, reading)]
    for t in threads:
        t.start()
    time.sleep(0.5)
    stop.set()
    for t in threads:
        t.join(20)
    assert not torn


def test_waiting_readers_and_writers_can_be_interrupted():
    lock, count = StateLock(), np.zeros(1, np.int64)
    exe = executable(COUNTER, {}, {"y": i64[1]}, "array", state=[count], lock=lock)
    with held(lock):
        for wait in (lambda: lock.read([count]), lambda: lock.write([count], [np.ones(1, np.int64)]), exe.call):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                wait()
    assert count[0] == 0 and exe.call()[0] == 1


def test_a_write_that_expects_a_version():
    lock, count = StateLock(), np.zeros(2, np.int64)
    assert lock.write([count], [np.full(2, 5)], lock.version) and lock.version == 1
    assert not lock.write([count], [np.full(2, 6)], 0) and lock.version == 1 and count.tolist() == [5, 5]
    assert lock.read([count, np.zeros((0, 3)), np.float32(4)[...]])[0].tolist() == [5, 5]
    assert lock.read([]) == []


def test_the_helper_keeps_no_arrays():
    """What a call got is free when it is back."""
    exe = add_one()
    x = np.array([1], np.float32)
    exe._descriptor.switch(enabled=False, release=True)
    exe.call(x=x)
    for _ in range(100):
        if sys.getrefcount(x) == 2:
            break
        time.sleep(0.01)
    assert sys.getrefcount(x) == 2
