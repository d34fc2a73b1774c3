"""Steps on several ranks of this machine, a model of their time fitted to them, and what it says of a cluster.

With a link ("1gbit,1ms") each rank has a machine of its own behind one that lets so much pass in a second, after so
long (`slow_network.py`): where the network is what takes the time.
"""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import graphc as gc
from graphc import nn, optim
from graphc.errors import GraphError
from graphc.shard_tree import Sums, right_edge

SHARDS, ROWS, WIDTH, TURNS = 8, 256, 1024, 7
COUNTS = (1, 2, 3, 4, 6, 8)
LINKS = {"100 Gb/s": (8e-6, 12.5e9), "10 Gb/s": (30e-6, 1.25e9)}        # seconds of a message, bytes a second
FAR = (1, 2, 8, 64, 1024)
ADDING = 8e9                            # bytes that a rank adds in a second
BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
KEPT = 2                                # rounds of short messages in a step, which keep the ranks together


@dataclass(frozen=True)
class Ranked:
    """What `count` ranks have measured: seconds of a step, of the exchange of the gradients in it, of a round of short
    messages, of one shard and of the update, and the bytes of gradients and of what the busiest rank and all ranks
    send of them."""
    count: int
    step: float
    exchange: float
    round: float
    shard: float
    update: float
    gradients: int
    most: int


def job() -> None:
    """What each rank does; the first prints what it has measured."""
    net = nn.Linear(2 * WIDTH) >> nn.relu >> nn.Linear(WIDTH)
    step = gc.distributed(gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(1e-3), x=gc.f32[ROWS, WIDTH], threads=1,
                                        y=gc.f32[ROWS, WIDTH], seed=0, shards=SHARDS))
    draw, rows, ranks, program = np.random.default_rng(0), step.part(ROWS), step.ranks, step.sharded
    x, y = (draw.normal(size=(ROWS, WIDTH)).astype("f4") for _ in range(2))
    mine = (x[rows], y[rows])
    types, shard = program.graph().types[:program.graph().summed], program.gradients()[0]
    sums = {span: Sums(types) for span in program.subtree_sums(lambda number: Sums(types), lambda done: None)}
    inputs = [*(a[:ROWS // SHARDS] for a in (x, y)), np.array(1.0), np.array(0)]
    part = Sums(types)
    nothing = program.nothing(types).arrays[1:] * (len(right_edge(SHARDS)) - 1)

    def measured(call) -> float:
        """The median of the seconds that the slowest rank takes."""
        times = []
        for _ in range(TURNS):
            ranks.gathered((), "a turn")
            start = time.perf_counter()
            call()
            times.append(float(np.max(ranks.gathered((time.perf_counter() - start,), "its time"))))
        return float(np.median(times[2:]))
    whole = measured(lambda: step(*mine))
    before = ranks.sent
    ranks.summed(sums, SHARDS)
    sent = ranks.gathered((ranks.sent - before,), "bytes")
    found = Ranked(ranks.count, whole, measured(lambda: ranks.summed(sums, SHARDS)),
                   measured(lambda: ranks.gathered((), "nothing")),
                   measured(lambda: shard.serving(inputs).into(inputs, part.arrays)),
                   measured(lambda: program.update(*part.arrays[1:], *nothing)),
                   sum(flat.nbytes for flat in part.flats.values()), int(sent.max()))
    if ranks.rank == 0:
        print(json.dumps(vars(found)), flush=True)


@dataclass(frozen=True)
class Link:
    """A link of each machine: seconds until a message comes, bytes a second that pass."""
    seconds: float
    rate: float

    @staticmethod
    def of(text: str) -> Link:
        """Of "1gbit" or "1gbit,1ms". GraphError for another text."""
        rate, _, seconds = text.partition(",")
        return Link(quantity(seconds or "0ms", SECONDS), quantity(rate, BITS) / 8)


def quantity(text: str, units: Mapping[str, float]) -> float:
    """A number with one of these units."""
    for unit, size in units.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal():
            return float(number) * size
    raise GraphError(f"a link between ranks is a rate and a delay, 1gbit or 100mbit,2ms; got {text!r}")


def launched(count: int, link: Link | None) -> Ranked:
    """The measurements of so many ranks."""
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise GraphError("there is no mpiexec: pip install mpi4py mpich")
    command = [mpiexec, "-n", str(count), sys.executable, "-m", "benchmarks.ranks"]
    if link:
        command = ["unshare", "-rn", sys.executable, "-m", "benchmarks.slow_network", str(count), str(link.seconds),
                   str(link.rate), mpiexec, *command[3:]]
    env = os.environ | {"GRAPHC_THREADS": "1"}      # each rank believes that it has the machine
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise GraphError(f"{count} ranks ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return Ranked(**json.loads(done.stdout.splitlines()[-1]))


def fitted(found: list[Ranked]) -> tuple[float, float]:
    """(seconds of a message, seconds for a byte, additions included) that fit the exchanges best, in relation to their
    time."""
    several = [one for one in found if one.count > 1]
    facts = np.array([[messages(one.count), one.most] for one in several], float)
    times = np.array([one.exchange for one in several])
    scaled = facts / times[:, None]
    both, *_ = np.linalg.lstsq(scaled, np.ones(len(times)), rcond=None)
    if (both < 0).any():                # one of the two cannot be seen beside the other
        place = int(np.argmax(both))
        both = np.zeros(2)
        both[place] = 1 / np.mean(scaled[:, place])
    return float(both[0]), float(both[1])


def messages(count: int) -> int:
    """That one rank waits for in an exchange: halving and doubling."""
    return 2 * (count - 1).bit_length()


def main(text: str = "") -> None:
    """Measures, fits, and carries it to a cluster; prints Markdown."""
    cores, link = len(os.sched_getaffinity(0)), Link.of(text) if text else None
    found = [launched(count, link) for count in COUNTS]
    alone = found[0]
    alpha, byte = fitted(found)
    print(f"MLP {WIDTH}-{2 * WIDTH}-{WIDTH}, {ROWS} rows in {SHARDS} shards, one thread for each rank, {cores} cores"
          f"{f', a machine behind a link of {text} for each' if link else ''}: {alone.shard * 1e3:.2f} ms for a shard, "
          f"{alone.update * 1e3:.2f} ms for the update, {alone.gradients / 1e6:.1f} MB of gradients\n")
    print(f"fitted: {alpha * 1e6:.0f} µs for a message, {1e-9 / byte:.2f} GB/s, additions included\n")
    print("| ranks | step | model | exchange | model | sent by the busiest rank / gradients | round |\n|" + "---|" * 7)
    rest = alone.step - SHARDS * alone.shard - alone.update         # the additions on one rank, and Python
    for one in found:
        exchange = messages(one.count) * alpha + one.most * byte if one.count > 1 else 0.0
        kept = KEPT * messages(one.count) / 2 * alpha
        busy = max(1.0, one.count / cores)
        computing = busy * (-(-SHARDS // one.count) * alone.shard + alone.update + max(rest, 0.0) / one.count)
        print(f"| {one.count} | {one.step * 1e3:.1f} ms | {(computing + exchange + kept) * 1e3:.1f} ms | "
              f"{one.exchange * 1e3:.2f} ms | {exchange * 1e3:.2f} ms | {one.most / one.gradients:.2f} | "
              f"{one.round * 1e6:.0f} µs |")
    if not link:
        print("\nOne shard on each machine, predicted:\n\n| link | " + " | ".join(f"{n:,}" for n in FAR) + " |\n|"
              + "---|" * (len(FAR) + 1))
        for name, link in LINKS.items():
            times = [predicted(n, alone.shard, alone.update, alone.gradients, *link) for n in FAR]
            print(f"| {name} | " + " | ".join(f"{t * 1e3:.1f} ms" for t in times) + " |")


def predicted(count: int, shard: float, update: float, gradients: float, alpha: float, rate: float) -> float:
    """Seconds of a step on so many machines, a shard on each (docs/distributed.md)."""
    rounds = (count - 1).bit_length()
    return (shard + update + 4 * rounds * alpha + (1 - 1 / count) * gradients * (2 / rate + 1 / ADDING))


if __name__ == "__main__":
    job()
