"""python -m benchmarks sizes: one program for all sizes beside programs compiled for each.

For every network some sizes are drawn (`--seed`); both run in alternating turns in one process, training steps from
the same state. Printed are the ratio of the medians (above 1: the program for all sizes is slower) and of the bests,
whether the results agree, what the first call of new sizes costs against the second, and the time to compile, of one
process, beside the mean of the programs for one size, after another program of the same network was compiled and
nothing from the disk cache; then a table, and BERT-base as a server runs it (`sizes_serving`), in Markdown, which is
also written to `--out`, as sizes.md. `--quick`: fewer sizes, not the greatest, and turns, in at most about five
minutes.
"""
from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from unittest.mock import patch

import numpy as np

import graphc as gc
from benchmarks import sizes_serving
from benchmarks.arrays import Array
from graphc import models, nn, optim
from graphc.train import TrainStep

TURNS, SECONDS = 9, 0.05                # turns of each program, and the least length of one
QUICK_TURNS, QUICK_MINUTES = 3, 2.5
PAIRS, QUICK_PAIRS = 50, 8              # of batch and length, for BERT-base
SERVED = "BERT-base, served"
MEAN, WORST = 1.05, 1.15                # of steady time
COMPILE = 1.3                           # of the time of a specialised compile
AGREE = 1e-4                            # of the largest result: sums may be cut elsewhere
NEW_SIZES = 7                           # of which a first call is compared with a second
FIRST_SHARE, FIRST_SECONDS = 0.02, 0.5e-3   # what a first call may take more: of the second, and besides

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """A network whose inputs have named sizes. `ranges`: least and greatest of each; `make(**types)`: compiles it for
    inputs of these types."""
    name: str
    types: Mapping[str, gc.TensorType]
    ranges: Mapping[str, tuple[int, int]]
    make: Callable[..., Callable]
    below: int = 0                      # of inputs that are integers
    draws: int = 6

    def drawn(self, rng: np.random.Generator) -> list[dict[str, int]]:
        """Sizes, spread evenly over their logarithms; the first are the least and the greatest."""
        ends = [{name: r[i] for name, r in self.ranges.items()} for i in range(2)]
        others = [{name: int(round(math.exp(rng.uniform(math.log(low), math.log(high)))))
                   for name, (low, high) in self.ranges.items()} for _ in range(self.draws - 2)]
        return ends + others

    def arrays(self, sizes: Sizes, rng: np.random.Generator) -> list[np.ndarray]:
        bound = [t.bind(sizes) for t in self.types.values()]
        return [Array(t.shape, self.below if t.dtype.is_int else 0).draw(rng) for t in bound]


@dataclass(frozen=True)
class First:
    """Calls with sizes that were never seen before, all near to each other: by how many seconds the first with such
    sizes is longer than the second, and how long the second is, medians."""
    more: float
    second: float

    @property
    def is_quick(self) -> bool:
        return self.more <= FIRST_SHARE * self.second + FIRST_SECONDS

    def __str__(self) -> str:
        return f"{1e3 * self.more:+.2f} ms ({100 * self.more / self.second:+.0f} %)"


@dataclass(frozen=True)
class Row:
    """One case at given sizes: seconds of a call, by turns."""
    case: Case
    sizes: Sizes
    together: Sequence[float]
    apart: Sequence[float]
    error: float | None                 # of the results, by the largest of them; None: not compared
    first: First
    compile: float                      # seconds of CPU, the program for these sizes

    @property
    def ratio(self) -> float:
        return median(self.together) / median(self.apart)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} = {n}" for name, n in self.sizes.items())
        return (f"{self.case.name}, {sizes}: {self.ratio:.3f} (bests {min(self.together) / min(self.apart):.3f}), "
                f"{1e3 * median(self.together):.3f} ms, first call {self.first}{self.disagreement}")

    @property
    def disagreement(self) -> str:
        """Nothing is said of training steps: each changes the parameters that the other program's have not."""
        if self.error is None:
            return ""
        return f", differs by {self.error:.1e}{'' if self.error <= AGREE else ' TOO MUCH'}"


@dataclass(frozen=True)
class Compared:
    """The rows of a case, and the seconds of CPU to compile the program for all sizes."""
    case: Case
    rows: Sequence[Row]
    seconds: float

    @property
    def compile(self) -> float:
        """By those of programs for one size, in the mean of these."""
        return self.seconds / fmean(row.compile for row in self.rows)


def inference(net: Callable, threads: int) -> Callable[..., Callable]:
    """Its programs have one state: that of the first, which is for named sizes."""
    first: list[Callable] = []

    def make(**types: gc.TensorType) -> Callable:
        if first:
            return gc.compile(net, threads=threads, state=first[0].state, **types)
        first.append(gc.compile(net, threads=threads, seed=0, **types))
        return first[0]
    return make


def training(net: Callable, loss: Callable, threads: int) -> Callable[..., Callable]:
    return lambda **types: gc.train_step(net, loss=loss, optimizer=optim.Adam(1e-3), threads=threads, **types)


def cases(threads: int) -> Iterator[Case]:
    """The networks of the table in README."""
    batch, text = {"B": (1, 512)}, {"B": (1, 8), "T": (8, 512)}
    mlp = nn.Linear(512) >> nn.relu >> nn.Linear(512) >> nn.relu >> nn.Linear(10)
    gpt = models.gpt(1000, 384, 6, 6, 512)
    ids, scores = gc.i32["B", "T"], gc.f32["B", 3, 224, 224]
    yield Case("MLP", {"x": gc.f32["B", 784]}, batch, inference(mlp, threads))
    yield Case("attention", {"x": gc.f32["B", "T", 512]}, {"B": (1, 4), "T": (64, 4096)},
               inference(nn.MultiHeadAttention(8), threads))
    yield Case("attention of few positions", {"x": gc.f32["B", "T", 512]}, {"B": (1, 4), "T": (1, 63)},
               inference(nn.MultiHeadAttention(8), threads))
    yield Case("GPT 6x384", {"x": ids}, {"B": (1, 8), "T": (8, 512)}, inference(gpt, threads), 1000)
    yield Case("BERT-base", {"x": ids}, text, inference(models.bert(), threads), 1000, draws=24)
    for kind in (nn.LSTM, nn.GRU):
        yield Case(f"{kind.__name__} 2x512", {"x": gc.f32["T", "B", 64]}, {"T": (5, 200), "B": (1, 32)},
                   inference(kind(512, layers=2), threads))
    yield Case("ResNet-18", {"x": scores}, {"B": (1, 16)}, inference(models.resnet18(), threads))
    yield Case("ResNet-18 of any height and width", {"x": gc.f32["B", 3, "H", "W"]},
               {"B": (1, 4), "H": (64, 320), "W": (64, 320)}, inference(models.resnet18(), threads))
    yield Case("U-Net", {"x": gc.f32["B", 3, "4*H", "4*W"]}, {"B": (1, 2), "H": (8, 64), "W": (8, 64)},
               inference(u_net(), threads))
    yield Case("MobileNet", {"x": scores}, {"B": (1, 16)}, inference(models.mobilenet(), threads))
    yield Case("MLP train", {"x": gc.f32["B", 784], "y": gc.i32["B"]}, batch, training(mlp, nn.cross_entropy, threads),
               10)
    yield Case("GPT 6x384 train", {"x": ids, "y": ids}, {"B": (1, 8), "T": (8, 256)},
               training(gpt, nn.cross_entropy, threads), 1000)
    yield Case("LSTM 256 train", {"x": gc.f32["T", "B", 64], "y": gc.i32["T", "B"]}, {"T": (5, 100), "B": (1, 32)},
               training(nn.LSTM(256) >> nn.Linear(10), nn.cross_entropy, threads), 10)
    yield Case("strided convolutions train", {"x": gc.f32["B", 3, "H", "W"], "y": gc.i32["B"]},
               {"B": (1, 16), "H": (16, 128), "W": (16, 128)}, training(strided(), nn.cross_entropy, threads), 10)


def strided() -> Callable:
    """Halves its image three times, without pools."""
    def half(width: int) -> Callable:
        return nn.Conv2d(width, 3, stride=2, padding=1) >> nn.BatchNorm2d() >> nn.relu
    return half(32) >> half(64) >> half(128) >> nn.GlobalAvgPool2d() >> nn.Linear(10)


def u_net() -> Callable:
    """Two levels of a U-Net (Ronneberger et al. 2015)."""
    def twice(width: int) -> Callable:
        return nn.Conv2d(width, 3, padding=1) >> nn.relu >> nn.Conv2d(width, 3, padding=1) >> nn.relu
    first, second, deepest, third, fourth = (twice(width) for width in (32, 64, 128, 64, 32))
    up_third, up_fourth = nn.ConvTranspose2d(64, 2, stride=2), nn.ConvTranspose2d(32, 2, stride=2)
    last = nn.Conv2d(2, 1)

    def forward(x: gc.Array) -> gc.Array:
        a = first(x)
        b = second(gc.max_pool2d(a, 2))
        c = third(gc.concat([up_third(deepest(gc.max_pool2d(b, 2))), b], axis=1))
        return last(fourth(gc.concat([up_fourth(c), a], axis=1)))
    return forward


def main(options: argparse.Namespace) -> None:
    os.environ["GRAPHC_CACHE"] = "off"
    minutes = options.minutes or (QUICK_MINUTES if options.quick else math.inf)
    texts: list[str] = []
    for threads in options.threads:
        found, late = list[Compared](), list[str]()
        end = time.monotonic() + 60 * minutes
        for case in cases(threads):
            if options.workload and not any(text in case.name for text in options.workload):
                continue
            if time.monotonic() < end:
                found.append(measured(case, np.random.default_rng(options.seed), options.quick, end))
            else:
                late.append(case.name)
        texts.append(table(found, late, threads))
        if not options.workload or any(text in SERVED for text in options.workload):
            rows = sizes_serving.main(threads, QUICK_PAIRS if options.quick else PAIRS, options.seed)
            texts.append("\n".join(f"- {row}" for row in rows))
    print("\n\n".join(texts))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sizes.md").write_text("\n\n".join(texts) + "\n")


def measured(case: Case, rng: np.random.Generator, quick: bool, end: float) -> Compared:
    """Prints a row for each of the sizes whose turn comes before `end`, and gives all."""
    drawn = case.drawn(rng)
    drawn = [drawn[0], *drawn[2:4]] if quick else drawn
    arrays = case.arrays(drawn[-1], rng)
    for types in (case.types, bound(case, drawn[-1])):
        made(case, types, arrays)                       # what the first compiles of a process pay for
    (together, spent), (_, again) = [made(case, case.types, arrays) for _ in range(2)]
    rows: list[Row] = []
    for sizes in drawn:
        if not rows or time.monotonic() < end:
            rows.append(compared(case, sizes, together, rng, QUICK_TURNS if quick else TURNS))
            print(rows[-1], flush=True)
    found = Compared(case, rows, min(spent, again))
    print(f"{case.name}: compiled in {found.seconds:.2f} s of CPU, {found.compile:.2f} of a program for "
          f"one size{why_not(together)}", flush=True)
    return found


def made(case: Case, types: Mapping[str, gc.TensorType], arrays: Sequence[np.ndarray]) -> tuple[Callable, float]:
    """A program for these types, and the seconds of CPU until its first result without those of a call. Nothing is
    compiled by other processes, whose seconds would not be counted."""
    with patch.dict(os.environ, GRAPHC_COMPILE_WORKERS="off"):
        start = time.process_time()
        run = case.make(**types)
        run(*arrays)
        first = time.process_time()
        run(*arrays)
        return run, first - start - (time.process_time() - first)


def why_not(run: object) -> str:
    """What is to be said where there is a program for each size after all."""
    programs = run._programs if isinstance(run, TrainStep) else run
    return f"; NOT ONE PROGRAM: {programs.why_not}" if programs.why_not else ""


def bound(case: Case, sizes: Sizes) -> dict[str, gc.TensorType]:
    return {name: type.bind(sizes) for name, type in case.types.items()}


def compared(case: Case, sizes: Sizes, together: Callable, rng: np.random.Generator, count: int) -> Row:
    first = first_calls(case, sizes, together, rng)
    arrays = case.arrays(sizes, rng)
    again = min(timed(together, arrays, 1) for _ in range(3))
    alone, seconds = made(case, bound(case, sizes), arrays)
    difference: float | None = None
    if not isinstance(alone, TrainStep):
        difference = distance(together(*arrays), alone(*arrays))
    calls = max(1, round(SECONDS / max(again, 1e-7)))
    begin = {name: np.array(array) for name, array in together.state.items()} if difference is None else {}

    def turn(run: Callable) -> float:
        """From the same state: the more steps a network was trained with one batch, the more of it is subnormal."""
        for name, array in begin.items():
            run.state[name] = array
        timed(run, arrays, 1)
        return timed(run, arrays, calls)
    turns = [(turn(together), turn(alone)) for _ in range(1 + count)][1:]
    return Row(case, sizes, *zip(*turns), difference, first, seconds)


def first_calls(case: Case, sizes: Sizes, run: Callable, rng: np.random.Generator) -> First:
    """A single call may be late for many reasons: sizes that differ by little are called for the first time, and each
    at once again. Memory has been touched before, by the greatest of them."""
    (name, (low, high)), *_ = reversed(case.ranges.items())
    near = sorted(range(low, high + 1), key=lambda n: abs(n - sizes[name]))[:2 * NEW_SIZES]
    run(*case.arrays({**sizes, name: max(near)}, rng))
    times = []
    for n in [n for n in near if n not in (sizes[name], max(near))][:NEW_SIZES]:
        arrays = case.arrays({**sizes, name: n}, rng)
        times.append((timed(run, arrays, 1), timed(run, arrays, 1)))
    return First(median(once - again for once, again in times), median(again for _, again in times))


def timed(run: Callable, arrays: Sequence[np.ndarray], calls: int) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        run(*arrays)
    return (time.perf_counter() - start) / calls


def distance(a: object, b: object) -> float:
    """The greatest difference, by the greatest number of `b`."""
    pairs = list(zip(flat(a), flat(b), strict=True))
    return max(float(np.abs(x - y).max(initial=0) / max(np.abs(y).max(initial=0), 1e-30)) for x, y in pairs)


def flat(result: object) -> list[np.ndarray]:
    values = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else (result,)
    return [np.asarray(v, np.float64) for v in values]


def table(found: Sequence[Compared], late: Sequence[str], threads: int) -> str:
    """As Markdown: steady time, what a first call costs, and the time to compile, by network."""
    lines = [f"| one program for all sizes, {threads} threads | sizes | steady time: mean | worst | first call + | "
             "compile |", "|---|---|---|---|---|---|"]
    for of in found:
        ranges = ", ".join(f"{name} {low}…{high}" for name, (low, high) in of.case.ranges.items())
        lines.append(f"| {of.case.name} | {len(of.rows)} of {ranges} | {mean(of.rows):.2f} | "
                     f"{max(row.ratio for row in of.rows):.2f} | {slowest_first(of.rows)} | {of.compile:.2f} |")
    rows = [row for of in found for row in of.rows]
    if rows:
        wanted, worst = f"wanted: {MEAN}, {WORST}, compile {COMPILE}", max(row.ratio for row in rows)
        lines.append(f"| all ({wanted}) | {len(rows)} | {mean(rows):.3f} | {worst:.2f} | | |")
    if late:
        lines.append(f"\nnot measured, for want of time: {', '.join(late)}")
    return "\n".join(lines)


def slowest_first(rows: Sequence[Row]) -> First:
    """The first call that is furthest beyond what it may take."""
    return max((row.first for row in rows), key=lambda first: first.more - FIRST_SHARE * first.second)


def mean(rows: Sequence[Row]) -> float:
    """The geometric mean of the ratios."""
    return math.exp(sum([math.log(row.ratio) for row in rows]) / len(rows))
