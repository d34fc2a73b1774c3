"""State: the arrays that a network and its training own (parameters, running statistics, optimizer slots, step, random key)."""
from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Protocol

import numpy as np

from graphc.errors import GraphError
from graphc.ir.types import TensorType, shape_text

ALIGNMENT = 64                      # bytes: one cache line, one AVX-512 vector
RANDOM_KEY = "random.key"


class Initializer(Protocol):
    """What can make the first value of a state array."""
    def initial(self, type: TensorType, seed: int, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Entry:
    """One state input of a graph: its name, its type, and the object that owns it (a `Parameter`, or a name)."""
    name: str
    type: TensorType
    key: Hashable

    def initial(self, seed: int) -> np.ndarray:
        """The first value: by the owner's initializer, (seed, 0) for the random key, zeros otherwise."""
        if self.name == RANDOM_KEY:
            return np.array([seed, 0], np.int64)
        make = getattr(self.key, "initial", None)
        value = make(self.type, seed, self.name) if make else np.zeros(self.type.shape)
        return np.asarray(value, self.type.dtype.np)


class State(Mapping):
    """Named arrays. `state[name]` gives a copy, `state[name] = array` writes in place; dtype and shape never change.

    `version` grows with every write, so that whatever was derived from the values can be made anew. `lock` is held during a step.
    """

    def __init__(self):
        self._arrays: dict[str, np.ndarray] = {}
        self._names: dict[Hashable, str] = {}
        self.lock = RLock()
        self.version = 0

    @staticmethod
    def create(entries: Sequence[Entry], seed: int) -> "State":
        """Fresh values for `entries`: a value depends on the seed and the entry's name only, not on the order."""
        state = State()
        for entry in entries:
            state.add(entry, entry.initial(seed))
        return state

    def add(self, entry: Entry, value: np.ndarray) -> None:
        if entry.name in self._arrays:
            raise GraphError(f"two state arrays are called {entry.name}; give the layers different names")
        self._arrays[entry.name] = aligned(value)
        self._names[entry.key] = entry.name
        self.version += 1

    def array(self, entry: Entry) -> np.ndarray:
        """The live array of an entry: found by its owner, else by its name. GraphError when absent or of another type."""
        name = self._names.get(entry.key, entry.name)
        if name not in self._arrays:
            raise GraphError(f"the state has no {entry.name}: {entry.type}; it holds {_some(self._arrays)}")
        check_array(name, self._arrays[name], entry.type)
        return self._arrays[name]

    def __getitem__(self, name: str) -> np.ndarray:
        with self.lock:
            return self._find(name).copy()

    def __setitem__(self, name: str, value) -> None:
        array, value = self._find(name), np.asarray(value)
        if value.shape != array.shape:
            raise GraphError(f"{name} is {shape_text(array.shape)}, cannot take a value of shape {shape_text(value.shape)}")
        if not np.can_cast(value.dtype, array.dtype, "same_kind"):
            raise GraphError(f"{name} is {array.dtype}, cannot take {value.dtype}; convert it with .astype")
        with self.lock:
            array[...] = value
            self.version += 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        rows = (f"  {name}: {a.dtype}{list(a.shape)}" for name, a in self._arrays.items())
        return "\n".join((f"State of {len(self)} arrays, {self.nbytes} bytes", *rows))

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self._arrays.values())

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Takes every value from `arrays`; nothing is written unless all of them fit. GraphError names the first that does not."""
        for name, array in self._arrays.items():
            if name not in arrays:
                raise GraphError(f"{where} has no {name} ({array.dtype}{list(array.shape)}); it holds {_some(arrays)}")
            check_same(where, name, arrays[name], array)
        with self.lock:
            for name, array in self._arrays.items():
                array[...] = arrays[name]
            self.version += 1

    def _find(self, name: str) -> np.ndarray:
        try:
            return self._arrays[name]
        except KeyError:
            raise GraphError(f"the state has no {name!r}; it holds {_some(self._arrays)}") from None


def check_array(name: str, array: np.ndarray, type: TensorType) -> None:
    """GraphError unless `array` has `type`."""
    if array.shape != type.shape or array.dtype != type.dtype.np:
        raise GraphError(f"{name} is {array.dtype}{list(array.shape)} in the state, the network wants {type}")


def check_same(where: str, name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """GraphError unless the array that a file holds fits the network's."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise GraphError(f"{where}: {name} is {found.dtype}{list(found.shape)}, the network wants {wanted.dtype}{list(wanted.shape)}")


def aligned(value: np.ndarray) -> np.ndarray:
    """A dense copy that starts on a cache line."""
    value = np.asarray(value)
    buffer = np.empty(value.nbytes + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    array = buffer[start:start + value.nbytes].view(value.dtype).reshape(value.shape)
    array[...] = value
    return array


def _some(names) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
