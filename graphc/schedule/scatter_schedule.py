"""Schedules of operators that change elements of their first operand at positions that an array holds."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from graphc.ir.dims import Dim, Dims, ceil_div
from graphc.records import dataclass
from graphc.schedule.cost import Ranking
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.parallel_rows import without
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.view import ViewType


@dataclass(frozen=True)
class ScatterSchedule(PlainSchedule):
    """A row owns `chunk` neighbouring columns of the result, all their elements along the axis, so that what meets at a
    position does so in order (`scatter_rows`). `base`: how the first operand is copied before; `in_place`: the schedule
    for a result in the memory of that, if their views are equal.
    """
    chunk: int = 1
    base: NestSchedule = NestSchedule()
    aliased: bool = False
    in_place: "ScatterSchedule | None" = field(default=None, repr=False)

    @property
    def rankings(self) -> tuple[Ranking[object], ...]:
        return super().rankings + self.base.rankings

    def inplace_pairs(self, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> InplacePairs:
        return ((0, 0),) if self.in_place or self.aliased else ()

    def updating(self) -> Schedule:
        return self.in_place or self

    def __str__(self) -> str:
        where = "in place" if self.aliased else f"on a copy: {self.base}"
        return f"{super().__str__()} of {self.chunk} columns {where}"


def scatter_rows(out: ViewType, axis: int, chunk: int) -> Dims:
    """What the rows of a result are counted by: its other axes, chunks of the last one. Where the last one is the axis,
    a row is one column."""
    rank, axis = len(out.shape), axis % len(out.shape)
    if axis == rank - 1:
        return out.shape[:-1]
    return *without(out.shape, axis, rank - 1), ceil_div(out.shape[-1], chunk)


def column_count(out: ViewType, axis: int) -> Dim:
    """Columns side by side, of which a row may own several."""
    return 1 if axis % len(out.shape) == len(out.shape) - 1 else out.shape[-1]
