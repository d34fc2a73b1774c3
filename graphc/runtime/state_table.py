"""The state table of a program: the arrays of the state, then those that are made from them (`gc_prepare`)."""
from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from graphc.runtime.memory import address, aligned_copy, mapped, mapped_parts


class StateTable:
    """`words` holds the addresses, where native code reads them; they stay at one place.

    arrays:  C-contiguous, of the state: read and written in place.
    derived: sizes of the arrays that are made from them; `passing` are the numbers of those that have memory only while
    they are made.
    """

    def __init__(self, arrays: Sequence[np.ndarray], derived: Sequence[int], passing: Collection[int]):
        self.arrays = list(arrays)
        self._passing = {len(self.arrays) + n: derived[n] for n in passing}
        self.derived = mapped_parts([0 if n in passing else size for n, size in enumerate(derived)])
        self.words = np.array([address(a) for a in (*self.arrays, *self.derived)], np.int64)

    @staticmethod
    def settled(arrays: Sequence[np.ndarray], sizes: Sequence[int], derived: Sequence[np.ndarray],
                idle: Collection[int]) -> StateTable:
        """A table whose `derived` arrays were made before, in this process or another; those of the numbers `idle` are
        not there any more."""
        table = StateTable([aligned_copy(a) for a in arrays], sizes, ())
        for mine, value in zip(table.derived, derived, strict=True):
            mine[...] = value
        table.settle(idle)
        return table

    def passing_memory(self) -> np.ndarray:
        """Memory for what passes, one after the other; it has it as long as the result lives."""
        memory = mapped(max(self._passing.values(), default=0))
        self.words[list(self._passing)] = address(memory)
        return memory

    def settle(self, idle: Collection[int]) -> None:
        """The arrays become the table's own, without those of the numbers `idle`, which nothing reads any more."""
        flat = [a.reshape(-1) for a in self.arrays]
        self.arrays = [a[:0] if n in idle else aligned_copy(a) for n, a in enumerate(flat)]
        self.words[:len(self.arrays)] = [0 if n in idle else address(a) for n, a in enumerate(self.arrays)]
