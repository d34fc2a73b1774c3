"""The tree over the shards of a batch, and what is added in it."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from graphc.ir.dims import static_dim
from graphc.ir.types import TensorType
from graphc.runtime.memory import aligned_empty, round_up


def middle(low: int, high: int) -> int:
    """Where the tree over the shards low … high - 1 divides."""
    return low + (high - low + 1) // 2


def shard_rows(rows: int, shards: int) -> list[int]:
    """The rows of each shard: as equal as they can be, the larger ones first."""
    return [rows // shards + (number < rows % shards) for number in range(shards)]


def rank_ends(rows: int, shards: int, count: int) -> list[int]:
    """Where the rows of each rank end in a batch of so many."""
    sizes = shard_rows(rows, shards)
    own = shards // count
    return list(accumulate(sum(sizes[start:start + own]) for start in range(0, shards, own)))


class Sums:
    """Arrays of these types in one flat block for each dtype, so that they can be added, and sent, as a whole."""

    def __init__(self, types: Sequence[TensorType]):
        ends: dict[np.dtype, int] = {}
        places = []
        for type in types:
            dtype = np.dtype(type.dtype.np)
            places.append((dtype, ends.get(dtype, 0)))
            ends[dtype] = ends.get(dtype, 0) + round_up(static_dim(type.nbytes)) // dtype.itemsize
        self.types = tuple(types)
        self.flats = {dtype: aligned_empty(end, dtype) for dtype, end in ends.items()}
        self.clear()
        self.arrays = [self.flats[dtype][start:start + static_dim(type.size)].reshape(type.shape)
                       for type, (dtype, start) in zip(types, places)]

    def clear(self) -> None:
        """All zeros, also between the arrays."""
        for flat in self.flats.values():
            flat[:] = 0

    def add(self, other: "Sums") -> None:
        """Adds those of the subtree to the right."""
        for dtype, flat in self.flats.items():
            with np.errstate(all="ignore"):             # what is infinite says so by itself
                np.add(flat, other.flats[dtype], out=flat)


def tree_sum(leaf: Callable[[int], Sums], low: int, high: int, done: Callable[[Sums], None]) -> Sums:
    """The sum of what `leaf` gives for the shards low … high - 1, in order; `done` gets what is not needed any more."""
    if high - low == 1:
        return leaf(low)
    left = tree_sum(leaf, low, middle(low, high), done)
    right = tree_sum(leaf, middle(low, high), high, done)
    left.add(right)
    done(right)
    return left
