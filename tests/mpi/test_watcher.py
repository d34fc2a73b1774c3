"""Who of several ranks has died, by a watcher that is late: the ends of connections are seen in their order."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import graphc

WATCHER = Path(graphc.__file__).parent / "doors/mpi/watcher.py"


@pytest.mark.parametrize("ends, said", [
    ([(0, b"goodbye\n"), (2, b""), (1, b""), (3, b"")], b"rank 2\n"),
    ([(3, b""), (0, b"goodbye\n"), (1, b""), (2, b"")], b"rank 3\n"),
    ([(1, b"silence\n"), (0, b""), (2, b""), (3, b"")], b""),
    ([(3, b"goodbye\n"), (2, b"goodbye\n"), (1, b"goodbye\n"), (0, b"goodbye\n")], b""),
])
def test_the_first_that_ended_is_named(ends, said):
    name = f"\0test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen(len(ends))
        watcher = subprocess.Popen([sys.executable, "-I", "-S", str(WATCHER), str(listening.fileno())],
                                   pass_fds=[listening.fileno()], stderr=subprocess.PIPE)
    ranks = [socket.socket(socket.AF_UNIX) for _ in ends]
    for number, rank in enumerate(ranks):
        rank.connect(name)
        rank.sendall(f"rank {number}\n".encode())
    while len(os.listdir(f"/proc/{watcher.pid}/fd")) < 5 + len(ends):        # three streams, what listens, its queue
        time.sleep(0.01)
    os.kill(watcher.pid, signal.SIGSTOP)
    for number, word in ends:
        ranks[number].sendall(word)
        ranks[number].close()
    os.kill(watcher.pid, signal.SIGCONT)
    assert watcher.communicate(timeout=60) == (None, said)
