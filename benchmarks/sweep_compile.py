"""Compiles the problems of a sweep before they are measured, on all cores, into caches on disk: while clocks run,
nobody compiles, and the engines' processes load what is there.
"""
from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import graphc as gc
from benchmarks.deadline import deadline
from benchmarks.engines.graphc_engine import operator
from benchmarks.limit import Work, operator_work
from benchmarks.workloads import Workload

SECONDS = 100.0                 # of one problem; who takes longer is measured as it is, which says so


class Compiler:
    """Processes that fill the caches in a folder, ended by `end`."""

    def __init__(self, folder: Path, threads: int):
        self.environment = cache_variables(folder)
        self.threads = threads
        self.works: dict[str, Work] = {}
        self.pool = self._pool()

    def __call__(self, problems: Iterable[Workload], others: Mapping[str, Sequence[Workload]],
                 end: float = math.inf) -> None:
        """Compiles the problems by graphc, and what each of the other engines takes by it. What fails here fails again
        when it is measured; what is not begun at `end` (monotonic clock) is compiled then."""
        waiting: list[tuple[Workload, Future[Work]]] = []
        rest: list[Future[None]] = []
        with suppress(BrokenProcessPool):
            waiting = [(p, self.pool.submit(compiled, p)) for p in problems if p.name not in self.works]
            rest = [self.pool.submit(filled, engine, problem, self.threads)
                    for engine, taken in others.items() for problem in taken]
        everything = [*rest, *(f for _, f in waiting)]
        _, late = wait(everything, None if math.isinf(end) else max(0.0, end - time.monotonic()))
        done, _ = wait([f for f in late if not f.cancel()] + [f for f in everything if f not in late])
        for problem, future in waiting:
            if future in done and not future.exception():
                self.works[problem.name] = future.result()
        if any(isinstance(f.exception(), BrokenProcessPool) for f in done):
            self.pool = self._pool()

    def work(self, problem: Workload) -> Work:
        """What the problem takes at least."""
        if problem.name not in self.works:
            self.works[problem.name] = operator_work(problem)
        return self.works[problem.name]

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _set, (self.environment,))

    def end(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def cache_variables(folder: Path) -> dict[str, str]:
    """Environment variables by which engines find what was compiled."""
    folder = folder.resolve()
    return {"GRAPHC_CACHE": str(folder / "graphc"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def _set(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def compiled(problem: Workload) -> Work:
    with deadline(SECONDS):
        gc.compile(operator(problem), threads=1, seed=0)
        return operator_work(problem)


def filled(engine: str, problem: Workload, threads: int) -> None:
    """The engine's own cache has the problem."""
    with deadline(SECONDS, by_clock=True):
        case = SimpleNamespace(workload=problem, threads=threads, batches=problem.batches()[:1])
        runner = import_module(f"benchmarks.engines.{engine}_engine").make(case)
        runner.run(*runner.batches[0])
