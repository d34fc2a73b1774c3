"""Copies that another thread makes, without Python's lock, while this one goes on."""
from __future__ import annotations

from threading import Thread

import numpy as np

from graphc.runtime.memory import address
from graphc.runtime.native import native

FIELDS = 5                      # of a row of `gc_copy_runs`


class LaterCopies:
    """Of rows of bytes that lie apart, to rows one behind the other."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._arrays: list[np.ndarray] = []         # which live until all is copied
        self._thread: Thread | None = None

    def add(self, target: np.ndarray, source: np.ndarray) -> None:
        """target: u8, C-contiguous. source: u8 [n, bytes], bytes one behind the other in each row."""
        count, nbytes = source.shape
        assert source.dtype == target.dtype == np.uint8 and source.strides[1] == 1 and source.size == target.size
        self._rows += address(target), address(source), count, nbytes, source.strides[0]
        self._arrays += target, source

    def __enter__(self) -> None:
        """Begins with all that were added."""
        if not self._rows:
            return
        table, arrays, copy = np.array(self._rows, np.int64), self._arrays, native().copy_runs

        def run(arrays: list[np.ndarray]) -> None:
            copy(address(table), len(table) // FIELDS)
        self._thread = Thread(target=run, args=(arrays,))
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self.finish()           # also of an error: what is copied from may change then

    def finish(self) -> None:
        """Returns when they are made."""
        if self._thread is not None:
            self._thread.join()
