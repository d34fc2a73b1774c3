"""python -m benchmarks shards: training steps with shards beside those without, on one rank, on one thread and on all;
and two ranks of one thread beside one rank of as many threads.

Steps alternate, one call of each in turn. Printed are the ratio of the medians, of the bests, and of the processors'
time, in which the wait for other processes is not counted; and the memory of both, in multiples of the gradients.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

import graphc as gc
from benchmarks.engines.graphc_engine import array_type
from benchmarks.networks import NETWORKS
from benchmarks.workloads import BY_NAME, Workload
from graphc import nn, optim
from graphc.errors import GraphError
from graphc.train import TrainStep

NAMES = ("gpt 6x384 T256 b12 train", "resnet18 b16 train")
SHARDS, TURNS = 4, 9
REACH, RANKS_REACH = 1.03, 1.15

Figures = tuple[list[float], list[float]]           # seconds of each call: of the wall clock, of the processors


def made(workload: Workload, shards: int | None, threads: int) -> TrainStep:
    """The training step of a workload."""
    types = {name: array_type(array) for name, array in zip("xy", workload.arrays)}
    return gc.train_step(NETWORKS[workload.network](**workload.options), loss=nn.cross_entropy, seed=0, shards=shards,
                         optimizer=optim.SGD(workload.rate), threads=threads, **types)


def alternated(calls: Sequence[Callable[[], object]], turns: int) -> list[Figures]:
    """Times of these calls, one of each in turn; what comes first is not counted."""
    found: list[Figures] = [([], []) for _ in calls]
    for turn in range(turns + 1):
        for call, (wall, cpu) in zip(calls, found):
            start, worked = time.perf_counter(), time.process_time()
            call()
            if turn:
                wall.append(time.perf_counter() - start)
                cpu.append(time.process_time() - worked)
    return found


def shown(name: str, mine: Figures, other: Figures, reach: float) -> str:
    """A row of the table."""
    ratios = [take(one) / take(two) for take in (median, min) for one, two in zip(mine, other)]
    return (f"| {name} | {median(mine[0]) * 1e3:.0f} ms | {median(other[0]) * 1e3:.0f} ms | {ratios[0]:.3f} | "
            f"{ratios[2]:.3f} | {ratios[1]:.3f} | {ratios[3]:.3f} | {reach} |")


HEAD = "| ratio | ratio of bests | of processors' time | of its bests | reach |\n|" + "---|" * 8


def main(names: Sequence[str] = NAMES, turns: int = TURNS) -> None:
    """Prints Markdown."""
    cores = len(os.sched_getaffinity(0))
    rows, memory = [], []
    for name in names:
        workload = BY_NAME[name]
        batch = workload.batches()[0]
        for threads in sorted({1, cores}):
            steps = [made(workload, shards, threads) for shards in (SHARDS, None)]
            mine, other = alternated([lambda step=step: step(*batch) for step in steps], turns)
            print(shown(f"{name}, {threads} threads", mine, other, REACH), file=sys.stderr)
            rows.append(shown(f"{name}, {threads} threads", mine, other, REACH))
        gradients = sum(array.nbytes for array in steps[0].weights().values())
        held = [m.arena + m.scratch * cores + m.derived for m in (step.memory for step in steps)]
        memory.append(f"| {name} | {gradients / 1e6:.1f} MB | {held[0] / 1e6:.1f} MB | {held[1] / 1e6:.1f} MB | "
                      f"{(held[0] - held[1]) / gradients:+.2f} |")
    print(f"| workload | shards={SHARDS} | none {HEAD}", *rows, sep="\n")
    print(f"\n| workload | gradients | arena, scratch, sums and packed weights with shards={SHARDS} | none | "
          "difference / gradients |\n|---|---|---|---|---|", *memory, sep="\n")
    print("\n" + launched(turns), end="")


def launched(turns: int) -> str:
    """What a job of two ranks prints."""
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        return "two ranks: not measured, there is no mpiexec (pip install mpi4py mpich)\n"
    done = subprocess.run([mpiexec, "-n", "2", sys.executable, "-m", "benchmarks.shards", str(turns)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise GraphError(f"two ranks ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def job(turns: int) -> None:
    """What each of two ranks does: steps of both ranks, one thread each, in turn with steps of the first alone, on two
    threads, for which the other waits."""
    rows = []
    for name in NAMES:
        workload = BY_NAME[name]
        batch = workload.batches()[0]
        step = gc.distributed(made(workload, SHARDS, 1))
        ranks, part = step.ranks, step.part(len(batch[0]))
        alone = made(workload, SHARDS, 2) if ranks.rank == 0 else None

        def together() -> None:
            step(*(array[part] for array in batch))

        def first() -> None:
            if alone is not None:
                alone(*batch)
            ranks.gathered((), "a turn")
        (wall, own), other = alternated((together, first), turns)
        mine = wall, [float(ranks.gathered((seconds,), "processors' time").sum()) for seconds in own]
        if alone is not None:
            assert all(np.array_equal(np.asarray(step.state[key]), np.asarray(alone.state[key])) for key in step.state)
            rows.append(shown(name, mine, other, RANKS_REACH))
    if step.ranks.rank == 0:
        print(f"| shards={SHARDS} | 2 ranks | 1 rank, 2 threads {HEAD}", *rows, sep="\n", flush=True)


if __name__ == "__main__":
    job(int(sys.argv[1]))
