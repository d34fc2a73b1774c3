"""How the sums of ranks meet: who sends whom which part of the gradients, so that they are added as the tree over
shards says.

The blocks of ranks are neighbours in the tree, but need not be subtrees of it. The sum at a node of the tree that
several ranks have shards of is held by all of them, each a part. Where two such nodes meet, what a rank of the left
and a rank of the right both have a part of is cut in two: each keeps one half, sends the other, and adds what it is
sent. Where the ranks are a power of two and the shards divide among them, this is recursive halving (Rabenseifner 2004;
Thakur, Rabenseifner and Gropp 2005), and the way back recursive doubling.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import numpy as np

from graphc.shard_tree import Span, middle, rank_bounds


@dataclass(frozen=True)
class Segment:
    """Elements start … end - 1 of a sum, which `rank` holds."""
    start: int
    end: int
    rank: int


@dataclass(frozen=True)
class Overlap:
    """Elements start … end - 1 of two sums, which the ranks `left` and `right` hold: the left keeps the sum of those
    before `middle`, the right that of the others; one rank that holds both keeps all."""
    start: int
    middle: int
    end: int
    left: int
    right: int

    @property
    def kept(self) -> tuple[Segment, Segment]:
        """What each of the two keeps."""
        return Segment(self.start, self.middle, self.left), Segment(self.middle, self.end, self.right)


@dataclass(frozen=True)
class Meeting:
    """Where the sums at the two nodes under `node` are added. Meetings of the same height have nothing to do with each
    other."""
    node: Span
    height: int
    overlaps: tuple[Overlap, ...]

    @property
    def left(self) -> Span:
        """The node to the left under it."""
        return self.node[0], middle(*self.node)

    @property
    def right(self) -> Span:
        """The node to the right under it."""
        return middle(*self.node), self.node[1]


@dataclass(frozen=True)
class Handover:
    """Elements start … end - 1 of the whole sum, which one rank sends to another."""
    start: int
    end: int
    origin: int
    to: int


Rounds = tuple[tuple[Meeting, ...], ...]
Ways = tuple[tuple[Handover, ...], ...]


@cache
def meetings(shards: int, count: int, length: int) -> tuple[Rounds, Ways]:
    """(the meetings that add sums of so many elements, those of one height together, from below; by whom all ranks are
    handed all of the sum, in rounds)."""
    found: list[Meeting] = []
    segments, _ = _met((0, shards), rank_bounds(shards, count), length, found)
    found.sort(key=lambda meeting: meeting.height)
    rounds = tuple(tuple(group) for _, group in groupby(found, lambda meeting: meeting.height))
    return rounds, _handovers(rounds, segments, count) if rounds else ()


def _met(node: Span, bounds: Sequence[int], length: int, found: list[Meeting]) -> tuple[list[Segment], int]:
    """(who holds which part of the sum at a node, its height over those that belong to one rank); `found` gets the
    meetings on the way."""
    rank = bisect_right(bounds, node[0]) - 1            # the one that has the first shard
    if node[1] <= bounds[rank + 1]:
        return [Segment(0, length, rank)], 0
    left, low = _met((node[0], middle(*node)), bounds, length, found)
    right, high = _met((middle(*node), node[1]), bounds, length, found)
    overlaps = tuple(_overlaps(left, right))
    found.append(Meeting(node, max(low, high) + 1, overlaps))
    kept = (segment for overlap in overlaps for segment in overlap.kept)
    return [segment for segment in kept if segment.start < segment.end], max(low, high) + 1


def _overlaps(left: Sequence[Segment], right: Sequence[Segment]) -> Iterator[Overlap]:
    """Who has less keeps more, so that all have about as much: exactly, where no rank is on both sides."""
    held: dict[int, int] = {}
    for segment in (*left, *right):
        held[segment.rank] = held.get(segment.rank, 0) + segment.end - segment.start
    while left and right:
        mine, theirs = left[0], right[0]
        start, end = max(mine.start, theirs.start), min(mine.end, theirs.end)
        if start < end:
            a, b = held[mine.rank], held[theirs.rank]
            cut = end if mine.rank == theirs.rank else start + (end - start) * b // (a + b)
            yield Overlap(start, cut, end, mine.rank, theirs.rank)
        left, right = left[mine.end == end:], right[theirs.end == end:]


def _handovers(rounds: Rounds, segments: Sequence[Segment], count: int) -> Ways:
    """The way back: each of the two who have cut a segment gives the other what it kept, unless it is there already."""
    overlaps = [[overlap for meeting in group for overlap in meeting.overlaps] for group in reversed(rounds)]
    ends = sorted({end for group in overlaps for one in group for end in (one.start, one.middle, one.end)})
    place = {end: number for number, end in enumerate(ends)}
    has = np.zeros((count, len(ends)), bool)            # which rank has the elements between two ends
    for segment in segments:
        has[segment.rank, place[segment.start]:place[segment.end]] = True
    found = []
    for group in overlaps:
        handed = []
        for overlap in group:
            for kept, to in zip(overlap.kept, (overlap.right, overlap.left)):
                there = has[to, place[kept.start]:place[kept.end]]
                if not there.all():
                    handed.append(Handover(kept.start, kept.end, kept.rank, to))
                    there[:] = True
        found.append(tuple(handed))
    return tuple(found)
