"""Ctrl-C inside one long call, and the lock of a state."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from native_programs import COUNTER, ENDLESS, add_one, executable, held, tiles

from graphc.codegen.llvm import lazy
from graphc.codegen.llvm.lazy import gives_back, llvm
from graphc.ir.types import i64
from graphc.runtime.lock import StateLock

SECONDS = 1.0                   # the promise, where a CPU is free
TRIES = 5                       # of which the fastest counts: on a busy machine a thread may wait for a CPU for long
LONG = 100_000                  # work of a tile: 15 us on a fast core


def interrupt_after(seconds: float, number: int = signal.SIGINT) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def answered(call, seconds: float, interrupt=interrupt_after) -> None:
    """`call`, interrupted after `seconds`, ends by KeyboardInterrupt in time."""
    took = []
    for _ in range(TRIES):
        interrupt(seconds)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            call()
        took.append(time.monotonic() - start)
        if took[-1] < seconds + SECONDS:
            return
    pytest.fail(f"interrupted after {seconds} s, it took {took} s to end")


def endless(**options):
    count = np.zeros(1, np.int64)
    return executable(ENDLESS, {}, {}, state=[count], writes=True, **options), count


def test_interrupt_of_an_endless_call():
    exe, count = endless()
    answered(exe.call, 0.1)
    stopped = count[0]
    assert stopped > 0
    time.sleep(0.02)
    assert count[0] == stopped
    # again: nothing was left behind, and a call that was left early does not count as short
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            interrupt_after(0.05)
            exe.call()


def test_interrupt_that_another_thread_takes():
    """The system may give a signal to any thread: nothing then wakes the main thread, which alone runs handlers."""
    exe, _ = endless()
    answered(exe.call, 0.1, lambda seconds: threading.Timer(
        seconds, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start())


def test_interrupt_between_tiles():
    exe = tiles(200_000, 4, LONG)
    x = np.zeros(200_000, np.float32)
    y, z = np.empty(200_000, np.float32), np.zeros(200_000, np.int64)
    def call():
        z.fill(0)
        exe.run([x], [y, z])
    answered(call, 0.2)
    assert 0 < z.sum() < 200_000
    done = z.sum()
    time.sleep(0.02)
    assert z.sum() == done


def test_other_handlers_run_during_a_call():
    exe, _ = endless()

    class Alarm(Exception):
        pass

    def handler(number, frame):
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Alarm):
            exe.call()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_handler_without_exception_lets_the_call_go_on():
    exe = tiles(3000, 1, LONG)
    ran = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: ran.append(number))
    y, z = np.empty(3000, np.float32), np.zeros(3000, np.int64)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        exe.run([np.zeros(3000, np.float32)], [y, z])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ran and (z == 1).all()


def test_interrupt_of_a_whole_process():
    """A real Ctrl-C: SIGINT to a fresh interpreter, in a call whose executable has been measured as long before."""
    script = f"""
import sys, numpy as np
from native_programs import tiles
exe = tiles(400_000, 2, {LONG})
x = np.zeros(400_000, np.float32)
print("ready", flush=True)
try:
    exe.call(x)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    took = []
    while len(took) < TRIES and (not took or took[-1] > SECONDS):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            assert process.stdout.readline() == "interrupted\n"
            took.append(time.monotonic() - start)
            assert process.wait(60) == 0
    assert took[-1] < SECONDS


def test_interrupts_in_a_storm_of_short_calls():
    """Signals may come at any moment of a short call: no frame or lock is lost."""
    lock = StateLock()
    exe = add_one(lock=lock)
    x, out = np.array([1], np.float32), np.empty(1, np.float32)
    hits = calls = 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for k in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + k * 1e-5)
                while True:
                    exe.call(x, out=out)
                    exe.call(x)
                    calls += 1
            except KeyboardInterrupt:
                hits += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert hits == 300 and calls > 0
    with held(lock):
        pass
    assert exe.call(x)[0] == 2 and len(exe.resident.frames) == 1


def test_exit_while_workers_spin_and_helper_waits():
    script = """
import numpy as np
from native_programs import tiles
exe = tiles(1000, 8, 100)
exe.call(np.zeros(1000, np.float32))
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    for _ in range(5):
        assert subprocess.run([sys.executable, "-c", script], env=env, timeout=20).returncode == 0


def test_exit_while_a_daemon_thread_is_in_native_code():
    script = """
import threading, time, numpy as np
from test_interrupt import endless
exe, count = endless()
threading.Thread(target=exe.call, daemon=True).start()
while count[0] == 0:
    time.sleep(0.001)
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    assert subprocess.run([sys.executable, "-c", script], env=env, timeout=20).returncode == 0


def test_calls_of_one_state_exclude_each_other():
    lock, count = StateLock(), np.zeros(1, np.int64)
    first, second = (executable(COUNTER, {}, {"y": i64[1]}, "array", state=[count], lock=lock) for _ in range(2))
    seen = []

    def caller(exe):
        for _ in range(200):
            seen.append(int(exe.call()[0]))

    threads = [threading.Thread(target=caller, args=(exe,)) for exe in (first, second, first, second)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert sorted(seen) == list(range(1, 801)) and count[0] == 800


def test_python_holds_the_lock_against_native_calls():
    lock, count = StateLock(), np.zeros(1, np.int64)
    exe = executable(COUNTER, {}, {"y": i64[1]}, "array", state=[count], lock=lock)
    for _ in range(3):
        exe.call()
    done = []
    with held(lock):
        caller = threading.Thread(target=lambda: done.append(exe.call()))
        caller.start()
        time.sleep(0.05)
        assert not done and count[0] == 3
    caller.join(10)
    assert done and count[0] == 4


def test_waiting_for_the_lock_can_be_interrupted():
    lock, count = StateLock(), np.zeros(1, np.int64)
    exe = executable(COUNTER, {}, {"y": i64[1]}, "array", state=[count], lock=lock)
    for _ in range(3):
        exe.call()
    with held(lock):
        answered(exe.call, 0.1)
    assert exe.call()[0] == 4


def test_a_locked_state_is_free_in_a_forked_child():
    lock = StateLock()
    exe = executable(COUNTER, {}, {"y": i64[1]}, "array", state=[np.zeros(1, np.int64)], lock=lock)
    taken, release = threading.Event(), threading.Event()

    def holder():
        with held(lock):
            taken.set()
            release.wait(20)

    thread = threading.Thread(target=holder)
    thread.start()
    taken.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if exe.call()[0] == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    release.set()
    thread.join()


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_handler_that_compiles_while_llvm_is_called(monkeypatch, is_ready):
    """It gives back what it took of llvmlite's lock, and what it was interrupted in still has its own, also while LLVM
    is made ready."""
    lock = llvm().ffi.lib._lock._lock
    if not is_ready:
        monkeypatch.setattr(lazy, "_ready", [])

    @gives_back
    def compiling(leave: int) -> None:
        for _ in range(leave):
            lock.acquire()

    with lock:
        compiling(2)
        assert lock._is_owned()
    assert not lock._is_owned()
    compiling(2)
    assert not lock._is_owned()
