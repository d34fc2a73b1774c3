"""Reading images at places that are computed, as a composite of lookups of neighbours and their weights."""
from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product
from math import prod
from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, static_dim
from graphc.ir.graph import Value
from graphc.ir.op import Composite, Cost, OpBuilder, require
from graphc.ir.ops.constant import number
from graphc.ir.types import TensorType, i64, shape_text

MODES = {"nearest": 1, "bilinear": 2, "bicubic": 4}         # neighbours along an axis
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75
Tap = tuple[Value, Value, Value | None]     # a position as a float, its weight, whether it is inside (None: it is)


class GridSample(Composite):
    """x [N, C, H, W] (or any number of spatial axes) at the places grid [N, H', W', 2]: [N, C, H', W'], as
    torch.nn.functional.grid_sample. The last axis of grid holds (x, y), for the last spatial axis first: -1 and 1
    are the ends of the image, or with align_corners the centres of its first and last elements.

    padding: beyond the image are zeros, its border, or its reflection. "bicubic" (Keys' kernel, -0.75) of 2 axes.
    """
    name: ClassVar[str] = "grid_sample"
    mode: str = "bilinear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self, x: TensorType, grid: TensorType) -> TensorType:
        require(self.mode in MODES, f"grid_sample: mode is one of {', '.join(MODES)}, got {self.mode!r}")
        require(self.padding in PADDINGS, f"grid_sample: padding is one of {', '.join(PADDINGS)}, got {self.padding!r}")
        require(x.dtype.is_float and x.dtype == grid.dtype,
                f"grid_sample takes float arrays of one dtype, got {x.dtype} and {grid.dtype}; use .astype(f32)")
        axes = x.rank - 2
        fits = axes >= 1 and grid.rank == x.rank and grid.shape[-1] == axes and grid.shape[0] == x.shape[0]
        require(fits, "grid_sample takes x [N, C, H, W] and grid [N, H', W', 2], or other spatial axes, as many in "
                      f"both, got {shape_text(x.shape)} and {shape_text(grid.shape)}")
        require(self.mode != "bicubic" or axes == 2, f"grid_sample: bicubic is of two spatial axes, got {axes}")
        empty = any(d == 0 for d in x.shape[2:]) and not any(d == 0 for d in grid.shape)
        require(not empty, f"grid_sample: an image of shape {shape_text(x.shape[2:])} has nothing to read")
        return x.with_shape(x.shape[:2] + grid.shape[1:-1])

    def reference(self, x: np.ndarray, grid: np.ndarray) -> np.ndarray:
        sizes, out = x.shape[2:], np.zeros((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
        sampled = np.moveaxis(out, 1, -1)
        if not out.size:
            return out
        with np.errstate(all="ignore"):
            taps = [self._array_taps(grid[..., len(sizes) - 1 - i], size) for i, size in enumerate(sizes)]
            batch = np.arange(len(x)).reshape(-1, *(1,) * len(sizes))
            for chosen in product(*taps):
                inside, weight = np.ones(grid.shape[:-1], bool), np.ones(grid.shape[:-1], x.dtype)
                places = []
                for (place, share), size in zip(chosen, sizes):
                    inside &= (place >= 0) & (place <= size - 1)
                    weight = weight * share
                    places.append(np.nan_to_num(np.clip(place, 0, size - 1)).astype(np.int64))
                read = x[(batch, slice(None), *places)]
                sampled += np.where(inside, weight, 0)[..., None].astype(x.dtype) * read
        return out

    def _array_taps(self, g: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
        place = (g + 1) / 2 * (size - 1) if self.align_corners else ((g + 1) * size - 1) / 2
        if self.mode != "bicubic":
            place = self._padded_array(place, size)
        if self.mode == "nearest":
            return [(np.rint(place), np.ones_like(place))]
        low = np.floor(place)
        t = place - low
        if self.mode == "bilinear":
            return [(low, 1 - t), (low + 1, t)]
        return [(self._padded_array(low + k, size), _cubic_array(t - k)) for k in (-1, 0, 1, 2)]

    def _padded_array(self, x: np.ndarray, size: int) -> np.ndarray:
        if self.padding == "zeros":
            return x
        if self.padding == "reflection":
            low, span = (0, size - 1) if self.align_corners else (-0.5, size)
            if not span:
                return np.zeros_like(x)
            turns, rest = np.divmod(np.abs(x - low), x.dtype.type(span))
            x = np.where(turns % 2 == 0, rest, span - rest) + low
        return np.clip(x, 0, size - 1).astype(x.dtype)

    def decompose(self, b: OpBuilder, x: Value, grid: Value) -> Value:
        rank, sizes = x.type.rank, x.type.shape[2:]
        out = grid.type.shape[:-1]
        if any(d == 0 for d in (*out, *x.type.shape)):
            return b.broadcast_to(number(b, 0, x), shape=(*x.type.shape[:2], *out[1:]))
        rows = b.reshape(b.transpose(x, perm=(0, *range(2, rank), 1)),
                         shape=(x.type.shape[0] * prod(sizes), x.type.shape[1]))
        taps = [self._taps(b, _coordinate(b, grid, rank - 3 - i), static_dim(size)) for i, size in enumerate(sizes)]
        image = b.mul(b.iota(shape=out, axis=0, dtype=i64), prod(static_dim(d) for d in sizes))
        parts = []
        for chosen in product(*taps):
            at, weight = self._joint(b, chosen, sizes)
            read = b.take(rows, b.add(image, at), axis=0)
            parts.append(b.mul(read, b.reshape(weight, shape=(*out, 1))))
        total = reduce(b.add, parts)
        return b.transpose(total, perm=(0, rank - 1, *range(1, rank - 1)))

    def cost(self, x: TensorType, grid: TensorType) -> Cost:
        out, neighbours = self.infer(x, grid), MODES[self.mode] ** (x.rank - 2)
        return Cost(out.size * 2 * neighbours, out.nbytes * neighbours + grid.nbytes)

    def _joint(self, b: OpBuilder, taps: Sequence[Tap], sizes: Sequence[Dim]) -> tuple[Value, Value]:
        """The number of an element in its image, and its weight, 0 outside."""
        at = number(b, 0, i64)
        for (place, _, _), size in zip(taps, sizes):
            held = b.cast(b.minimum(b.maximum(place, 0), static_dim(size) - 1), dtype=i64)
            at = b.add(b.mul(at, static_dim(size)), held)
        weight = reduce(b.mul, [share for _, share, _ in taps])
        within = [inside for _, _, inside in taps if inside is not None]
        return at, b.where(reduce(b.bitand, within), weight, number(b, 0, weight)) if within else weight

    def _taps(self, b: OpBuilder, g: Value, size: int) -> list[Tap]:
        """The neighbours of a coordinate along one axis."""
        if self.align_corners:
            place = b.mul(b.mul(b.add(g, 1), 0.5), size - 1)
        else:
            place = b.mul(b.sub(b.mul(b.add(g, 1), size), 1), 0.5)
        if self.mode != "bicubic":
            place = self._padded(b, place, size)
        if self.mode == "nearest":
            return [self._tap(b, b.round(place), b.add(b.mul(place, 0), 1), size)]
        low = b.floor(place)
        t = b.sub(place, low)
        if self.mode == "bilinear":
            return [self._tap(b, low, b.sub(1, t), size), self._tap(b, b.add(low, 1), t, size)]
        return [self._tap(b, self._padded(b, b.add(low, k), size), _cubic(b, b.sub(t, k), k in (0, 1)), size)
                for k in (-1, 0, 1, 2)]

    def _tap(self, b: OpBuilder, place: Value, weight: Value, size: int) -> Tap:
        if self.padding != "zeros":
            return place, weight, None
        return place, weight, b.bitand(b.ge(place, 0), b.le(place, size - 1))

    def _padded(self, b: OpBuilder, x: Value, size: int) -> Value:
        """Where a place beyond the image is read inside it."""
        if self.padding == "zeros":
            return x
        if self.padding == "reflection":
            low, span = (0.0, float(size - 1)) if self.align_corners else (-0.5, float(size))
            if not span:
                return b.mul(x, 0)
            away = b.abs(b.sub(x, low))
            rest, odd = b.mod(away, span), b.ne(b.mod(b.floordiv(away, span), 2), 0)
            x = b.add(b.where(odd, b.sub(span, rest), rest), low)
        return b.clip(x, low=0.0, high=float(size - 1))


def _coordinate(b: OpBuilder, grid: Value, k: int) -> Value:
    """grid[..., k]."""
    shape = grid.type.shape
    one = b.slice(grid, start=(0,) * (len(shape) - 1) + (k,), stop=(*shape[:-1], k + 1), step=(1,) * len(shape))
    return b.reshape(one, shape=shape[:-1])


def _cubic(b: OpBuilder, d: Value, near: bool) -> Value:
    """Keys' kernel at distance d, at most 1 (`near`) or between 1 and 2."""
    d = b.abs(d)
    if near:
        return b.add(b.mul(b.mul(b.sub(b.mul(d, CUBIC + 2), CUBIC + 3), d), d), 1)
    return b.sub(b.mul(b.add(b.mul(b.sub(b.mul(d, CUBIC), 5 * CUBIC), d), 8 * CUBIC), d), 4 * CUBIC)


def _cubic_array(d: np.ndarray) -> np.ndarray:
    d = np.abs(d)
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    return np.where(d <= 1, near, ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC).astype(d.dtype)


OPS = (GridSample,)
