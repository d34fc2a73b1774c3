"""The lock and version of a state (parameters, moments, step number): native calls take the lock themselves, Python takes it with `with`."""
from __future__ import annotations

from collections.abc import Callable

from graphc.runtime.entry_layout import VERSION_AT
from graphc.runtime.fork import renew_after_fork
from graphc.runtime.memory import address, aligned_empty
from graphc.runtime.native import native

WAIT_MS = 100                   # between two waits Python looks at its signals


class StateLock:
    """Mutual exclusion of everything that reads or writes one state. Not reentrant. Waiting can be interrupted by Ctrl-C.

    `version` grows with every write, by whoever holds the lock, so that whatever was derived from the state can be made anew.
    """

    def __init__(self):
        self._word = aligned_empty(16, "int32")
        self._word[:] = 0
        self._version = self._word.view("int64")[VERSION_AT // 8:]
        self.address = address(self._word)
        renew_after_fork(self)

    def acquire(self, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the lock; False when `given_up()` became true meanwhile."""
        while not native().lock(self.address, WAIT_MS):
            if given_up():
                return False
        return True

    def release(self) -> None:
        native().unlock(self.address)

    @property
    def version(self) -> int:
        return int(self._version[0])

    def written(self) -> None:
        """Says that the state has changed."""
        self._version[0] += 1

    def __enter__(self) -> "StateLock":
        self.acquire()
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def __reduce__(self):
        """A copy is another lock: the address of this one means nothing to it."""
        return StateLock, ()

    def after_fork(self) -> None:
        self._word[0] = 0
