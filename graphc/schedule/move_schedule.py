"""The schedule of an operator that moves blocks of elements: each block is copied by a loop nest of its own."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from graphc.records import dataclass
from graphc.schedule.cost import Ranking
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.view import ViewType


@dataclass(frozen=True)
class MoveSchedule(Schedule):
    """`copies`: of the blocks, in the order of `choose_move.copies_of`; of a pad, its inside and what is filled around
    it. `in_place`: of an operator that changes a block
    of its first operand, the schedule for a result in the memory of that, if their views are equal: only that block is
    work then.
    """
    copies: tuple[NestSchedule, ...] = ()
    aliased: bool = False
    in_place: "MoveSchedule | None" = field(default=None, repr=False)
    ranking: Ranking[object] | None = field(default=None, compare=False, repr=False)

    @property
    def rankings(self) -> tuple[Ranking[object], ...]:
        found = {str(ranking): ranking for copy in self.copies for ranking in copy.rankings}
        return super().rankings + tuple(found.values())

    def inplace_pairs(self, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> InplacePairs:
        return ((0, 0),) if self.in_place or self.aliased else ()

    def updating(self) -> Schedule:
        return self.in_place or self

    def __str__(self) -> str:
        kinds = list(dict.fromkeys(map(str, self.copies)))
        return f"copies({'; '.join(kinds)}{', in place' if self.aliased else ''})"
