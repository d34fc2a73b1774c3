"""What the state inputs of a graph are: who owns them and how they start."""
from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Protocol

import numpy as np

from graphc.ir.types import TensorType
from graphc.records import dataclass

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

    def originals(self) -> Iterator[Hashable]:
        """Parameters that this one is a copy of, the nearest first."""
        return iter(getattr(self.key, "originals", tuple)())

    @property
    def is_given(self) -> bool:
        """Whether the first value is there already, as that of a model's file: nothing has to be drawn."""
        return bool(getattr(self.key, "is_given", False))

    def initial(self, seed: int, known: Mapping[Hashable, str] | None = None) -> np.ndarray:
        """The first value: by the owner's initializer, (seed, 0) for the random key, zeros otherwise. A copy of a
        parameter starts with the value of the one that it is a copy of, if that is among those `known` by name."""
        if self.name == RANDOM_KEY:
            return np.array([seed, 0], np.int64)
        make = getattr(self.key, "initial", None)
        name = next((known[p] for p in self.originals() if p in known), self.name) if known else self.name
        value = make(self.type, seed, name) if make else np.zeros(self.type.shape)
        return np.asarray(value, self.type.dtype.np)
