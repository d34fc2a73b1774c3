"""The tree over the shards of a batch, and what is added in it."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import accumulate

import numpy as np

from graphc.ir.dims import static_dim
from graphc.ir.types import TensorType
from graphc.runtime.memory import mapped, round_up

Span = tuple[int, int]              # shards low … high - 1: a node of the tree, or the block of a rank
ADDENDS = 3                         # sums that the update adds, at most: a rank of a job gives it zeros for all but one
SEARCHED = 64                       # ranks up to which blocks that are no subtrees are chosen by search


def middle(low: int, high: int) -> int:
    """Where the tree over the shards low … high - 1 divides."""
    return low + (high - low + 1) // 2


def shard_rows(rows: int, shards: int) -> list[int]:
    """The rows of each shard: as equal as they can be, the larger ones first."""
    return [rows // shards + (number < rows % shards) for number in range(shards)]


@cache
def rank_bounds(shards: int, count: int) -> tuple[int, ...]:
    """Where the blocks of shards of so many ranks begin, and where the last ends: rank r has the shards bounds[r] …
    bounds[r + 1] - 1. No block is larger than it must be; each is a subtree where that can be had, and elsewhere they
    are such that few sums cross ranks."""
    most = -(-shards // count)
    fits = _blocks_needed(shards, most) <= count
    sizes = _along_tree((0, shards), count, most) if fits else shard_rows(shards, count)
    bounds = tuple(accumulate(sizes, initial=0))
    return bounds if fits or count > SEARCHED else _moved(bounds, most)


def crossings(bounds: Sequence[int]) -> int:
    """How often, at the least, a sum goes from one rank to another until the sum over all shards is there: the
    smallest number of changes in a tree whose leaves are the blocks of ranks (Fitch 1971), bounds as `rank_bounds`."""
    def ends(low: int, high: int) -> tuple[frozenset[int], int]:
        """(the ranks at which the sum at a node may be with the fewest crossings, their number)."""
        first, last = bisect_right(bounds, low) - 1, bisect_right(bounds, high - 1) - 1
        if first == last:
            return frozenset((first,)), 0
        left, below = ends(low, middle(low, high))
        right, beside = ends(middle(low, high), high)
        return left & right or left | right, below + beside + (not left & right)
    return ends(bounds[0], bounds[-1])[1]


def _moved(bounds: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Bounds with fewer crossings: one after the other moves to where there are the fewest, as long as that helps."""
    best, before = crossings(bounds), len(bounds) ** 2
    while best < before:
        before = best
        for place in range(1, len(bounds) - 1):
            lowest, highest = max(bounds[place - 1] + 1, bounds[place + 1] - most), min(bounds[place - 1] + most,
                                                                                         bounds[place + 1] - 1)
            for bound in range(lowest, highest + 1):
                other = (*bounds[:place], bound, *bounds[place + 1:])
                found = crossings(other)
                if found < best:
                    bounds, best = other, found
    return bounds


@cache
def _blocks_needed(shards: int, most: int) -> int:
    """How many subtrees of at most so many shards make a tree over `shards`."""
    half = middle(0, shards)
    return 1 if shards <= most else _blocks_needed(half, most) + _blocks_needed(shards - half, most)


def _along_tree(node: Span, count: int, most: int) -> list[int]:
    """The sizes of blocks of so many ranks that are subtrees of a node, of at most `most` shards each."""
    low, high = node
    if count == 1:
        return [high - low]
    left, right = middle(low, high) - low, high - middle(low, high)
    ranks = max(_blocks_needed(left, most), min(-(-count * left // (left + right)),
                                                count - _blocks_needed(right, most)))
    return [*_along_tree((low, low + left), ranks, most), *_along_tree((low + left, high), count - ranks, most)]


def rank_ends(rows: int, shards: int, count: int) -> list[int]:
    """Where the rows of each rank end in a batch of so many."""
    starts = list(accumulate(shard_rows(rows, shards), initial=0))
    return [starts[bound] for bound in rank_bounds(shards, count)[1:]]


def subtrees(bounds: Span, tree: Span) -> list[Span]:
    """The largest subtrees of the tree over the shards of `tree` that lie within `bounds`, in order."""
    low, high = tree
    if bounds[0] <= low and high <= bounds[1]:
        return [tree]
    if high <= bounds[0] or bounds[1] <= low:
        return []
    return [*subtrees(bounds, (low, middle(low, high))), *subtrees(bounds, (middle(low, high), high))]


def right_edge(shards: int) -> list[Span]:
    """The parts of the tree over so many shards whose sums the update adds, a + (b + c): the left half, the left half
    of the right one, and what is left. They are there when the last shard is done, and take no more memory than it
    needs."""
    spans: list[Span] = []
    low = 0
    while len(spans) + 1 < ADDENDS and shards - low > 1:
        spans.append((low, middle(low, shards)))
        low = middle(low, shards)
    return [*spans, (low, shards)]


def additions(low: int, high: int) -> tuple[tuple[int, int, int], ...]:
    """(low, middle, high) of all nodes of the tree over the shards low … high - 1, each after those below it."""
    if high - low == 1:
        return ()
    half = middle(low, high)
    return (*additions(low, half), *additions(half, high), (low, half, high))


def buffers_needed(spans: Sequence[Span], leaves: Collection[Span]) -> int:
    """How many sums are there at once while these subtrees are summed of what is computed for `leaves`, one program
    each: one of each subtree that is done, and what the one that is being added takes."""
    def needed(low: int, high: int) -> int:
        if (low, high) in leaves:
            return 1
        half = middle(low, high)
        return max(needed(low, half), 1 + needed(half, high))
    return max(done + needed(*span) for done, span in enumerate(spans))


class Sums:
    """Arrays of these types, zeros at first, in one flat block for each dtype, so that they can be added, and sent, as
    a whole."""

    def __init__(self, types: Sequence[TensorType]):
        ends: dict[np.dtype, int] = {}
        places = []
        for type in types:
            dtype = np.dtype(type.dtype.np)
            places.append((dtype, ends.get(dtype, 0)))
            ends[dtype] = ends.get(dtype, 0) + round_up(static_dim(type.nbytes)) // dtype.itemsize
        self.types = tuple(types)
        # of the system: zeros, which take no memory as long as nothing is written
        self.flats = {dtype: mapped(end * dtype.itemsize).view(dtype) for dtype, end in ends.items()}
        self.arrays = [self.flats[dtype][start:start + static_dim(type.size)].reshape(type.shape)
                       for type, (dtype, start) in zip(types, places)]

    def clear(self) -> None:
        """All zeros, also between the arrays."""
        for flat in self.flats.values():
            flat[:] = 0

    def add(self, other: Sums) -> None:
        """Adds those of the subtree to the right."""
        for dtype, flat in self.flats.items():
            add(flat, other.flats[dtype], out=flat)


def add(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """left + right, in `out`: of two NaN the bits of the left one stay."""
    with np.errstate(all="ignore"):                     # what is infinite says so by itself
        np.add(left, right, out=out)


def added(sums: Sequence[np.ndarray]) -> np.ndarray:
    """a + (b + c); of zeros behind a sum the same bits, so that there is one zero."""
    total = sums[-1].copy()
    for left in reversed(sums[:-1]):
        add(left, total, out=total)
    add(total, np.zeros_like(total), out=total)
    return total


def leaves_below(low: int, high: int, one: Callable[[Span], bool]) -> list[Span]:
    """The largest nodes of the tree over the shards low … high - 1 that are `one`, single shards in any case, in
    order."""
    if high - low == 1 or one((low, high)):
        return [(low, high)]
    half = middle(low, high)
    return [*leaves_below(low, half, one), *leaves_below(half, high, one)]


def tree_sum(leaf: Callable[[int], Sums], low: int, high: int, done: Callable[[Sums], None],
             joined: Collection[Span] = ()) -> Sums:
    """The sum of what `leaf` gives for the shards low … high - 1, in order, and for the first of those of each node
    `joined`, whose sum it gives; `done` gets what is not needed any more."""
    if high - low == 1 or (low, high) in joined:
        return leaf(low)
    left = tree_sum(leaf, low, middle(low, high), done, joined)
    right = tree_sum(leaf, middle(low, high), high, done, joined)
    left.add(right)
    done(right)
    return left
