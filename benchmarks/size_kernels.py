"""python -m benchmarks size-kernels B=1,T=5 --workload "LSTM 256 train": kernel by kernel, the program for all sizes
beside the one for these sizes alone.

Both programs are profiled in alternating turns; printed are the least microseconds of each kernel, the kernels of one
line and layer side by side: where the program for all sizes loses.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from benchmarks import sizes as of_sizes
from graphc.profile import ProfileRow

TURNS, RUNS = 5, 40
WIDTH = 60                              # of the name of a kernel

Place = tuple[str, str, str]            # of the user: phase, layer, line
Times = dict[Place, dict[str, float]]   # seconds of kernels by name, the slowest first


@dataclass(frozen=True)
class Pair:
    """The kernels of a place in both programs."""
    place: Place
    together: Mapping[str, float]
    apart: Mapping[str, float]

    @property
    def lost(self) -> float:
        return sum(self.together.values()) - sum(self.apart.values())

    def __str__(self) -> str:
        head = (f"{' '.join(filter(None, self.place))}: {1e6 * sum(self.together.values()):.1f} µs beside "
                f"{1e6 * sum(self.apart.values()):.1f}")
        sides = [[f"{1e6 * t:9.1f} {name[:WIDTH]}" for name, t in side.items()]
                 for side in (self.together, self.apart)]
        lines = [f"  {left:<{WIDTH + 12}}{right}" for left, right in zip_longest(*sides, fillvalue="")]
        return "\n".join([head, *lines])


def main(options: argparse.Namespace) -> None:
    sizes = {name: int(n) for name, _, n in (part.partition("=") for part in options.old.split(","))}
    for threads in options.threads:
        for case in of_sizes.cases(threads):
            if set(case.ranges) == set(sizes) and any(text in case.name for text in options.workload or [""]):
                print(f"{case.name}, {threads} threads")
                for pair in compared(case, sizes, options.seed):
                    print(pair)


def compared(case: of_sizes.Case, sizes: Mapping[str, int], seed: int) -> list[Pair]:
    """The places where most is lost come first."""
    arrays = case.arrays(sizes, np.random.default_rng(seed))
    runs = case.make(**case.types), case.make(**of_sizes.bound(case, sizes))
    together, apart = least_times(runs, arrays)
    return sorted([Pair(place, together.get(place, {}), apart.get(place, {})) for place in {**together, **apart}],
                  key=lambda pair: -pair.lost)


def least_times(runs: Sequence[Callable], arrays: Sequence[np.ndarray]) -> list[Times]:
    """Of the kernels of each program."""
    found: list[Times] = [{} for _ in runs]
    for _ in range(TURNS):
        for times, run in zip(found, runs):
            for row in run.profile(*arrays, runs=RUNS).rows:
                at = times.setdefault(place_of(row), {})
                at[row.kernel] = min(at.get(row.kernel, row.seconds), row.seconds)
    return found


def place_of(row: ProfileRow) -> Place:
    return row.phase, row.scope, row.line
