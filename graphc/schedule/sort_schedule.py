"""Schedules of sorts and selections along an axis."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from graphc.ir.dims import Dim
from graphc.records import dataclass
from graphc.schedule.plain_schedule import PlainSchedule
from graphc.schedule.view import ViewType

ROWS, SELECTION, LISTS, PAIRS, COLUMNS = "rows", "selection", "lists", "pairs", "columns"
SEEN_KEYS = 4                   # vectors of keys that a selection makes where one of them may be among the first


@dataclass(frozen=True)
class SortSchedule(PlainSchedule):
    """`order`: how a row is sorted: as keys by a vector sort (rows), by a threshold that leaves few of them
    (selection), by a list of the first in each lane, in registers (lists), as pairs of elements and positions by merges
    (pairs); or several rows side by side, one in each of the lanes (columns).
    """
    order: str = ROWS

    def __str__(self) -> str:
        return f"{self.order}: {super().__str__()}"


@dataclass(frozen=True)
class Sides:
    """What lies beside the sorted axis, as few dims as all views step through evenly: groups of axes, of which the last
    is that of the lanes; its size is `width`, those of the others are `outer`."""
    axis: int
    groups: tuple[tuple[int, ...], ...]
    sizes: tuple[Dim, ...]

    @property
    def outer(self) -> tuple[Dim, ...]:
        return self.sizes[:-1]

    @property
    def width(self) -> Dim:
        return self.sizes[-1]

    def vectors(self, lanes: int) -> Dim:
        return -(-self.width // lanes)


def sides_of(axis: int, ins: Sequence[ViewType], outs: Sequence[ViewType]) -> Sides | None:
    """None where there is nothing beside the axis, or its sizes come with the call."""
    views, shape = (*ins, *outs), ins[0].shape
    groups: list[tuple[int, ...]] = [(a,) for a, n in enumerate(shape) if a != axis and n != 1]
    if not groups or not all(isinstance(n, int) for n in shape):
        return None
    size = {group: shape[group[0]] for group in groups}
    found = True
    while found:
        found = False
        for a, b in permutations(groups, 2):
            if all(v.strides[a[-1]] == v.strides[b[-1]] * size[b] for v in views):
                size[a + b] = size[a] * size[b]
                groups[groups.index(a)] = a + b
                groups.remove(b)
                found = True
                break
    groups.sort(key=lambda group: (ins[0].strides[group[-1]] == 1, size[group]))
    return Sides(axis, tuple(groups), tuple(size[group] for group in groups))
