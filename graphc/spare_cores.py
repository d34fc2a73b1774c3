"""How many cores a compile may use beside the one that it runs on."""
from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from graphc.config import config
from graphc.runtime.pool import default_threads

MOST = 3                        # more find no work while this process writes and compiles its share
LOAD = Path("/proc/loadavg")


def spare_cores() -> int:
    """GRAPHC_COMPILE_WORKERS, or as many as this process may use, bounded by those of the machine that have nothing to
    do now: ranks of one program, and tests that run side by side, compile at the same time."""
    given = config().compile_workers
    return given if given >= 0 else max(0, min(MOST, default_threads() - 1, _idle()))


def _idle() -> int:
    """Cores without a thread that could run now. This one does."""
    with suppress(OSError, ValueError, IndexError):
        return (os.cpu_count() or 1) - int(LOAD.read_text().split()[3].split("/")[0])
    return MOST
