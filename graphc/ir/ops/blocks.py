"""Products by matrices of integers of few bits, in blocks with a scale each, and perhaps a minimum: what files of
language models have (ggml's Q4_0, Q4_1, Q8_0), and `store=` keeps."""
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from graphc.ir.dims import static_dim
from graphc.ir.graph import Value
from graphc.ir.op import Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.shape import Concat
from graphc.ir.types import DType, TensorType, bf16, f16, f32, i8, u8

CODES: dict[int, tuple[DType, int]] = {4: (u8, 2), 8: (i8, 1)}      # bits of a code -> type in memory, codes in each
SCALES = (f32, f16, bf16)


class BlockProduct(Op):
    """x [..., K] @ Wᵀ, f32 [..., N], of W [N, K] whose rows are blocks of `block` columns. In block g of row n an
    element is scale[n, g] * (code - zero) + minimum[n, g].

    Codes have `bits` bits. Of 8 they are i8 [N, K]. Of 4 they are 0 … 15, and a byte of u8 [N, K / 2] has two: byte j
    of a block that of its column j in the low bits, and that of column j + block / 2. scale, and minimum if it is
    there, are [N, K / block], f32, f16 or bf16. Sums are f32: of few rows of x each block's first, times its scale; of
    many those of x @ Wᵀ, in its order. Has a gradient of x alone.
    """
    name: ClassVar[str] = "block_product"
    linear_in = ((0,),)
    takes_epilogue = True
    block: int
    bits: int
    zero: int = 0

    def infer(self, x: TensorType, codes: TensorType, scale: TensorType, *minimum: TensorType) -> TensorType:
        require(self.bits in CODES and self.block >= 2 and self.block % 2 == 0,
                f"{self.name} takes 4 or 8 bits and blocks of an even size, got {self.bits} and {self.block}")
        dtype, together = CODES[self.bits]
        require(x.dtype is f32 and x.rank > 0 and codes.dtype is dtype and codes.rank == 2 and codes.is_static,
                f"{self.name} takes x f32[..., K] and codes {dtype}[N, K / {together}], got {x} and {codes}")
        rows, columns = codes.shape[0], static_dim(codes.shape[1]) * together
        require(x.shape[-1] == columns and columns % self.block == 0,
                f"{self.name}: rows of {columns} codes, in blocks of {self.block}, do not fit {x}")
        parts = (scale, *minimum)
        require(len(parts) <= 2 and scale.dtype in SCALES and all(
            t.dtype is scale.dtype and t.shape == (rows, columns // self.block) for t in parts),
                f"{self.name}: scales and minima are {scale.dtype}[{rows}, {columns // self.block}], got "
                f"{', '.join(map(str, parts))}")
        return x.with_shape((*x.shape[:-1], rows))

    def reference(self, x: np.ndarray, codes: np.ndarray, scale: np.ndarray, *minimum: np.ndarray) -> np.ndarray:
        return np.asarray(x @ self.whole(codes, scale, minimum).T)

    def whole(self, codes: np.ndarray, scale: np.ndarray, minimum: Sequence[np.ndarray]) -> np.ndarray:
        """W, f32 [N, K]."""
        blocks = codes.reshape(*scale.shape, -1)
        if self.bits == 4:
            blocks = np.concatenate([blocks & 15, blocks >> 4], axis=-1)
        w = (blocks.astype(np.float32) - np.float32(self.zero)) * scale.astype(np.float32)[..., None]
        for least in minimum:
            w = w + least.astype(np.float32)[..., None]
        return w.reshape(codes.shape[0], -1)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """That of x. The matrix is what it is."""
        return b.matmul(gs[0], self.numbers(b, *ins[1:])), *(None for _ in ins[1:])

    def numbers(self, b: OpBuilder, codes: Value, scale: Value, *minimum: Value) -> Value:
        """W, or rows of it, of parts [..., K / 2] or [..., K] and [..., K / block]: f32 [..., K]."""
        shape = scale.type.shape
        codes = b.reshape(codes, shape=(*shape, self.block * self.bits // 8))
        if self.bits == 4:
            codes, = b.apply(Concat(len(shape)), (b.bitand(codes, 15), b.shift_right(codes, self.bits)))
        y = b.cast(codes, dtype=f32)
        y = b.sub(y, self.zero) if self.zero else y
        for i, part in enumerate((scale, *minimum)):
            wide = b.reshape(part if part.type.dtype is f32 else b.cast(part, dtype=f32), shape=(*shape, 1))
            y = b.add(y, wide) if i else b.mul(y, wide)
        return b.reshape(y, shape=(*shape[:-1], shape[-1] * self.block))

    def cost(self, x: TensorType, codes: TensorType, scale: TensorType, *minimum: TensorType) -> Cost:
        y = self.infer(x, codes, scale, *minimum)
        return Cost(2 * x.size * codes.shape[0], sum(t.nbytes for t in (x, codes, scale, *minimum, y)))


OPS = (BlockProduct,)
