"""The fast Python entry of a program for all sizes: a table of the entries that were made for some, by shapes."""
from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.runtime.entry import MethodDef, bound_builtin
from graphc.runtime.executable import Executable
from graphc.runtime.memory import address
from graphc.runtime.native import native
from graphc.runtime.sizes_entry_ir import ROWS, SizesRecord, SizesRow

WORD = 8
FIRST_ROW, ROW = SizesRecord.rows.offset // WORD, SizesRow.size // WORD


class SizesEntry:
    """`call` takes the arrays of any sizes: those of a kept executable from C to C, others to `slow`; before one is
    kept, all, so that nothing native is needed for it. Executables are kept by the shapes of their arguments, the
    newest of those that share a row."""

    def __init__(self, n_inputs: int, slow: Callable[..., object]):
        self._words = np.zeros(SizesRecord.size // WORD, np.int64)
        self._words[SizesRecord.slow.offset // WORD] = id(slow)
        self._words[SizesRecord.n_inputs.offset // WORD] = n_inputs
        self._slow, self._kept = slow, dict[int, tuple[Executable, object]]()
        self.call: Callable[..., Any] = slow

    def keep(self, arrays: Sequence[np.ndarray], executable: Executable, owner: object) -> None:
        """Calls with arrays of these shapes go to the executable, which serves them. `owner`: see `last`."""
        place = native().sizes_row((ctypes.c_void_p * len(arrays))(*map(id, arrays)), len(arrays))
        if place < ROWS:
            before = self._kept.get(place)          # noqa: F841  lives until the row has the new one
            self._kept[place] = executable, owner
            self._words[FIRST_ROW + place * ROW:][:ROW] = id(executable.call), executable.record
        if self.call is self._slow and not sysconfig.get_config_var("Py_GIL_DISABLED"):
            self.call = bound_builtin(_method(), (address(self._words), self))

    def clear(self) -> None:
        """Keeps none."""
        self._words[FIRST_ROW:], self._words[SizesRecord.last.offset // WORD] = 0, 0
        self._kept.clear()

    def forget(self) -> None:
        """The call before did not come through a row."""
        self._words[SizesRecord.last.offset // WORD] = 0

    @property
    def last(self) -> object:
        """The owner of the executable that was called last, if a row had it."""
        place = int(self._words[SizesRecord.last.offset // WORD]) - 1
        return self._kept[place][1] if place in self._kept else None


@cache
def _method() -> MethodDef:
    """The one method definition."""
    return MethodDef.of(native().address("gc_entry_for_sizes"))
