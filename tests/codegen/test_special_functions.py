"""Errors of the special functions in units in the last place against mpmath, their special values, and that their
coefficients are what tests/codegen/chebyshev.py finds. The table of docs/numerics.md is MEASURED.
"""
from __future__ import annotations

from functools import cache

import chebyshev
import mpmath as mp
import numpy as np
import pytest

import graphc as gc
from graphc.codegen.llvm import special_functions
from graphc.codegen.loops.ops import SPECIAL
from graphc.ir.types import f32, f64

NAN, INF = np.nan, np.inf
COUNT = 150                         # in each range
EXACT = {
    "lgamma": lambda x: mp.log(abs(mp.gamma(x))), "digamma": mp.digamma, "erfinv": mp.erfinv, "erfc": mp.erfc,
    "i0": lambda x: mp.besseli(0, x), "i1": lambda x: mp.besseli(1, x), "log2": lambda x: mp.log(x, 2),
    "log10": mp.log10, "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)), "exp2": lambda x: mp.mpf(2) ** x,
    "sinc": mp.sincpi, "trigamma": lambda x: mp.polygamma(1, x), "polygamma 3": lambda x: mp.polygamma(3, x)}
CALLS = {"trigamma": lambda x: gc.polygamma(1, x), "polygamma 3": lambda x: gc.polygamma(3, x)}
RANGES = {
    "lgamma": ((0, 3), (0, 12), (-10, 0), (0, 1e30), (0.9, 1.1), (1.9, 2.1), (0, 1e-3)),
    "digamma": ((0, 3), (1.4, 1.5), (0, 12), (-0.4, 0), (0, 1e10)),
    "erfinv": ((-1, 1), (0.999, 1), (-1e-3, 1e-3)), "erfc": ((-6, 10), (0, 1e-2)),
    "i0": ((-10, 10), (0, 90), (0, 700)), "i1": ((-10, 10), (0, 90), (0, 700), (0, 1e-5)),
    "log2": ((0, 3), (0.9, 1.1), (0, 1e38)), "log10": ((0, 3), (0.9, 1.1), (0, 1e38)),
    "cbrt": ((-3, 3), (0, 1e38), (0, 1e-38)), "exp2": ((-30, 30),), "sinc": ((-10, 10), (-1e-2, 1e-2), (0.9, 1.1)),
    "trigamma": ((0, 10), (-5, 0), (0, 1e5)), "polygamma 3": ((0, 10), (0, 1e5))}
# the greatest errors found in f32 and f64; close to the zeros of lgamma and digamma below 0, f64 has an absolute error
MEASURED = {
    "lgamma": (0.51, 6), "digamma": (0.51, 4), "erfc": (0.51, 4), "erfinv": (0.51, 3), "i0": (0.51, 5), "i1": (0.51, 5),
    "log2": (0.51, 1), "log10": (0.51, 2), "cbrt": (0.51, 1), "exp2": (1.17, 1), "sinc": (3, 3), "trigamma": (0.51, 5),
    "polygamma 3": (0.51, 8)}


@cache
def native(name: str, dtype, count: int):
    def f(x):
        return CALLS.get(name, getattr(gc, name, None))(x)
    return gc.compile(f, x=dtype[count], threads=1)


def worst(name: str, dtype) -> float:
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.uniform(low, high, COUNT) for low, high in RANGES[name]]).astype(dtype.np)
    if name == "erfinv":
        ends = 1 - np.finfo(dtype.np).eps * np.arange(1, 40)
        x = np.concatenate([x, ends]).astype(dtype.np)
    got, greatest = native(name, dtype, len(x))(x), 0.0
    with mp.workdps(50):
        for a, b in zip(x.tolist(), got.tolist()):
            exact = mp.mpf(mp.re(EXACT[name](mp.mpf(a))))
            if abs(exact) > np.finfo(dtype.np).max:
                assert np.isinf(b), (a, b)
                continue
            assert np.isfinite(b), (a, b)
            unit = np.spacing(dtype.np.type(float(abs(exact))))
            greatest = max(greatest, float(abs(b - exact) / mp.mpf(float(unit))))
    return greatest


@pytest.mark.parametrize("dtype", (f32, f64), ids=str)
@pytest.mark.parametrize("name", MEASURED)
def test_error(name, dtype):
    assert worst(name, dtype) <= MEASURED[name][dtype is f64]


def test_every_special_function_is_measured():
    assert set(SPECIAL) <= MEASURED.keys()


def test_digamma_and_lgamma_near_their_zeros_below_0():
    """Each term is exact to a few units, so the error is small beside 1."""
    x = np.random.default_rng(8).uniform(-12, 0, 300)
    for name in ("digamma", "lgamma"):
        exact = np.array([float(EXACT[name](mp.mpf(v))) for v in x])
        off = np.abs(native(name, f64, len(x))(x) - exact)
        assert (off <= 6 * np.finfo(float).eps * np.maximum(np.abs(exact), 8)).all()


SPECIAL_VALUES = {                                          # at NaN, inf, -inf, 0, -0, then at further points
    "lgamma": ((NAN, INF, INF, INF, INF), {1: 0, 2: 0, -1: INF, -2: INF, 1e306: INF}),
    "digamma": ((NAN, INF, NAN, -INF, INF), {-1: NAN, -5: NAN, -1e30: NAN}),
    "erfc": ((NAN, 0, 2, 1, 1), {30: 0, -30: 2}), "erfinv": ((NAN, NAN, NAN, 0, -0.0), {1: INF, -1: -INF, 1.5: NAN}),
    "i0": ((NAN, INF, INF, 1, 1), {800: INF, 1e300: INF}), "i1": ((NAN, INF, -INF, 0, -0.0), {-800: -INF}),
    "log2": ((NAN, INF, NAN, -INF, -INF), {8: 3, 2.0 ** -20: -20, -1: NAN}),
    "log10": ((NAN, INF, NAN, -INF, -INF), {1000: 3, -1: NAN}), "cbrt": ((NAN, INF, -INF, 0, -0.0), {27: 3, -8: -2}),
    "exp2": ((NAN, INF, 0, 1, 1), {10: 1024, 3000: INF}), "sinc": ((NAN, NAN, NAN, 1, 1), {3: -0.0, 100: 0}),
    "trigamma": ((NAN, 0, NAN, INF, INF), {-1: INF, -7: INF})}


@pytest.mark.parametrize("dtype", (f32, f64), ids=str)
@pytest.mark.parametrize("name", SPECIAL_VALUES)
def test_special_values(name, dtype):
    ends, more = SPECIAL_VALUES[name]
    with np.errstate(over="ignore"):
        x = np.array([NAN, INF, -INF, 0, -0.0, *more]).astype(dtype.np)
    got, expect = native(name, dtype, len(x))(x), np.array([*ends, *more.values()])
    np.testing.assert_array_equal(got, expect.astype(dtype.np))
    np.testing.assert_array_equal(np.signbit(got)[expect == 0], np.signbit(expect)[expect == 0])


@pytest.mark.parametrize("name", chebyshev.INTERPOLATIONS)
def test_coefficients_are_the_interpolations(name):
    fit, source = chebyshev.INTERPOLATIONS[name], getattr(special_functions, name)
    np.testing.assert_allclose(source, [float(c) for c in chebyshev.coefficients(fit)], rtol=1e-12)
    assert chebyshev.error(fit, source) < (2.0 ** -34 if name == "ERFC" else 2.0 ** -53)
