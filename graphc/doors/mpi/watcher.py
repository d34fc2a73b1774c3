"""python watcher.py SOCKET: a process beside the ranks of one machine, which are connected to it. The first that ends
without a goodbye has died: what it said when it came is written on stderr. Those that the launcher ends then come after
it, and their ends are seen in this order, however late this process is with it: the system keeps a queue of them.

Run by its path, without graphc.
"""
from __future__ import annotations

import os
import select
import socket
import struct
import sys

GOODBYE, SILENCE = b"goodbye\n", b"silence\n"


def watch(listening: socket.socket) -> None:
    """Until all ranks that came have gone, or one has died."""
    ready, ranks, said = select.epoll(), dict[int, socket.socket](), dict[int, bytes]()
    ready.register(listening, select.EPOLLIN)
    while True:
        for number, _ in ready.poll():
            if number == listening.fileno():
                rank, _ = listening.accept()
                if own(rank):
                    ranks[rank.fileno()], said[rank.fileno()] = rank, b""
                    ready.register(rank, select.EPOLLIN)
                continue
            more, ended = heard(ranks[number])
            said[number] += more
            if said[number].endswith(SILENCE):
                return
            if ended and not said[number].endswith(GOODBYE):
                os.write(2, said[number])
                return
            if ended:
                ready.unregister(ranks.pop(number))
                if not ranks:
                    return


def heard(rank: socket.socket) -> tuple[bytes, bool]:
    """(what it has said, whether that was all)."""
    text = b""
    try:
        while more := rank.recv(4096, socket.MSG_DONTWAIT):
            text += more
    except BlockingIOError:
        return text, False
    except ConnectionError:                     # it died with something unread
        pass
    return text, True


def own(rank: socket.socket) -> bool:
    """Whether it is a process of the same user."""
    _, user, _ = struct.unpack("3i", rank.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(user == os.getuid())


if __name__ == "__main__":
    watch(socket.socket(fileno=int(sys.argv[1])))
