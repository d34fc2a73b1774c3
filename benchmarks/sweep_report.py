"""What a sweep found, row by row and together."""
from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WORST = 20                                      # rows that are printed again at the end
# wanted: between neighbours, of the geometric mean, of 95 % of the problems, of any
NEIGHBOUR_LIMIT, TYPICAL, LIMIT, MOST = 2.0, 0.6, 1.0, 1.3


@dataclass(frozen=True)
class Row:
    """One problem. `ratio`: time of graphc / time of the best peer (medians), `best` that of the best turns; `share`
    of the machine's limit; `step`: how much longer its neighbour takes for a unit of work, or a unit of its own
    against the neighbour's. `again`, `step_again`: the same of a second measurement, where there is one. `peers`: who
    took part. `alias`: share of the results' bytes that the best peer did not write, since they are an input's;
    `neighbour`: what it has otherwise.
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
    again: float = math.nan
    step_again: float = math.nan
    peers: str = ""
    alias: float = 0.0
    neighbour: str = ""

    @property
    def key(self) -> str:
        return f"{self.family} {self.mode} {self.options} t{self.threads}"

    @property
    def is_doubtful(self) -> bool:
        """Whether it should be measured a second time."""
        return bool(self.error or self.ratio > MOST and math.isnan(self.again)
                    or self.step > NEIGHBOUR_LIMIT and math.isnan(self.step_again))

    @property
    def lasting(self) -> float:
        """The ratio that two measurements agree on at least."""
        return self.ratio if math.isnan(self.again) else min(self.ratio, self.again)

    @property
    def lasting_step(self) -> float:
        return self.step if math.isnan(self.step_again) else min(self.step, self.step_again)

    def __str__(self) -> str:
        text = f"{self.family} {self.mode} {self.options}, {self.threads} threads: "
        if self.error:
            return text + self.error
        again, step_again = (f" and {value:.2f}" if not math.isnan(value) else ""
                             for value in (self.again, self.step_again))
        peers = f"{self.ratio:.2f}{again} of {self.peer} (bests {self.best:.2f}), " if self.peer else ""
        step = f", neighbour {self.neighbour} {self.step:.2f}{step_again}" if not math.isnan(self.step) else ""
        alias = f", {self.alias:.0%} of it an alias in {self.peer}" if self.alias else ""
        return f"{text}{1e6 * self.seconds:.1f} µs, {peers}{self.share:.0%} of the limit{step}{alias}"


def load(path: Path) -> dict[str, Row]:
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()]
    return {row.key: row for row in rows}


def report(rows: Sequence[Row], before: Mapping[str, Row]) -> str:
    """As Markdown: the distribution by family, the worst, what is above the limits in both measurements, errors, and
    rows that an earlier run had otherwise by more than a tenth.

    Where the best peer gives an alias of an input, graphc writes an array: these rows are counted with the others, and
    in columns of their own; the last line of the distribution is without them.
    """
    compared = [r for r in rows if r.peer]
    lines = ["", "| family | problems | geometric mean | half | 90 % | 95 % | worst | up to 1.0 | above 1.3 twice | "
                 "aliases | of these above 1.3 twice |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    groups: dict[str, list[Row]] = {}
    for row in sorted(compared, key=lambda r: (r.family, r.mode)):
        groups.setdefault(f"{row.family} {row.mode}", []).append(row)
    by_threads = {f"all, {n} threads": [r for r in compared if r.threads == n] for n in {r.threads for r in compared}}
    whole = {"all": compared, "all without aliases": [r for r in compared if not r.alias]}
    lines += [distribution(name, group) for name, group in (groups | by_threads | whole).items() if group]
    lines += compiled_by_torch(compared)
    worst = sorted(compared, key=lambda r: -r.lasting)
    above = sum(r.lasting > MOST for r in compared)
    lines += listed(f"{above} of {len(compared)} above {MOST} in both measurements:", worst[:above])
    lines += listed("The next:", worst[above:WORST]) if above < WORST else []
    stepped = [r for r in rows if not math.isnan(r.step)]
    jumps = sorted((r for r in stepped if r.lasting_step > NEIGHBOUR_LIMIT), key=lambda r: -r.lasting_step)
    if stepped:
        lines += listed(f"{len(jumps)} of {len(stepped)} with a neighbour that takes more than {NEIGHBOUR_LIMIT:.0f} "
                        "times for a unit of work:", jumps)
    errors = [r for r in rows if r.error]
    lines += listed(f"{len(errors)} without figures:", errors) if errors else []
    changed = [(r, before[r.key]) for r in compared if r.key in before and before[r.key].peer]
    lines += listed("Changed against the kept file (ratio before -> now):",
                    [f"{old.ratio:.2f} -> {r.ratio:.2f}  {r.key}"
                     for r, old in sorted(changed, key=lambda p: p[0].ratio / p[1].ratio)
                     if not 0.9 < r.ratio / old.ratio < 1.1]) if changed else []
    return "\n".join(lines)


def listed(head: str, items: Sequence[object]) -> list[str]:
    return ["", head, "", *(f"- {item}" for item in items)]


def compiled_by_torch(rows: Sequence[Row]) -> list[str]:
    """How torch.compile did where it took part."""
    taken = [r for r in rows if "inductor" in r.peers.split()]
    best = sum(r.peer == "inductor" for r in taken)
    return ["", f"torch.compile took part in {len(taken)} problems, of which it was the best peer in {best}; "
                f"geometric mean there {geometric_mean([r.ratio for r in taken]):.2f}."] if taken else []


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def distribution(name: str, rows: Sequence[Row]) -> str:
    """A line of the table: of first measurements, but what is above the most that is wanted is above it in both."""
    ratios = sorted(r.ratio for r in rows)
    at = lambda share: ratios[min(len(ratios) - 1, int(share * len(ratios)))]
    figures = " | ".join(f"{r:.2f}" for r in (geometric_mean(ratios), at(0.5), at(0.9), at(0.95), ratios[-1]))
    below = f"{sum(r <= LIMIT for r in ratios) / len(ratios):.1%}"
    aliases = [r for r in rows if r.alias]
    above, of_these = (sum(r.lasting > MOST for r in some) for some in (rows, aliases))
    return f"| {name} | {len(ratios)} | {figures} | {below} | {above} | {len(aliases)} | {of_these} |"
