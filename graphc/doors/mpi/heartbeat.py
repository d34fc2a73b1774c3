"""Who watches whether all ranks are there. Each rank hears a beat of the one before it every second, from a thread, so
also while it computes. One that says nothing for long is dead or cut off, and one that has left while others wait will
not come back: then the job ends, with a message that names it."""
from __future__ import annotations

import atexit
import os
import secrets
import sys
import time
from functools import cache
from threading import Event, Thread

import numpy as np

from graphc.doors.mpi.last_word import LastWord
from graphc.doors.mpi.wires import MPI

BEAT = 1.0                          # seconds between two beats
LOOK = 0.1                          # seconds between two looks at what has come
GRACE = 2.0                         # seconds for which others go on when a rank has left
ALIVE, LEFT, LOST = 0, 1, 2         # what a beat says
GONE = {LEFT: "has ended its program while rank {} waits for it; its own message says why",
        LOST: "was interrupted while it talked with the others, who cannot go on with it"}
STATUS = 70                         # of the job's end: EX_SOFTWARE
BEGUN: list[Heartbeat] = []         # of all communicators


def leave_all(*_: object) -> None:
    """The program ends, or MPI: nothing is said after that."""
    for heartbeat in BEGUN:
        heartbeat.leave()


@cache
def key() -> int:
    """Where a communicator keeps the beats of its ranks. MPI.Finalize takes what COMM_SELF keeps before it ends."""
    MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=leave_all), True)
    atexit.register(leave_all)                  # runs before MPI is finalized, which is done later
    return MPI.Comm.Create_keyval()


class Heartbeat:
    """The beats of one rank. `timeout`: seconds of silence after which a rank counts as dead."""

    @staticmethod
    def of(comm: MPI.Intracomm, timeout: float) -> Heartbeat:
        """The beats of the ranks of this communicator, which all of its steps share."""
        found = comm.Get_attr(key())
        if not isinstance(found, Heartbeat):
            found = Heartbeat(comm, timeout)
            comm.Set_attr(key(), found)
        found.timeout = timeout
        return found

    def __init__(self, comm: MPI.Intracomm, timeout: float):
        self.comm, self.timeout = comm.Dup(), timeout
        self.rank, self.count = comm.Get_rank(), comm.Get_size()
        self.before, self.after = (self.rank - 1) % self.count, (self.rank + 1) % self.count
        self.left_at: float | None = None       # when the rank before said that it leaves, or is lost
        self._heard = self._word = ALIVE        # what it has said last; what this one says
        self._saying: list[tuple[MPI.Request, np.ndarray]] = []     # beats that are on their way
        self._leaves = Event()
        self._thread: Thread | None = None
        self._process = os.getpid()
        if self.count > 1:
            job = np.frombuffer(secrets.token_bytes(8), np.uint8).copy()
            comm.Bcast((job, MPI.BYTE))
            self._last_word = LastWord(self.comm, job.tobytes().hex())
            BEGUN.append(self)
        if self.count > 1 and MPI.Query_thread() == MPI.THREAD_MULTIPLE:
            self._thread = Thread(target=self._run, name="graphc heartbeat", daemon=True)
            self._thread.start()

    def alarm(self) -> None:
        """Called while this rank waits for others: ends the job when the one before has left."""
        if self.left_at is not None and time.monotonic() - self.left_at > GRACE:
            self._end(f"rank {self.before} of {self.count} {GONE[self._heard].format(self.rank)}")

    def lost(self) -> None:
        """This rank cannot go on with the others: the next one is told, who ends the job when it waits for it."""
        self._word = LOST

    def _run(self) -> None:
        heard, next_beat = time.monotonic(), 0.0
        message = np.empty(1, np.int8)
        while not self._leaves.wait(LOOK):
            now = time.monotonic()
            if now >= next_beat:
                self._say(self._word)
                next_beat = now + BEAT
            while self.left_at is None and self.comm.Iprobe(self.before):
                self.comm.Recv((message, MPI.BYTE), self.before)
                heard = time.monotonic()
                self._heard = int(message[0])
                if self._heard != ALIVE:
                    self.left_at = heard
            if self.left_at is None and now - heard > self.timeout:
                self._end(f"rank {self.before} of {self.count} has said nothing for {self.timeout:.0f} seconds: it is "
                          "dead, or cut off")

    def _say(self, what: int) -> None:
        message = np.array([what], np.int8)
        self._saying = [(request, sent) for request, sent in self._saying if not request.Test()]
        self._saying.append((self.comm.Isend((message, MPI.BYTE), self.after), message))

    def leave(self) -> None:
        """The program ends: that of the rank, not of a process that it has forked."""
        if self._leaves.is_set() or os.getpid() != self._process:
            return
        self._leaves.set()
        if self._thread is not None:
            self._thread.join()
            self._say(LEFT)
        self._last_word.goodbye()

    def _end(self, text: str) -> None:
        self._last_word.silence()
        tell(f"{text}; the job ends")
        self.comm.Abort(STATUS)


def tell(text: str) -> None:
    """A line on stderr, also where Python's is something else."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"graphc: {text}\n".encode())
