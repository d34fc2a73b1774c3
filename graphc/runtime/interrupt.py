"""Ctrl-C during one long native call.

Python runs signal handlers in the main thread only, between two of its instructions: a native call there blocks them.
So a long call of the main thread is made by a helper thread while the main thread waits, which handlers can interrupt;
an exception from a handler sets the call's cancel word, which native code reads between tiles and kernels, and is
raised when the call has returned.
"""
from __future__ import annotations

import os
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from graphc.errors import GraphError
from graphc.runtime.fork import call_after_fork

POLL_SECONDS = 0.05

_jobs: SimpleQueue[_Job] | None = None


class _Job:
    """A call on its way to the helper, which keeps alive what the call needs. Whoever acquires `claim` first, helper or
    interrupted caller, decides whether it runs; nobody gives that back."""

    def __init__(self, call: Callable[[], object]):
        self.call = call
        self.cpus = os.sched_getaffinity(0)
        self.claim = threading.Lock()
        self.done = threading.Lock()        # released when the call is back; `finished` says so whoever takes the lock
        self.done.acquire()
        self.finished = False
        self.value: object = None
        self.error: BaseException | None = None

    def run(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        try:
            self.value = self.call()
        except BaseException as error:      # handed to the caller, whatever it is
            self.error = error
        finally:
            self.finished = True
            self.done.release()


def call_interruptibly(call: Callable[[], object], cancel: Callable[[], None]) -> object:
    """`call()`, made by the helper when this is the main thread; an exception of a signal handler calls `cancel` and is
    raised afterwards.

    Where no helper can be had (the interpreter exits, or the system gives no thread) the call is made here, and Ctrl-C
    waits for it.
    """
    jobs = _helper() if threading.current_thread() is threading.main_thread() and not sys.is_finalizing() else None
    if jobs is None:
        return call()
    job = _Job(call)
    try:
        jobs.put(job)
        # A signal that another thread took, or that came just before, does not end a wait.
        while not job.done.acquire(timeout=POLL_SECONDS):
            if jobs is not _jobs:
                raise GraphError("a signal handler forked in the middle of a call, which this process, the child, "
                                 "cannot go on with")
    except BaseException:
        if jobs is _jobs and not job.claim.acquire(blocking=False):
            cancel()
            _wait(job)
        raise
    if job.error is not None:
        raise job.error
    return job.value


def _wait(job: _Job) -> None:
    """Until the cancelled call is back, whatever signals still come: its results are being written."""
    while not job.finished:
        try:
            job.done.acquire(timeout=POLL_SECONDS)
        except BaseException:               # the first exception is on its way already
            continue


def _helper() -> SimpleQueue[_Job] | None:
    """The queue of the helper thread, started at the first use and known only when it runs. None when the system gives
    no thread."""
    global _jobs
    if _jobs is None:
        jobs: SimpleQueue[_Job] = SimpleQueue()
        try:
            # One step: `Thread.start` waits in Python, where an exception may part us from the thread.
            start_new_thread(_serve, (jobs,))
        except RuntimeError:
            return None
        _jobs = jobs
    return _jobs


def _serve(jobs: SimpleQueue[_Job]) -> None:
    """Runs where the thread it works for may run, also after that has changed."""
    while True:
        job = jobs.get()
        if job.cpus != os.sched_getaffinity(0):
            with suppress(OSError):         # the CPUs may be gone by now
                os.sched_setaffinity(0, job.cpus)
        job.run()
        del job                             # and with it the arrays of the call


@call_after_fork
def _forget_helper() -> None:
    global _jobs
    _jobs = None
