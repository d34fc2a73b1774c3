"""What is said of a rank that is killed: by then launchers have killed the others too, and name a process, no rank.

A shell beside each rank reads from it. When the rank ends without having said goodbye, the first such shell of a
machine says which rank it was: a killed process closes its pipe before the launcher learns of it. That shell has to be
quicker than the launcher is with the others: until it has spoken it starts no process.
"""
from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE = 2.0                      # seconds for which a rank waits for its shell
GOODBYE, SILENCE = b"goodbye\n", b"silence\n"
SCRIPT = """read word; [ "$word" = goodbye ] && exit
set -C; { true > "$0"; } 2>/dev/null || exit
[ "$word" ] || echo "$1" >&2
exec >&- 2>&-; sleep 10; rm -f "$0"
"""


class LastWord:
    """The shell beside one rank. `job`: a name that no other job on the machine has."""

    def __init__(self, rank: int, count: int, job: str):
        text = (f"graphc: rank {rank} of {count} (process {os.getpid()} on {socket.gethostname()}) has died; the "
                "others cannot go on without it")
        self._place = Path(tempfile.gettempdir()) / f"graphc-{job}"
        self._shell = subprocess.Popen(["sh", "-c", SCRIPT, str(self._place), text], stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, start_new_session=True, cwd="/")

    def goodbye(self) -> None:
        """The rank ends as it should: nothing is to be said."""
        self._shell.communicate(GOODBYE)

    def silence(self) -> None:
        """The rank has said what there is to say, and ends the others."""
        pipe = self._shell.stdin
        if pipe is not None:
            pipe.write(SILENCE)
            pipe.flush()
        patience = time.monotonic() + PATIENCE
        while not self._place.exists() and time.monotonic() < patience:
            time.sleep(0.01)
