"""A limit on the time that a piece of work computes."""
from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float, by_clock: bool = False) -> Iterator[None]:
    """TimeoutError after so many seconds of this process's own computing, as soon as Python runs again: what others do
    on the machine does not count. `by_clock`: after so many seconds, since processes of its own may do the work."""
    number, timer = (signal.SIGALRM, signal.ITIMER_REAL) if by_clock else (signal.SIGPROF, signal.ITIMER_PROF)
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")
    before = signal.signal(number, stop)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)
