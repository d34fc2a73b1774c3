"""The schedule of an operator with a loop structure of its own (`ir.rows`)."""
from __future__ import annotations

from dataclasses import dataclass, field

from graphc.schedule.cost import Ranking


@dataclass(frozen=True)
class PlainSchedule:
    """`tile` rows make one tile; `serial`: all on the caller; `lanes` elements at a time inside a row.

    aliased: the result is the first operand's memory, so that only the elements that differ are written. ranking: what it won against.
    """
    tile: int = 1
    serial: bool = True
    lanes: int = 1
    inplace: tuple[tuple[int, int], ...] = ()
    aliased: bool = False
    ranking: Ranking | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"rows(tile {self.tile}, x{self.lanes}{', serial' if self.serial else ''}{', in place' if self.aliased else ''})"
