"""The entry: a step whose shards are those of several ranks."""
from __future__ import annotations

import os
import socket
from collections import Counter

from graphc.config import config
from graphc.doors.mpi.arrival import await_all
from graphc.doors.mpi.agreement import BEGIN, agree
from graphc.doors.mpi.communicator import Communicator
from graphc.doors.mpi.heartbeat import BEAT, Heartbeat
from graphc.doors.mpi.wires import MPI
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import real
from graphc.runtime.pool import default_threads
from graphc.train import TrainStep

TIMEOUT = 20.0                      # seconds of silence


@formed
def distributed(step: TrainStep, comm: MPI.Intracomm | None = None, *, timeout: float = TIMEOUT) -> TrainStep:
    """The ranks of `comm` (all of the job by default) share the shards of `step`, which each of them has made by the
    same lines: rank r of n computes the gradients of its block of the shards, all are added in the tree that one
    process has, and each rank makes the same update. Gives the step, which has the same bytes of state for any number
    of ranks and threads:

        step = gc.distributed(gc.train_step(net, …, x=gc.f32[64, 784], y=gc.i32[64], shards=8))
        step.fit(x, y)                  # each rank reads its rows of each batch
        step(x[rows], y[rows])          # a rank gives its rows, rows = step.part(64)
        step.scatter(x, y)              # rank 0 gives all rows, the others call step.scatter()

    n is any number up to that of the shards, best one that divides it. All ranks make the same calls in the same order,
    and return the same. `step.save`: rank 0 writes; `step.load`: it reads, and all get what it read. Where `threads=`
    does not say it, ranks of one machine share its cores.

    GraphError where the ranks differ in graph, state, shards, versions or the CPU that code is made for. A rank that
    dies, or ends its program, ends the others: with a message after `timeout` seconds of silence, or when the launcher
    notices.
    """
    if not MPI.Is_initialized() or MPI.Is_finalized():
        raise GraphError("gc.distributed works while MPI does: after MPI.Init, and before MPI.Finalize", user_loc())
    comm = MPI.COMM_WORLD if comm is None else comm
    if not isinstance(comm, MPI.Intracomm) or not comm:
        raise GraphError("comm= takes a communicator of mpi4py such as MPI.COMM_WORLD, got "
                         f"{type(comm).__name__}{' without ranks' if comm == MPI.COMM_NULL else ''}", user_loc())
    wrong, seconds = None, TIMEOUT
    try:
        seconds = _checked(step, comm.Get_size(), timeout)
    except GraphError as found:                 # the others wait for what it is
        wrong = found
    await_all(comm, seconds)
    heartbeat = Heartbeat.of(comm, seconds)
    ranks = Communicator(comm, heartbeat.alarm, heartbeat.lost)
    try:
        ranks.gathered((), BEGIN, wrong)
        threads = threads_of_rank(ranks)
        agree(ranks, step.sharded)
    except GraphError as found:
        raise found.at(user_loc()) from None
    step.join(ranks, threads)
    return step


def _checked(step: TrainStep, count: int, timeout: float) -> float:
    """The seconds of silence. GraphError for a step that so many ranks cannot share."""
    if not isinstance(step, TrainStep) or step.recipe.shards is None:
        raise GraphError("gc.distributed takes a training step with shards: gc.train_step(…, shards=8)", user_loc())
    seconds = real(timeout, "timeout")
    if not seconds > BEAT:
        raise GraphError(f"timeout= is seconds, more than the {BEAT:g} between two signs of life, got {seconds:g}",
                         user_loc())
    if count > step.recipe.shards:
        raise GraphError(f"shards={step.recipe.shards} is too few for {count} ranks: each computes at least one",
                         user_loc())
    return seconds


def threads_of_rank(ranks: Communicator) -> int:
    """Threads of a rank whose machine other ranks share: of each core that it may use as much as is its own."""
    if config().threads:
        return config().threads
    cpus = sorted(os.sched_getaffinity(0))
    every = ranks.objects((socket.gethostname(), cpus), "the cores of the ranks")
    sharing = Counter(cpu for host, known in every for cpu in known if host == socket.gethostname())
    own = sum(1 / sharing[cpu] for cpu in cpus)
    return max(1, int(default_threads() * own / len(cpus)))
