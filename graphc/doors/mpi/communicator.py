"""What ranks do together: gather numbers, add gradients as the tree over shards does, join arrays, hand something on.
"""
from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from graphc.shard_routes import Meeting, Route, route
from graphc.doors.mpi.wires import MPI, PartnerSum, Wires
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.runtime.arguments import array_of_any_type
from graphc.shard_tree import Span, Sums, add, rank_ends

T = TypeVar("T")
WIDTH = 8                           # numbers that one message of each rank has room for


class Communicator:
    """The ranks of a job, as a step sees them. All ranks call the same methods in the same order. `alarm` is called
    while this one waits for others, `lost` when it has been interrupted while they talk."""

    def __init__(self, comm: MPI.Intracomm, alarm: Callable[[], None] = lambda: None,
                 lost: Callable[[], None] = lambda: None):
        self.wires, self._lost = Wires(comm, alarm), lost
        self.rank, self.count = self.wires.rank, self.wires.count
        self.origin = 0             # the version that the state had when they came together
        self._process, self._broken = os.getpid(), False
        self._told = 0              # id of the error that all ranks have been told of

    @contextmanager
    def together(self) -> Iterator[None]:
        """What stands within is done by all ranks. One that leaves it by itself, by Ctrl-C say, while its messages are
        on their way, cannot take up the talk again: later ones would be taken for these."""
        if self._broken:
            raise GraphError(f"rank {self.rank} of {self.count} was interrupted while it talked with the others, who "
                             "cannot go on with it: end the program, and begin again from a checkpoint")
        if self.count > 1 and os.getpid() != self._process:
            raise GraphError("a process that a rank has forked is no rank, and cannot make distributed steps")
        if self.count > 1 and MPI.Is_finalized():
            raise GraphError("MPI has ended (MPI.Finalize), and with it distributed steps")
        try:
            yield
        except BaseException as error:
            told = isinstance(error, GraphError) or id(error) == self._told     # on all ranks, and all are here
            if self.count > 1 and not told and not self._broken:
                self._broken = True
                self._lost()
            raise

    @property
    def sent(self) -> int:
        """Bytes that this rank has sent so far."""
        return self.wires.sent

    def gathered(self, numbers: Sequence[float], what: str, error: Exception | None = None) -> np.ndarray:
        """f64 [count, n]: the numbers of all ranks, which all do `what`. Raises on all of them what went wrong on any
        of them; GraphError where they do different things."""
        with self.together():
            self._told = 0
            text = b"" if error is None else f"{type(error).__name__}: {error}".encode(errors="backslashreplace")
            row = (len(text), crc32(what.encode()), len(numbers), *numbers)
            rows = self._rows((*row, *(0,) * WIDTH)[:WIDTH])
            failed, others = np.flatnonzero(rows[:, 0]), np.flatnonzero(rows[:, 1] != rows[0, 1])
            if len(failed):
                first = int(failed[0])
                told = self._handed_on(np.frombuffer(text, np.uint8) if self.rank == first
                                       else np.empty(int(rows[first, 0]), np.uint8), first)
                self._told = id(error)
                raise error or GraphError(f"rank {first} of {self.count} failed: {told.tobytes().decode()}")
            if len(others):
                other = int(others[0])
                root = other if rows[self.rank, 1] == rows[0, 1] else 0
                raise GraphError(f"rank {self.rank} of {self.count} came to {what}, and rank {root} to something else: "
                                 "all ranks make the same calls of a distributed step in the same order (step.save and "
                                 "step.load too; rank 0 writes and reads)")
            return rows[:, 3:len(row)] if len(row) <= WIDTH else self._rows(numbers)

    def _rows(self, mine: Sequence[float]) -> np.ndarray:
        """Numbers of all ranks, as many of each."""
        return self._behind(np.array([mine], np.float64), range(self.count + 1))

    def _behind(self, mine: np.ndarray, ends: Sequence[int]) -> np.ndarray:
        """The arrays of all ranks, one behind the other; that of rank r has the elements ends[r] … ends[r + 1] - 1.

        As Bruck, Ho, Kipnis, Upfal and Weathersby (1997): each round doubles the number of ranks whose arrays one has,
        the own first, then those of the next ranks.
        """
        whole = np.empty((ends[-1], *mine.shape[1:]), mine.dtype)
        turned = np.empty_like(whole)                       # begins with the own array
        sizes = [ends[rank + 1] - ends[rank] for rank in range(self.count)]
        places = list(accumulate(sizes[self.rank:] + sizes[:self.rank], initial=0))
        turned[:len(mine)] = mine
        have = 1
        while have < self.count:
            more = min(have, self.count - have)
            self.wires.exchange(turned[:places[more]], (self.rank - have) % self.count,
                                turned[places[have]:places[have + more]], (self.rank + have) % self.count)
            have += more
        after = places[self.count - self.rank]              # where the array of rank 0 stands
        whole[ends[self.rank]:], whole[:ends[self.rank]] = turned[:after], turned[after:]
        return whole

    def summed(self, parts: Mapping[Span, Sums], shards: int) -> Sums:
        """The sum over all shards of the sums of the subtrees that each rank has, in one of these."""
        held = dict(parts)
        with self.together():
            for dtype, flat in next(iter(parts.values())).flats.items():
                way = route(shards, self.count, len(flat), self.rank)
                for group in way.rounds:
                    self._meet(group, held, dtype)
                self._hand_on(way, held[0, shards].flats[dtype])
        return held[0, shards]

    def _meet(self, group: Sequence[Meeting], held: dict[Span, Sums], dtype: np.dtype) -> None:
        """Meetings of one height: what this rank has of their sums is in `held` afterwards."""
        sums: list[PartnerSum] = []
        for meeting in group:
            for overlap in meeting.overlaps:
                if overlap.left != overlap.right:
                    on_left, partner = overlap.left == self.rank, overlap.left + overlap.right - self.rank
                    mine = held[meeting.left if on_left else meeting.right].flats[dtype][overlap.start:overlap.end]
                    sums.append(PartnerSum(partner, mine, overlap.keeper == self.rank, on_left))
        self.wires.add_exchanged(sums)
        for meeting in group:
            left, right = held.get(meeting.left), held.get(meeting.right)
            if left is not None and right is not None:
                self._put_together(meeting, left.flats[dtype], right.flats[dtype])
            found = right if left is None else left
            if found is not None:
                held[meeting.node] = found

    def _put_together(self, meeting: Meeting, left: np.ndarray, right: np.ndarray) -> None:
        """Of a rank that is on both sides: all that it keeps, in the array to the left."""
        for overlap in meeting.overlaps:
            part = slice(overlap.start, overlap.end)
            if overlap.left == overlap.right:
                add(left[part], right[part], out=left[part])
            elif overlap.keeper == overlap.right == self.rank:
                left[part] = right[part]

    def _hand_on(self, way: Route, whole: np.ndarray) -> None:
        """All elements of the sum to all ranks: what comes is handed on as soon as it is there."""
        coming = [(one, self.wires.receive(whole[one.start:one.end], one.origin, one.tag)) for one in way.incoming]
        sending: list[MPI.Request] = []
        for one in way.outgoing:                        # those of earlier rounds come first
            self.wires.wait([request for before, requests in coming for request in requests
                             if before.start < one.end and one.start < before.end])
            sending += self.wires.send(whole[one.start:one.end], one.to, one.tag)
        self.wires.wait([*(request for _, requests in coming for request in requests), *sending])

    def joined(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, one behind the other along the first axis."""
        with self.together():
            sizes = self.gathered((len(array),), "arrays that are joined")[:, 0].astype(int).tolist()
            return self._behind(array, list(accumulate(sizes, initial=0)))

    def objects(self, mine: T, what: str) -> list[T]:
        """What each rank gives, by rank."""
        data = pickle.dumps(mine)
        with self.together():
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
        with self.together():
            size = int(self.gathered((len(data),), what, error)[0, 0])
            data = self._handed_on(data if self.rank == 0 else np.empty(size, np.uint8), 0)
        return pickle.loads(data.data)

    def part(self, rows: int, shards: int) -> slice:
        """The rows of a batch of so many that this rank has."""
        ends = [0, *rank_ends(rows, shards, self.count)]
        return slice(ends[self.rank], ends[self.rank + 1])

    def dealt(self, arrays: Sequence[Any], shards: int) -> Sequence[np.ndarray]:
        """Rank 0 has a batch; each rank gets the rows of its shards."""
        whole: list[np.ndarray] = []
        error: GraphError | None = None
        try:
            whole = _batch_to_deal(arrays, self.rank)
        except GraphError as wrong:             # the others wait for what it is
            error = wrong
        with self.together():
            self.gathered((), "step.scatter", error)
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


def _batch_to_deal(arrays: Sequence[Any], rank: int) -> list[np.ndarray]:
    """What a rank gives to `step.scatter`, C-contiguous: rank 0 a batch, the others nothing."""
    if rank and arrays:
        raise GraphError("step.scatter: the batch is that of rank 0; the other ranks give nothing", user_loc())
    found = [np.require(array_of_any_type(a, "what step.scatter deals"), requirements=["C", "A"]) for a in arrays]
    if any(a.dtype.hasobject for a in found):
        raise GraphError("step.scatter deals numbers, and got an array of Python's objects", user_loc())
    if len({len(a) for a in found if a.ndim}) > 1:
        raise GraphError("step.scatter deals arrays with one row for each example, got "
                         + ", ".join(str(list(a.shape)) for a in found), user_loc())
    return found
