"""The blocking of a contraction's loops in the terms of BLIS, and how each operand reaches the micro-kernel.

    M, N, K         rows of a and c; columns of b and c; the dim that is summed
    MR × NR         the micro-tile: sums that stay in registers
    MC × NC         a tile: what one thread computes at a time, micro-tile after micro-tile
    KC              a block of the sum: what of the operands is read, or packed, before the next part of it
"""
from __future__ import annotations

from enum import Enum

from graphc.ir.dims import Dim, Dims, Size, ceil_div, largest, product_of, smallest
from graphc.records import dataclass


@dataclass(frozen=True)
class Cut:
    """A group of dims cut into contiguous ranges of its flattened order: `chunk` of dim number `split`, all that is
    inside it, one of what is outside.
    """
    split: int
    chunk: int

    def inner(self, sizes: tuple[Size, ...]) -> Size:
        return product_of(sizes[self.split + 1:])

    def per_dim(self, sizes: tuple[Size, ...]) -> Size:
        """Ranges along the split dim."""
        return ceil_div(sizes[self.split], self.chunk)

    def count(self, sizes: tuple[Size, ...]) -> Size:
        return product_of(sizes[:self.split]) * self.per_dim(sizes)

    def length(self, sizes: tuple[Size, ...]) -> Size:
        """Of the longest range; of a dim whose size is not known, of a whole one."""
        return at_most(self.chunk, sizes[self.split]) * self.inner(sizes)


def at_most(chunk: int, size: Dim) -> int:
    """The least of both; `chunk` if the size is not known."""
    return min(chunk, size) if isinstance(size, int) else chunk


def fine_cut(sizes: Dims, length: int) -> Cut:
    """Ranges of at most about `length` elements."""
    for split in range(len(sizes)):
        inner = product_of(sizes[split + 1:])
        if isinstance(inner, int) and inner <= length:
            return Cut(split, max(1, at_most(length // inner, sizes[split])))
    return Cut(len(sizes) - 1, length)


@dataclass(frozen=True)
class RowShares:
    """How rows whose number is not known are divided where MC would leave cores without any: evenly among `tiles`, or
    fewer of `panels` micro-tiles at least.
    """
    tiles: int
    panels: int

    def down(self, rows: Dim, mr: int, mc: int) -> Dim:
        """Tiles below each other, of MC rows at most."""
        return largest(ceil_div(rows, mc), smallest(self.tiles, rows // (mr * self.panels)))

    def __str__(self) -> str:
        return f" or {self.tiles} tiles of {self.panels} micro-tiles"


@dataclass(frozen=True)
class Blocking:
    """Sizes of the blocks of the five loops.

    mr, nr: rows and columns of a micro-tile; nr is some vectors wide.
    mc:     rows of a tile, counted in the flattened order of the dims of m.
    nc, kc: how the dims of n are cut into tiles, and those of k into blocks of the sum.
    shares: how rows are divided where their number is not known; None: into tiles of mc.
    """
    mr: int
    nr: int
    mc: int
    nc: Cut
    kc: Cut
    shares: RowShares | None = None

    def __str__(self) -> str:
        rows = f"MC {self.mc}{self.shares or ''}"
        return f"{rows} NC {self.nc.chunk}@n{self.nc.split} KC {self.kc.chunk}@k{self.kc.split}"


class PackingMode(Enum):
    """Where the micro-kernel reads an operand; the value is its name in `planned` dumps."""
    UNPACKED = "unpacked"
    ONCE = "packed-once"                  # by a parallel loop before all tiles, or before the kernel runs
    PER_TILE = "packed-per-tile"          # by each tile, one block of the sum after the other
    BY_FIRST_USE = "packed-by-first-use"  # (a) by the micro-tiles of a tile's first columns, which read it unpacked
    TAPS = "taps"                         # (a) unpacked, the terms of a short sum at offsets known to the micro-kernel


class ColumnPacking(Enum):
    """How columns of b are copied into panels."""
    PANELS = "panels"           # vectors along the only column dim
    RUNS = "runs"               # runs along the innermost column dim, side by side
    TRANSPOSED = "transposed"   # vectors along the innermost k dim, transposed in registers
    TAPS = "taps"                         # likewise along the kernel positions of stored weights
