"""Matrices of codes in blocks in the place of f32 numbers: how they are made, and what products read them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from graphc.ir.builder import Rewriter
from graphc.ir.dims import static_dim
from graphc.ir.graph import Value
from graphc.ir.ops.blocks import CODES, BlockProduct
from graphc.ir.ops.index import Take
from graphc.records import dataclass
from graphc.schedule.parallel_rows import is_few

TINY = 1e-30                        # a block, or a row, of zeros has this scale at least
# the code of 0, or of the minimum: by bits, and whether there are minima
ZEROS = {(4, False): 8, (4, True): 0, (8, False): 0, (8, True): -128}


@dataclass(frozen=True)
class BlockWeight:
    """A matrix [N, K] that `product` multiplies by, of its codes, scales and perhaps minima; or, with `is_turned`, its
    transpose. whole: it as f32 numbers, where these are at hand. for_all: products of any number of rows read codes;
    else those of few alone."""
    op: BlockProduct
    parts: tuple[Value, ...]
    is_turned: bool = False
    whole: Value | None = None
    for_all: bool = True

    def turned(self, w: Rewriter) -> BlockWeight:
        whole = None if self.whole is None else w.transpose(self.whole, perm=(1, 0))
        return replace(self, is_turned=not self.is_turned, whole=whole)

    def numbers(self, w: Rewriter) -> Value:
        if self.whole is not None:
            return self.whole
        y = self.op.numbers(w, *self.parts)
        return w.transpose(y, perm=(1, 0)) if self.is_turned else y

    def product(self, w: Rewriter, other: Value, place: int) -> Value | None:
        """Of rows along which the blocks run. In loops many rows read the numbers, which are made once for all steps.
        """
        along_blocks = self.is_turned if place == 1 else not self.is_turned and other.type.rank == 1
        few = is_few(prod(other.type.shape[:-1]))
        if not along_blocks or not few and (self.whole is not None or not self.for_all):
            return None
        return w.apply(self.op, (other, *self.parts))[0]

    def rows(self, w: Rewriter, positions: Value) -> Value | None:
        if self.is_turned:
            return None
        return self.op.numbers(w, *[w.apply(Take(0), [part, positions])[0] for part in self.parts])

    def captured(self, w: Rewriter) -> tuple[Value, tuple[Value, ...]]:
        return self.numbers(w), self.parts

    def inside(self, v: Value, added: Sequence[Value]) -> BlockWeight:
        return replace(self, parts=tuple(added), whole=v)


def block_weight(w: Rewriter, weight: Value, op: BlockProduct, with_minimum: bool, for_all: bool) -> BlockWeight:
    """The matrix of codes that is nearest to f32 numbers [N, K]: of a block the largest number becomes the largest
    code, or with minima the least and the largest number the least and the largest code."""
    rows, columns = weight.type.shape
    block, bits = op.block, op.bits
    blocks = w.reshape(weight, shape=(rows, static_dim(columns) // block, block))
    if with_minimum:
        low = w.min(blocks, axes=(2,), keepdims=True)
        width = finite_or_nan(w, w.sub(w.max(blocks, axes=(2,), keepdims=True), low))
        scale = w.maximum(w.div(width, (1 << bits) - 1), TINY)
        codes, parts = w.round(w.div(w.sub(blocks, low), scale)), [scale, low]
    else:
        largest = finite_or_nan(w, w.max(w.abs(blocks), axes=(2,), keepdims=True))
        scale = w.maximum(w.div(largest, (1 << bits - 1) - 1), TINY)
        codes, parts = w.round(w.div(blocks, scale)), [scale]
    codes = w.add(codes, op.zero) if op.zero else codes
    flat = [w.reshape(part, shape=scale.type.shape[:2]) for part in parts]
    return BlockWeight(op, (_packed(w, w.cast(codes, dtype=CODES[bits][0]), bits), *flat), for_all=for_all)


def block_product(block: int, bits: int, with_minimum: bool) -> BlockProduct:
    """Of codes that `block_weight` makes."""
    return BlockProduct(block, bits, ZEROS[bits, with_minimum])


def finite_or_nan(w: Rewriter, v: Value) -> Value:
    """v where it is finite, else NaN: codes times an infinite scale would be infinities of any sign."""
    return w.add(v, w.sub(v, v))


def largest_of_rows(w: Rewriter, weight: Value) -> Value:
    """The largest absolute number of each row [N, 1], above 0; NaN of a row with one that is not finite."""
    return w.maximum(finite_or_nan(w, w.max(w.abs(weight), axes=(1,), keepdims=True)), TINY)


def _packed(w: Rewriter, codes: Value, bits: int) -> Value:
    """Codes [N, blocks, block] as they lie in memory."""
    rows, blocks, size = codes.type.shape
    if bits == 4:
        half = static_dim(size) // 2
        low, high = (w.slice(codes, start=(0, 0, at), stop=(rows, blocks, at + half), step=(1, 1, 1))
                     for at in (0, half))
        codes = w.bitor(low, w.shift_left(high, bits))
    return w.reshape(codes, shape=(rows, blocks * codes.type.shape[2]))

