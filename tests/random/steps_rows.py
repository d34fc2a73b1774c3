"""Steps of random programs that compute: elementwise functions, reductions, rows, products. Values stay of moderate
size."""
from __future__ import annotations

import numpy as np

import graphc as gc
from tests.random.scope import Scope, Skip

SMOOTH = (gc.tanh, gc.sigmoid, gc.sin, gc.cos, gc.erf, gc.gelu, gc.silu, gc.softplus, gc.elu,
          lambda x: gc.exp(-gc.abs(x)), lambda x: gc.log1p(x * x),
          lambda x: gc.sqrt(x * x + 1), lambda x: -x, lambda x: x * 0.5, lambda x: x * 2.0, lambda x: x + 1,
          lambda x: gc.square(x) * 0.25,
          lambda x: x / (1 + gc.abs(x)), lambda x: gc.rsqrt(x * x + 0.5), lambda x: gc.expm1(gc.tanh(x)),
          lambda x: x ** 2,
          lambda x: gc.atan2(x, x + 3), lambda x: gc.atan(x), lambda x: gc.asinh(x), lambda x: 1 - x,
          lambda x: 2 / (x * x + 1), lambda x: (x * x + 0.1) ** 0.5)
BENT = (gc.relu, gc.leaky_relu, gc.abs, gc.sign, gc.floor, gc.ceil, gc.round, lambda x: gc.clip(x, -0.5, 0.75),
        lambda x: gc.maximum(x, 0.1),
        lambda x: gc.minimum(x, 1), lambda x: gc.stop_gradient(x), lambda x: gc.sqrt(gc.abs(x)), lambda x: x % 0.7,
        lambda x: x // 0.7,
        lambda x: gc.where(gc.isfinite(x), x, 0), lambda x: gc.where(gc.isnan(x), 1.0, x),
        lambda x: gc.log(gc.abs(x) + 1e-3))
INTEGER = (lambda x: -x, lambda x: x + 1, lambda x: x * 3, lambda x: x // 2, lambda x: x % 3, lambda x: x << 1,
           lambda x: x >> 1, gc.abs, gc.sign,
           lambda x: x & 6, lambda x: x ^ 5, lambda x: ~x, lambda x: 7 // x, lambda x: 7 % x)
PAIRS = (lambda x, y: x + y, lambda x, y: x - y, lambda x, y: gc.tanh(x) * y, lambda x, y: x * gc.sigmoid(y), lambda x,
         y: gc.maximum(x, y),
         lambda x, y: gc.minimum(x, y), lambda x, y: x / (y * y + 1), lambda x, y: gc.where(x > y, x * 0.5, y),
         lambda x, y: gc.tanh(x * y))
WHOLE_PAIRS = (lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x // y, lambda x, y: x % y,
               lambda x, y: x & y,
               lambda x, y: x | y, lambda x, y: x ^ y, lambda x, y: gc.maximum(x, y), lambda x, y: gc.minimum(x, y),
               lambda x, y: x << (y & 3), lambda x, y: x >> (y & 3))
COMPARISONS = (lambda x, y: x < y, lambda x, y: x <= y, lambda x, y: x > y, lambda x, y: x >= y, lambda x, y: x == y,
               lambda x, y: x != y)


def smooth(s: Scope):
    return s.one(SMOOTH)(s.floats())


def bent(s: Scope):
    return s.one(BENT)(s.floats())


def integer(s: Scope):
    return s.one(INTEGER)(s.pick(lambda x: x.dtype.is_int))


def partner(s: Scope, x):
    """An array that x broadcasts with: of its shape, or narrower."""
    fits = [y for y in s.arrays if y.dtype is x.dtype and _broadcasts(s, x, y)]
    if s.chance(0.7) and fits:
        return s.one(fits[-4:]) if s.chance(0.5) else s.one(fits)
    return s.like(tuple(1 if s.chance(0.3) else n for n in x.shape)[s.whole(0, x.ndim) if s.chance(0.3) else 0:],
                  x.dtype)


def _broadcasts(s: Scope, x, y) -> bool:
    pairs = list(zip(x.shape[::-1], y.shape[::-1]))
    return all(a == b or a == 1 or b == 1 for a, b in pairs)


def pair(s: Scope):
    x = s.floats()
    y = partner(s, x)
    return s.one(PAIRS)(*((x, y) if s.chance(0.5) and not isinstance(y, np.ndarray) else (gc.Array.__pos__(x), y)))


def whole_pair(s: Scope):
    x = s.pick(lambda x: x.dtype.is_int)
    return s.one(WHOLE_PAIRS)(x, partner(s, x))


def compare(s: Scope):
    x = s.pick(lambda x: x.dtype.kind != "bool")
    return s.one(COMPARISONS)(x, partner(s, x))


def logic(s: Scope):
    x = s.pick(lambda x: x.dtype.kind == "bool")
    return s.one([lambda x, y: x & y, lambda x, y: x | y, lambda x, y: x ^ y, lambda x,
                  y: gc.logical_not(x)])(x, partner(s, x))


def where(s: Scope):
    c, x = s.pick(lambda x: x.dtype.kind == "bool"), s.pick()
    if not _broadcasts(s, c, x):
        c = s.like(x.shape, gc.bool_)
    return gc.where(c, x, partner(s, x))


def cast(s: Scope):
    x = s.pick()
    to = s.one([d for d in (gc.f32, gc.f64, gc.i32, gc.i64, gc.bool_, s.dtype, s.dtype) if d is not x.dtype]
               or [gc.i32])
    return (x * 3).astype(to) if x.dtype.is_float and to.is_int else x.astype(to)


def reduce(s: Scope):
    x = s.floats()
    f = s.one([gc.sum, gc.sum, gc.mean, gc.max, gc.min, gc.var, gc.logsumexp, lambda x, a,
               keepdims: gc.prod(gc.tanh(x), a, keepdims),
               lambda x, a, keepdims: gc.sqrt(gc.var(x, a, keepdims=keepdims) + 0.1), lambda x, a,
               keepdims: gc.std(x, a, keepdims=keepdims)])
    y = f(x, s.axes(x), keepdims=s.chance(0.5))
    return y * 0.25 if f is gc.sum else y


def reduce_whole(s: Scope):
    x = s.pick(lambda x: not x.dtype.is_float)
    f = s.one([gc.any, gc.all] if x.dtype.kind == "bool" else [gc.sum, gc.max, gc.min, gc.any, gc.all, gc.prod])
    return f(x, s.axes(x), keepdims=s.chance(0.5))


def best(s: Scope):
    x = s.pick(lambda x: x.dtype.kind != "bool" and x.ndim >= 1)
    return s.one([gc.argmax, gc.argmin])(x, None if s.chance(0.3) else s.axis(x), s.chance(0.3))


def cumulative(s: Scope):
    x = s.pick(lambda x: x.dtype.kind != "bool" and x.ndim >= 1)
    axis, options = s.axis(x), {"reverse": s.chance(0.4), "exclusive": s.chance(0.3)}
    if not x.dtype.is_float:
        return gc.cumsum(x, axis, **options)
    way = s.whole(0, 2)
    if way == 2:
        return gc.linear_scan(s.one([0.5, gc.sigmoid(x)]), x, axis, reverse=options["reverse"])
    return gc.cumprod(gc.tanh(x), axis, **options) if way else gc.cumsum(x, axis, **options) * 0.5


def sort(s: Scope):
    x = s.pick(lambda x: x.dtype.kind != "bool" and x.ndim >= 1)
    axis = s.axis(x)
    way = s.whole(0, 3)
    if way < 2:
        return gc.sort(x, axis, s.chance(0.5))
    n = x.shape[axis]
    if way == 2 and isinstance(n, int):
        return gc.topk(x, s.whole(min(n, 1), n), axis)
    return gc.argsort(x, axis, s.chance(0.5))


def rows(s: Scope):
    x = s.floats(1)
    n = x.shape[-1:]
    way = s.whole(0, 6)
    if way < 2:
        return s.one([gc.softmax, gc.log_softmax])(x, s.axis(x))
    if way < 4:
        given = [s.like(n, x.dtype)][:way - 2] + [s.like(n, x.dtype)][:way - 2]
        return gc.layer_norm(x, *given, eps=0.1)
    if way == 4:
        return gc.rms_norm(x, *[s.like(n, x.dtype)][:s.whole(0, 1)], eps=0.1)
    if way == 5:
        axes = min(s.whole(1, 2), x.ndim)
        return gc.layer_norm(x, axes=axes, eps=0.1)
    return x / gc.sqrt(gc.sum(x * x, s.axis(x), keepdims=True) + 0.1)


def loss(s: Scope):
    x = s.floats(1)
    way = s.whole(0, 3)
    if way == 0:
        return gc.mse(x, s.like(x.shape, x.dtype), s.one(["mean", "sum", "none"])) * 0.25
    if way == 1:
        return gc.bce_with_logits(x, gc.sigmoid(s.like(x.shape, x.dtype) * 1), s.one(["mean", "sum", "none"])) * 0.25
    n = x.shape[-1]
    if not isinstance(n, int) or not n:
        raise Skip
    if way == 2:
        return gc.cross_entropy(x, gc.softmax(s.like(x.shape, x.dtype) * 1), reduction=s.one(["mean", "none"]))
    return gc.cross_entropy(x, s.like(x.shape[:-1], gc.i64) % n, reduction=s.one(["mean", "none"]),
                            label_smoothing=s.one([0.0, 0.1]))


def product(s: Scope):
    """x @ y where the inner sizes agree, one of them a transpose or a view perhaps."""
    x = s.floats(1)
    k = x.shape[-1]
    fits = [y for y in s.arrays if y.dtype is x.dtype and y.ndim >= 1 and y.shape[max(-2, -y.ndim)] == k
            and _stackable(x, y)]
    turned = [y for y in s.arrays if y.dtype is x.dtype and y.ndim == 2 and y.shape[-1] == k]
    way = s.rng.random()
    if fits and way < 0.5:
        y = s.one(fits)
    elif turned and way < 0.75:
        y = s.one(turned).T
    else:
        y = s.like((k, s.whole(1, 6)) if isinstance(k, int) else (k,), x.dtype)
    z = x @ y
    z = z * s.one([0.25, 0.5, 1.0]) if s.chance(0.5) else gc.tanh(z) if s.chance(0.5) else z
    return z.T if s.chance(0.3) and z.ndim == 2 else z


def _stackable(x, y) -> bool:
    return x.ndim <= 2 or y.ndim <= 2 or all(a == b or a == 1 or b == 1 for a,
                                             b in zip(x.shape[-3::-1], y.shape[-3::-1]))


def chain(s: Scope):
    """((a @ b).T @ c).T and the like: two or three products with turns between them."""
    x = s.pick(lambda x: x.dtype.is_float and x.ndim == 2)
    for _ in range(s.whole(2, 3)):
        x = x.T if s.chance(0.5) else x
        x = x @ s.like((s.concrete(x)[1], s.whole(1, 5)), x.dtype) * 0.5
        x = x.T if s.chance(0.4) else x
        x = x + s.like((x.shape[1],), x.dtype) if s.chance(0.3) else gc.tanh(x) if s.chance(0.2) else x
    return x


def einsum(s: Scope):
    """A random equation of two operands: axes of one are kept, summed with the other's, or shared."""
    x = s.pick(lambda x: x.dtype.is_float and 1 <= x.ndim <= 3)
    left = "abc"[:x.ndim]
    sizes = dict(zip(left, s.concrete(x))) | {"d": s.whole(1, 4)}
    right = [c for c in left if s.chance(0.6)] + (["d"] if s.chance(0.6) else [])
    s.rng.shuffle(right)
    if s.chance(0.2) and right:
        shape = tuple(sizes[c] for c in right)
        y = x if shape == x.shape else s.like(shape, x.dtype)
    else:
        y = s.like([sizes[c] for c in right], x.dtype)
    out = [c for c in dict.fromkeys([*left, *right]) if s.chance(0.6)]
    s.rng.shuffle(out)
    return gc.einsum(f"{left},{''.join(right)}->{''.join(out)}", x, y) * 0.25


def attention(s: Scope):
    x = s.pick(lambda x: x.dtype.is_float and 2 <= x.ndim <= 4)
    shape = s.concrete(x)
    keys = (*shape[:-2], s.whole(1, 4), shape[-1])
    k = x if s.chance(0.3) else s.like(keys, x.dtype)
    return gc.attention(x, k, k * 0.5 if s.chance(0.3) else s.like(k.shape, x.dtype), causal=s.chance(0.4))


STEPS = {smooth: 12, bent: 7, integer: 4, pair: 14, whole_pair: 4, compare: 4, logic: 2, where: 4, cast: 5, reduce: 9,
         reduce_whole: 3, best: 2,
         cumulative: 4, sort: 4,rows: 5, loss: 2, product: 7, chain: 2, einsum: 4, attention: 2}
