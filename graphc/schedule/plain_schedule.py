"""The schedule of an operator with a loop structure of its own (`schedule.parallel_rows`)."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from graphc.records import dataclass
from graphc.schedule.cost import Ranking
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.view import ViewType


@dataclass(frozen=True)
class PlainSchedule(Schedule):
    """`tile` rows make one tile; `serial`: all on the caller; `lanes` elements at a time inside a row. `in_place`: of
    an operator that changes some elements of its first operand, the schedule for a result in the memory of that, if
    their views are equal: only those elements are work then. `alone`: where sizes come with the call, the number of
    rows up to which the caller runs all. `ranking`: what it won against.
    """
    tile: int = 1
    serial: bool = True
    lanes: int = 1
    aliased: bool = False
    alone: int = 0
    in_place: "PlainSchedule | None" = field(default=None, repr=False)
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    def inplace_pairs(self, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> InplacePairs:
        return ((0, 0),) if self.in_place or self.aliased else ()

    def updating(self) -> Schedule:
        return self.in_place or self

    def __str__(self) -> str:
        where = ", serial" if self.serial else f", serial up to {self.alone}" if self.alone else ""
        where += ", in place" if self.aliased else ""
        return f"rows(tile {self.tile}, x{self.lanes}{where})"
