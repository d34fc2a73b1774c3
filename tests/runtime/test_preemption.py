"""A thread that the system takes off its CPU in the middle of a tile goes on elsewhere, and runs where it may
afterwards.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

SECONDS = 20
CPUS = sorted(os.sched_getaffinity(0))

LOADED = """
import json, os, subprocess, sys, time
import numpy as np
import graphc as gc
from graphc.runtime.pool import pool

threads, seconds, wanted = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
allowed = sorted(os.sched_getaffinity(0))
loops = [subprocess.Popen([sys.executable, "-c", f"import os\\nos.sched_setaffinity(0, {{{cpu}}})\\nwhile True: pass"]) for cpu in allowed[:int(sys.argv[4])]]
try:
    a, b = (np.random.default_rng(k).standard_normal((512, 512), dtype=np.float32) for k in (0, 1))
    product = gc.compile(lambda a, b: a @ b, a=gc.f32[512, 512], b=gc.f32[512, 512], threads=threads)
    alone = gc.compile(lambda a, b: a @ b, a=gc.f32[512, 512], b=gc.f32[512, 512], threads=1)(a, b)
    end, same = time.monotonic() + seconds, True
    while pool().moved < wanted and time.monotonic() < end:
        same &= bool((product(a, b) == alone).all())
finally:
    for loop in loops:
        loop.kill()
        loop.wait()
caller = sorted(os.sched_getaffinity(0)) == allowed

unbound = set()

def tasks_unbound():
    "Whether each thread was seen to be free to run anywhere: workers are bound while they sleep, under load always one."
    tasks = os.listdir("/proc/self/task")
    unbound.update(t for t in tasks if sorted(os.sched_getaffinity(int(t))) == allowed)
    return len(tasks) >= threads and unbound.issuperset(tasks)

end, everywhere = time.monotonic() + seconds, False
while not everywhere and time.monotonic() < end:
    product(a, b)
    everywhere = tasks_unbound()
print(json.dumps(dict(moved=pool().moved, same=same, caller=caller, everywhere=everywhere)))
"""


def loaded(cpus: int, threads: int, wanted: int, busy: int = 1) -> dict:
    """Products on the first `cpus` CPUs, `busy` of which another program never leaves, until `wanted` threads have been
    moved.
    """
    program = [sys.executable, "-c", LOADED, str(threads), str(SECONDS), str(wanted), str(busy)]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(CPUS[:cpus]))
    try:
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}           # so that all threads are ours
        done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=6 * SECONDS)
    finally:
        os.sched_setaffinity(0, before)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tells_run_time() -> bool:
    """Whether the system tells one thread how long another has run: it need not, and then nobody is moved."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            pass
    thread = threading.Thread(target=run)
    thread.start()
    try:
        clock = time.pthread_getcpuclockid(thread.ident)
        before = time.clock_gettime(clock)
        time.sleep(0.05)
        return time.clock_gettime(clock) > before
    except OSError:
        return False
    finally:
        done.set()
        thread.join()


needs_run_time = pytest.mark.skipif(not tells_run_time(),
                                    reason="the system does not tell how long another thread has run")


@needs_run_time
@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU")
@pytest.mark.parametrize("threads", [2, 3])
def test_whoever_loses_its_cpu_is_moved(threads):
    """Two CPUs and a loop on one of them: callers and workers lose it, the caller helps or a worker does. Same bits,
    own affinities.
    """
    seen = loaded(2, threads, 20)
    assert seen["moved"] >= 20
    assert seen["same"] and seen["caller"] and seen["everywhere"]


@needs_run_time
@pytest.mark.skipif(len(CPUS) < 3, reason="fewer than three CPUs")
def test_workers_change_places():
    seen = loaded(len(CPUS), len(CPUS), 20)
    assert seen["moved"] >= 20
    assert seen["same"] and seen["caller"] and seen["everywhere"]


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU")
def test_no_cpu_is_free():
    """All CPUs are wanted by others: nothing hangs, nothing is lost."""
    seen = loaded(2, 4, 5, busy=2)
    assert seen["same"] and seen["caller"] and seen["everywhere"]
