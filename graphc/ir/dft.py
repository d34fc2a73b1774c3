"""Discrete Fourier transforms as products with small matrices: what `ops/fft.py` decomposes into.

Complex arrays are pairs of real ones, [..., n] each. A length of at most DIRECT, or a prime up to MOST_PRIME, is one
product. A composite one is cut in two factors (Cooley and Tukey 1965): products along the first, a twist of the phases,
the rest along the second. A larger prime becomes a circular convolution of a length of small factors (Bluestein 1970).
"""
from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from graphc.ir.dims import Dims
from graphc.ir.graph import Value
from graphc.ir.op import OpBuilder
from graphc.ir.ops.shape import slice_axis

DIRECT = 64                         # the longest transform that is one product, if its length has small factors
MOST_PRIME = 256                    # the longest one of a prime length


class Pair(NamedTuple):
    re: Value
    im: Value


def roots(products: np.ndarray, n: int, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of sign 2 pi m / n for whole numbers m, exact at multiples of an eighth of a turn."""
    m = np.mod(products, n)
    quarter, rest = np.divmod(8 * m, 2 * n)                 # a quarter of a turn is 2n eighths of m
    swapped = rest > n
    angle = np.where(swapped, 2 * n - rest, rest) * (np.pi / 4 / max(n, 1))
    cos, sin = np.where(swapped, np.sin(angle), np.cos(angle)), np.where(swapped, np.cos(angle), np.sin(angle))
    real = np.choose(quarter % 4, [cos, -sin, -cos, sin])
    imaginary = np.choose(quarter % 4, [sin, cos, -sin, -cos])
    return real, sign * imaginary


def split(n: int) -> int:
    """The factor of n that a step takes, at most DIRECT if there is one; n itself if it is transformed whole."""
    if n <= DIRECT:
        return n
    factors = [d for d in range(2, DIRECT + 1) if n % d == 0]
    return max(factors) if factors else n


def transform(b: OpBuilder, x: Pair | Value, n: int, sign: int) -> Pair:
    """sum over j of x[j] exp(sign 2 pi i j k / n), k from 0 to n - 1, along the last axis. x: a pair, or real."""
    if n <= 1:
        return x if isinstance(x, Pair) else Pair(x, b.mul(x, 0))
    first = split(n)
    if first == n:
        return _bluestein(b, x, n, sign) if n > max(DIRECT, MOST_PRIME) else _direct(b, x, n, sign)
    second = n // first
    lead = _parts(x)[0].type.shape[:-1]
    wide = [b.reshape(v, shape=(*lead, first, second)) for v in _parts(x)]
    rows = first if isinstance(x, Pair) else first // 2 + 1         # of a real x the others follow
    inner = _columns(b, wide, first, rows, sign)
    twist = roots(np.outer(np.arange(rows), np.arange(second)), n, sign)
    inner = transform(b, _times(b, inner, twist), second, sign)
    if rows < first:
        inner = _completed(b, inner, first, second)
    return Pair(*(_interleaved(b, v, lead, n) for v in inner))


def half(b: OpBuilder, x: Value, n: int) -> Pair:
    """The first n // 2 + 1 results for a real x."""
    keep = n // 2 + 1
    if 1 < n <= DIRECT:
        return _direct(b, x, n, -1, keep)
    return Pair(*(slice_axis(b, v, v.type.rank - 1, 0, keep) for v in transform(b, x, n, -1)))


def real_from_half(b: OpBuilder, x: Pair, n: int) -> Value:
    """sum over k of all n numbers, of which x has the first n // 2 + 1 and the others are conjugates, times
    exp(2 pi i j k / n): real."""
    if n <= 1:
        return x.re
    count, last = n // 2 + 1, x.re.type.rank - 1
    if n <= DIRECT:
        cos, sin = roots(np.outer(np.arange(count), np.arange(n)), n, 1)
        weight = np.where((np.arange(count) == 0) | (2 * np.arange(count) == n), 1, 2)[:, None]
        both = b.concat(x.re, x.im, axis=last)
        return b.matmul(both, b.constant(np.concatenate([weight * cos, -weight * sin]), x.re.type.dtype))
    re, im = (b.flip(slice_axis(b, v, last, 1, n - count + 1), axes=(last,)) for v in x)
    whole = Pair(b.concat(x.re, re, axis=last), b.concat(x.im, b.neg(im), axis=last))
    return transform(b, whole, n, 1).re


def _parts(x: Pair | Value) -> tuple[Value, ...]:
    return tuple(x) if isinstance(x, Pair) else (x,)


def _direct(b: OpBuilder, x: Pair | Value, n: int, sign: int, keep: int | None = None) -> Pair:
    """One product: [re, im] times a matrix of the parts of the roots; the first `keep` results."""
    count, last = n if keep is None else keep, _parts(x)[0].type.rank - 1
    cos, sin = roots(np.outer(np.arange(n), np.arange(count)), n, sign)
    matrix = np.concatenate([cos, sin], 1)
    if isinstance(x, Pair):
        matrix = np.concatenate([matrix, np.concatenate([-sin, cos], 1)])
    given = _parts(x)[0] if not isinstance(x, Pair) else b.concat(x.re, x.im, axis=last)
    y = b.matmul(given, b.constant(matrix, given.type.dtype))
    return Pair(slice_axis(b, y, last, 0, count), slice_axis(b, y, last, count, 2 * count))


def _columns(b: OpBuilder, x: list[Value], n: int, count: int, sign: int) -> Pair:
    """The first `count` results of transforms of length n along the last axis but one."""
    axis = x[0].type.rank - 2
    cos, sin = roots(np.outer(np.arange(count), np.arange(n)), n, sign)
    matrix = np.concatenate([cos, sin])
    if len(x) == 2:
        matrix = np.concatenate([matrix, np.concatenate([-sin, cos])], 1)
    y = b.matmul(b.constant(matrix, x[0].type.dtype), b.concat(*x, axis=axis) if len(x) == 2 else x[0])
    return Pair(slice_axis(b, y, axis, 0, count), slice_axis(b, y, axis, count, 2 * count))


def _times(b: OpBuilder, x: Pair, by: tuple[np.ndarray, np.ndarray]) -> Pair:
    """Times constants."""
    cos, sin = (b.constant(v, x.re.type.dtype) for v in by)
    return Pair(b.sub(b.mul(x.re, cos), b.mul(x.im, sin)), b.add(b.mul(x.re, sin), b.mul(x.im, cos)))


def _completed(b: OpBuilder, x: Pair, first: int, second: int) -> Pair:
    """All rows k1 of the results k1 + first k2 for real numbers: row first - k1 is the conjugate of row k1,
    backwards."""
    axis = x.re.type.rank - 2
    missing = first - (first // 2 + 1)
    re, im = (b.flip(slice_axis(b, v, axis, 1, missing + 1), axes=(axis, axis + 1)) for v in x)
    return Pair(b.concat(x.re, re, axis=axis), b.concat(x.im, b.neg(im), axis=axis))


def _interleaved(b: OpBuilder, x: Value, lead: Dims, n: int) -> Value:
    """[..., k1, k2] as [..., k1 + first k2]."""
    r = x.type.rank
    return b.reshape(b.transpose(x, perm=(*range(r - 2), r - 1, r - 2)), shape=(*lead, n))


def _bluestein(b: OpBuilder, x: Pair | Value, n: int, sign: int) -> Pair:
    """j k = (j^2 + k^2 - (k - j)^2) / 2: a convolution with exp(-sign pi i j^2 / n), of a length of small factors."""
    j = np.arange(n)
    chirp = roots(j * j % (2 * n), 2 * n, sign)
    length = _smooth(2 * n - 1)
    kernel = np.zeros(length, complex)
    kernel[:n] = chirp[0] - 1j * chirp[1]
    kernel[length - n + 1:] = kernel[1:n][::-1]
    spectrum = np.fft.fft(kernel) / length
    pair = x if isinstance(x, Pair) else None
    turned = _times(b, pair, chirp) if pair else Pair(*(b.mul(_parts(x)[0], b.constant(v, _parts(x)[0].type.dtype))
                                                        for v in chirp))
    low = (0,) * turned.re.type.rank
    padded = Pair(*(b.pad(v, low=low, high=(*low[1:], length - n)) for v in turned))
    product = _times(b, transform(b, padded, length, -1), (spectrum.real, spectrum.imag))
    back = transform(b, product, length, 1)
    last = back.re.type.rank - 1
    return _times(b, Pair(*(slice_axis(b, v, last, 0, n) for v in back)), chirp)


def _smooth(least: int) -> int:
    """The first number from `least` on that is a product of powers of 2, 3 and 5."""
    n = least
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


def operations(n: int, count: int) -> int:
    """Multiplications and additions of `count` transforms of length n, roughly."""
    cost, rest, taken = 0, n, []
    while rest > 1:
        first = split(rest)
        taken.append(first)
        rest //= first
    cost = sum(8 * f for f in taken)
    return cost * n * count if prod(taken) == n else 0
