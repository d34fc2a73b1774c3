"""Arrays that a workload takes."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Array:
    """Normal numbers, or ids below `below`."""
    shape: tuple[int, ...]
    below: int = 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, self.below,
                            self.shape).astype(np.int32) if self.below else rng.standard_normal(self.shape, np.float32)
