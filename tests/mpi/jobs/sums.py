"""Sums over shards, added by ranks, against the tree over all of them: many numbers of shards and of elements. Prints what
differs, and the most bytes that a rank sent, as a multiple of what is summed, by the number of shards."""
from __future__ import annotations

import json

import numpy as np
from mpi4py import MPI

from graphc.doors.mpi.communicator import Communicator
from graphc.ir.types import TensorType, f32, f64
from graphc.shard_tree import Sums, rank_bounds, subtrees, tree_sum

SIZES = (1, 5, 200_003)             # of f32: fewer than ranks, and several pieces
ranks = Communicator(MPI.COMM_WORLD)


def leaf(number: int, size: int) -> Sums:
    """What a shard gives: numbers whose sum depends on the order, infinities and NaN among them."""
    sums = Sums((TensorType(f32, (size,)), TensorType(f64, (3,))))
    for array in sums.arrays:
        draw = np.random.default_rng([number, size])
        array[...] = draw.normal(size=array.shape) * 10.0 ** draw.integers(-6, 6, array.shape)
    if size > 100:
        sums.arrays[0][number] = np.inf
        sums.arrays[0][50:60] = np.uint32(0x7FC00000 + number).view(np.float32)
    return sums


def same(one: Sums, other: Sums) -> bool:
    """The same bytes."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays, other.arrays))


wrong, most = [], {}
for shards in sorted({ranks.count, ranks.count + 1, 8, 12, 21, 32}):
    if shards < ranks.count:
        continue
    bounds = rank_bounds(shards, ranks.count)
    for size in SIZES:
        expected = tree_sum(lambda number: leaf(number, size), 0, shards, lambda done: None)
        parts = {span: tree_sum(lambda number: leaf(number, size), *span, lambda done: None)
                 for span in subtrees((bounds[ranks.rank], bounds[ranks.rank + 1]), (0, shards))}
        before = ranks.sent
        if not same(ranks.summed(parts, shards), expected):
            wrong.append([ranks.rank, shards, size])
        most[shards] = (ranks.sent - before) / sum(flat.nbytes for flat in expected.flats.values())
print(json.dumps({"wrong": wrong, "sent": most}) + "\n", end="", flush=True)
