"""How the coefficients in `graphc/codegen/llvm/special_functions.py` were made: interpolation at Chebyshev's nodes,
values from mpmath.

`python tests/codegen/chebyshev.py` prints them all, with the error of each in bits.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import mpmath as mp

DIGITS = 50
POINTS = 101


@dataclass(frozen=True)
class Interpolation:
    """f on [lo, hi] as a polynomial in t = (x - middle) / half, of -1 <= t <= 1. `relative`: its error counts so."""
    f: Callable
    lo: float
    hi: float
    degree: int
    relative: bool = True

    @property
    def middle(self):
        return (mp.mpf(self.lo) + self.hi) / 2

    @property
    def half(self):
        return (mp.mpf(self.hi) - self.lo) / 2


def _log(z):
    """log(1 + g) = 2 s + s z LOG(z) with s = g / (2 + g), z = s^2."""
    return mp.mpf(2) / 3 if z == 0 else (2 * mp.atanh(mp.sqrt(z)) - 2 * mp.sqrt(z)) / (mp.sqrt(z) * z)


def _lgamma(t):
    return 1 - mp.euler if t == 0 else mp.loggamma(2 + t) / t


def _digamma(x):
    root = mp.findroot(mp.digamma, 1.4616)
    return mp.digamma(x) / (x - root)


def _cot(u):
    return mp.mpf(1) if u == 0 else mp.pi * mp.sqrt(u) * mp.cot(mp.pi * mp.sqrt(u))


def _erfinv(w):
    """erfinv(x) / x at w = -log(1 - x^2)."""
    with mp.workdps(80):
        x = mp.sqrt(-mp.expm1(-w))
        return mp.sqrt(mp.pi) / 2 if w == 0 else mp.erfinv(x) / x


def _erfc(q):
    a = 2 * (1 + q) / (1 - q)
    return mp.erfc(a) * mp.exp(a * a)


def _bessel(n: int) -> Callable:
    """exp(-x) sqrt(x) I_n(x) at v = 1 / x."""
    return lambda v: mp.besseli(n, 1 / v) * mp.exp(-1 / v) / mp.sqrt(v)


SQRT_HALF = 0.7071067811865476
LOG_END = ((1 - SQRT_HALF) / (1 + SQRT_HALF)) ** 2 * 1.0001
INTERPOLATIONS = {
    "LOG64": Interpolation(_log, 0, LOG_END, 7),
    "LGAMMA": Interpolation(_lgamma, -0.5, 0.5, 19),                    # lgamma(2 + t) / t
    "DIGAMMA": Interpolation(_digamma, 1, 2, 22),                       # digamma(x) / (x - root)
    "COT": Interpolation(_cot, 0, 0.25, 15, relative=False),            # pi r cot(pi r) at r^2
    "ERFINV_MIDDLE": Interpolation(_erfinv, 0, 6.25, 24),
    "ERFINV_TAIL": Interpolation(lambda s: _erfinv(s * s), 2.5, 4, 20),
    "ERFINV_END": Interpolation(lambda s: _erfinv(s * s), 4, 6.125, 18),
    "ERFC": Interpolation(_erfc, -1, 0.67, 14),                         # exp(a^2) erfc(a) at q = (a - 2) / (a + 2)
    "I0_LARGE": Interpolation(_bessel(0), 0, 0.125, 24),
    "I1_LARGE": Interpolation(_bessel(1), 0, 0.125, 24),
}


def coefficients(fit: Interpolation) -> list:
    """Lowest power of t first."""
    with mp.workdps(DIGITS):
        n = fit.degree + 1
        nodes = [mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
        values = [fit.f(fit.middle + fit.half * t) for t in nodes]
        weights = [2 / mp.mpf(n) * sum(v * mp.cos(mp.pi * j * (2 * k + 1) / (2 * n)) for k, v in enumerate(values))
                   for j in range(n)]
        return _powers([weights[0] / 2, *weights[1:]])


def _powers(weights: list) -> list:
    """A sum of Chebyshev's polynomials as one of powers."""
    total, before, now = [mp.mpf(0)] * len(weights), [mp.mpf(0)], [mp.mpf(1)]
    for j, weight in enumerate(weights):
        for i, c in enumerate(now):
            total[i] += weight * c
        following = [mp.mpf(0), *((2 if j else 1) * c for c in now)]
        for i, c in enumerate(before):
            following[i] -= c
        before, now = now, following
    return total


def error(fit: Interpolation, found: tuple[float, ...]) -> float:
    """The greatest error of the polynomial with these coefficients."""
    with mp.workdps(DIGITS):
        greatest = mp.mpf(0)
        for k in range(POINTS):
            t = mp.mpf(2 * k + 1) / POINTS - 1
            exact = fit.f(fit.middle + fit.half * t)
            off = abs(reduce(lambda value, c, t=t: value * t + mp.mpf(c), reversed(found), mp.mpf(0)) - exact)
            greatest = max(greatest, off / abs(exact) if fit.relative else off)
        return float(greatest)


def written(name: str, numbers: list[str], width: int = 118) -> str:
    """A tuple as it stands in the source."""
    lines, line = [], f"{name} = ("
    for n in numbers:
        if len(line) + len(n) > width:
            lines.append(line.rstrip())
            line = "    "
        line += f"{n}, "
    return "\n".join([*lines, line.removesuffix(", ") + ")"])


def main() -> None:
    for name, fit in INTERPOLATIONS.items():
        found = tuple(float(c) for c in coefficients(fit))
        print(written(name, [repr(c) for c in found]))
        print(f"# error 2^{float(mp.log(error(fit, found), 2)):.1f}")


if __name__ == "__main__":
    main()
