"""An exported library in this process, by ctypes."""
from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np

POINTER, WORD, INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class Instance:
    """Of the library NAME in a folder. `sizes`: those that memory is for. `call(function, sizes, inputs, outputs)`
    returns the status."""

    def __init__(self, folder: Path, name: str = "net", sizes: tuple[int, ...] = (), threads: int = 1,
                 nbytes: int | None = None):
        self.name, self.lib = name, ctypes.CDLL(str(folder / f"lib{name}.so"))
        self.bytes = self.of("memory", WORD, *map(WORD, sizes), INT(threads)) if nbytes is None else nbytes
        self.raw = np.full(max(self.bytes, 0) + 64, 0xAB, np.uint8)        # what was never written shows
        self.memory = self.raw[-self.raw.ctypes.data % 64:][:max(self.bytes, 0)]
        self.status = self.of("init", INT, POINTER(self.memory.ctypes.data), WORD(self.bytes), INT(threads))

    def of(self, what: str, result, *arguments):
        f = getattr(self.lib, f"{self.name}_{what}")
        f.restype = result
        return f(*arguments)

    @property
    def pointer(self):
        return POINTER(self.memory.ctypes.data)

    def call(self, function: str, inputs, outputs, sizes=()) -> int:
        arrays = [np.ascontiguousarray(a) for a in inputs]
        return self.of(function, INT, self.pointer, *map(WORD, sizes),
                       *(POINTER(a.ctypes.data) for a in (*arrays, *outputs)))

    @property
    def message(self) -> str:
        return self.of("message", ctypes.c_char_p, self.pointer).decode()

    @property
    def index(self) -> int:
        return self.of("index", WORD, self.pointer)

    @property
    def instruction_set(self) -> str:
        return self.of("instruction_set", ctypes.c_char_p, self.pointer).decode()

    def state(self, nbytes: int) -> bytes:
        return ctypes.string_at(self.of("state", POINTER, self.pointer), nbytes)

    def array(self, folder: Path, macro: str, dtype, shape) -> np.ndarray:
        """An array of the state where it lies; `macro`: the end of the name of that which says where."""
        at = int(re.search(rf"_STATE_{macro} (\d+)", (folder / f"{self.name}.h").read_text())[1])
        start = self.of("state", POINTER, self.pointer) - self.memory.ctypes.data + at
        count = int(np.prod(shape, dtype=int))
        return self.memory[start:start + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    def load(self, file: bytes) -> int:
        return self.of("load", INT, self.pointer, ctypes.c_char_p(file), WORD(len(file)))
