"""Messages between ranks: point to point, of bytes, by polling, so that Ctrl-C is answered and a rank that is gone is
noticed."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from graphc.extra import missing
from graphc.records import dataclass
from graphc.shard_tree import add

try:
    from mpi4py import MPI as MPI
except (ImportError, RuntimeError) as error:
    raise missing("gc.distributed", "mpi4py and an MPI library, such as the package mpich", "mpi", error) from None

PIECE = 1 << 18                     # bytes: they are still in the cache when the next step touches them
WINDOW = 4                          # pieces that are on their way at once
SPINS = 200                         # times that a rank asks before it sleeps, so that a fast network is not waited for
SHORTEST, LONGEST = 20e-6, 1e-3     # seconds of sleep: ranks that share a core let each other run


@dataclass(frozen=True)
class PartnerSum:
    """What this rank has of a sum, and a partner too: what the partner sends is added to it where this rank keeps the
    sum, else it is sent. `left`: on which side of the sum it stands."""
    partner: int
    array: np.ndarray
    keeps: bool
    left: bool


class Wires:
    """Messages on a communicator of its own. `alarm` is called while one waits: it raises, or ends the job, when a rank
    is gone. `sent`: bytes of arrays that this rank has sent."""

    def __init__(self, comm: MPI.Intracomm, alarm: Callable[[], None] = lambda: None):
        self.comm = comm.Dup()
        self.rank, self.count = comm.Get_rank(), comm.Get_size()
        self.alarm, self.sent = alarm, 0

    def send(self, array: np.ndarray, to: int, tag: int = 0) -> list[MPI.Request]:
        """Begins to send the bytes of a C-contiguous array, which stays as it is until `wait`."""
        self.sent += array.nbytes
        return [self.comm.Isend((piece, MPI.BYTE), to, tag) for piece in pieces(array)]

    def receive(self, array: np.ndarray, origin: int, tag: int = 0) -> list[MPI.Request]:
        """Begins to receive as many bytes into a C-contiguous array."""
        return [self.comm.Irecv((piece, MPI.BYTE), origin, tag) for piece in pieces(array)]

    def wait(self, requests: Sequence[MPI.Request]) -> None:
        """Until all are done."""
        asked, pause = 0, SHORTEST
        while not MPI.Request.Testall(requests):
            asked += 1
            if asked > SPINS:
                self.alarm()
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)

    def exchange(self, mine: np.ndarray, to: int, theirs: np.ndarray, origin: int) -> None:
        """Sends one array and receives another."""
        self.wait([*self.receive(theirs, origin), *self.send(mine, to)])

    def add_exchanged(self, sums: Sequence[PartnerSum]) -> None:
        """All of these at the same time: what comes is added piece by piece, while the next ones are on their way."""
        sending = [request for one in sums if not one.keeps for request in self.send(one.array, one.partner)]
        parts = [(part, one) for one in sums if one.keeps for part in pieces(one.array)]
        buffers = [np.empty(PIECE, np.uint8) for _ in parts[:WINDOW]]
        coming: list[tuple[np.ndarray, list[MPI.Request]]] = []
        for number in range(len(parts) + WINDOW):
            if WINDOW <= number < len(parts) + WINDOW:
                part, one = parts[number - WINDOW]
                there, requests = coming[number - WINDOW]
                self.wait(requests)
                add(*(part, there) if one.left else (there, part), out=part)
            if number < len(parts):
                part, one = parts[number]
                buffer = buffers[number % WINDOW][:part.nbytes].view(part.dtype)
                coming.append((buffer, self.receive(buffer, one.partner)))
        self.wait(sending)


def pieces(array: np.ndarray) -> list[np.ndarray]:
    """The elements of a C-contiguous array in parts of at most `PIECE` bytes; none of an empty one."""
    flat = array.reshape(-1)
    step = PIECE // array.itemsize
    return [flat[start:start + step] for start in range(0, len(flat), step)]
