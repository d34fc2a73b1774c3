"""Shapes as users write them."""
from __future__ import annotations

from math import prod

import numpy as np

from graphc.errors import GraphError
from graphc.ir.types import Dim, Poly, f32, shape_text


def as_shape(shape) -> tuple[Dim, ...]:
    """A tuple of dimensions from an int, a name, or a sequence of them."""
    dims = (shape,) if isinstance(shape, (int, str, np.integer, Poly)) else tuple(shape)
    return f32[dims].shape


def known_shape(shape: tuple, old: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """`shape` with its one -1 computed from the size of `old`, which is being reshaped."""
    unknown = [i for i, d in enumerate(shape) if isinstance(d, int) and d == -1]
    if len(unknown) > 1:
        raise GraphError(f"reshape: only one size may be -1, got {shape_text(shape)}")
    sizes = as_shape(d for i, d in enumerate(shape) if i not in unknown)
    if not unknown:
        return sizes
    rest, size = prod(sizes), prod(old)
    if (isinstance(rest, int) and rest == 0) or size % rest != 0:
        raise GraphError(f"reshape: {shape_text(old)} ({size} elements) does not divide into {shape_text(shape)}")
    i = unknown[0]
    return sizes[:i] + (size // rest,) + sizes[i:]


def unpacked(args: tuple) -> tuple:
    """Both x.reshape(2, 3) and x.reshape((2, 3))."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
