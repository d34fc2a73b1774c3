"""Where ranks wait for each other before they have heard of each other: nobody watches them yet, and one whose program
has failed on its way here waits for the others too, at the end of MPI."""
from __future__ import annotations

import time

import numpy as np

from graphc.doors.mpi.heartbeat import tell
from graphc.doors.mpi.wires import LONGEST, MPI


def await_all(comm: MPI.Intracomm, patience: float) -> None:
    """Until all ranks of `comm` are here. Those of whom nothing was heard after so many seconds are named on stderr, by
    one rank: nobody knows whether they will come, so the others go on waiting.

    Each rank hands a byte to all others: collectively, as messages between two ranks could be taken for those of the
    program.
    """
    rank, count = comm.Get_rank(), comm.Get_size()
    words = np.zeros((count, 1), np.int8)
    heard = [comm.Ibcast((word, MPI.BYTE), root) for root, word in enumerate(words)]
    begun, told = time.monotonic(), False
    while not MPI.Request.Testall(heard):
        time.sleep(LONGEST)
        if not told and time.monotonic() - begun > patience:
            told = True
            missing = [origin for origin, request in enumerate(heard) if not request.Test()]
            if missing and rank == (missing[0] == 0):
                tell(f"rank {rank} of {count} has waited at gc.distributed for {patience:.0f} seconds, and heard "
                     f"nothing of rank {', '.join(map(str, missing))}: has it failed before, or is it slow? "
                     "(mpiexec python -m mpi4py … ends the job when a rank fails)")
