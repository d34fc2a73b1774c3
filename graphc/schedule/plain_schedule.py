"""The schedule of an operator with a loop structure of its own (`schedule.parallel_rows`)."""
from __future__ import annotations

from dataclasses import field

from graphc.records import dataclass
from graphc.schedule.cost import Ranking
from graphc.schedule.schedule import Schedule


@dataclass(frozen=True)
class PlainSchedule(Schedule):
    """`tile` rows make one tile; `serial`: all on the caller; `lanes` elements at a time inside a row. `alone`: where
    sizes come with the call, the number of rows up to which the caller runs all. `ranking`: what it won against.
    """
    tile: int = 1
    serial: bool = True
    lanes: int = 1
    alone: int = 0
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        where = ", serial" if self.serial else f", serial up to {self.alone}" if self.alone else ""
        return f"rows(tile {self.tile}, x{self.lanes}{where})"
