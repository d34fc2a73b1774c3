"""Samples of operators that move, make or look up elements: shape, index, resize, constant, random."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from op_sample import CORE, FLOATS, Sample, each, floats, ints, values

from graphc.ir.op import Literal
from graphc.ir.ops.constant import Constant, Dimension, Iota
from graphc.ir.ops.embedding_gradients import AddRows, CheckRows, PickRows, RowPlaces
from graphc.ir.ops.grid_sample import GridSample
from graphc.ir.ops.index import OneHot, ScatterAdd, ScatterAddAlongAxis, Take, TakeAlongAxis
from graphc.ir.ops.packed import Pack, PackFour, PackPair
from graphc.ir.ops.random import Dropout, RandomBernoulli, RandomBits, RandomNormal, RandomPermutation, RandomUniform
from graphc.ir.ops.resize import Resize
from graphc.ir.ops.scatter import Scatter, ScatterAlongAxis
from graphc.ir.ops.shape import (
    BroadcastTo, Concat, DynamicSlice, DynamicUpdateSlice, Flip, Pad, Reshape, Slice, Transpose)
from graphc.ir.ops.shape_composites import Stack, Tile, Tril, Triu, Unequal
from graphc.ir.types import bf16, bool_, f32, f64, i8, i32, i64, u8

SOME = (f32, f64, i64, bool_)


def views() -> Iterator[Sample]:
    for old, new in (((6,), (2, 3)), ((2, 3), (3, 2)), ((), (1, 1)), ((1, 1), ()), ((0, 3), (5, 0)),
                     ((2, 3, 4), (4, 6)), ((7, 1), (7,))):
        yield from each(Reshape(new), ((old,),), SOME, tag=f"to{new}")
    for shape, perm in (((2, 3), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 2, 1)), ((5,), (0,)), ((), ()),
                        ((33, 17), (1, 0)), ((0, 3), (1, 0)), ((2, 3, 4, 5), (0, 2, 3, 1))):
        yield from each(Transpose(perm), ((shape,),), SOME, tag=f"perm{perm}",
                        expect=lambda x, p=perm: np.einsum(x, p_labels(x.ndim), [p_labels(x.ndim)[i] for i in p]))
    for old, new in (((), (3,)), ((1, 3), (4, 3)), ((3,), (2, 3)), ((2, 1), (2, 5)), ((1,), (0,)),
                     ((3, 1, 2), (3, 7, 2)), ((33,), (33,))):
        yield from each(BroadcastTo(new), ((old,),), SOME, tag=f"to{new}",
                        expect=lambda x, n=new: x * np.ones(n, x.dtype))


def p_labels(rank: int) -> list[int]:
    return list(range(rank))


def cuts() -> Iterator[Sample]:
    for shape, start, stop, step in (((10,), (2,), (9,), (1,)), ((10,), (1,), (10,), (3,)), ((7,), (0,), (7,), (2,)),
                                     ((5,), (5,), (5,), (1,)), ((33, 4), (1, 0), (30, 4), (7, 1)),
                                     ((4, 5, 6), (1, 2, 0), (4, 5, 6), (2, 1, 5)), ((3,), (0,), (3,), (1,)),
                                     ((8,), (3,), (4,), (9,)), ((), (), (), ())):
        yield from each(Slice(start, stop, step), ((shape,),), SOME, tag=f"{start}{stop}{step}",
                        expect=lambda x, a=start, b=stop, s=step: x[np.ix_(*(np.arange(*t) for t in zip(a, b, s)))]
                        if x.ndim else x)
    for shape, low, high, value in (((5,), (2,), (3,), 0), ((3, 4), (0, 1), (2, 0), 1), ((3,), (0,), (0,), 0),
                                    ((0,), (2,), (1,), 1), ((2, 3, 2), (1, 0, 2), (0, 0, 1), 0)):
        yield from each(Pad(low, high, value), ((shape,),), SOME, tag=f"{low}{high}{value}")
    yield from (Sample(Pad((1,), (1,), float("-inf")), (values((4,), d),), "inf", smooth=False) for d in FLOATS)
    for shape, axes in (((5,), (0,)), ((3, 4), (1,)), ((3, 4), (0, 1)), ((2, 3, 2), (0, 2)), ((3,), ()), ((0,), (0,))):
        yield from each(Flip(axes), ((shape,),), SOME, tag=f"axes{axes}")


def joins() -> Iterator[Sample]:
    for axis, shapes in ((0, ((3,), (5,))), (1, ((2, 3), (2, 1), (2, 4))), (0, ((2, 3), (0, 3), (1, 3))), (0, ((4,),)),
                         (2, ((2, 1, 3), (2, 1, 7))), (-1, ((2, 3), (2, 2)))):
        yield from each(Concat(axis), (shapes,), SOME, tag=f"axis{axis}", expect=lambda *xs, a=axis: append_all(xs, a))
    for axis, shapes in ((0, ((3,), (3,))), (1, ((2, 3),) * 3), (2, ((2, 3),) * 2), (0, ((), ()))):
        yield from each(Stack(axis), (shapes,), SOME, tag=f"axis{axis}")
    for reps, shape in (((2,), (3,)), ((2, 3), (4,)), ((1, 2), (3, 4)), ((3, 1), (2, 5)), ((0,), (3,)),
                        ((2, 2, 2), (1, 3))):
        yield from each(Tile(reps), ((shape,),), SOME, tag=f"{reps}")
    yield from each(Unequal((1, -2)), (((2, 3),),), SOME)
    for k in (-1, 0, 2):
        for shape in ((4, 4), (3, 5), (5, 3), (2, 3, 3), (1, 1), (0, 3)):
            yield from each(Tril(k), ((shape,),), SOME, tag=f"k{k}")
            yield from each(Triu(k), ((shape,),), SOME, tag=f"k{k}")


def append_all(xs, axis: int):
    result = xs[0]
    for x in xs[1:]:
        result = np.append(result, x, axis)
    return result


def dynamic() -> Iterator[Sample]:
    for shape, sizes, starts in (((10,), (3,), (4,)), ((10,), (3,), (9,)), ((10,), (3,), (-2,)),
                                 ((4, 5), (2, 5), (1, 3)), ((3, 4), (1, 1), (2, 3)), ((4,), (0,), (2,)), ((), (), ())):
        for dtype in SOME:
            at = tuple(np.asarray(s, np.int32 if i % 2 else np.int64) for i, s in enumerate(starts))
            yield Sample(DynamicSlice(sizes), (values(shape, dtype), *at), f"{sizes}{starts}")
            yield Sample(DynamicUpdateSlice(), (values(shape, dtype), values(sizes, dtype, seed=1), *at), f"{starts}")


def indexing() -> Iterator[Sample]:
    for shape, axis, places in (((7,), 0, (5,)), ((7, 3), 0, (4,)), ((3, 7), 1, (2, 3)), ((2, 5, 3), 1, ()),
                                ((33, 17), 0, (100,)), ((4, 3), 0, (0,)), ((4, 0), 0, (3,)), ((2, 3, 4), -1, (5,))):
        at = ints(places, i32 if axis else i64, 0, shape[axis])
        front = axis % len(shape)
        updates = shape[:front] + places + shape[front + 1:]
        for dtype in (f32, f64, i32, bool_):
            yield Sample(Take(axis), (values(shape, dtype), at), f"axis{axis}",
                         expect=lambda x, i, a=front: x[(slice(None),) * a + (i,)])
        for dtype in (f32, f64, i32):
            yield Sample(ScatterAdd(axis), (values(shape, dtype), at, values(updates, dtype, seed=1)), f"axis{axis}",
                         expect=lambda x, i, u, a=front: scattered(x, i, u, a), tolerance=64)
    for shape, axis, n in (((7,), 0, 5), ((3, 7), 1, 2), ((7, 3), 0, 9), ((2, 5, 3), 1, 1), ((3, 33), -1, 1),
                           ((3, 4), 1, 0)):
        places = tuple(n if i == axis % len(shape) else d for i, d in enumerate(shape))
        at = ints(places, i64, 0, shape[axis])
        for dtype in (f32, f64, i32):
            yield Sample(TakeAlongAxis(axis), (values(shape, dtype), at), f"axis{axis}")
            yield Sample(ScatterAddAlongAxis(axis), (values(shape, dtype), at, values(places, dtype, seed=1)),
                         f"axis{axis}")
    for ids in (ints((5,), i32, 0, 4), ints((2, 3), i64, -1, 5), ints((), i64, 0, 4), ints((0,), i32)):
        yield from (Sample(OneHot(4, d), (ids,), f"{d}") for d in (f32, f64, i32, bool_))


def scatters() -> Iterator[Sample]:
    """Updates that are distinct, so that none equals another or what stands there; a few of `mul` are 0."""
    for reduction in ("none", "mul", "min", "max"):
        for shape, axis, places in (((7,), 0, (5,)), ((7, 3), 0, (4,)), ((3, 7), 1, (2, 3)), ((2, 5, 3), 1, ()),
                                    ((9, 17), 0, (30,)), ((4, 3), 0, (0,)), ((4, 0), 0, (3,)), ((2, 3, 4), -1, (5,))):
            at = ints(places, i32 if axis else i64, 0, shape[axis])
            front = axis % len(shape)
            updates = shape[:front] + places + shape[front + 1:]
            for dtype in (f32, f64, i32, *(bool_,) * (reduction == "none")):
                yield Sample(Scatter(axis, reduction), (values(shape, dtype), at, values(updates, dtype, seed=1)),
                             f"{reduction}{axis}", expect=one_by_one(reduction, front), tolerance=64)
        for shape, axis, n in (((7,), 0, 5), ((3, 7), 1, 2), ((7, 3), 0, 9), ((2, 5, 3), 1, 1), ((3, 33), -1, 1),
                               ((3, 4), 1, 0)):
            places = tuple(n if i == axis % len(shape) else d for i, d in enumerate(shape))
            at = ints(places, i64, 0, shape[axis])
            for dtype in (f32, f64, i32, *(bool_,) * (reduction == "none")):
                yield Sample(ScatterAlongAxis(axis, reduction), (values(shape, dtype), at, values(places, dtype, seed=1)),
                             f"{reduction}{axis}", expect=one_by_one_along(reduction, axis % len(shape)), tolerance=64)


MEET = {"none": lambda old, new: new, "mul": lambda old, new: old * new, "min": min, "max": max}


def one_by_one(reduction: str, axis: int):
    def expect(base, at, updates):
        y = np.moveaxis(base.copy(), axis, 0)
        rows = np.moveaxis(updates, range(axis, axis + at.ndim), range(at.ndim))
        for n in np.ndindex(at.shape):
            for rest in np.ndindex(y.shape[1:]):
                y[(at[n], *rest)] = MEET[reduction](y[(at[n], *rest)], rows[(*n, *rest)])
        return np.moveaxis(y, 0, axis)
    return expect


def one_by_one_along(reduction: str, axis: int):
    def expect(base, at, updates):
        y = base.copy()
        for n in np.ndindex(at.shape):
            place = (*n[:axis], at[n], *n[axis + 1:])
            y[place] = MEET[reduction](y[place], updates[n])
        return y
    return expect


def row_lists() -> Iterator[Sample]:
    for size, places in ((7, (5,)), (1, (3,)), (40, (2, 9)), (9, ()), (3, (0,)), (100, (33,))):
        for dtype in (i32, i64):
            ids = ints(places, dtype, 0, size)
            yield Sample(RowPlaces(size), (ids,), f"of{size}", expect=first_places(size))
            stray = ints(places, dtype, -2, size + 2)               # some outside: they are clamped
            yield Sample(RowPlaces(size, True), (stray,), f"of{size} checked",
                         expect=lambda ids, size=size: first_places(size)(np.clip(ids, 0, size - 1)))
            yield Sample(CheckRows(size), (ids,), f"of{size}", expect=lambda ids: ids)
    for shape, count in (((7, 3), 5), ((1, 4), 3), ((9, 33), 40), ((5,), 6), ((4, 2, 9), 1), ((3, 1), 17), ((6, 8), 0)):
        at = ints((count,), i32, -2, shape[0] + 2)                  # some outside: they are clamped
        inside = np.clip(at, 0, shape[0] - 1)
        for dtype in (f32, f64, i32):
            yield Sample(PickRows(), (values(shape, dtype), inside), f"{count}", expect=lambda x, i: x[i])
            yield Sample(PickRows(), (values(shape, dtype), at), f"clamped{count}", smooth=False,
                         expect=lambda x, i: x[np.clip(i, 0, len(x) - 1)])
            yield Sample(AddRows(), (values(shape, dtype), at, values((count, *shape[1:]), dtype, seed=1)), f"{count}",
                         smooth=False,
                         expect=lambda x, i, u: scattered(x, np.clip(i, 0, len(x) - 1), u, 0), tolerance=64)
            yield Sample(AddRows(), (values(shape, dtype), inside, values((count, *shape[1:]), dtype, seed=1)),
                         f"inside{count}",
                         expect=lambda x, i, u: scattered(x, i, u, 0), tolerance=64)


def first_places(size: int):
    def expect(ids):
        flat = ids.ravel().tolist()
        return np.array([flat.index(row) if row in flat else len(flat) for row in range(size)], np.int32)
    return expect


def scattered(x, idx, updates, axis: int):
    onehot = (idx[..., None] == np.arange(x.shape[axis])).astype(x.dtype)
    added = np.tensordot(onehot, updates, (range(idx.ndim), range(axis, axis + idx.ndim)))
    return x + np.moveaxis(added, 0, axis).astype(x.dtype)


def images() -> Iterator[Sample]:
    for mode in ("nearest", "bilinear"):
        for shape, new in (((1, 2, 3, 3), (6, 6)), ((2, 1, 4, 5), (7, 3)), ((1, 1, 1, 1), (3, 2)),
                           ((1, 3, 5, 4), (5, 4)), ((1, 1, 8, 8), (4, 4)), ((1, 2, 3, 2), (9, 2)),
                           ((0, 1, 2, 2), (4, 4))):
            yield from each(Resize(new, mode), ((shape,),), tag=f"{mode}{new}")


def placed_images() -> Iterator[Sample]:
    """Resize with all that ONNX knows, of coordinates off the kinks."""
    more = ({"coordinates": "align_corners"}, {"coordinates": "half_pixel_symmetric", "scales": (1.6, 0.7)},
            {"coordinates": "asymmetric"}, {"coordinates": "pytorch_half_pixel"}, {"antialias": True},
            {"exclude_outside": True}, {"antialias": True, "exclude_outside": True, "cubic": -0.5},
            {"coordinates": "tf_crop_and_resize", "crop": (0.1, -0.3, 1.3, 0.8), "fill": 0.5})
    for shape, new in (((1, 2, 5, 7), (3, 3)), ((1, 1, 4, 3), (9, 5)), ((2, 1, 12, 10), (1, 4)), ((1, 2, 3, 3), (3, 3))):
        yield from each(Resize(new, "bicubic"), ((shape,),), tag=f"cubic{new}")
        for n, options in enumerate(more):
            modes = ("bilinear", "bicubic") if "antialias" in options else ("nearest", "bilinear", "bicubic")
            for mode in modes:
                yield from each(Resize(new, mode, **options), ((shape,),), tag=f"{mode}{new}{n}", tolerance=64)
        for rounding in ("ceil", "round_prefer_floor", "round_prefer_ceil"):
            yield from each(Resize(new, "nearest", "half_pixel", rounding), ((shape,),), tag=f"{rounding}{new}")


def samplings() -> Iterator[Sample]:
    for mode in ("nearest", "bilinear", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (False, True):
                for x, grid in (((1, 2, 4, 5), (1, 3, 2, 2)), ((2, 3, 5, 1), (2, 1, 4, 2)), ((0, 1, 2, 2), (0, 1, 1, 2))):
                    for dtype in FLOATS:
                        yield Sample(GridSample(mode, padding, align), (values(x, dtype), floats(grid, dtype, -1.7, 1.7, seed=4)),
                                     f"{mode}-{padding}-{align}", smooth=mode != "nearest", tolerance=512)
    for x, grid in (((2, 2, 5), (2, 4, 1)), ((1, 2, 3, 4, 2), (1, 2, 1, 3, 3))):
        for mode in ("nearest", "bilinear"):
            yield Sample(GridSample(mode), (values(x, f64), floats(grid, f64, -1.2, 1.2)), mode, smooth=mode != "nearest", tolerance=512)


def makers() -> Iterator[Sample]:
    for dtype in CORE:
        yield Sample(Constant(Literal.of(values((2, 3), dtype))), (), f"{dtype}")
        yield Sample(Constant(Literal.of(values((), dtype))), (), f"scalar-{dtype}")
        if dtype != bool_:
            yield from (Sample(Iota(shape, axis, dtype), (), f"{dtype}-{shape}-{axis}")
                        for shape, axis in (((5,), 0), ((3, 4), 1), ((3, 4), 0), ((0,), 0), ((2, 3, 33), 2), ((1,), 0)))
            yield Sample(Dimension(12, dtype), (), f"{dtype}")


def random() -> Iterator[Sample]:
    keys = (np.array([0, 0]), np.array([1234567890123, 77]), np.array([-1, -2]))
    for shape in ((), (1,), (3,), (4,), (33,), (100,), (0,), (3, 7), (2, 3, 5)):
        yield Sample(RandomBits(shape, 3), (keys[1],), f"{shape}")
        for dtype in FLOATS:
            yield Sample(RandomUniform(shape, dtype, 5), (keys[1],), f"{dtype}{shape}")
            yield Sample(RandomNormal(shape, dtype, 6), (keys[1],), f"{dtype}{shape}")
        yield Sample(RandomBernoulli(shape, 0.3, 7), (keys[1],), f"{shape}")
    yield from (Sample(RandomBits((9,), 2 ** 32 - 1, 2), (key,), f"key{i}") for i, key in enumerate(keys))
    yield from (Sample(RandomBernoulli((33,), p), (keys[0],), f"p{p}") for p in (0.0, 1.0, 1e-12))
    yield from (Sample(RandomPermutation(n, 8), (keys[1],), f"{n}") for n in (0, 1, 7, 100))
    for rate in (0.0, 0.25, 1.0):
        for dtype in FLOATS:
            yield from (Sample(Dropout(rate, 9), (values(shape, dtype), keys[1]), f"rate{rate}")
                        for shape in ((33,), (3, 7), (), (0,)))


def packed() -> Iterator[Sample]:
    for shape in ((4,), (3, 6), (2, 1, 8), (0, 2), (3, 0)):
        yield Sample(Pack(), (floats(shape, f32).astype(bf16.np),), smooth=False)
        yield Sample(PackPair(), tuple(floats(shape, f32, seed=s).astype(bf16.np) for s in (1, 2)), smooth=False)
    for dtype in (i8, u8):
        numbers = np.arange(24, dtype=dtype.np).reshape(2, 3, 4) * 9 + 100
        yield Sample(Pack(), (numbers,), smooth=False)
        yield from (Sample(PackFour(), tuple(numbers + 5 * i for i in range(n)), str(n), smooth=False) for n in (1, 3, 4))


SAMPLES = (*views(), *packed(), *cuts(), *joins(), *dynamic(), *indexing(), *scatters(), *row_lists(), *images(), *placed_images(), *samplings(), *makers(), *random())
