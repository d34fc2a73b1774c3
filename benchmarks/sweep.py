"""`python -m benchmarks sweep`: single operators at sizes that nobody chose, graphc beside PyTorch (eager and, for a
share of the problems, torch.compile: the best) and, for loops, jitted JAX, in alternating turns. Finds the shapes at
which graphc falls off. `--engine pytensor --python pytensor=PATH` sets PyTensor beside the loops.

Prints each problem with time of graphc / time of the best peer and the share of what the machine could do; what is far
off is measured a second time at the end. Then come, as Markdown, the distribution by family, the worst, and what
changed against a file that an earlier run kept (`sweep_report.py`). A run that is stopped, by --minutes or by a signal,
reports what it has: problems come in a drawn order, so that this is a fair sample of all. `--resume` goes on where it
stopped. Problems are compiled before they are measured, some at a time, on all cores (`sweep_compile.py`).

`--problem LINE`, with a line as it is printed, measures that problem alone, on the threads that the line says and
beside all engines; `--explain` prints first among what its schedules were chosen.

GRAPHC_TARGET=avx2 keeps the peers to AVX2 too.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

import numpy as np

import graphc as gc
from benchmarks import sweep_check
from benchmarks.contest import INFERENCE_ONLY, Contest, EngineError, Figures
from benchmarks.engines.graphc_engine import operator
from benchmarks.limit import Machine, Work
from benchmarks.operators import FAMILIES
from benchmarks.sweep_compile import Compiler
from benchmarks.sweep_problems import Pair, changed, neighbour, problems, takes, words
from benchmarks.sweep_report import LIMIT, MOST, TYPICAL, Row, load, report
from benchmarks.workloads import INFER, Workload

# of one problem: of the turns together; their number; of one turn, which CHUNKS parts of a millisecond are enough for
SECONDS, TURNS, LEAST_TURNS, TURN_SECONDS, CHUNKS, SETTLE_SECONDS = 2.5, 9, 3, 0.06, 8, 0.005
SURE = 1.1                                      # a ratio may move by so much and still is on its side of a limit
# problems that are compiled before they are measured, and the share of the time left that this may take
BLOCK, COMPILING = 30, 0.25
COMPILED_SHARE = 0.1                            # of drawn problems, those that torch.compile takes part in
MEMORY = Path("/dev/shm")                       # files between processes lie there, where there is such a folder
# by graphc's target, what keeps oneDNN, PyTorch's own kernels, MKL and XLA to the same instructions
PEERS = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
                  "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}}


class Progress:
    """How long problems take, and so when to stop for the second measurements."""

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60 * minutes if minutes else math.inf
        self.count, self.spent = 0, 0.0

    def is_over(self, left: int = 0) -> bool:
        """Whether the time is up, or would be after so many problems more."""
        return time.monotonic() + left * self.spent / max(1, self.count) > self.end

    def until(self, share: float) -> float:
        """When this share of the time that is left has passed (monotonic clock)."""
        now = time.monotonic()
        return now + share * (self.end - now)

    @contextmanager
    def problem(self) -> Iterator[None]:
        """A problem that is measured inside."""
        start = time.monotonic()
        yield
        self.count, self.spent = self.count + 1, self.spent + time.monotonic() - start


def main(options: argparse.Namespace) -> None:
    if options.check:
        return sweep_check.main(options)
    engines = options.engine or ["graphc", "torch", *([] if options.quick else ["inductor"]), "jax"]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / ("problems.jsonl" if options.problem else "sweep.jsonl")
    known = load(path) if options.resume and path.exists() else {}
    todo = listed(options) if options.problem else drawn(options)
    print(f"{len(options.problem)} problems" if options.problem else
          f"seed {options.seed}, {options.problems} problems a family and mode",
          *([f", {len(known)} kept from before"] if known else []), sep="")
    rows: dict[str, Row] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        with open(path, "a" if known else "w") as kept:
            for threads, pairs in todo.items():
                if options.explain:
                    explain(pairs)
                # each number of threads has its part of the time
                progress = Progress(options.minutes / len(todo))
                with Measuring(engines, threads, options) as measuring:
                    for row in swept(measuring, pairs, known, progress):
                        _keep(row, rows, known, kept)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    print(report(list(rows.values()), load(options.against) if options.against else {}))
    print(f"\n{len(rows)} problems in {(time.monotonic() - start) / 60:.1f} minutes")


def drawn(options: argparse.Namespace) -> dict[int, list[Pair]]:
    """By threads, what the seed gives."""
    families = {name: FAMILIES[name] for name in FAMILIES if not options.family
                or any(f in name for f in options.family)}
    return {threads: list(problems(families, options.seed, options.problems)) for threads in options.threads}


def listed(options: argparse.Namespace) -> dict[int, list[Pair]]:
    """By threads, the problems of `--problem`, each with the neighbour that the seed gives; where a line says no number
    of threads, for those of `--threads`."""
    todo: dict[int, list[Pair]] = {}
    for problem, said in options.problem:
        rng = np.random.default_rng(options.seed)
        pair = problem, neighbour(problem.network, problem.mode, problem.options, rng)
        for threads in options.threads if said is None else [said]:
            todo.setdefault(threads, []).append(pair)
    return todo


def explain(pairs: Sequence[Pair]) -> None:
    for problem, _ in pairs:
        print(f"{problem.network} {problem.mode} {words(problem.options)}", gc.plan(operator(problem)).explain(),
              sep="\n\n", end="\n\n")


def _keep(row: Row, rows: dict[str, Row], known: Mapping[str, Row], kept: TextIO) -> None:
    rows[row.key] = row
    if known.get(row.key) is not row:
        print(row, flush=True)
        kept.write(json.dumps(asdict(row)) + "\n")
        kept.flush()


def swept(measuring: Measuring, todo: Sequence[Pair], known: Mapping[str, Row], progress: Progress) -> Iterator[Row]:
    """A row for each problem, and once more for those that are measured twice: theirs take the place of the first."""
    doubtful: list[tuple[Row, Workload, Workload | None]] = []
    for number, (problem, stepped) in enumerate(todo):
        # so much is kept free for what must be measured twice
        if progress.is_over(len(doubtful) + 1):
            break
        if number % BLOCK == 0:
            block = [pair for pair in todo[number:number + BLOCK] if measuring.row(pair[0]).key not in known]
            measuring.compile(block, progress.until(COMPILING))
        row = known.get(measuring.row(problem).key)
        if row is None:
            with progress.problem():
                row = measuring(problem, stepped)
        if row.is_doubtful:
            doubtful.append((row, problem, stepped))
        yield row
    for row, problem, stepped in sorted(doubtful, key=lambda d: -d[0].ratio):
        if progress.is_over():
            return
        yield twice(row, measuring(problem, stepped))


def twice(first: Row, second: Row) -> Row:
    """The first measurement with what the second says; the second alone where the first failed."""
    if first.error:
        return second
    return replace(first, again=math.inf if second.error else second.ratio, step_again=second.step)


class Measuring:
    """Engines of one number of threads, started for the length of a `with`."""

    def __init__(self, engines: Sequence[str], threads: int, options: argparse.Namespace):
        self.engines, self.threads = engines, threads
        self.neighbours = options.neighbours
        self.share = share_of(options)
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.machine = Machine(threads)
        self.compiler = Compiler(options.out / "compiled", threads)
        limited = PEERS.get(os.environ.get("GRAPHC_TARGET", ""), {})
        self.contest = Contest(engines, threads, Path(self.folder.name), seconds=SECONDS, turns=TURNS,
                               turn_seconds=TURN_SECONDS, maker="graphc", settled=is_settled, computing=threads == 1,
                               chunks=CHUNKS, least_turns=LEAST_TURNS, settle_seconds=SETTLE_SECONDS,
                               places=dict(options.python),
                               environment=self.compiler.environment | limited)

    def __enter__(self) -> Measuring:
        self.start()
        return self

    def start(self) -> None:
        self.contest.start()
        self.contest.warm(Workload("op.reduce", 1, INFER, LIMIT, {"shape": (4, 4), "perm": (0, 1), "axes": (0,),
                                                                  "op": "sum"}, drawn=True))

    def __exit__(self, *_: object) -> None:
        self.contest.end()
        self.compiler.end()
        self.folder.cleanup()

    def compile(self, pairs: Sequence[Pair], end: float) -> None:
        """What the engines compile for these problems is on disk when they are measured, if there is time until `end`.
        """
        whole = [p for pair in pairs for p in (pair if self.neighbours else pair[:1]) if p is not None]
        self.compiler(whole, {"inductor": [p for p, _ in pairs if "inductor" in self.taking(p)]}, end)

    def taking(self, problem: Workload) -> list[str]:
        return [e for e in self.engines if e in self.contest.hosts and takes(e, problem, self.share)]

    def __call__(self, problem: Workload, stepped: Workload | None) -> Row:
        try:
            row = self.measured(problem, self.taking(problem))
            if self.neighbours and stepped and not row.error:
                other = self.measured(stepped, ["graphc"])
                row = replace(row, step=self.stepped_ratio(row, problem, other, stepped),
                              neighbour=changed(problem, stepped))
        except (EngineError, OSError) as error:
            # the process of an engine has ended: all start again
            row = replace(self.row(problem), error=str(error) or type(error).__name__)
            self.contest.end()
            self.start()
        return row

    def row(self, problem: Workload) -> Row:
        return Row(problem.network, problem.mode, words(problem.options), self.threads)

    def measured(self, problem: Workload, engines: Sequence[str]) -> Row:
        row, self.contest.engines = self.row(problem), engines
        figures = self.contest.run(problem)
        mine = figures["graphc"]
        if mine.error:
            return replace(row, error=mine.error)
        peers = {e: f for e, f in figures.items() if e != "graphc" and not f.error}
        row = replace(row, seconds=mine.median, share=self.seconds_at_limit(problem) / mine.median,
                      peers=" ".join(peers))
        if not peers:
            wrong = [f"{e}: {f.error}" for e, f in figures.items() if f.error and f.error != INFERENCE_ONLY]
            return replace(row, error="; ".join(wrong)) if wrong else row
        peer = min(peers, key=lambda e: peers[e].median)
        return replace(row, peer=peer, ratio=mine.median / peers[peer].median, best=best_ratio(mine, peers),
                       alias=peers[peer].alias)

    def seconds_at_limit(self, problem: Workload) -> float:
        work: Work = self.compiler.work(problem)
        peak, rate = self.machine.at_start
        return max(work.flops / peak, work.bytes / rate) / 1e9

    def stepped_ratio(self, row: Row, problem: Workload, other: Row, stepped: Workload) -> float:
        """Time for a unit of work of the slower of both, against that of the faster."""
        if other.error:
            return math.nan
        work, more = self.compiler.work(problem), self.compiler.work(stepped)
        unit = row.seconds / max(work.flops, work.bytes)
        step = other.seconds / max(more.flops, more.bytes)
        return max(unit / step, step / unit)


def share_of(options: argparse.Namespace) -> float:
    """Of the problems, those that torch.compile takes part in: all that are named."""
    if options.compiled_share is not None:
        return options.compiled_share
    return 1.0 if options.problem else COMPILED_SHARE


def is_settled(figures: Mapping[str, Figures]) -> bool:
    """Whether more turns would leave the ratio to the best peer on its side of every limit: neither the middle half of
    the times of both, nor what these may move by, reaches one.
    """
    found = {e: np.quantile(f.times, (0.25, 0.5, 0.75)) for e, f in figures.items() if not f.error}
    mine = found.pop("graphc", None)
    if mine is None or not found:
        return True
    low, _, high = min(found.values(), key=lambda quartiles: quartiles[1])
    return not any(mine[0] / high / SURE < limit < mine[2] / low * SURE for limit in (TYPICAL, LIMIT, MOST))


def best_ratio(mine: Figures, peers: Mapping[str, Figures]) -> float:
    return mine.best / min(f.best for f in peers.values())
