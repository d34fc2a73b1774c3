"""How many cores a compile may use beside the one that it runs on."""
from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import sleep

from graphc.config import config
from graphc.runtime.pool import default_threads

MOST = 3                        # more find no work while this process writes and compiles its share
MOMENTS, PAUSE_SECONDS = 4, 0.001
LOAD = Path("/proc/loadavg")


def spare_cores() -> int:
    """GRAPHC_COMPILE_WORKERS, or as many as this process may use, bounded by those of the machine that have nothing to
    do now: ranks of one program, and tests that run side by side, compile at the same time."""
    given = config().compile_workers
    return given if given >= 0 else max(0, _idle(min(MOST, default_threads() - 1)))


def _idle(most: int) -> int:
    """Cores, at most so many, without a thread that could run, at the best of some moments: one that is awake for a
    moment would else take a core for the whole compile."""
    idle = _idle_now()
    for _ in range(MOMENTS - 1):
        if idle >= most:
            break
        sleep(PAUSE_SECONDS)
        idle = max(idle, _idle_now())
    return min(idle, most)


def _idle_now() -> int:
    """This thread runs."""
    with suppress(OSError, ValueError, IndexError):
        return (os.cpu_count() or 1) - int(LOAD.read_text().split()[3].split("/")[0])
    return MOST
