"""What the state inputs of a graph are: who owns them and how they start."""
from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graphc.ir.types import TensorType

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
