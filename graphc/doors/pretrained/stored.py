"""How a layer keeps its matrix, as the file has it, and how it multiplies by it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import graphc as gc
from graphc import nn
from graphc.ir.types import DType, f32, i8
from graphc.nn.decode import stepping
from graphc.nn.parameter import ZEROS, Normal


class Storage(Protocol):
    """A matrix W [rows, columns] of a layer, whose arrays are called `name` or begin so."""

    def matrix(self, layer: nn.Module, rows: int, columns: int) -> gc.Array:
        """W, f32."""

    def product(self, layer: nn.Module, x: gc.Array, rows: int) -> gc.Array:
        """x [..., columns] @ W.T, f32 [..., rows]."""

    def rows(self, layer: nn.Module, ids: gc.Array, rows: int, columns: int) -> gc.Array:
        """W[ids], f32 [..., columns]."""


@dataclass(frozen=True)
class Whole:
    """One array `weight`, in f32, which can be trained, or in 16 bits: read so, and widened in registers."""
    dtype: DType = f32

    def matrix(self, layer: nn.Module, rows: int, columns: int) -> gc.Array:
        if self.dtype is f32:
            return layer.parameter("weight", (rows, columns), Normal(0.02))
        return layer.buffer("weight", (rows, columns), ZEROS, self.dtype).astype(f32)

    def product(self, layer: nn.Module, x: gc.Array, rows: int) -> gc.Array:
        return x @ self.matrix(layer, rows, int(x.shape[-1])).T

    def rows(self, layer: nn.Module, ids: gc.Array, rows: int, columns: int) -> gc.Array:
        return gc.embedding(self.matrix(layer, rows, columns), ids)


@dataclass(frozen=True)
class Blocks:
    """Integers and a scale for each block of `size` of a row: W[n, g * size + k] = codes[g, k, n] * scale[g, n] +
    minimum[g, n]. weight.codes i8 [columns / size, size, rows], weight.scale and weight.minimum [columns / size, rows].

    One token's product reads the integers themselves: for each block, the product of x with them, in f32, times the
    scale; and minima times the sum of x. That rounds in another order than the product with W as f32, which whole
    sequences take: W is made and packed once.
    """
    size: int
    dtype: DType
    shifted: bool

    def matrix(self, layer: nn.Module, rows: int, columns: int) -> gc.Array:
        codes, scale, minimum = self._parts(layer, rows, columns)
        w = codes.astype(f32) * gc.expand_dims(scale, 1)
        w = w if minimum is None else w + gc.expand_dims(minimum, 1)
        return w.reshape(columns, rows).T

    def product(self, layer: nn.Module, x: gc.Array, rows: int) -> gc.Array:
        columns = int(x.shape[-1])
        if stepping() is None:
            return x @ self.matrix(layer, rows, columns).T
        codes, scale, minimum = self._parts(layer, rows, columns)
        lead, count = x.shape[:-1], columns // self.size
        parts = x.reshape(-1, count, self.size).transpose(1, 0, 2)
        y = gc.sum((parts @ codes.astype(f32)) * gc.expand_dims(scale, 1), axis=0)
        if minimum is not None:
            y = y + gc.sum(parts, axis=2).T @ minimum
        return y.reshape(*lead, rows)

    def rows(self, layer: nn.Module, ids: gc.Array, rows: int, columns: int) -> gc.Array:
        codes, scale, minimum = self._parts(layer, rows, columns)
        w = gc.take(codes, ids, axis=2).astype(f32) * gc.expand_dims(gc.take(scale, ids, axis=1), 1)
        w = w if minimum is None else w + gc.expand_dims(gc.take(minimum, ids, axis=1), 1)
        w = w.reshape(columns, *ids.shape)
        return w.transpose(*range(1, w.ndim), 0)

    def _parts(self, layer: nn.Module, rows: int, columns: int) -> tuple[gc.Array, gc.Array, gc.Array | None]:
        count = columns // self.size
        scales = {name: layer.buffer(f"weight.{name}", (count, rows), ZEROS, self.dtype).astype(f32)
                  for name in ("scale", "minimum")[:1 + self.shifted]}
        return layer.integers("weight.codes", (count, self.size, rows), i8), scales["scale"], scales.get("minimum")

