"""Forks at any moment of what other threads do: the child compiles, runs and trains."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.once import once_property, recent

ROOT = Path(__file__).parents[2]
X = np.arange(4, dtype=np.float32)


def program(n: int):
    """A fresh graph: nothing of it is cached in this process."""
    @gc.graph
    def f(x: gc.f32[4]):
        for _ in range(n % 7 + 3):
            x = gc.tanh(x) * 0.5 + n
        return x
    return gc.compile(f, threads=2)


def in_child(work) -> int:
    """The exit status of a fork that does `work`; it is killed after a while."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_forks_while_another_thread_compiles(monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    stop = threading.Event()

    def compiling():
        n = 0
        while not stop.is_set():
            program(n)
            n += 1

    thread = threading.Thread(target=compiling)
    thread.start()
    try:
        for k in range(12):
            time.sleep(0.003 * k)
            assert in_child(lambda: program(100 + k)(X)) == 0
    finally:
        stop.set()
        thread.join()


def test_a_fork_while_another_thread_loads_the_compiler():
    """The first compile of a process imports the compiler and LLVM: a fork in the middle of that leaves nothing half
    imported.
    """
    script = """
import os, signal, sys, threading, time
import numpy as np, graphc as gc
@gc.graph
def f(x: gc.f32[4]):
    return gc.exp(x)
thread = threading.Thread(target=lambda: gc.compile(f))
thread.start()
time.sleep(float(sys.argv[1]))
child = os.fork()
if child == 0:
    signal.alarm(30)
    assert gc.compile(f)(np.zeros(4, np.float32))[0] == 1
    os._exit(0)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    for delay in (0.0, 0.02, 0.08):
        done = subprocess.run([sys.executable, "-c", script, str(delay)], env=dict(os.environ, PYTHONPATH=str(ROOT)),
                              timeout=60)
        assert done.returncode == 0


def test_a_lock_that_comes_while_a_fork_waits():
    """It has not been acquired, so it is not released."""
    script = """
import os
from threading import RLock
from graphc.once import held_by_forks
os.register_at_fork(before=lambda: held_by_forks(RLock()))
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], env=dict(os.environ, PYTHONPATH=str(ROOT)), timeout=60,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_inside_a_handler_during_a_long_call():
    """The child cannot go on with a call whose thread it does not have: it says so instead of waiting for ever."""
    from test_interrupt import endless
    exe, _ = endless()
    children = []

    def handler(number, frame):
        children.append(os.fork())
        if children[-1] != 0:
            raise KeyboardInterrupt
        signal.alarm(20)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        try:
            exe.call()
        except gc.GraphError as error:
            os._exit(0 if children == [0] and "forked" in str(error) else 1)
        except KeyboardInterrupt:
            assert children[0] != 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_a_fork_from_another_thread_while_this_one_trains():
    state = gc.train_step(gc.nn.Linear(3), loss=gc.nn.mse, optimizer=gc.optim.SGD(0.1), x=gc.f32[2, 4], y=gc.f32[2, 3])
    batch, statuses = (np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)), []

    def forking():
        for _ in range(5):
            statuses.append(in_child(lambda: (state(*batch), state.state.copy(), program(len(statuses))(X))))

    thread = threading.Thread(target=forking)
    thread.start()
    while thread.is_alive():
        state(*batch)
    assert statuses == [0] * 5


def test_a_value_is_computed_without_a_lock():
    class Slow:
        count = 0

        @once_property
        def value(self):
            """What it is."""
            self.count += 1
            inner.start() if self.count == 1 else None
            inner.join() if self.count == 1 else None
            return object()

    slow = Slow()
    seen = []
    inner = threading.Thread(target=lambda: seen.append(slow.value))
    assert slow.value is seen[0] is slow.value and slow.count == 2
    assert Slow.value.__doc__ == "What it is."
    with pytest.raises(AttributeError):
        Slow().other


def test_threads_that_share_a_table_of_recent_things():
    table, wrong = OrderedDict(), []

    def using(start: int) -> None:
        for k in range(start, start + 3000):
            key = k * 7 % 13
            if recent(table, key, lambda: [key], 4) != [key]:
                wrong.append(key)

    threads = [threading.Thread(target=using, args=(n,)) for n in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not wrong and len(table) <= 4 + len(threads)
    assert [recent(table, k, lambda: k, 3) for k in "abcd"] == list("abcd") and list(table) == ["b", "c", "d"]
