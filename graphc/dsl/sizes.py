"""Shapes as users write them."""
from __future__ import annotations

from math import prod

from graphc.errors import GraphError
from graphc.ir.convert import is_integer, is_sequence, items
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim, Poly, exact_quotient
from graphc.ir.op import uncut
from graphc.ir.types import shape_text


def as_shape(shape: object) -> tuple[Dim, ...]:
    """A tuple of dimensions from an int, a name, or a sequence of them."""
    return tuple([as_dim(d) for d in (items(shape, "a shape") if is_sequence(shape) else (shape,))])


def known_shape(shape: tuple, old: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """`shape` with its one -1 computed from the size of `old`, which is being reshaped."""
    unknown = [i for i, d in enumerate(shape) if is_integer(d) and d == -1]
    if len(unknown) > 1:
        raise GraphError(f"reshape: only one size may be -1, got {shape_text(shape)}")
    sizes = as_shape([d for i, d in enumerate(shape) if i not in unknown])
    if not unknown:
        return sizes
    rest, size = prod(sizes), prod(old)
    if isinstance(size, Poly) and exact_quotient(size, rest) is None:
        size = uncut(size)              # x[:, :10] in parts of 5
    if (isinstance(rest, int) and rest == 0) or size % rest != 0:
        raise GraphError(f"reshape: {shape_text(old)} ({size} elements) does not divide into {shape_text(shape)}")
    i = unknown[0]
    return sizes[:i] + (size // rest,) + sizes[i:]


def unpacked(args: tuple) -> tuple:
    """Both x.reshape(2, 3) and x.reshape((2, 3))."""
    return tuple(args[0]) if len(args) == 1 and is_sequence(args[0]) else args
