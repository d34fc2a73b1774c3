"""From one thread to all cores, and all cores while another process keeps one of them busy.

Times are means, not medians: a core that is taken away for milliseconds costs one call of many, which a median of short
calls does not see.
"""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from benchmarks.contest import contest
from benchmarks.report import TITLES, seconds_text
from benchmarks.workloads import BY_NAME

NAMES = ("mlp 784-512-512-10 b64 train", "resnet50 b1 infer", "lstm 2x512 T64 b32 train", "gpt 6x384 T256 b1 infer")
ENGINES = ("graphc", "torch")
SECONDS, TURNS = 6.0, 7
SPIN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def main(threads: int) -> None:
    """Times for 1, 2, … `threads` threads, then for `threads` with one core loaded."""
    times = {count: _measured(count) for count in range(1, threads + 1)}
    with busy(min(os.sched_getaffinity(0))):
        loaded = _measured(threads)
    for name in NAMES:
        for engine in ENGINES:
            print(_line(name, engine, times, loaded[name].get(engine), threads))


def _measured(threads: int) -> dict[str, dict[str, float]]:
    """Mean seconds by workload and engine."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, contest(ENGINES, threads, Path(folder), seconds=SECONDS,
                                                          turns=TURNS) as run:
        for name in NAMES:
            figures = run.run(BY_NAME[name])
            found[name] = {e: fmean(f.times) for e, f in figures.items() if f.times}
            print(f"{name}, {threads} threads: "
                  + ", ".join(f"{e} {seconds_text(fmean(f.times)) if f.times else f.error}"
                              for e, f in figures.items()), flush=True)
    return found


@contextmanager
def busy(core: int):
    """A process that never rests, on one core."""
    process = subprocess.Popen([sys.executable, "-c", SPIN, str(core)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _line(name: str, engine: str, times: dict, loaded: float | None, threads: int) -> str:
    found = {count: row[name][engine] for count, row in times.items() if engine in row[name]}
    if 1 not in found or threads not in found or loaded is None:
        return f"{name}, {TITLES[engine]}: failed"
    speed = ", ".join(f"{count}: {found[1] / seconds:.2f}x" for count, seconds in found.items())
    return (f"{name}, {TITLES[engine]}: {seconds_text(found[1])} on one thread; {speed}; one core loaded: "
            f"{loaded / found[threads]:.2f} of the idle time "
            f"(half a core less: {threads / (threads - 0.5):.2f}; waiting for the slowest core: 2.00)")
