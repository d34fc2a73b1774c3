"""The process's thread pool and the number of threads it is worth using."""
from __future__ import annotations

import ctypes
import math
import os
import time
from functools import cache
from pathlib import Path

import numpy as np

from graphc.config import config
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import address, mapped
from graphc.runtime.native import Native, native
from graphc.runtime.pool_memory import PoolMemory, PreemptionMemory

FIRST_WAKE_NS = 20_000          # what waking a thread is taken to cost before it has been measured
MEASURED = [PoolMemory.spin.offset // 8, PoolMemory.wake_ns.offset // 8]        # of the machine: a fork keeps them
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


class ThreadPool:
    """The memory that native workers share. Threads start when a job wants them; they are never stopped."""

    def __init__(self, code: Native):
        self._words = mapped(PoolMemory.size + PreemptionMemory.size).view(np.int64)
        self._words[MEASURED] = rounds_per_microsecond(code), FIRST_WAKE_NS
        self.address = address(self._words)
        self.parallel = code.address("gc_parallel")
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._words))       # workers read it until the process ends
        renew_after_fork(self)

    @property
    def workers(self) -> int:
        """Threads started so far, callers not counted."""
        return int(self._words[PoolMemory.workers.offset // 8])

    @property
    def moved(self) -> int:
        """Number of preempted workers that were moved to another CPU."""
        return int(self._words[(PoolMemory.size + PreemptionMemory.moved.offset) // 8])

    def after_fork(self) -> None:
        """The child has no workers, and nobody holds the pool."""
        measured = self._words[MEASURED]
        self._words[:] = 0
        self._words[MEASURED] = measured


@cache
def pool() -> ThreadPool:
    """The pool, made at the first use."""
    return ThreadPool(native())


def default_threads() -> int:
    """GRAPHC_THREADS, or the CPUs this process may use: affinity, bounded by the cgroup's quota (rounded up)."""
    return config().threads or math.ceil(max(1, min(len(os.sched_getaffinity(0)), cgroup_cpus())))


def cgroup_cpus(root: Path = CGROUP, own: Path = OWN_CGROUP) -> float:
    """CPUs that the quotas (v1 and v2) of this process's cgroups and those above them leave; infinity without a
    quota."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += [_quota_v2(folder) for mount in (root, root / "unified") for folder in _upwards(mount, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for mount in (root / controllers, root / "cpu")
                       for folder in _upwards(mount, path)]
    return min(quotas)


def rounds_per_microsecond(code: Native) -> int:
    """How often a waiting loop goes round in a microsecond."""
    rounds, best = 2000, math.inf
    for _ in range(3):
        start = time.perf_counter_ns()
        code.spin(rounds)
        best = min(best, time.perf_counter_ns() - start)
    return max(1, round(rounds * 1000 / max(best, 1)))


def _upwards(mount: Path, path: str) -> list[Path]:
    """The cgroup's folder and all above it; in a container the path may be the host's, then the mount itself is
    ours."""
    folder = mount / path.lstrip("/")
    return [folder, *(p for p in folder.parents if p == mount or mount in p.parents), mount]


def _quota_v2(folder: Path) -> float:
    return _ratio(_words(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float:
    return _ratio(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _ratio(words: list[str]) -> float:
    """quota / period; infinity for "max", -1 or a missing file."""
    if len(words) != 2 or not all(w.isdigit() for w in words) or int(words[1]) == 0:
        return math.inf
    return max(int(words[0]) / int(words[1]), 0.01)
