"""Vectors of elements that lie a few places apart: read by whole vectors, of which each gives some lanes."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from graphc.schedule.machine import Machine

MOST_READ = 0.75                # of as many whole vectors as elements, at most: more take longer than these one by one
MOST_PLACES = 8                 # lanes up to which each element is looked for at a place of its own

Read = tuple[int, range]        # where a whole vector begins, and which of the elements it gives


@lru_cache(maxsize=1024)
def spaced_reads(step: int, lanes: int, count: int) -> tuple[Read, ...]:
    """Whole vectors of `lanes` in which the first `count` elements are that lie `step` apart, nothing behind the last
    of them read. Of short vectors each element is at another place of its own, if that can be: then they are merged
    lane by lane, and ordered once. None where they are too many, or where the elements reach over no whole vector.
    """
    reach, most, together = (count - 1) * step + 1, int(MOST_READ * count), (lanes - 1) // step + 1
    if step < 2 or reach < lanes:
        return ()
    if lanes > MOST_PLACES:
        whole = [(min(first * step, reach - lanes), range(first, min(first + together, count)))
                 for first in range(0, count, together)]
        return tuple(whole) if len(whole) <= most else ()
    sizes = range(-(-reach // lanes), most + 1) if step <= most else ()
    return next((found for size in sizes for found in _apart(step, lanes, count, size, 0, frozenset())), ())


def _apart(step: int, lanes: int, count: int, most: int, first: int,
           taken: frozenset[int]) -> Iterator[tuple[Read, ...]]:
    """At most so many vectors for the elements from `first` on, whose places are not among those taken."""
    if first == count:
        yield ()
        return
    together = (lanes - 1) // step + 1                          # elements of one vector
    if count - first > most * together:
        return
    behind = (count - 1) * step + 1 - lanes                     # where the last vector may begin
    for end in range(min(count, first + together), first, -1):
        for start in range(min(first * step, behind), max(0, (end - 1) * step - lanes + 1) - 1, -1):
            places = frozenset(i * step - start for i in range(first, end))
            if not places & taken:
                yield from (((start, range(first, end)), *rest)
                            for rest in _apart(step, lanes, count, most - 1, end, taken | places))


def spaced_cycles(step: int, lanes: int, machine: Machine, count: int = 0) -> float:
    """Of such a vector, of whose lanes `count` are of use (0: all): loads, whole vectors or elements one by one, and
    what puts them together."""
    if abs(step) <= 1:
        return 1 / machine.loads_per_cycle
    count = count or lanes
    within = 0 < step and (count - 1) * step < lanes
    loads = len(spaced_reads(step, lanes, count)) or (1 if within else count)
    return loads / machine.loads_per_cycle + max(1, loads - 1)


def turned_squares(step: int, lanes: int, offsets: Sequence[int]) -> tuple[int, ...]:
    """Of vectors of elements that lie `step` apart, which begin at these offsets (ascending): the first offsets of
    squares, of `lanes` neighbours each, that take less to transpose in registers than to read vector by vector."""
    if lanes == 1 or step < 2:
        return ()
    loads = len(spaced_reads(step, lanes, lanes)) or lanes
    each, square = _cycles(loads, loads - 1), _cycles(lanes, lanes * (lanes.bit_length() - 1))
    counts = {first: sum(first <= o < first + lanes for o in offsets) for first in range(0, offsets[-1] + 1, lanes)}
    return tuple([first for first, count in counts.items() if square < each * count])


def _cycles(loads: int, shuffles: int) -> float:
    """Two loads begin in a cycle, and one shuffle, on most CPUs."""
    return loads / 2 + shuffles


def window_cycles(kernel: int, step: int, apart: int, lanes: int, machine: Machine) -> float:
    """To read, `step` apart, the vectors of all places of a window that are `apart` from each other."""
    offsets = [k * apart for k in range(kernel)]
    squares = turned_squares(step, lanes, offsets)
    alone = sum(not any(first <= o < first + lanes for first in squares) for o in offsets)
    return alone * spaced_cycles(step, lanes, machine) + len(squares) * _cycles(lanes, lanes * (lanes.bit_length() - 1))
