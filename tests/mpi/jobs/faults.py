"""python faults.py WHAT: ranks that differ, or of which one goes. Each rank prints what it was told."""
from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI
from networks import NETWORKS, ROWS, data

import graphc as gc
from graphc import nn, optim
from graphc.doors.mpi import arrival

WHAT, RANK = sys.argv[1], MPI.COMM_WORLD.Get_rank()
ODD = RANK == 1                     # the rank that is not like the others
SILENCE = 6.0                       # a rank of a busy machine says something in less


def told(what, call):
    """Prints the error that a call raises."""
    try:
        call()
        text = "nothing"
    except (gc.GraphError, OSError) as error:
        text = getattr(error, "text", f"{type(error).__name__}: {error}")
    print(f"{what} {RANK}: {text}\n", end="", flush=True)


def differing():
    """Ranks that have made other steps, or have another communicator; first one that comes late."""
    shards = {"shards": 8 if ODD else 4, "few": 1}
    awaited(plain())
    told("kind", lambda: gc.distributed(nn.Linear(1) if ODD else plain()))
    some = MPI.COMM_WORLD.Split(MPI.UNDEFINED if ODD else 0)
    told("apart", lambda: gc.distributed(plain(), some))
    for what in ("graph", "shards", "few", "state"):
        step = NETWORKS["transformer" if what == "graph" and ODD else "cnn"](shards=shards.get(what, 4))
        if what == "state" and ODD:
            step.state["0.weight"] = step.state["0.weight"] * 2
        told(what, lambda: gc.distributed(step))


def plain():
    """A small step."""
    return gc.train_step(nn.Linear(1), loss=nn.mse, optimizer=optim.SGD(0.1), shards=2, seed=0, x=gc.f32["B", 2],
                         y=gc.f32["B", 1])


def awaited(step):
    """Rank 1 comes when rank 0 has said that it is missing."""
    said = arrival.tell

    def tell(text):
        said(text)
        MPI.COMM_WORLD.send("come", 1)
    arrival.tell = tell
    if ODD:
        MPI.COMM_WORLD.recv(source=0)
    gc.distributed(step, timeout=1.1)


def early():
    """Rank 1 fails on its way to the others, as when its data are not there."""
    if ODD:
        raise OSError("no disk")
    gc.distributed(plain())


def astray():
    """Ranks that read other data, deal what is no batch, write other values, or fork."""
    step, x, y = gc.distributed(plain()), np.ones((4, 2), "f4"), np.ones((4, 1), "f4")

    def batches(count, error=False):
        for _ in range(count):
            yield x, y
        if error:
            raise OSError("no disk")
    told("lengths", lambda: step.fit(lambda: batches(3 - ODD)))
    told("loader", lambda: step.fit(lambda: batches(2, error=ODD)))
    told("validation", lambda: step.fit(lambda: batches(1), validation=(x + RANK, y)))
    told("dealt", lambda: step.scatter(*(() if ODD else (x, y[:3]))))
    told("objects", lambda: step.scatter(*(() if ODD else (x.astype(object), y))))
    child = os.fork()
    if not child:
        told("forked", lambda: step(x, y))
        os._exit(0)
    os.waitpid(child, 0)
    step(x, y)                      # the job can go on
    step.state["bias"] = np.full(1, RANK, "f4")
    told("values", lambda: step(x, y))
    MPI.Finalize()
    told("ended", lambda: step(x, y))
    told("begun", lambda: gc.distributed(plain()))


def mistaken():
    """Calls that cannot go on. What they leave is as it was."""
    step, (x, y) = gc.distributed(NETWORKS["cnn"](shards=4)), data("cnn")
    rows = step.part(ROWS)
    batch = x[rows], y[rows]
    step(*batch)
    before = {name: step.state[name] for name in step.state}
    told("index", lambda: step(batch[0], np.full_like(batch[1], 99) if ODD else batch[1]))
    told("rows", lambda: step(x[:3], y[:3]) if ODD else step(*batch))
    told("file", lambda: step.load("/nowhere/at.all"))
    told("examples", lambda: step.fit(x[:40] if ODD else x, y[:40] if ODD else y, batch=ROWS))
    told("epochs", lambda: step.fit(x, y, batch=ROWS, epochs=2 - ODD))
    told("batches", lambda: gc.batches(x, y, size=ROWS, seed=3 + ODD, step=step))
    told("scatter", lambda: step.scatter(x[:ROWS], y[:ROWS]))
    uneven = gc.distributed(gc.train_step(lambda x: gc.mean(gc.shard_sum(nn.Linear(1)(x))), shards=2, seed=0,
                                          optimizer=optim.SGD(0.1), x=gc.f32[5, 2]))
    told("uneven", lambda: uneven(np.ones((3 - ODD, 2), "f4")))
    told("calls", lambda: step.save("/nowhere/at.all") if ODD else step(*batch))
    assert all(np.array_equal(step.state[name], a) for name, a in before.items())
    step(*batch)                    # the job can go on
    if ODD:
        step.lr = 0.5
    told("written", lambda: step(*batch))


def going():
    """One rank goes, the other waits for it."""
    patience = {"timeout": SILENCE} if WHAT == "silent" else {}
    step, (x, y) = gc.distributed(NETWORKS["cnn"](shards=4), **patience), data("cnn")
    rows = step.part(ROWS)
    step(x[rows], y[rows])
    if ODD:
        Path(sys.argv[2]).write_text(str(time.time()))
    if ODD and WHAT == "leaves":
        raise SystemExit(3)
    if ODD and WHAT == "interrupted":
        step.ranks.wires.alarm = lambda: os.kill(os.getpid(), signal.SIGINT)        # while it waits for rank 0
        try:
            step(x[rows], y[rows])
        except KeyboardInterrupt:
            told("again", lambda: step(x[rows], y[rows]))
        Path(sys.argv[2] + ".told").touch()
        time.sleep(60)              # it lives on, and does nothing
    if ODD:
        os.kill(os.getpid(), signal.SIGSTOP if WHAT == "silent" else signal.SIGKILL)
    while WHAT == "interrupted" and not Path(sys.argv[2] + ".told").exists():
        time.sleep(0.05)
    time.sleep(0.05)
    step(x[rows], y[rows])


{"differing": differing, "mistaken": mistaken, "astray": astray, "early": early}.get(WHAT, going)()
