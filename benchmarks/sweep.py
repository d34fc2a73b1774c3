"""`python -m benchmarks sweep`: single operators at sizes that nobody chose, graphc beside PyTorch (eager and
torch.compile, the best) and, for loops, jitted JAX, in alternating turns. Finds the shapes at which graphc falls off.

Prints each problem with time of graphc / time of the best peer and the share of what the machine could do; then the
distribution by family, the worst, and what changed against a file that an earlier run kept.
"""
from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.contest import INFERENCE_ONLY, Contest, Figures
from benchmarks.limit import Machine, Work, operator_work
from benchmarks.operators import FAMILIES, Draw, Options
from benchmarks.workloads import Workload

SECONDS, TURNS, TURN_SECONDS = 2.5, 7, 0.1      # of one problem: of the turns together; of one turn
WORST = 20                                      # rows that are printed again at the end
NEIGHBOUR_LIMIT, LIMIT, MOST = 2.0, 1.0, 1.3    # wanted: between neighbours, of 95 % of the problems, of any


@dataclass(frozen=True)
class Row:
    """One problem. `ratio`: time of graphc / time of the best peer (medians), `best` that of the best turns; `share`
    of the machine's limit; `step`: how much longer its neighbour takes for a unit of work, or a unit of its own
    against the neighbour's.
    """
    family: str
    mode: str
    options: str
    threads: int
    seconds: float = 0.0
    ratio: float = math.nan
    best: float = math.nan
    peer: str = ""
    share: float = 0.0
    step: float = math.nan
    error: str = ""

    @property
    def key(self) -> str:
        return f"{self.family} {self.mode} {self.options} t{self.threads}"

    def __str__(self) -> str:
        text = f"{self.family} {self.mode} {self.options}, {self.threads} threads: "
        if self.error:
            return text + self.error
        peers = f"{self.ratio:.2f} of {self.peer} (bests {self.best:.2f}), " if self.peer else ""
        step = f", neighbour {self.step:.2f}" if not math.isnan(self.step) else ""
        return f"{text}{1e6 * self.seconds:.1f} µs, {peers}{self.share:.0%} of the limit{step}"


def main(options: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * options.minutes if options.minutes else math.inf
    families = {name: FAMILIES[name] for name in FAMILIES if not options.family
                or any(f in name for f in options.family)}
    engines = options.engine or ["graphc", "torch", *([] if options.quick else ["inductor"]), "jax"]
    print(f"seed {options.seed}, {options.problems} problems a family and mode")
    rows = []
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open(options.out / "sweep.jsonl", "w") as kept:
        for threads in options.threads:
            for row in swept(families, engines, threads, options, Path(folder), end):
                print(row, flush=True)
                kept.write(json.dumps(asdict(row)) + "\n")
                kept.flush()
                rows.append(row)
    print(report(rows, load(options.against) if options.against else {}))


def swept(families: Mapping, engines: Sequence[str], threads: int, options: argparse.Namespace, folder: Path,
          end: float) -> Iterator[Row]:
    """Problems in turn from every family, so that a run that is cut short has seen all of them."""
    machine = Machine(threads)
    contest = Contest(engines, threads, folder, seconds=SECONDS, turns=TURNS, turn_seconds=TURN_SECONDS, maker="graphc")
    contest.start()
    try:
        for problem, number, stepped in problems(families, options.seed, options.problems):
            if time.monotonic() > end:
                return
            contest.engines = [e for e in engines if e in contest.hosts and takes(e, problem)]
            row = measured(contest, problem, machine, threads)
            if options.neighbours and stepped and not row.error:
                contest.engines = ["graphc"]
                row = replace(row,
                              step=stepped_ratio(row, problem, measured(contest, stepped, machine, threads), stepped))
            yield row
    finally:
        contest.end()


def problems(families: Mapping, seed: int, count: int) -> Iterator[tuple[Workload, int, Workload | None]]:
    """Each with its number and a neighbour: the same with one size larger by one, where there is one. A problem
    depends on its family, the seed and its number alone.
    """
    for number in range(count):
        for name, family in families.items():
            for mode in family.modes:
                rng = np.random.default_rng([seed, number, *name.encode(), len(mode)])
                options = family.draw(Draw(rng))
                yield workload(name, mode, options), number, neighbour(name, mode, options, rng)


def workload(name: str, mode: str, options: Options) -> Workload:
    return Workload(name, 1, mode, LIMIT, options, f"{name} {words(options)}", drawn=True)


def words(options: Options) -> str:
    return " ".join(f"{k}={v}" for k, v in options.items() if v not in ("", ())).replace("'", "").replace(" ", " ")


def neighbour(name: str, mode: str, options: Options, rng: np.random.Generator) -> Workload | None:
    """One size larger by one; None where nothing but names and small numbers is left to change, or where nothing valid
    results.
    """
    sizes = [k for k, v in options.items() if isinstance(v, int) and v > 4 and k not in ("groups", "axis")]
    sizes += [(k, i) for k, v in options.items() if k in ("shape", "size") and isinstance(v, tuple)
              for i, n in enumerate(v) if n > 4]
    if not sizes or name in ("op.conv",) and options["groups"] > 1 and not sizes:
        return None
    at = sizes[int(rng.integers(len(sizes)))]
    if isinstance(at, tuple):
        key, i = at
        changed = {**options, key: tuple(n + (j == i) for j, n in enumerate(options[key]))}
    else:
        changed = {**options, at: options[at] + 1}
    return workload(name, mode, changed) if is_valid(name, changed) else None


def is_valid(name: str, options: Options) -> bool:
    """Whether the sizes fit together: channels are multiples of groups, operands of a chain broadcast, k is within its
    row.
    """
    if name == "op.conv":
        return options["channels"] % options["groups"] == 0 == options["out"] % options["groups"]
    if name == "op.norm":
        return options["op"] != "group_norm" or options["shape"][1] % options["groups"] == 0
    if name == "op.sort":
        return options["op"] != "topk" or options["k"] <= options["shape"][-1]
    if name == "op.attention":
        return options["queries"] <= options["keys"]
    return name != "op.elementwise"


def takes(engine: str, problem: Workload) -> bool:
    """Loops go to JAX, and are unrolled by torch.compile, which takes minutes."""
    return engine != ("inductor" if FAMILIES[problem.network].loops else "jax")


def measured(contest: Contest, problem: Workload, machine: Machine, threads: int) -> Row:
    row = Row(problem.network, problem.mode, words(problem.options), threads)
    figures = contest.run(problem)
    mine = figures["graphc"]
    if mine.error:
        return replace(row, error=mine.error)
    peers = {e: f for e, f in figures.items() if e != "graphc" and not f.error}
    row = replace(row, seconds=mine.median, share=seconds_at_limit(problem, machine) / mine.median)
    if not peers:
        wrong = [f"{e}: {f.error}" for e, f in figures.items() if f.error and f.error != INFERENCE_ONLY]
        return replace(row, error="; ".join(wrong)) if wrong else row
    peer = min(peers, key=lambda e: peers[e].median)
    return replace(row, peer=peer, ratio=mine.median / peers[peer].median, best=best_ratio(mine, peers))


def best_ratio(mine: Figures, peers: Mapping[str, Figures]) -> float:
    return mine.best / min(f.best for f in peers.values())


def seconds_at_limit(problem: Workload, machine: Machine) -> float:
    work: Work = operator_work(problem)
    peak, rate = machine.at_start
    return max(work.flops / peak, work.bytes / rate) / 1e9


def stepped_ratio(row: Row, problem: Workload, other: Row, stepped: Workload) -> float:
    """Time for a unit of work of the slower of both, against that of the faster."""
    if other.error:
        return math.nan
    work, more = operator_work(problem), operator_work(stepped)
    unit = row.seconds / max(work.flops, work.bytes)
    step = other.seconds / max(more.flops, more.bytes)
    return max(unit / step, step / unit)


def load(path: Path) -> dict[str, Row]:
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()]
    return {row.key: row for row in rows}


def report(rows: Sequence[Row], before: Mapping[str, Row]) -> str:
    """The distribution by family, the worst, errors, and rows that an earlier run had otherwise by more than a tenth.
    """
    compared = [r for r in rows if r.peer]
    lines = ["", "| family | problems | geometric mean | half | 90 % | 95 % | worst | above 1 |",
             "|---|---|---|---|---|---|---|---|"]
    groups = {f"{r.family} {r.mode}": [] for r in compared}
    for row in compared:
        groups[f"{row.family} {row.mode}"].append(row.ratio)
    lines += [distribution(name, ratios) for name, ratios in [*groups.items(), ("all", [r.ratio for r in compared])]
              if ratios]
    lines += ["", f"The {WORST} worst:", *(str(r) for r in sorted(compared, key=lambda r: -r.ratio)[:WORST])]
    jumps = [r for r in rows if r.step > NEIGHBOUR_LIMIT]
    lines += ["", f"{len(jumps)} with a neighbour that takes more than {NEIGHBOUR_LIMIT:.0f} times for a unit of work:",
              *(str(r) for r in sorted(jumps, key=lambda r: -r.step)[:WORST])]
    errors = [r for r in rows if r.error]
    lines += ["", f"{len(errors)} without figures:", *map(str, errors)] if errors else []
    changed = [(r, before[r.key]) for r in compared if r.key in before and before[r.key].peer]
    lines += ["", "Changed against the kept file (ratio before -> now):"] if changed else []
    lines += [f"{old.ratio:.2f} -> {r.ratio:.2f}  {r.key}"
              for r, old in sorted(changed, key=lambda p: p[0].ratio / p[1].ratio)
              if not 0.9 < r.ratio / old.ratio < 1.1]
    return "\n".join(lines)


def distribution(name: str, ratios: Sequence[float]) -> str:
    at = lambda share: sorted(ratios)[min(len(ratios) - 1, int(share * len(ratios)))]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    figures = " | ".join(f"{r:.2f}" for r in (mean, at(0.5), at(0.9), at(0.95), max(ratios)))
    above = f"{sum(r > LIMIT for r in ratios)} ({sum(r > MOST for r in ratios)} above {MOST})"
    return f"| {name} | {len(ratios)} | {figures} | {above} |"
