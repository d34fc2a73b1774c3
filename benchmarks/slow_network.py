"""A network of several machines on this one, whose links take time and let only so much pass: for jobs of MPI where
the kernel's `tc` has no delays. It takes `unshare`, `nsenter` and `ip` of Linux, and /dev/net/tun.

    unshare -rn python -m benchmarks.slow_network RANKS SECONDS BYTES-A-SECOND MPIEXEC COMMAND …

Each machine is a network namespace with one link. This process reads what goes into the links, and writes it to that of
the other machine when its last byte would be there: what leaves a machine, or comes to it, does so one after the other.
"""
from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from threading import Thread

TUN, TUNSETIFF, PLAIN = "/dev/net/tun", 0x400454CA, 0x1001      # packets of IP, without a header of the device's own
LINK, LONGEST = "link0", 60_000                                 # bytes of a packet: few of them for many bytes
SENDER, RECEIVER = 15, 19                                       # bytes of a packet: numbers of machines, from 1
SHORT = 50e-6                                                   # seconds that are not slept
# MPICH: no shared memory, TCP
SETTINGS = {"MPIR_CVAR_NOLOCAL": "1", "MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": LINK}
# what MPICH's launcher calls instead of ssh: HOST COMMAND
ENTER = """#!/bin/sh
[ "$1" = -x ] && shift
eval process=\\$MACHINE_$(echo "$1" | tr . _)
shift
exec nsenter -t "$process" -n sh -c "$*"
"""


def address(number: int) -> str:
    """Of a machine."""
    return f"10.9.0.{number + 1}"


def machine(number: int, channel: socket.socket) -> None:
    """In the namespace of a machine: gives the other end of its link away, and stays until nobody wants it."""
    link = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(link, TUNSETIFF, struct.pack("16sH", LINK.encode(), PLAIN))
    for command in (f"ip address add {address(number)}/24 dev {LINK}", f"ip link set dev {LINK} mtu {LONGEST} up",
                    "ip link set dev lo up"):
        subprocess.run(command.split(), check=True)
    socket.send_fds(channel, [b"link"], [link])
    os.close(link)
    channel.recv(1)


def machines(count: int) -> tuple[list[int], list[int], list[socket.socket]]:
    """(links, processes, what keeps these)."""
    links, processes, channels = [], [], []
    for number in range(count):
        mine, theirs = socket.socketpair()
        with theirs:
            processes.append(subprocess.Popen(
                ["unshare", "-n", sys.executable, "-m", "benchmarks.slow_network", "machine", str(number),
                 str(theirs.fileno())], pass_fds=[theirs.fileno()]).pid)
        links += socket.recv_fds(mine, 8, 1)[1]
        channels.append(mine)
    return links, processes, channels


def pass_on(links: Sequence[int], seconds: float, rate: float) -> None:
    """Packets, for ever."""
    ready = selectors.DefaultSelector()
    for link in links:
        ready.register(link, selectors.EVENT_READ)
    leaving, coming = ([0.0] * len(links) for _ in range(2))    # when each link is done with what was before
    waiting: list[tuple[float, int, int, bytes]] = []           # (when, which it is, to, packet)
    number = 0
    while True:
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, packet = heappop(waiting)
            os.write(links[to], packet)
        pause = waiting[0][0] - time.monotonic() if waiting else None
        for key, _ in ready.select(pause if pause is None or pause > SHORT else 0):
            packet = os.read(key.fd, LONGEST)
            to = packet[RECEIVER] - 1
            if packet[0] >> 4 == 4 and 0 <= to < len(links):        # no neighbour discovery of IPv6
                origin, taking = packet[SENDER] - 1, len(packet) / rate
                leaving[origin] = max(leaving[origin], time.monotonic()) + taking
                coming[to] = max(coming[to] + taking, leaving[origin])
                number += 1
                heappush(waiting, (coming[to] + seconds, number, to, packet))


def run(count: int, seconds: float, rate: float, mpiexec: str, command: Sequence[str], folder: Path) -> int:
    """The status of the job, a rank on each machine."""
    links, processes, channels = machines(count)
    Thread(target=pass_on, args=(links, seconds, rate), daemon=True).start()
    enter = folder / "enter"
    enter.write_text(ENTER)
    enter.chmod(0o700)
    known = {f"MACHINE_{address(number).replace('.', '_')}": str(pid) for number, pid in enumerate(processes)}
    whole = ["nsenter", "-t", str(processes[0]), "-n", mpiexec, "-launcher", "ssh", "-launcher-exec", str(enter),
             "-localhost", address(0), "-hosts", ",".join(map(address, range(count))), "-n", str(count), *command]
    done = subprocess.run(whole, env=os.environ | SETTINGS | known, check=False)
    for channel in channels:
        channel.close()
    return done.returncode


def main(arguments: Sequence[str]) -> int:
    """As the module says."""
    if arguments[0] == "machine":
        with socket.socket(fileno=int(arguments[2])) as channel:
            machine(int(arguments[1]), channel)
        return 0
    count, seconds, rate, mpiexec, *command = arguments
    with tempfile.TemporaryDirectory() as folder:
        return run(int(count), float(seconds), float(rate), mpiexec, command, Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
