"""How two or more engines are compared: in turns of at least 0.2 s on one machine, while the others are idle, with
agreement checked.

The figure is the ratio of medians; the ratio of bests stands beside it. Inputs change from call to call.
"""
from __future__ import annotations

import gc as garbage
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

TURN_SECONDS = 0.2
SETTLE_SECONDS = 0.1            # after a turn, so that the threads of the engine before have stopped spinning
TURNS = 7


@dataclass(frozen=True)
class Timing:
    """Seconds per call: of each turn the mean over its calls."""
    turns: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.turns)

    @property
    def best(self) -> float:
        return min(self.turns)


@dataclass(frozen=True)
class Comparison:
    """Timings by engine; the first is graphc."""
    name: str
    timings: Mapping[str, Timing]
    work: float = 0.0               # flops or bytes of one call, for rates

    def ratio(self, peer: str, best: bool = False) -> float:
        """How many times faster graphc is than `peer`."""
        mine, theirs = self.timings["graphc"], self.timings[peer]
        return theirs.best / mine.best if best else theirs.median / mine.median

    def rate(self, engine: str, best: bool = False) -> float:
        timing = self.timings[engine]
        return self.work / (timing.best if best else timing.median) / 1e9

    def __str__(self) -> str:
        cells = [f"{engine} {_time(t.median)} (best {_time(t.best)})" for engine, t in self.timings.items()]
        ratios = [f"{self.ratio(p):.2f}x {p} (bests {self.ratio(p, True):.2f}x)" for p in self.timings if p != "graphc"]
        return f"{self.name}: " + ", ".join(cells) + "; " + ", ".join(ratios)


def compare(name: str, engines: Mapping[str, Callable[[int], object]], work: float = 0.0, turns: int = TURNS,
            seconds: float = TURN_SECONDS) -> Comparison:
    """Times `engine(call number)` of each engine in alternation. The call number is for choosing among prepared inputs.
    """
    calls = {engine: _calls_per_turn(run, seconds) for engine, run in engines.items()}
    results: dict[str, list[float]] = {engine: [] for engine in engines}
    garbage.disable()
    try:
        for turn in range(turns):
            for engine, run in _rotated(list(engines.items()), turn):
                results[engine].append(_turn(run, calls[engine]))
    finally:
        garbage.enable()
    return Comparison(name, {engine: Timing(tuple(t)) for engine, t in results.items()}, work)


def agree(name: str, results: Mapping[str, Sequence[np.ndarray] | np.ndarray], rtol: float = 1e-4,
          atol: float = 1e-5) -> None:
    """AssertionError unless all engines computed the same, up to rounding."""
    (first, expected), *others = results.items()
    for engine, actual in others:
        np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol,
                                   err_msg=f"{name}: {first} and {engine} differ")


def _calls_per_turn(run: Callable[[int], object], seconds: float) -> int:
    for i in range(3):
        run(i)                          # compile, warm up
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds / 4:
        run(calls)
        calls += 1
    return max(1, round(calls * seconds / (time.perf_counter() - start)))


def _turn(run: Callable[[int], object], calls: int) -> float:
    time.sleep(SETTLE_SECONDS)
    for i in range(min(3, calls)):
        run(i)                          # the caches are this engine's again, its threads awake
    start = time.perf_counter()
    for i in range(calls):
        run(i)
    return (time.perf_counter() - start) / calls


def _rotated(items: list, turn: int) -> list:
    at = turn % len(items)
    return items[at:] + items[:at]


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3f} ms"
