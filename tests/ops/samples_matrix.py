"""Samples of the operators on matrices: well-conditioned ones, of sizes 0 to beyond a vector, with and without a batch."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from op_sample import FLOATS, Sample, floats

from graphc.ir.ops.factor import LQ, LU, Cholesky, SymmetricEigen, TriangularSolve
from graphc.ir.ops.fft import DFT, IRDFT, RDFT
from graphc.ir.ops.solve import Det, SlogDet, Solve

SHAPES = ((1, 1), (3, 3), (2, 4, 4), (2, 3, 2, 2), (9, 9), (21, 21), (0, 0), (2, 0, 0), (0, 3, 3))


def turned(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2)


def definite(shape, dtype) -> np.ndarray:
    m = floats(shape, dtype, -1, 1, seed="definite")
    return (m @ turned(m) + np.eye(shape[-1]) * 2).astype(dtype.np)


def regular(shape, dtype) -> np.ndarray:
    """Far from singular, with distinct pivots."""
    return (floats(shape, dtype, -1, 1, seed="regular") + np.eye(shape[-1])[::-1] * 3).astype(dtype.np)


def samples() -> Iterator[Sample]:
    for dtype in FLOATS:
        for shape in SHAPES:
            x, a = definite(shape, dtype), regular(shape, dtype)
            yield Sample(Cholesky(), (x,), tolerance=256, expect=np.linalg.cholesky)
            yield Sample(SymmetricEigen(), (x + np.diag(np.arange(shape[-1])).astype(dtype.np),), tolerance=512)
            yield Sample(LU(), (a,), tolerance=256)
            yield Sample(Det(), (a,), tolerance=1024, expect=np.linalg.det)
            yield Sample(SlogDet(), (a,), tolerance=256, expect=lambda a: tuple(np.linalg.slogdet(a)))
            for k in (1, 5, 17):
                y = floats((*shape[:-1], k), dtype, seed="right")
                yield from (Sample(Solve(t), (a, y), f"transposed{t}", tolerance=1024, expect=solved(t)) for t in (False, True))
            if shape != (21, 21):
                yield from triangular(shape, dtype)
        for shape in ((2, 3), (3, 3), (2, 2, 5), (1, 7), (9, 20), (0, 3), (0, 2, 3)):
            x = floats(shape, dtype, -1, 1, seed="rows") + np.eye(*shape[-2:]).astype(dtype.np) * 3
            yield Sample(LQ(), (x.astype(dtype.np),), tolerance=256, expect=unique_lq)
    yield Sample(Cholesky(), (np.array([[1.0, 0], [2, 1]]),), "indefinite", smooth=False)
    yield Sample(Det(), (np.array([[1.0, 2], [2, 4]]),), "singular", smooth=False, expect=lambda x: np.float64(0))
    yield Sample(SlogDet(), (np.zeros((2, 2)),), "singular", smooth=False, expect=lambda x: (np.float64(0), np.float64(-np.inf)))
    yield Sample(SymmetricEigen(), (np.full((2, 3, 3), np.nan),), "nan", smooth=False)


def triangular(shape, dtype) -> Iterator[Sample]:
    a = regular(shape, dtype) / 4 + np.eye(shape[-1]).astype(dtype.np) * 2
    for lower in (False, True):
        for transpose in (False, True):
            for unit in (False, True):
                y = floats((*shape[:-1], 3 if unit else 18), dtype, seed="right")
                yield Sample(TriangularSolve(lower, transpose, unit), (a.astype(dtype.np), y), f"{lower}{transpose}{unit}",
                             tolerance=1024, expect=solved_triangle(lower, transpose, unit))


def solved(transpose: bool):
    return lambda a, y: np.linalg.solve(turned(a) if transpose else a, y)


def solved_triangle(lower: bool, transpose: bool, unit: bool):
    def expect(a, y):
        t = np.tril(a, -1) if lower else np.triu(a, 1)
        t = t + np.eye(a.shape[-1], dtype=a.dtype) * (1 if unit else a)
        return np.linalg.solve(turned(t) if transpose else t, y)
    return expect


def unique_lq(x):
    """By numpy's, whose diagonal may be negative."""
    q, r = np.linalg.qr(turned(x))
    signs = np.sign(np.diagonal(r, 0, -2, -1))
    return turned(r * signs[..., None]), turned(q * signs[..., None, :])


LENGTHS = (1, 2, 3, 5, 8, 12, 64, 65, 77, 128, 101, 134, 263)


def transforms() -> Iterator[Sample]:
    """Lengths of one product, of several factors, primes of one product and beyond, with and without a batch."""
    for dtype in FLOATS:
        for n in LENGTHS:
            lead = (2,) if n < 20 else ()
            pairs, half = floats((*lead, n, 2), dtype, seed="pairs"), floats((*lead, n // 2 + 1, 2), dtype, seed="half")
            near = {"tolerance": 16.0 * n ** 0.5 + 32, "smooth": n < 80 or n == 263}
            for inverse in (False, True):
                yield Sample(DFT(inverse), (pairs,), f"{inverse}", expect=by_definition(inverse), **near)
            yield Sample(RDFT(), (floats((*lead, n), dtype, seed="real"),), **near)
            yield Sample(IRDFT(n), (half,), f"{n}", **near)
        yield Sample(DFT(), (np.zeros((0, 4, 2), dtype.np),))
        yield Sample(RDFT(), (np.zeros((2, 0, 6), dtype.np),))
        yield Sample(IRDFT(5), (np.zeros((0, 3, 2), dtype.np),), "none")


def by_definition(inverse: bool):
    def expect(x):
        n = x.shape[-2]
        turns = np.exp((2j if inverse else -2j) * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n)
        y = np.einsum("kj,...j->...k", turns, x[..., 0] + 1j * x[..., 1].astype(float))
        return np.stack([y.real, y.imag], -1)
    return expect


SAMPLES = (*samples(), *transforms())
