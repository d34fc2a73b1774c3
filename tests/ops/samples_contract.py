"""Samples of contractions, convolutions, pooling, attention and control flow; their formulas are tested one by one in
test_ops_b.py.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from op_sample import FLOATS, Sample, distinct, each, floats, rng_for, values

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.contract import Einsum, Matmul
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvTranspose, ConvWeightGrad
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.ops.remat import Hold, Remat
from graphc.ir.ops.window import AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad, MaxPoolPick
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from graphc.ir.types import DType, TensorType, bf16, bool_, f16, f32, f64, i8, i64, u8

MATMULS = (((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((7, 17), (17, 33)), ((33, 8), (8, 100)), ((5, 2, 3), (3, 4)),
           ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)),
           ((2, 1, 2, 3), (3, 3, 2)), ((1, 1), (1, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((1, 100), (100, 1)))
EINSUMS = (("ij,jk->ik", (2, 3), (3, 4)), ("bhtd,bhsd->bhts", (2, 2, 3, 4), (2, 2, 5, 4)), ("i,j->ij", (2,), (3,)),
           ("tmk,tkn->mn", (4, 2, 3), (4, 3, 2)),
           ("ij,ij->", (2, 3), (2, 3)), ("ijk,k->j", (2, 3, 4), (4,)), ("ab,cb->ca", (7, 3), (17, 3)),
           ("...ij,jk->...ik", (2, 3, 2, 4), (4, 3)))
Conv1d, Conv2d, Conv3d = Conv.every()
CONVS = (((2, 3, 5, 4), (4, 3, 3, 2), Conv2d()), ((1, 2, 6, 7), (3, 2, 3, 3), Conv2d((2, 2), ((1, 1), (1, 1)))),
         ((2, 4, 5, 5), (6, 2, 2, 3), Conv2d((1, 2), ((0, 1), (2, 0)), (2, 1), 2)),
         ((1, 3, 4, 4), (3, 1, 3, 3), Conv2d((1, 1), ((1, 1), (1, 1)), (1, 1), 3)),
         ((1, 1, 7, 7), (1, 1, 2, 2), Conv2d((3, 3), ((0, 0), (0, 0)), (3, 3))),
         ((2, 2, 3, 3), (3, 2, 1, 1), Conv2d((2, 2))), ((1, 8, 9, 9), (17, 8, 3, 3), Conv2d()),
         ((1, 2, 0, 3), (4, 2, 2, 2), Conv2d((1, 2), ((1, 1), (1, 1)))), ((0, 2, 3, 3), (4, 2, 2, 2), Conv2d()),
         ((2, 3, 7), (4, 3, 3), Conv1d()), ((1, 4, 9), (6, 2, 3), Conv1d((2,), ((2, 1),), (2,), 2)),
         ((2, 3, 8), (3, 1, 5), Conv1d((1,), ((2, 2),), (1,), 3)), ((1, 2, 0), (4, 2, 2), Conv1d((1,), ((1, 1),))),
         ((1, 2, 3, 4, 5), (3, 2, 2, 3, 2), Conv3d()),
         ((1, 4, 4, 3, 5), (4, 2, 2, 1, 3), Conv3d((1, 2, 2), ((0, 1), (1, 0), (1, 1)), (2, 1, 1), 2)),
         ((1, 2, 3, 4, 3), (2, 1, 3, 3, 3), Conv3d((1, 1, 1), ((1, 1),) * 3, (1, 1, 1), 2)))
TRANSPOSED = (((1, 2, 3, 3), (2, 3, 2, 2), ConvTranspose.at(2)()),
              ((2, 4, 3, 2), (4, 1, 3, 3), ConvTranspose.at(2)((2, 2), ((1, 1), (1, 1)), (1, 0), (1, 1), 2)),
              ((2, 4, 5), (4, 1, 3), ConvTranspose.at(1)((2,), ((1, 0),), (1,), (1,), 2)),
              ((1, 2, 3, 2, 2), (2, 2, 2, 3, 2), ConvTranspose.at(3)((2, 1, 1), ((0, 1), (1, 1), (0, 0)), (1, 0, 0))))
# image, kernel, stride, padding, dilation, ceil_mode
POOLS = (((2, 2, 4, 6), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),
         ((1, 2, 5, 5), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), False),
         ((1, 1, 5, 4), (3, 2), (1, 1), ((1, 0), (0, 1)), (1, 1), False),
         ((1, 17, 7, 3), (2, 3), (2, 1), ((0, 0), (1, 1)), (1, 1), False),
         ((1, 2, 0, 3), (2, 2), (2, 1), ((1, 1), (1, 1)), (1, 1), False),
         ((1, 17, 6, 7), (2, 2), (3, 2), ((0, 1), (2, 0)), (1, 3), True),
         ((2, 3, 8), (2,), (2,), ((0, 0),), (1,), False), ((1, 17, 7), (3,), (2,), ((2, 1),), (1,), True),
         ((1, 2, 4, 2, 6), (2, 2, 3), (2, 2, 3), ((0, 0),) * 3, (1, 1, 1), False),
         ((1, 17, 3, 5, 4), (2, 3, 2), (1, 2, 3), ((1, 0), (1, 1), (0, 0)), (1, 1, 2), True))
ATTENTIONS = (((2, 3, 4), (2, 3, 4), (2, 3, 4)), ((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 2)), ((1, 2), (1, 2), (1, 3)),
              ((17, 8), (33, 8), (33, 8)))


def products() -> Iterator[Sample]:
    yield from each(Matmul(), MATMULS, expect=np.matmul, tolerance=128)
    for equation, *shapes in EINSUMS:
        yield from each(Einsum(equation), (shapes,), tag=equation, expect=lambda x, y, e=equation: np.einsum(e, x, y),
                        tolerance=128)


def block_products() -> Iterator[Sample]:
    """Blocks of whole vectors and of less, rows that are no multiple of those taken together, and one row."""
    for rows, columns, block, x in ((9, 64, 32, (1,)), (1, 128, 64, ()), (6, 12, 4, (3, 2)), (33, 96, 32, (2,)),
                                    (5, 24, 8, (0,)), (4, 256, 256, (1,))):
        for bits, zero, scale, least in ((4, 8, f16, False), (4, 0, f16, True), (8, 0, f32, False), (8, 0, bf16, True)):
            codes = rng_for(rows, columns, bits).integers(0, 256, (rows, columns * bits // 8)).astype(np.uint8).view((u8 if bits == 4 else i8).np)
            parts = [np.abs(floats((rows, columns // block), seed=k)).astype(scale.np) for k in range(1 + least)]
            yield Sample(BlockProduct(block, bits, zero), (floats((*x, columns)), codes, *parts), f"{scale}{least}",
                         tolerance=4096)


def convolutions() -> Iterator[Sample]:
    for i, (x, w, op) in enumerate(CONVS):
        y = op.infer(f64[x], f64[w]).shape
        yield from each(op, ((x, w),), tag=f"{i}", tolerance=128)
        yield from each(op.like(ConvInputGrad, x_shape=x), ((w, y),), tag=f"{i}", tolerance=128)
        yield from each(op.like(ConvWeightGrad, w_shape=w), ((x, y),), tag=f"{i}", tolerance=128)
    for i, (x, w, op) in enumerate(TRANSPOSED):
        yield from each(op, ((x, w),), tag=f"{i}", tolerance=128)


def winograd() -> Iterator[Sample]:
    """Points of a tile and panels of features; the result's error is that of three transforms of sums over channels."""
    for tile, padding in ((2, ((1, 1), (1, 1))), (4, ((0, 2), (1, 0)))):
        yield from each(WinogradWeights(tile, 16), (((19, 3, 3, 3),),), (f32,), tag=f"{tile}", tolerance=128)
        yield from each(WinogradWeights(tile, 8, True), (((5, 9, 3, 3),),), (f32,), tag=f"{tile} turned", tolerance=128)
        u = WinogradWeights(tile, 16).infer(f32[19, 5, 3, 3]).shape
        yield from each(WinogradConv2d(tile, 19, padding), (((2, 5, 9, 7), u),), (f32,), tag=f"{tile}", tolerance=4096)
        narrow = WinogradWeights(tile, 8).infer(f32[19, 5, 3, 3]).shape
        yield from each(WinogradConv2d(tile, 19, padding), (((2, 5, 9, 7), narrow),), (f32,),
                        tag=f"{tile} narrow panels", tolerance=4096)
        y = (2, 19, *(n + sum(p) - 2 for n, p in zip((9, 7), padding)))
        yield from each(WinogradWeightGrad(tile, padding), (((2, 5, 9, 7), y),), (f32,), tag=f"{tile}", tolerance=4096)
    several = WinogradWeightGrad(2, ((1, 1), (1, 1)), ((0, 1, 2), (0, 2, 3)))
    yield from each(several, (((3, 5, 9, 7), (3, 19, 9, 7)),), (f32,), tag="of 3 shards", tolerance=4096)


def pools() -> Iterator[Sample]:
    for i, (x, *options) in enumerate(POOLS):
        most = MaxPool.at(len(x) - 2)(*options)
        y = most.infer(f64[x]).shape
        yield from each(most, ((x,),), make=distinct, tag=f"{i}")
        for dtype in FLOATS:
            yield Sample(most.like(MaxPoolGrad), (distinct(x, dtype), floats(y, dtype)), f"{i}")
            yield Sample(most.like(MaxPoolPick), (distinct(x, dtype), floats(x, dtype)), f"{i}")
        for include in (False, True):
            mean = most.like(AvgPool, count_include_pad=include)
            yield from each(mean, ((x,),), tag=f"{i}{include}")
            yield from each(mean.like(AvgPoolGrad, x_shape=x), ((y,),), tag=f"{i}{include}")


def attentions() -> Iterator[Sample]:
    for causal in (False, True):
        for shapes in ATTENTIONS:
            yield from each(Attention(causal=causal), (shapes,), tag=f"causal{causal}", tolerance=128)
            yield from (attention_grad(shapes, causal, dtype) for dtype in FLOATS)
    mask = values((3, 5), bool_) | (np.arange(5) == 0)
    for dtype in FLOATS:
        q, k, v = (floats(s, dtype, seed=i) for i, s in enumerate(((2, 3, 4), (2, 5, 4), (2, 5, 4))))
        yield Sample(Attention(0.5), (q, k, v, mask), "mask", tolerance=128)
        yield Sample(Attention(0.5), (q, k, v, floats((3, 5), dtype)), "bias", tolerance=128)


def attention_grad(shapes, causal: bool, dtype: DType) -> Sample:
    arrays = tuple(floats(s, dtype, seed=i) for i, s in enumerate(shapes))
    out, lse = Attention(causal=causal).reference(*arrays)
    return Sample(AttentionGrad(causal=causal), (*arrays, out, lse, floats(out.shape, dtype, seed=9)),
                  f"causal{causal}", smooth=False, tolerance=128)


def graph_of(types: tuple[TensorType, ...], make: Callable) -> Graph:
    b = Builder("body")
    outs = make(b, *(b.input(f"v{i}", t) for i, t in enumerate(types)))
    return b.finish(outs, ("",) * len(outs))


def control() -> Iterator[Sample]:
    for dtype in FLOATS:
        h, w = TensorType(dtype, (3,)), TensorType(dtype, (3, 3))
        cell = graph_of((h, h, w), lambda b, c, x, w: (y := b.tanh(b.add(b.matmul(c, w), x)), b.mul(y, x)))
        for reverse in (False, True):
            for steps in (1, 5):
                yield Sample(Scan(cell, 1, 1, steps, reverse),
                             (floats((3,), dtype), floats((steps, 3), dtype, seed=1), floats((3, 3), dtype, seed=2)),
                             f"{reverse}", tolerance=128)
        yes, no = (graph_of((h,), lambda b, x, fn=fn: (getattr(b, fn)(x),)) for fn in ("sin", "exp"))
        yield from (Sample(Cond(yes, no), (np.asarray(flag), floats((3,), dtype)), f"{flag}") for flag in (True, False))
        n = TensorType(i64, ())
        grows = graph_of((n, h, n), lambda b, i, x, stop: (b.lt(i, stop),))
        body = graph_of((n, h, n), lambda b, i, x, stop: (b.add(i, 1), b.mul(b.sin(x), 1.5)))
        yield from (Sample(WhileLoop(grows, body, 2, 4), (np.asarray(0), floats((3,), dtype), np.asarray(stop)),
                           f"{stop}") for stop in (0, 3, 9))
        square = graph_of((h,), lambda b, x: (b.mul(x, x),))
        rule = graph_of((h, h, h), lambda b, x, y, g: (b.mul(b.mul(g, x), 2),))
        yield Sample(CustomVjp(square, rule), (floats((3,), dtype),))
        root = graph_of((h, h), lambda b, x, y: (b.mul(b.sin(x), y), b.add(x, y)))
        yield Sample(Remat(root), (floats((3,), dtype), floats((3,), dtype)))
        yield Sample(Remat(root, 1), (floats((3,), dtype), floats((3,), dtype)), "held")
        for shape in ((3, 4), (), (0, 2)):
            yield Sample(Hold(), (floats(shape, dtype), floats((5,), dtype)), f"{shape}")


SAMPLES = (*products(), *block_products(), *convolutions(), *winograd(), *pools(), *attentions(), *control())
