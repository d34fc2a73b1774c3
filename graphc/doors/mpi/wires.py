"""Messages between ranks: point to point, of bytes, by polling, so that Ctrl-C is answered and a rank that is gone is
noticed."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from graphc.extra import missing

try:
    from mpi4py import MPI as MPI
except (ImportError, RuntimeError) as error:
    raise missing("gc.distributed", "mpi4py and an MPI library, such as the package mpich", "mpi", error) from None

PIECE = 1 << 18                     # bytes: they are still in the cache when the next step touches them
WINDOW = 4                          # pieces that are on their way at once
SPINS = 200                         # times that a rank asks before it sleeps, so that a fast network is not waited for
SHORTEST, LONGEST = 20e-6, 1e-3     # seconds of sleep: ranks that share a core let each other run


class Wires:
    """Messages on a communicator of its own. `alarm` is called while one waits: it raises, or ends the job, when a rank
    is gone. `sent`: bytes of arrays that this rank has sent."""

    def __init__(self, comm: MPI.Intracomm, alarm: Callable[[], None] = lambda: None):
        self.comm = comm.Dup()
        self.rank, self.count = comm.Get_rank(), comm.Get_size()
        self.alarm, self.sent = alarm, 0

    def send(self, array: np.ndarray, to: int) -> list[MPI.Request]:
        """Begins to send the bytes of a C-contiguous array, which stays as it is until `wait`."""
        self.sent += array.nbytes
        return [self.comm.Isend((piece, MPI.BYTE), to) for piece in pieces(array)]

    def receive(self, array: np.ndarray, origin: int) -> list[MPI.Request]:
        """Begins to receive as many bytes into a C-contiguous array."""
        return [self.comm.Irecv((piece, MPI.BYTE), origin) for piece in pieces(array)]

    def wait(self, requests: Sequence[MPI.Request]) -> None:
        """Until all are done."""
        asked, pause = 0, SHORTEST
        while not MPI.Request.Testall(requests):
            asked += 1
            if asked > SPINS:
                self.alarm()
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)

    def exchange(self, mine: np.ndarray, theirs: np.ndarray, partner: int) -> None:
        """Sends one array and receives another."""
        self.wait([*self.receive(theirs, partner), *self.send(mine, partner)])

    def add_exchanged(self, mine: np.ndarray, kept: np.ndarray, partner: int) -> None:
        """Sends `mine` and adds what comes to `kept`, piece by piece as they come; what the lower rank has stands
        left."""
        sending = self.send(mine, partner)
        parts = pieces(kept)
        buffers = [np.empty(PIECE // kept.itemsize, kept.dtype) for _ in parts[:WINDOW]]
        coming: list[tuple[np.ndarray, list[MPI.Request]]] = []
        for number in range(len(parts) + WINDOW):
            if number >= WINDOW and number - WINDOW < len(parts):
                there, requests = coming[number - WINDOW]
                self.wait(requests)
                _add(parts[number - WINDOW], there, mine_left=self.rank < partner)
            if number < len(parts):
                buffer = buffers[number % WINDOW][:len(parts[number])]
                coming.append((buffer, self.receive(buffer, partner)))
        self.wait(sending)


def pieces(array: np.ndarray) -> list[np.ndarray]:
    """The elements of a C-contiguous array in parts of at most `PIECE` bytes; none of an empty one."""
    flat = array.reshape(-1)
    step = PIECE // array.itemsize
    return [flat[start:start + step] for start in range(0, len(flat), step)]


def _add(mine: np.ndarray, theirs: np.ndarray, mine_left: bool) -> None:
    """mine = left + right: of two NaN the bits of the left one stay."""
    with np.errstate(all="ignore"):
        np.add(*(mine, theirs) if mine_left else (theirs, mine), out=mine)
