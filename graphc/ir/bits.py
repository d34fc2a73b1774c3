"""Equality of numbers by their bits: 0.0 and -0.0 compare equal, but 1 / x tells them apart, and arrays that compare
equal may hold both."""
from __future__ import annotations

from math import copysign

import numpy as np


def number_key(value: object) -> object:
    """A number as a key: the same for 1, 1.0 and True, another for -0.0 than for 0.0, one for every NaN; tuples item by
    item."""
    if isinstance(value, tuple):
        return tuple(number_key(v) for v in value)
    if not isinstance(value, float):
        return value
    if value == 0 and copysign(1.0, value) < 0:
        return "-0.0"
    return value if value == value else "nan"


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one dtype and shape hold the same bits."""
    return np.array_equal(_bits(a), _bits(b))


def is_uniform(array: np.ndarray) -> bool:
    """Whether every element has the bits of the first; true of one element, false of none."""
    bits = _bits(array).ravel()
    return bool(bits.size and (bits[0] == bits).all())


def _bits(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")
