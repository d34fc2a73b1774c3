"""Where a random program grows: the arrays that its next step may read, and how to come by one of a wanted type."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy

import numpy as np

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import current_trace
from graphc.ir.dim_binding import bind
from graphc.ir.types import DType

# elements of an array; larger results are left unused. Of most programs, and of the few that threads share
MOST, MANY = 700, 40_000
RANK = 5


class Skip(Exception):
    """The step does not apply to what is there."""


class Scope:
    """The arrays of one region (the program, a branch, a body), and one random generator for all of them.

    `sizes` says what the named dimensions of the program are. `depth` counts regions.
    """

    def __init__(self, rng: np.random.Generator, arrays: Sequence[Array], dtype: DType, sizes: Mapping[str, int],
                 most: int = MOST):
        self.rng, self.arrays, self.dtype, self.sizes, self.most = rng, list(arrays), dtype, sizes, most
        self.depth, self.outer = 0, len(self.arrays)

    def inner(self, arrays: Sequence[Array] = ()) -> Scope:
        """The scope of a region in this one, which may read what is here and `arrays` of its own."""
        scope = copy(self)
        scope.depth, scope.outer = self.depth + 1, len(self.arrays)
        scope.arrays = [*self.arrays, *arrays]
        return scope

    def alone(self, arrays: Sequence[Array]) -> Scope:
        """A scope in the same region that sees these arrays alone."""
        scope = copy(self)
        scope.arrays, scope.outer = list(arrays), 0
        return scope

    @property
    def own(self) -> list[Array]:
        """What was made here."""
        return self.arrays[self.outer:]

    def add(self, made) -> None:
        """`made` (an array or several) can be read from here on, unless it is too large."""
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if x.ndim <= RANK and self.count(x.shape) <= self.most:
                self.arrays.append(x)

    # chances

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def one(self, choices: Sequence):
        return choices[int(self.rng.integers(len(choices)))]

    # arrays

    def count(self, shape) -> int:
        """Elements of `shape`, with named dimensions at their sizes."""
        return int(np.prod([bind(d, self.sizes) for d in shape], dtype=np.int64))

    def concrete(self, x: Array) -> tuple[int, ...]:
        """The shape of x in ints; Skip where it has named dimensions."""
        if not x.type.is_static:
            raise Skip
        return x.shape

    def pick(self, fits: Callable[[Array], bool] = lambda x: True) -> Array:
        """One of the arrays that fit, more often a late one; Skip if there is none."""
        found = [x for x in self.arrays if fits(x)]
        if not found:
            raise Skip
        if self.chance(0.55):
            return found[-min(int(self.rng.geometric(0.5)), len(found))]
        return self.one(found)

    def floats(self, rank: int = 0) -> Array:
        """A float array with at least `rank` axes."""
        return self.pick(lambda x: x.dtype.is_float and x.ndim >= rank)

    def axis(self, x: Array) -> int:
        if not x.ndim:
            raise Skip
        return self.whole(0, x.ndim - 1) - (x.ndim if self.chance(0.3) else 0)

    def axes(self, x: Array):
        """Axes to reduce: one, several, none (as a tuple of the last), or None for all."""
        if not x.ndim or self.chance(0.2):
            return None
        some = tuple(a for a in range(x.ndim) if self.chance(0.5))
        return some or self.axis(x)

    def numbers(self, shape: Sequence[int], dtype: DType) -> np.ndarray:
        """Fresh numbers for a constant of the program."""
        if dtype.is_float:
            return np.asarray(np.round(self.rng.standard_normal(shape) * 0.7, 2), dtype.np)
        return np.asarray(self.rng.integers(0, 2 if dtype.kind == "bool" else 5, shape), dtype.np)

    def like(self, shape: Sequence[int], dtype: DType, reuse: float = 0.8) -> Array | np.ndarray:
        """An array of this type: one that is there, views of one that is there, an input, or a constant."""
        shape = tuple(shape)
        same = [x for x in self.arrays if x.shape == shape and x.dtype is dtype]
        if same and self.chance(reuse):
            return self.one(same[-3:]) if self.chance(0.6) else self.one(same)
        way = self.rng.random()
        if way < 0.55:
            return self._cut(shape, dtype)
        if way < 0.8 and all(isinstance(d, int) for d in shape):
            return self.input(shape, dtype)
        if way < 0.9 or not all(isinstance(d, int) for d in shape):
            return gc.full(shape, True if dtype.kind == "bool" else self.whole(0, 2), dtype)
        return self.numbers(shape, dtype)

    def input(self, shape: Sequence[int], dtype: DType) -> Array:
        """One more input of the program."""
        root = current_trace().root
        return root.input(f"x{len(root.builder.inputs)}", dtype[tuple(shape)])

    def _cut(self, shape, dtype) -> Array:
        """Views (reshape, tile, slice, transpose, broadcast) of an array that is there, of this type."""
        fits = [x for x in self.arrays if x.dtype is dtype and x.type.is_static]
        if not fits or not all(isinstance(d, int) for d in shape):
            return gc.full(shape, True if dtype.kind == "bool" else 1, dtype)
        x, size = self.one(fits[-6:]), int(np.prod(shape, dtype=np.int64))
        fits = x.ndim <= len(shape) and all(a in (1, b) for a, b in zip(x.shape, shape[len(shape) - x.ndim:]))
        if fits and self.chance(0.7):
            return gc.broadcast_to(x, shape)
        have = int(np.prod(x.shape, dtype=np.int64))
        if have == 0:
            return gc.zeros(shape, dtype)
        if len(shape) == x.ndim == 2 and x.shape[::-1] == shape:
            return x.T
        flat = x.reshape(-1)
        if have < size:
            flat = gc.tile(flat, -(-size // have))
        first = self.whole(0, flat.shape[0] - size)
        return flat[first:first + size].reshape(shape)
