"""The lock and version of a state (parameters, moments, step number)."""
from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

import numpy as np

from graphc.errors import GraphError
from graphc.runtime.entry_layout import COPIED, WAIT_MS, LockMemory
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import address, aligned_empty
from graphc.runtime.native import native

EXIT_SECONDS = 5                # how long an interpreter that exits waits for a thread which it has perhaps stopped
SMALL = 1 << 16                 # bytes that are copied with the GIL held, if nobody has the lock


class StateLock:
    """Mutual exclusion of everything that reads or writes one state. Who takes it gives it back within one native call,
    so that Python code, and with it signal handlers, finalizers and forks, never runs while its own thread holds it.
    Waiting can be interrupted by Ctrl-C.

    `version` grows with every write, so that whatever was derived from the state can be made anew.
    """

    def __init__(self) -> None:
        self._word = aligned_empty(16, "int32")
        self._word[:] = 0
        self._version = self._word.view("int64")[LockMemory.version.offset // 8:]
        self.address = address(self._word)
        renew_after_fork(self)

    def read(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Copies of C-contiguous `arrays`, all of one version."""
        copies = [np.empty(a.shape, a.dtype) for a in arrays]
        self._transfer(copies, arrays, 0)
        return copies

    def write(self, arrays: Sequence[np.ndarray], values: Sequence[np.ndarray], expected: int = -1) -> bool:
        """Copies `values` to `arrays`: all or none of them, whatever signals come. Both are C-contiguous and of the
        same dtypes and shapes. `expected`: False, and nothing written, if the version is another."""
        return self._transfer(arrays, values, 1, expected)

    @property
    def version(self) -> int:
        return int(self._version[0])

    def _transfer(self, targets: Sequence[np.ndarray], sources: Sequence[np.ndarray], writes: int,
                  expected: int = -1) -> bool:
        cells = [cell for t, s in zip(targets, sources, strict=True) for cell in (id(t), id(s), t.nbytes)]
        rows = array("q", cells)
        what = self.address, rows.buffer_info()[0], len(targets), writes, expected
        done = native().transfer_now(*what, 0) if sum(cells[2::3]) <= SMALL else 0
        return (done or self._transfer_in_time(what)) == COPIED

    def _transfer_in_time(self, what: tuple[int, int, int, int, int]) -> int:
        done = 0
        for _ in attempts():
            done = native().transfer(*what, WAIT_MS)
            if done:
                break
        return done

    def __reduce__(self) -> tuple[type[StateLock], tuple[()]]:
        """A copy is another lock: the address of this one means nothing to it."""
        return StateLock, ()

    def after_fork(self) -> None:
        self._word[0] = 0


def attempts(given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """One after the other until `given_up()`. GraphError when the interpreter is exiting and waits in vain: its daemon
    threads give nothing back."""
    start = monotonic()
    while not given_up():
        yield
        if sys.is_finalizing() and monotonic() - start > EXIT_SECONDS:
            raise GraphError("the interpreter exits while a daemon thread is in a call on the same state or function; "
                             "join the thread first")
