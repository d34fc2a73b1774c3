"""Candidates for a schedule and what each costs, in cycles: choosing is the minimum, and the losers can be shown."""
from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Generic, TypeVar

from graphc.records import dataclass

SHOWN = 5                       # candidates that a ranking keeps for `explain`
TOLERANCE = 1.03                # differences of cycles below which the model cannot tell candidates apart
S = TypeVar("S", covariant=True)


@dataclass(frozen=True)
class Candidate(Generic[S]):
    """A whole schedule, the idea behind it in a few words, and its terms: cycles by cause, on the planned cores. They
    sum to the total."""
    name: str
    schedule: S
    terms: tuple[tuple[str, float], ...]

    @cached_property
    def total(self) -> float:
        return sum(cycles for _, cycles in self.terms)


@dataclass(frozen=True)
class Ranking(Generic[S]):
    """The chosen candidate, then the others, the cheapest first."""
    candidates: tuple[Candidate[S], ...]

    @property
    def best(self) -> Candidate[S]:
        return self.candidates[0]

    def __str__(self) -> str:
        """A table: a line for each candidate, a column for each term, in cycles."""
        names = list(dict.fromkeys(name for c in self.candidates for name, _ in c.terms))
        rows = [("cycles", *names, "", "")]
        for c in self.candidates:
            terms = dict(c.terms)
            more = "" if c is self.best else _relative(c.total / self.best.total)
            rows.append(
                (_number(c.total), *(_number(terms.get(name, 0)) for name in names), more, f"{c.name}: {c.schedule}")
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        return "\n".join(
            " ".join([*(cell.rjust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows
        )


def ranked(candidates: Iterable[Candidate[S]], tolerance: float = TOLERANCE) -> Ranking[S]:
    """The first of those that cost within `tolerance` of the least, then the others by cost: the order of candidates
    decides where the model cannot."""
    found = list(candidates)
    least = min(c.total for c in found)
    best = next(c for c in found if c.total <= tolerance * least)
    others = sorted((c for c in found if c is not best), key=lambda c: c.total)
    return Ranking((best, *others[:SHOWN - 1]))


def _relative(factor: float) -> str:
    return f"{100 * (factor - 1):+.0f} %" if factor < 10 else f"×{factor:.0f}"


def _number(cycles: float) -> str:
    return f"{cycles:,.0f}" if cycles else "-"
