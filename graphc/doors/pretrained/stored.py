"""How a layer keeps its matrix, as the file has it, and how it multiplies by it."""
from __future__ import annotations

from typing import Protocol

import graphc as gc
from graphc import nn
from graphc.dsl.array import emit
from graphc.dsl.context import current_trace
from graphc.ir.ops.blocks import CODES, BlockProduct
from graphc.ir.types import DType, f32
from graphc.nn.parameter import ZEROS, Normal
from graphc.records import dataclass


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
    """Codes of few bits and a scale for each block of `size` columns of a row, as `BlockProduct` takes them:
    weight.codes, u8 [rows, columns / 2] or i8 [rows, columns], weight.scale and weight.minimum, of type
    `scales`, [rows, columns / size].

    Products read the codes themselves, with f32 sums; W as f32 numbers is nowhere.
    """
    size: int
    bits: int
    zero: int
    shifted: bool
    scales: DType = f32

    def matrix(self, layer: nn.Module, rows: int, columns: int) -> gc.Array:
        return self._numbers(*self._parts(layer, rows, columns))

    def product(self, layer: nn.Module, x: gc.Array, rows: int) -> gc.Array:
        return emit("block_product", x, *self._parts(layer, rows, int(x.shape[-1])), block=self.size, bits=self.bits,
                    zero=self.zero)

    def rows(self, layer: nn.Module, ids: gc.Array, rows: int, columns: int) -> gc.Array:
        return self._numbers(*(gc.embedding(part, ids) for part in self._parts(layer, rows, columns)))

    def _numbers(self, *parts: gc.Array) -> gc.Array:
        """f32 [..., columns]."""
        trace = current_trace()
        op = BlockProduct(self.size, self.bits, self.zero)
        return gc.Array(op.numbers(trace.builder, *map(trace.value, parts)), trace)

    def _parts(self, layer: nn.Module, rows: int, columns: int) -> list[gc.Array]:
        dtype, together = CODES[self.bits]
        codes = layer.integers("weight.codes", (rows, columns // together), dtype)
        return [codes, *(layer.buffer(f"weight.{name}", (rows, columns // self.size), ZEROS, self.scales)
                         for name in ("scale", "minimum")[:1 + self.shifted])]
