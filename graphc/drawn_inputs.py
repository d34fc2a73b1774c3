"""Inputs that are drawn, where only their types are known."""
from __future__ import annotations

import numpy as np

from graphc.ir.graph import Value


def drawn(rng: np.random.Generator, v: Value) -> np.ndarray:
    """Standard normal floats; zeros and ones for other types, so that they can be indices."""
    draw = rng.standard_normal(v.type.shape) if v.type.dtype.is_float else rng.integers(0, 2, v.type.shape)
    return draw.astype(v.type.dtype.np)
