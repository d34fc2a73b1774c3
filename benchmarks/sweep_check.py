"""`python -m benchmarks sweep --check`: small problems of the sweep's families, for their results alone. Each runs on
one thread and on two, whose bits must be equal, and is compared element by element with PyTorch in f64.

An element may be off by a share of itself and of what is usual in its array; where f32 loses more, by some times as
much as PyTorch does in f32. What random operators draw is compared by its mean and deviation.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np

from benchmarks.engines import graphc_engine
from benchmarks.operators import FAMILIES, Draw
from benchmarks.sweep_problems import words, workload
from benchmarks.workloads import Workload

MINUTES = 3.0                   # unless told otherwise
SMALL = 0.6                     # sizes are drawn up to this power of those that are measured
ROUNDING, LOSS = 1e-4, 50       # of an element; times what PyTorch loses in most elements
MOST = 0.95                     # elements: others may lie where a maximum turns
SPREAD = 12                     # deviations of a mean, and half of those of a deviation
DRAWN = 1e6                     # what draws are divided by in the families

Arrays = tuple[np.ndarray, ...]


class Small(Draw):
    """Smaller sizes, odd ones more often."""

    def size(self, low: int, high: int) -> int:
        return super().size(low, max(low, round(high ** SMALL)))


def main(options: argparse.Namespace) -> None:
    names = [name for name in FAMILIES if not options.family or any(f in name for f in options.family)]
    count, wrong = Counter[str](), 0
    for problem, text in checked(options.seed, names, options.minutes or MINUTES):
        count[problem.network] += 1
        if text:
            wrong += 1
            print(f"{problem.network} {problem.mode} {words(problem.options)}: {text}", flush=True)
    print(f"{count.total()} problems ({', '.join(f'{name} {n}' for name, n in count.items())}), {wrong} of them wrong")
    sys.exit(wrong > 0)


def checked(seed: int, families: Sequence[str], minutes: float) -> Iterator[tuple[Workload, str]]:
    """Problems with what is wrong with each ("": nothing), in rounds of all families and modes, till the time is over.
    """
    end, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        for name in families:
            for mode in FAMILIES[name].modes:
                problem = small(name, mode, seed, number)
                try:
                    yield problem, fault(problem)
                except Exception as error:          # of either engine
                    yield problem, f"{type(error).__name__}: {error}"
        number += 1


def small(name: str, mode: str, seed: int, number: int) -> Workload:
    rng = np.random.default_rng([seed, number, *name.encode(), len(mode)])
    return workload(name, mode, FAMILIES[name].draw(Small(rng)))


def fault(problem: Workload) -> str:
    """What is wrong with graphc's results, in words."""
    peer, batch = import_module("benchmarks.engines.torch_engine"), problem.batches(1)[0]
    one, two = (results(graphc_engine, problem, batch, threads) for threads in (1, 2))
    if not all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True)):
        return "other bits on two threads"
    theirs = results(peer, problem, batch)
    if problem.network == "op.random":
        return other_draws(*(DRAWN * (y.astype(np.float64) - batch[0]) for y in (one[0], theirs[0])))
    with peer.in_f64():
        exact = results(peer, problem, [a.astype(np.float64) if a.dtype == np.float32 else a for a in batch])
    found = [difference(*arrays) for arrays in zip(one, theirs, exact, strict=True)]
    return "; ".join(f"result {k}: {text}" for k, text in enumerate(found) if text)


def results(engine: ModuleType, problem: Workload, batch: Sequence[np.ndarray], threads: int = 1) -> Arrays:
    runner = engine.make(SimpleNamespace(workload=problem, threads=threads, batches=[tuple(batch)]))
    return tuple(map(np.asarray, runner.arrays(runner.run(*runner.batches[0]))))


def difference(mine: np.ndarray, theirs: np.ndarray, exact: np.ndarray) -> str:
    """What is further from the exact results than rounding explains, and from the peer's; "" if nothing is. Of an
    element where a maximum turns within rounding, either side is right."""
    if mine.size != exact.size:
        return f"{mine.size} elements where there should be {exact.size}"
    mine, theirs = (a.reshape(exact.shape).astype(np.float64) for a in (mine, theirs))
    sizes = np.abs(exact[np.isfinite(exact) & (exact != 0)])
    unit = np.abs(exact) + (np.median(sizes) if sizes.size else 1.0)
    lost = _distance(theirs, exact, unit)
    lost = lost[np.isfinite(lost)]
    allowed = ROUNDING + LOSS * (np.quantile(lost, MOST) if lost.size else 0.0)
    wrong = ~(_distance(mine, exact, unit) <= allowed) & ~(_distance(mine, theirs, unit) <= allowed)
    if not wrong.any():
        return ""
    at = tuple(map(int, np.argwhere(wrong)[0]))
    return (f"{wrong.sum()} of {wrong.size} elements, the first at {at}: {mine[at]:.6g} instead of {exact[at]:.6g} "
            f"({theirs[at]:.6g} in f32)")


def _distance(a: np.ndarray, b: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """In units; infinite or NaN where one is and the other not."""
    with np.errstate(invalid="ignore"):                                       # inf - inf
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        return np.where(same, 0.0, np.abs(a - b) / unit)


def other_draws(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Whether the mean or the deviation of what was drawn differ."""
    spread = SPREAD * theirs.std() / np.sqrt(mine.size)
    if abs(mine.mean() - theirs.mean()) <= spread and abs(mine.std() - theirs.std()) <= 2 * spread:
        return ""
    return (f"draws of mean {mine.mean():.3g} and deviation {mine.std():.3g} instead of {theirs.mean():.3g} and "
            f"{theirs.std():.3g}")
