"""Steps of random programs that move elements: views, joins, reads and writes at indices."""
from __future__ import annotations

import numpy as np

import graphc as gc
from tests.random.scope import Scope, Skip


def transpose(s: Scope):
    x = s.pick(lambda x: x.ndim >= 2)
    return x.T if s.chance(0.4) else x.transpose(*map(int, s.rng.permutation(x.ndim)))


def reshape(s: Scope):
    x = s.pick()
    if not x.type.is_static:
        return x.reshape(-1) if s.chance(0.5) else x.reshape(*x.shape, 1)
    return x.reshape(regrouped(s, x.shape))


def regrouped(s: Scope, shape) -> tuple[int, ...]:
    """Another shape of as many elements: axes merged, split, or of size 1 put in or left out."""
    dims = list(shape)
    for _ in range(s.whole(1, 3)):
        way = s.whole(0, 3)
        i = s.whole(0, len(dims) - 1) if dims else 0
        if way == 0 and len(dims) >= 2 and i + 1 < len(dims):
            dims[i:i + 2] = [dims[i] * dims[i + 1]]
        elif way == 1 and dims and dims[i] > 3:
            factors = [f for f in range(2, dims[i]) if dims[i] % f == 0]
            if factors:
                factor = s.one(factors)
                dims[i:i + 1] = [factor, dims[i] // factor]
        elif way == 2 and len(dims) < 5:
            dims.insert(i, 1)
        elif 1 in dims:
            dims.remove(1)
    return tuple(dims)


def slices(s: Scope):
    """A basic index: slices with steps forward and backward, ints, new axes, an ellipsis."""
    x = s.pick(lambda x: x.ndim >= 1)
    return x[tuple(_key(s, n) for n in x.shape[:s.whole(1, x.ndim)])]


def _key(s: Scope, n):
    if not isinstance(n, int):
        return s.one([slice(None), slice(None, None, -1), slice(1, None), slice(None, -1)])
    way = s.rng.random()
    if way < 0.25:
        return slice(None, None, s.one([1, 1, 2, -1, -2]))
    if way < 0.4 and n:
        return s.whole(-n, n - 1)
    first = s.whole(0, max(n - 1, 0))
    return slice(first, s.whole(first, n),
                 s.one([1, 1, 1, 2, 3])) if way < 0.85 else slice(s.whole(-n, 0) or None, None)


def broadcast(s: Scope):
    x = s.pick(lambda x: x.ndim <= 3)
    ones = [i for i, n in enumerate(x.shape) if n == 1]
    shape = [s.whole(0 if s.chance(0.05) else 1, 4) if i in ones and s.chance(0.8) else n for i,
             n in enumerate(x.shape)]
    return gc.broadcast_to(x, [s.whole(1, 4) for _ in range(s.whole(0 if ones else 1, 2))] + shape)


def new_axis(s: Scope):
    x = s.pick(lambda x: x.ndim <= 4)
    return gc.expand_dims(x, s.whole(0, x.ndim))


def squeeze(s: Scope):
    return gc.squeeze(s.pick(lambda x: 1 in x.shape))


def tile(s: Scope):
    x = s.pick(lambda x: s.count(x.shape) <= 150)
    return gc.tile(x, tuple(s.whole(1, 3) for _ in range(max(1, x.ndim + s.one([-1, 0, 0, 0, 1])))))


def repeat(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1 and s.count(x.shape) <= 150)
    return gc.repeat(x, s.whole(1, 3), s.axis(x))


def flip(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1)
    return gc.flip(x, s.axes(x))


def roll(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1)
    return gc.roll(x, s.whole(-4, 4), s.axis(x))


def pad(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1 and x.dtype.kind != "bool")
    return gc.pad(x, [(s.whole(0, 2), s.whole(0, 2)) for _ in x.shape],
                  s.one([0, 0, 0.5, 1]) if x.dtype.is_float else 0)


def split(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1)
    axis = s.axis(x)
    n = x.shape[axis]
    if not isinstance(n, int):
        raise Skip
    if s.chance(0.5):
        return gc.split(x, s.one([p for p in (1, 2, 3, 4, 5) if n % p == 0]), axis)
    return gc.split(x, sorted(s.whole(0, n) for _ in range(s.whole(1, 2))), axis)


def concat(s: Scope):
    """Arrays one after another: the same twice, parts that overlap, or one of another size along the axis."""
    x = s.pick(lambda x: x.ndim >= 1)
    axis = s.axis(x) % x.ndim
    others = [y for y in s.arrays if y.ndim == x.ndim and y.dtype is x.dtype
              and all(a == b for i, (a, b) in enumerate(zip(x.shape, y.shape)) if i != axis)]
    parts = [x, *(s.one(others) for _ in range(s.whole(1, 2)))]
    if s.chance(0.2):
        parts.append(s.like(tuple(s.whole(0, 2) if i == axis else n for i, n in enumerate(x.shape)), x.dtype))
    s.rng.shuffle(parts)
    return gc.concat(parts, axis)


def stack(s: Scope):
    x = s.pick(lambda x: x.ndim <= 4)
    parts = [x, *(s.like(x.shape, x.dtype) for _ in range(s.whole(0, 2)))]
    return gc.stack(parts, s.whole(0, x.ndim))


def triangle(s: Scope):
    x = s.pick(lambda x: x.ndim >= 2)
    return s.one([gc.tril, gc.triu])(x, s.whole(-2, 2))


def take(s: Scope):
    """Rows in a constant or computed order, each of them any number of times."""
    x = s.pick(lambda x: x.ndim >= 1)
    axis = s.axis(x)
    return gc.take(x, indices(s, x.shape[axis], [s.whole(0, 3)] * s.whole(0, 2)), axis)


def take_along(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1)
    axis = s.axis(x) % x.ndim
    shape = tuple(s.whole(0, 4) if i == axis else n for i, n in enumerate(s.concrete(x)))
    return gc.take_along_axis(x, indices(s, x.shape[axis], shape), axis)


def scatter(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1 and x.dtype.kind != "bool")
    axis, shape = s.axis(x) % x.ndim, s.concrete(x)
    if s.chance(0.5):
        around = tuple(s.whole(0, 4) if i == axis else n for i, n in enumerate(shape))
        return gc.scatter_add_along_axis(x, indices(s, shape[axis], around), s.like(around, x.dtype), axis)
    rows = [s.whole(0, 4)] * s.whole(0, 2)
    return gc.scatter_add(x, indices(s, shape[axis], rows), s.like((*shape[:axis], *rows, *shape[axis + 1:]), x.dtype),
                          axis)


def indices(s: Scope, n, shape):
    """Whole numbers in [0, n): a constant, or computed from integers that are there."""
    if not isinstance(n, int) or not n and int(np.prod(shape, dtype=np.int64)):
        raise Skip
    if s.chance(0.5) or not n:
        return s.rng.integers(0, max(n, 1), tuple(shape))
    return s.like(shape, gc.i64) % n


def one_hot(s: Scope):
    x = s.pick(lambda x: x.dtype.is_int and x.ndim <= 3)
    return gc.one_hot(x, s.whole(1, 4), s.dtype)


def dynamic(s: Scope):
    x = s.pick(lambda x: x.ndim >= 1)
    sizes = tuple(s.whole(0 if s.chance(0.1) else min(n, 1), n) for n in s.concrete(x))
    starts = [s.whole(0, 3) if s.chance(0.5) else s.like((), gc.i64) for _ in sizes]
    return gc.dynamic_slice(x, starts,
                            sizes) if s.chance(0.5) else gc.dynamic_update_slice(x, s.like(sizes, x.dtype), starts)


def captured(s: Scope):
    """A constant, which may become the result of a region as it is."""
    shape = tuple(s.whole(1, 3) for _ in range(s.whole(0, 2)))
    return gc.Array.__add__(gc.zeros(shape, s.dtype),
                            s.numbers(shape, s.dtype)) if s.chance(0.5) else gc.full(shape, s.whole(-1, 2), s.dtype)


STEPS = {transpose: 5, reshape: 5, slices: 6, broadcast: 5, new_axis: 2, squeeze: 2, tile: 4, repeat: 3, flip: 3,
         roll: 3, pad: 3, split: 3,
         concat: 5, stack: 3, triangle: 2, take: 3, take_along: 2, scatter: 3, one_hot: 2, dynamic: 3, captured: 2}
