"""What ranks do together: gather numbers, add gradients as the tree over shards does, join arrays, hand something on.
"""
from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from graphc.doors.mpi.wires import MPI, Wires
from graphc.errors import GraphError
from graphc.shard_tree import rank_ends

T = TypeVar("T")
WIDTH = 8                           # numbers that one message of each rank has room for


class Communicator:
    """The ranks of a job, a power of two of them, as a step sees them. All ranks call the same methods in the same
    order."""

    def __init__(self, comm: MPI.Intracomm, alarm: Callable[[], None] = lambda: None):
        self.wires = Wires(comm, alarm)
        self.rank, self.count = self.wires.rank, self.wires.count
        self.origin = 0             # the version that the state had when they came together

    @property
    def sent(self) -> int:
        """Bytes that this rank has sent so far."""
        return self.wires.sent

    def _partners(self) -> Iterator[tuple[int, int, int, int]]:
        """From near to far: (partner, distance, first rank of this block, first rank of the partner's)."""
        distance = 1
        while distance < self.count:
            start = self.rank & -distance
            yield self.rank ^ distance, distance, start, start ^ distance
            distance *= 2

    def gathered(self, numbers: Sequence[float], what: str, error: Exception | None = None) -> np.ndarray:
        """f64 [count, n]: the numbers of all ranks, which all do `what`. Raises on all of them what went wrong on any
        of them; GraphError where they do different things."""
        text = b"" if error is None else f"{type(error).__name__}: {error}".encode()
        row = (len(text), crc32(what.encode()), len(numbers), *numbers)
        rows = self._rows((*row, *(0,) * WIDTH)[:WIDTH])
        failed, others = np.flatnonzero(rows[:, 0]), np.flatnonzero(rows[:, 1] != rows[0, 1])
        if len(failed):
            first = int(failed[0])
            told = self._handed_on(np.frombuffer(text, np.uint8) if self.rank == first
                                   else np.empty(int(rows[first, 0]), np.uint8), first)
            if error is not None:
                raise error
            raise GraphError(f"rank {first} of {self.count} failed: {told.tobytes().decode()}")
        if len(others):
            other = int(others[0])
            root = other if rows[self.rank, 1] == rows[0, 1] else 0
            raise GraphError(f"rank {self.rank} of {self.count} came to {what}, and rank {root} to something else: all "
                             "ranks make the same calls of a distributed step in the same order (step.save and "
                             "step.load too; rank 0 writes and reads)")
        return rows[:, 3:len(row)] if len(row) <= WIDTH else self._rows(numbers)

    def _rows(self, mine: Sequence[float]) -> np.ndarray:
        """Numbers of all ranks, as many of each."""
        rows = np.zeros((self.count, len(mine)))
        rows[self.rank] = mine
        for partner, distance, start, other in self._partners():
            self.wires.exchange(rows[start:start + distance], rows[other:other + distance], partner)
        return rows

    def reduced(self, flats: Sequence[np.ndarray]) -> None:
        """Each becomes its sum over the ranks, added as the tree over shards does: rank 0 and 1 first, then both with 2
        and 3.

        Recursive halving, then doubling (Rabenseifner 2004; Thakur, Rabenseifner and Gropp 2005): each rank sends less
        than twice the bytes of what is added.
        """
        for flat in flats:
            steps = []
            low, high = 0, len(flat)
            for partner, *_ in self._partners():
                middle = low + (high - low) // 2
                left, right = (low, middle), (middle, high)
                kept, given = (left, right) if self.rank < partner else (right, left)
                self.wires.add_exchanged(flat[slice(*given)], flat[slice(*kept)], partner)
                steps.append((partner, kept, given))
                low, high = kept
            for partner, kept, given in reversed(steps):
                self.wires.exchange(flat[slice(*kept)], flat[slice(*given)], partner)

    def joined(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, one behind the other along the first axis."""
        ends = np.cumsum([0, *self.gathered((len(array),), "arrays that are joined")[:, 0].astype(np.int64)])
        whole = np.empty((int(ends[-1]), *array.shape[1:]), array.dtype)
        whole[ends[self.rank]:ends[self.rank + 1]] = array
        for partner, distance, start, other in self._partners():
            self.wires.exchange(whole[ends[start]:ends[start + distance]], whole[ends[other]:ends[other + distance]],
                                partner)
        return whole

    def objects(self, mine: T, what: str) -> list[T]:
        """What each rank gives, by rank."""
        data = pickle.dumps(mine)
        ends = np.cumsum([0, *self.gathered((len(data),), what)[:, 0].astype(np.int64)])
        whole = self.joined(np.frombuffer(data, np.uint8)).tobytes()
        return [pickle.loads(whole[start:end]) for start, end in zip(ends, ends[1:])]

    def from_first(self, make: Callable[[], T], what: str) -> T:
        """What `make` gives on rank 0, on all ranks."""
        data, error = np.empty(0, np.uint8), None
        if self.rank == 0:
            try:
                data = np.frombuffer(pickle.dumps(make(), protocol=5), np.uint8)
            except Exception as found:          # the others wait for what it is
                error = found
        size = int(self.gathered((len(data),), what, error)[0, 0])
        return pickle.loads(self._handed_on(data if self.rank == 0 else np.empty(size, np.uint8), 0).data)

    def part(self, rows: int, shards: int) -> slice:
        """The rows of a batch of so many that this rank has."""
        ends = [0, *rank_ends(rows, shards, self.count)]
        return slice(ends[self.rank], ends[self.rank + 1])

    def dealt(self, arrays: Sequence[Any], shards: int) -> Sequence[np.ndarray]:
        """Rank 0 has a batch; each rank gets the rows of its shards."""
        whole = [np.require(a, requirements=["C", "A"]) for a in arrays] if self.rank == 0 else []
        forms = self.from_first(lambda: [(a.dtype, a.shape) for a in whole], "step.scatter")
        ends = rank_ends(next((shape[0] for _, shape in forms if shape), 0), shards, self.count)
        cuts = list(zip([0, *ends], ends))
        if self.rank:
            start, end = cuts[self.rank]
            own = [np.empty((end - start, *shape[1:]) if shape else (), dtype) for dtype, shape in forms]
            self.wires.wait([request for a in own for request in self.wires.receive(a, 0)])
            return own
        parts = [[a[start:end] if a.ndim else a for a in whole] for start, end in cuts]
        self.wires.wait([request for to, part in enumerate(parts) if to for a in part
                         for request in self.wires.send(a, to)])
        return parts[0]

    def _handed_on(self, data: np.ndarray, root: int) -> np.ndarray:
        """The bytes that `root` has, on all ranks; the others give an array of that size. A binomial tree."""
        place, distance, requests = (self.rank - root) % self.count, 1, []
        while distance < self.count:
            if place < distance and place + distance < self.count:
                requests += self.wires.send(data, (self.rank + distance) % self.count)
            elif distance <= place < 2 * distance:
                self.wires.wait(self.wires.receive(data, (self.rank - distance) % self.count))
            distance *= 2
        self.wires.wait(requests)
        return data


def ranks_allowed(shards: int) -> list[int]:
    """The numbers of ranks among which so many shards can be divided: each has a subtree."""
    counts = [1]
    while shards % (2 * counts[-1]) == 0:
        counts.append(2 * counts[-1])
    return counts
