"""python faults.py WHAT: ranks that differ, or of which one goes. Each rank prints what it was told."""
from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI
from networks import NETWORKS, ROWS, data

import graphc as gc

WHAT, RANK = sys.argv[1], MPI.COMM_WORLD.Get_rank()
ODD = RANK == 1                     # the rank that is not like the others


def made(what):
    if what == "graph" and ODD:
        return NETWORKS["transformer"](shards=4)
    if what == "knob" and ODD:
        os.environ["GRAPHC_WINOGRAD"] = "0"
    step = NETWORKS["cnn"](shards=8 if what == "shards" and ODD else 3 if what == "indivisible" else 4)
    if what == "state" and ODD:
        step.state["0.weight"] = step.state["0.weight"] * 2
    return step


def told(call):
    """Prints the error that a call raises."""
    try:
        call()
        print(f"{RANK}: nothing\n", end="", flush=True)
    except gc.GraphError as error:
        print(f"{RANK}: {error.text}\n", end="", flush=True)


def differing():
    told(lambda: gc.distributed(made(WHAT)))


def used():
    """Mistakes after the beginning."""
    step, (x, y) = gc.distributed(made(""), timeout=float(os.environ.get("TIMEOUT", "20"))), data("cnn")
    rows = step.part(ROWS)
    batch = x[rows], y[rows]
    step(*batch)
    before = {name: step.state[name] for name in step.state}
    if WHAT == "index":
        told(lambda: step(batch[0], np.full_like(batch[1], 99) if ODD else batch[1]))
        assert all(np.array_equal(step.state[name], a) for name, a in before.items())
        step(*batch)                # the job goes on
    elif WHAT == "rows":
        told(lambda: step(x[:3], y[:3]) if ODD else step(*batch))
        step(*batch)
    elif WHAT == "calls":
        told(lambda: step.save(sys.argv[2]) if ODD else step(*batch))
    elif WHAT == "written":
        if ODD:
            step.lr = 0.5
        told(lambda: step(*batch))
    elif WHAT == "file":
        told(lambda: step.load("/nowhere/at.all"))
    elif WHAT == "leaves":
        if ODD:
            raise SystemExit(3)
        told(lambda: step(*batch))
    elif WHAT == "silent":
        if ODD:
            os.kill(os.getpid(), signal.SIGSTOP)
        told(lambda: step(*batch))
    elif WHAT == "killed":
        if ODD:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        told(lambda: step(*batch))


if WHAT in ("graph", "knob", "shards", "indivisible", "state"):
    differing()
else:
    used()
