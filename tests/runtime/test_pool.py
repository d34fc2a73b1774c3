"""The thread pool: every tile once, the same bits for any number of threads, threads and forks."""
from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from native_programs import DISPATCH, executable, load_field, load_pointer, tiles

from graphc.ir.types import i32
from graphc.runtime.pool import cgroup_cpus, default_threads, pool

COUNT = 97


def run_tiles(exe, x, threads=None):
    y, z = np.full(len(x), np.nan, np.float32), np.zeros(len(x), np.int64)
    exe.run([x], [y, z], threads)
    return y, z


def expected(x):
    return x * np.float32(3) + np.arange(len(x), dtype=np.float32)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal(COUNT).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8, 33])
@pytest.mark.parametrize("work", [1, 2000])
def test_every_tile_runs_once(threads, work, x):
    exe = tiles(COUNT, threads, work)
    for _ in range(50):
        y, z = run_tiles(exe, x)
        assert (z == 1).all()
        np.testing.assert_array_equal(y, expected(x))


def test_threads_are_honoured_beyond_the_cores(x):
    run_tiles(tiles(COUNT, 41, 500), x)
    assert pool().workers >= 40


def test_a_single_call_may_ask_for_more_threads(x):
    exe = tiles(COUNT, 2, 500)
    y, z = run_tiles(exe, x, threads=6)
    assert (z == 1).all() and pool().workers >= 5
    np.testing.assert_array_equal(y, expected(x))


def test_no_tiles():
    exe = tiles(0, 4)
    y, z = run_tiles(exe, np.empty(0, np.float32))
    assert len(y) == 0


def test_several_python_threads_at_once(x):
    """Callers that find the pool busy do their tiles themselves; nobody waits for ever, nothing is lost."""
    exe, wrong = tiles(COUNT, 4, 300), []

    def caller():
        for _ in range(200):
            y, z = run_tiles(exe, x)
            if not ((z == 1).all() and (y == expected(x)).all()):
                wrong.append((y, z))

    callers = [threading.Thread(target=caller) for _ in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


def test_workers_sleep_and_wake(x):
    exe = tiles(COUNT, 4, 2000)
    for _ in range(20):
        time.sleep(0.003)           # longer than workers spin
        y, z = run_tiles(exe, x)
        assert (z == 1).all()


def native_seconds():
    """What the threads that Python does not know have computed: workers, of this test and of others before it."""
    python, total = {thread.native_id for thread in threading.enumerate()}, 0
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) not in python:
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):         # it has just ended
                pass
    return total * 1e-9


def test_idle_workers_cost_nothing(x):
    """They spin for a while at first, which on a busy machine takes them longer."""
    run_tiles(tiles(COUNT, 8), x)
    assert len(list(Path("/proc/self/task").iterdir())) > len(threading.enumerate()) and native_seconds() > 0
    for _ in range(100):
        before = native_seconds()
        time.sleep(0.1)
        if native_seconds() - before < 0.005:
            return
    pytest.fail("idle workers go on spinning")


def test_dispatch_latency_is_bounded():
    """4 empty tiles take microseconds; the generous bound, and that one of many tries is enough, are for busy machines."""
    exe = executable(DISPATCH.replace("COUNT", "4").replace("REPEATS", "2000"), {}, {}, threads=2)
    for _ in range(100):
        start = time.perf_counter()
        exe.run([], [])
        if (time.perf_counter() - start) / 2000 < 50e-6:
            return
    pytest.fail("a dispatch takes more than 50 us")


def test_a_forked_child_works(x):
    exe = tiles(COUNT, 4, 500)
    run_tiles(exe, x)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(20):
                y, z = run_tiles(exe, x)
                assert (z == 1).all() and (y == expected(x)).all()
            status = 0 if pool().workers >= 1 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    y, z = run_tiles(exe, x)
    assert (z == 1).all()


def test_fork_while_another_thread_computes(x):
    exe, stop = tiles(COUNT, 4, 3000), threading.Event()

    def busy():
        while not stop.is_set():
            run_tiles(exe, x)

    worker = threading.Thread(target=busy)
    worker.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                y, z = run_tiles(exe, x)
                os._exit(0 if (z == 1).all() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        worker.join()


def test_default_threads_are_those_we_may_use(monkeypatch):
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("GRAPHC_THREADS", "7")
    assert default_threads() == 7


@pytest.mark.parametrize("own, files, cpus", [
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
    ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
    ("3:cpu,cpuacct:/x\n0::/\n",
     {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 2.0),
    ("1:cpu:/host/path\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
    ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, math.inf),
    ("1:memory:/x\n", {}, math.inf),
])
def test_cgroup_quota(tmp_path, own, files, cpus):
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    assert cgroup_cpus(tmp_path / "mount", tmp_path / "own") == cpus


SEEN = f"""
declare i32 @sched_getcpu()
define internal void @tile(ptr %ctx, ptr %frame, i64 %t, ptr %scratch) nounwind {{
{load_pointer("y", "outputs", 0)}
  br label %spin
spin:
  %i = phi i64 [ 0, %0 ], [ %j, %spin ]
  store volatile i64 %t, ptr %scratch
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, 100000
  br i1 %more, label %spin, label %end
end:
  %cpu = call i32 @sched_getcpu()
  %y.at = getelementptr i32, ptr %y, i64 %t
  store i32 %cpu, ptr %y.at
  ret void
}}
define i32 @gc_main(ptr %ctx) nounwind {{
{load_field("parallel", "parallel")}
  call void %parallel(ptr %ctx, ptr @tile, ptr null, i64 256)
  ret i32 0
}}
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_woken_workers_run_beside_their_caller():
    """Workers that slept help on other CPUs, also where the scheduler packs threads; some of the calls find the machine
    busy.
    """
    exe, most = executable(SEEN, {}, {"y": i32[256]}, "array", threads=4, scratch_bytes=8), 0
    for _ in range(40):
        time.sleep(0.005)
        most = max(most, len(np.unique(exe.call())))
    assert most > 1


def test_awake_workers_may_run_everywhere(x):
    """The binding of a worker lasts only while it sleeps; the caller's own affinity is never touched."""
    before = os.sched_getaffinity(0)
    run_tiles(tiles(COUNT, 4, 5000), x)
    time.sleep(0.01)
    run_tiles(tiles(COUNT, 4, 5000), x)
    assert os.sched_getaffinity(0) == before


FOLLOWS = """
import os, sys, time
import numpy as np
from native_programs import tiles
from graphc.runtime.interrupt import call_interruptibly

allowed = os.sched_getaffinity(0)
one = {min(allowed)}
exe, x = tiles(64, 3, 20_000), np.zeros(64, np.float32)

def masks():
    "Of the pool's threads after some work, and while nobody sleeps."
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for _ in range(5):
            exe._descriptor.switch(enabled=not long, release=True)
            exe.call(x)
        found = {t: os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task") if int(t) not in others}
        if len(found) >= 2 and all(mask == wanted for mask in found.values()):
            return True
        time.sleep(0.01 if slow else 0)
    return found

call_interruptibly(lambda: None, lambda: None)
helper = {int(t) for t in os.listdir("/proc/self/task")} - {os.getpid()}
for long in (False, True):                      # calls that the helper thread makes are long ones
    others = {os.getpid()} | (set() if long else helper)
    for whom in ("caller", "all"):
        for wanted in (one, allowed):
            for slow in (False, True):          # workers that spin meanwhile, and that sleep
                time.sleep(0.05 * slow)
                for t in os.listdir("/proc/self/task") if whom == "all" else [0]:
                    os.sched_setaffinity(int(t), wanted)
                found = masks()
                assert found is True, (whom, wanted, slow, long, found)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_workers_follow_the_affinity_of_their_caller():
    """`taskset -ap` and sched_setaffinity of a running process reach workers, those too that sleep on a CPU of their
    own just then.
    """
    here = Path(__file__).parent
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(here), str(here.parents[1])]), OPENBLAS_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", FOLLOWS], env=env, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
