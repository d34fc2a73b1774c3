"""What is said of a rank that is killed: by then launchers have killed the others too, and name a process, no rank."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from graphc.doors.mpi.watcher import GOODBYE, SILENCE
from graphc.doors.mpi.wires import MPI

PATIENCE = 2.0                      # seconds for which a rank waits until the watcher has heard it
WATCHER = Path(__file__).with_name("watcher.py")


class LastWord:
    """The connection of one rank to the watcher of its machine (`watcher.py`). `job`: a name that no other job on the
    machine has."""

    def __init__(self, comm: MPI.Intracomm, job: str):
        name = f"\0graphc-{job}"                # of no file
        beside = comm.Split_type(MPI.COMM_TYPE_SHARED)
        if beside.Get_rank() == 0:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(name)
                listening.listen(beside.Get_size())
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(WATCHER), str(listening.fileno())], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, pass_fds=[listening.fileno()], start_new_session=True, cwd="/")
        beside.Barrier()
        self._watcher = socket.socket(socket.AF_UNIX)
        self._send(f"graphc: rank {comm.Get_rank()} of {comm.Get_size()} (process {os.getpid()} on "
                   f"{socket.gethostname()}) has died; the others cannot go on without it\n".encode(), name)
        os.register_at_fork(after_in_child=self._watcher.close)     # a forked process may live longer than the rank
        beside.Barrier()
        beside.Free()

    def _send(self, text: bytes, to: str = "") -> None:
        """Without a watcher, whom somebody may have ended, there is no last word."""
        with suppress(OSError):
            if to:
                self._watcher.connect(to)
            self._watcher.sendall(text)

    def goodbye(self) -> None:
        """The rank ends as it should: nothing is to be said."""
        self._send(GOODBYE)
        self._watcher.close()

    def silence(self) -> None:
        """The rank has said what there is to say, and ends the others."""
        self._watcher.settimeout(PATIENCE)
        self._send(SILENCE)
        with suppress(OSError):
            self._watcher.recv(1)               # until the watcher is gone
