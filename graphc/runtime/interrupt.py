"""Ctrl-C during one long native call.

Python runs signal handlers in the main thread only, between two of its instructions: a native call there blocks them. So a long call of
the main thread is made by a helper thread while the main thread waits, which handlers can interrupt; an exception from a handler sets the
call's cancel word, which native code reads between tiles and kernels, and is raised when the call has returned.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from graphc.runtime.fork import call_after_fork

POLL_SECONDS = 0.05

_jobs: SimpleQueue | None = None


class _Job:
    """A call on its way to the helper. Whoever acquires `claim` first, helper or interrupted caller, decides whether it runs."""

    def __init__(self, call: Callable[[], object]):
        self.call = call
        self.claim = threading.Lock()
        self.done = threading.Lock()        # released when the call is back; `finished` says the same, whoever took the lock since
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
        self.finished = True
        self.done.release()


def call_interruptibly(call: Callable[[], object], cancel: Callable[[], None]) -> object:
    """`call()`, made by the helper when this is the main thread; an exception of a signal handler calls `cancel` and is raised afterwards."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    job = _Job(call)
    try:
        _helper().put(job)
        while not job.done.acquire(timeout=POLL_SECONDS):
            pass                            # a signal that another thread took, or that came just before this one waited, does not end a wait
    except BaseException:
        if not job.claim.acquire(blocking=False):
            cancel()
            _wait(job)
        raise
    if job.error is not None:
        raise job.error
    return job.value


def _wait(job: _Job) -> None:
    """Until the cancelled call is back, whatever signals still come: its memory must stay."""
    while not job.finished:
        try:
            job.done.acquire(timeout=POLL_SECONDS)
        except BaseException:               # the first exception is on its way already
            continue


def _helper() -> SimpleQueue:
    global _jobs
    if _jobs is None:
        _jobs = SimpleQueue()
        threading.Thread(target=_serve, args=(_jobs,), name="graphc-call", daemon=True).start()
    return _jobs


def _serve(jobs: SimpleQueue) -> None:
    while True:
        jobs.get().run()


@call_after_fork
def _forget_helper() -> None:
    global _jobs
    _jobs = None
