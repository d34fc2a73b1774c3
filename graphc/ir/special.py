"""References of the special functions in numpy, in the widest float that the machine has and by other methods than
the native code, which they judge: integrals, series and recurrences."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

WIDE = np.longdouble
PI = WIDE("3.14159265358979323846264338327950288")
HALF_LOG_TWO_PI = np.log(2 * PI) / 2 - WIDE(0.5)        # less the half of Stirling's series in this form
BERNOULLI = ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510))      # B2, B4, …
ASYMPTOTIC_FROM = 24.0
BESSEL_POINTS = 512                 # of the trapezoidal rule, exact for |x| <= 720
BESSEL_SPLIT, BESSEL_TERMS = 8.0, 40


def _each(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    def of(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.frompyfunc(function, 1, 1)(x.astype(np.float64)), np.float64)
    return of


erf, erfc = _each(math.erf), _each(math.erfc)


def lgamma(x: np.ndarray) -> np.ndarray:
    """Of y = 1 + t > 0 the growth of Stirling's series from 25 to 25 + t, less the logarithms of the steps 1 + t / k:
    every term vanishes with t, so it is exact near 1. Below 0 by reflection."""
    with np.errstate(all="ignore"):
        wide = np.asarray(x, WIDE)
        y = np.where(wide < 0, 1 - wide, wide)
        t, a = np.where(y < 0.5, y, y - 1), WIDE(ASYMPTOTIC_FROM + 1)
        growth = np.log1p(t / a)
        result = (t + a - WIDE(0.5)) * growth + t * (np.log(a) - 1)
        for k, (top, bottom) in enumerate(BERNOULLI, 1):
            c = WIDE(top) / (bottom * 2 * k * (2 * k - 1)) * a ** (1 - 2 * k)
            result = result + c * np.expm1((1 - 2 * k) * growth)
        steps = sum((np.log1p(t / k) for k in range(1, int(ASYMPTOTIC_FROM) + 1)), np.zeros_like(t))
        far = (y - WIDE(0.5)) * (np.log(y) - 1) + HALF_LOG_TWO_PI
        result = np.where(y == 2, 0, np.where(y > 1e9, far, result - steps - np.where(y < 0.5, np.log(y), 0)))
        r = wide - np.rint(wide)
        mirrored = np.where(r == 0, np.inf, np.log(PI / np.abs(np.sin(PI * r))) - result)
        return np.where(np.isinf(wide), np.inf, np.where(wide < 0, mirrored, result))


def polygamma(n: int, x: np.ndarray) -> np.ndarray:
    """The derivative number n of digamma (0: digamma itself) by recurrence, asymptotic series and reflection."""
    with np.errstate(all="ignore"):
        wide = np.asarray(x, WIDE)
        y = np.where(wide < 0, 1 - wide, wide)
        result = _of_positive(n, y)
        mirrored = (-1) ** n * result - cotangent_slope(n, wide)
        return np.where(wide < 0, mirrored, result)


def _of_positive(n: int, y: np.ndarray) -> np.ndarray:
    sign, steps = (-1) ** (n + 1), int(ASYMPTOTIC_FROM) + 2 * n
    before = sum((1 / (y + k if k else y) ** (n + 1) for k in range(steps)), np.zeros_like(y))
    y = y + steps
    if n == 0:
        series = sum(WIDE(a) / (b * 2 * k) / y ** (2 * k) for k, (a, b) in enumerate(BERNOULLI, 1))
        return np.log(y) - 1 / (2 * y) - series - before
    total = math.factorial(n - 1) / y ** n + math.factorial(n) / (2 * y ** (n + 1))
    for k, (a, b) in enumerate(BERNOULLI, 1):
        total = total + WIDE(a) / b * math.factorial(2 * k + n - 1) / math.factorial(2 * k) / y ** (2 * k + n)
    return sign * (total + math.factorial(n) * before)


def cotangent_polynomial(n: int) -> list[int]:
    """The derivative number n of cot as a polynomial in cot, lowest power first: c' = -(1 + c^2)."""
    polynomial = [0, 1]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(polynomial)][1:]
        polynomial = [-a - b for a, b in zip([*slope, 0, 0], [0, 0, *slope])]
    return polynomial


def cotangent_slope(n: int, x: np.ndarray) -> np.ndarray:
    """The derivative number n of pi cot(pi x); NaN of digamma's at whole numbers, where it has no sign."""
    r = x - np.rint(x)
    c = np.where(r == 0, np.nan if n == 0 else np.inf, 1 / np.tan(PI * r))
    *rest, leading = cotangent_polynomial(n)
    total = np.full_like(c, leading)
    for a in reversed(rest):
        total = total * c + a
    return PI ** (n + 1) * total


def erfinv(x: np.ndarray) -> np.ndarray:
    """Newton's method for erfc(y) = 1 - |x|, from an approximation within 0.5 %."""
    with np.errstate(all="ignore"):
        a = np.abs(np.asarray(x, np.float64))
        w = np.log1p(-a * a)
        half = 2 / (math.pi * 0.147) + w / 2                        # Winitzki 2008
        y = np.where(a < 1, np.sqrt(np.sqrt(half * half - w / 0.147) - half), 0)
        for _ in range(4):
            off = np.where(a < 0.5, erf(y) - a, (1 - a) - erfc(y))
            step = off * (math.sqrt(math.pi) / 2) * np.exp(y * y)
            y = y - np.where(np.isfinite(step), step / (1 + y * step), 0)
        y = np.where(a < 1, y, np.where(a == 1, np.inf, np.nan))
        return np.copysign(np.where(a == 0, 0, y), x)


def bessel(n: int, x: np.ndarray) -> np.ndarray:
    """I_n(x) for n 0 or 1: the power series near 0, else the mean of exp(x cos t) cos(n t) over a turn."""
    with np.errstate(all="ignore"):
        a = np.abs(np.asarray(x, WIDE))
        u, term = a * a / 4, (a / 2) ** n
        small = np.zeros_like(a)
        for k in range(BESSEL_TERMS):
            small = small + term
            term = term * u / ((k + 1) * (k + 1 + n))
        large = np.zeros_like(a)
        for t in np.arange(BESSEL_POINTS) * (2 * math.pi / BESSEL_POINTS):
            large = large + np.exp(a * (math.cos(t) - 1)) * math.cos(n * t)
        large = np.where(a > 720, np.inf, large / BESSEL_POINTS * np.exp(a))
        result = np.where(a < BESSEL_SPLIT, small, np.where(np.isnan(a), a, large))
        return np.copysign(result, x) if n else result


def i0(x: np.ndarray) -> np.ndarray:
    return bessel(0, x)


def i1(x: np.ndarray) -> np.ndarray:
    return bessel(1, x)


def digamma(x: np.ndarray) -> np.ndarray:
    return np.where((x == 0) & ~np.isnan(x), np.copysign(np.inf, -x), polygamma(0, x))
