"""A limit on the time that a piece of work computes."""
from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """TimeoutError after so many seconds of this process's own computing, as soon as Python runs again: what others do
    on the machine does not count."""
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
