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
class WholeStorage:
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
class BlockStorage:
    """Integers and a scale for each block of `size` of a row, the rows in panels of `panel`, so that what is read
    together lies together: W[p * panel + l, g * size + k] = codes[p, g, k, l] * scale[p, g, l] + minimum[p, g, l].
    weight.codes is i8 [rows / panel, columns / size, size, panel], weight.scale and weight.minimum are without `size`.

    One token's product reads the integers, and makes of each the number that it stands for, in registers: so many
    multiplications hide behind memory. Several tokens (a prompt, sequences side by side) multiply by W as f32, which is
    made and packed once.
    """
    size: int
    panel: int
    dtype: DType
    shifted: bool

    def matrix(self, layer: nn.Module, rows: int, columns: int) -> gc.Array:
        return self._blocks(layer, rows, columns).transpose(1, 2, 0, 3).reshape(columns, rows).T

    def product(self, layer: nn.Module, x: gc.Array, rows: int) -> gc.Array:
        columns = int(x.shape[-1])
        tokens = x.reshape(-1, columns)
        if stepping() is None or tokens.shape[0] != 1:
            return x @ self.matrix(layer, rows, columns).T
        y = tokens.reshape(1, columns // self.size, self.size, 1) * self._blocks(layer, rows, columns)
        return gc.sum(y, axis=(1, 2)).reshape(*x.shape[:-1], rows)

    def rows(self, layer: nn.Module, ids: gc.Array, rows: int, columns: int) -> gc.Array:
        codes, scale, minimum = self._parts(layer, rows, columns)
        count, ids = columns // self.size, gc.expand_dims(ids.astype(gc.i64), -1)
        place = ids // self.panel * count + gc.iota((count,), dtype=gc.i64)             # of each block, [..., count]
        lane = ids % self.panel
        inner = gc.expand_dims(place * self.size, -1) + gc.iota((self.size,), dtype=gc.i64)
        w = gc.take(codes.reshape(-1), inner * self.panel + gc.expand_dims(lane, -1)).astype(f32)

        def of_blocks(a: gc.Array) -> gc.Array:
            return gc.expand_dims(gc.take(a.reshape(-1), place * self.panel + lane), -1)
        w = w * of_blocks(scale)
        return (w if minimum is None else w + of_blocks(minimum)).reshape(*ids.shape[:-1], columns)

    def _blocks(self, layer: nn.Module, rows: int, columns: int) -> gc.Array:
        """W as it lies, f32 [rows / panel, columns / size, size, panel]."""
        codes, scale, minimum = self._parts(layer, rows, columns)
        w = codes.astype(f32) * gc.expand_dims(scale, 2)
        return w if minimum is None else w + gc.expand_dims(minimum, 2)

    def _parts(self, layer: nn.Module, rows: int, columns: int) -> tuple[gc.Array, gc.Array, gc.Array | None]:
        panels, count = rows // self.panel, columns // self.size
        scales = {name: layer.buffer(f"weight.{name}", (panels, count, self.panel), ZEROS, self.dtype).astype(f32)
                  for name in ("scale", "minimum")[:1 + self.shifted]}
        codes = layer.integers("weight.codes", (panels, count, self.size, self.panel), i8)
        return codes, scales["scale"], scales.get("minimum")
