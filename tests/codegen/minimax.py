"""How the coefficients in `graphc/codegen/vecmath*.py` were made: the Remez exchange on a fine grid, values from
mpmath.

`python tests/codegen/minimax.py` prints them all, with the error of each fit in bits.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath as mp
import numpy as np

from graphc.codegen.llvm.vector_math import ERF_CENTRES, ERF_END, ERF_STEP

mp.mp.dps = 40


@dataclass(frozen=True)
class Fit:
    """Minimise max |weight(x) * (f(x) - sum c_k x^powers[k])| over [lo, hi], the coefficients rounded to `dtype`."""
    f: Callable
    powers: Sequence[int]
    lo: float
    hi: float
    weight: Callable = lambda x: mp.mpf(1)
    dtype: type = np.float32


def _ratio(numerator: Callable, power: int, limit: float) -> Callable:
    """x -> numerator(x) / x^power, with its limit at 0."""
    return lambda x: mp.mpf(limit) if x == 0 else numerator(x) / x ** power


def _erf_around(number: int, m: float) -> Fit:
    """Of the arguments to which this centre is the nearest."""
    def slope(r: mp.mpf) -> mp.mpf:
        if abs(r) < 1e-12:
            return 2 / mp.sqrt(mp.pi) * mp.exp(-mp.mpf(m) ** 2)
        return (mp.erf(m + r) - mp.erf(m)) / r
    lo, hi = (number - 0.5) * ERF_STEP - ERF_OVERLAP, min((number + 0.5) * ERF_STEP + ERF_OVERLAP, ERF_END)
    return Fit(slope, range(7), lo - m, hi - m, lambda r: abs(r) / mp.erf(m + r))


LOG_LO, LOG_HI = float(mp.sqrt(0.5)) - 1, float(mp.sqrt(2)) - 1
HALF_LN2 = float(mp.log(2) / 2) * 1.0001
QUARTER_PI = float(mp.pi / 4) * 1.0001
ERF_OVERLAP = 1e-4              # between neighbouring centres: rounding decides which is the nearest
TANH_BIAS = 0.3
TANH_END = float(mp.log(2) / 2) * (0.5 + TANH_BIAS) * 1.001

FITS = {
    # e^r = 1 + r + r^2 EXP(r)
    "EXP": Fit(_ratio(lambda r: mp.expm1(r) - r, 2, 0.5), range(5), -HALF_LN2, HALF_LN2, lambda r: r ** 2 / mp.exp(r)),
    # e^r - 1 = r + r^2 EXPM1(r), small relative to itself
    "EXPM1": Fit(_ratio(lambda r: mp.expm1(r) - r, 2, 0.5), range(5), -HALF_LN2, HALF_LN2,
                 lambda r: abs(r ** 2 / mp.expm1(r)) if r else mp.mpf(0)),
    # 2^r = 1 + r EXP2(r)
    "EXP2": Fit(_ratio(lambda r: mp.mpf(2) ** r - 1, 1, float(mp.log(2))), range(6), -0.50001, 0.50001,
                lambda r: abs(r) / mp.mpf(2) ** r),
    # the same for r = x - floor(x)
    "EXP2_UP": Fit(_ratio(lambda r: mp.mpf(2) ** r - 1, 1, float(mp.log(2))), range(6), 0.0, 1.0,
                   lambda r: abs(r) / mp.mpf(2) ** r),
    # log(1 + f) = f - f^2 / 2 + f^3 LOG(f)
    "LOG": Fit(_ratio(lambda f: mp.log1p(f) - f + f * f / 2, 3, 1 / 3), range(8), LOG_LO, LOG_HI,
               lambda f: abs(f ** 3 / mp.log1p(f)) if f else mp.mpf(0)),
    # sin(r) = r + r^3 SIN(r^2), cos(r) = 1 - r^2 / 2 + r^4 COS(r^2); the variable is r^2
    "SIN": Fit(lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z if z else -mp.mpf(1) / 6, range(3), 0.0,
               QUARTER_PI ** 2, lambda z: z),
    "COS": Fit(lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z ** 2 if z else mp.mpf(1) / 24, range(3), 0.0,
               QUARTER_PI ** 2, lambda z: z ** 2),
    # tanh(r) = r + r^3 TANH(r^2)
    "TANH": Fit(lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z if z else -mp.mpf(1) / 3, range(3), 0.0,
                TANH_END ** 2, lambda z: z),
    # erf(m + r) = erf(m) + r P(r) around each centre m; around 0 it is r + r P(r)
    "ERF_0": Fit(lambda r: mp.erf(r) / r - 1 if r else 2 / mp.sqrt(mp.pi) - 1, range(0, 7, 2), 0.0,
                 ERF_STEP / 2 + ERF_OVERLAP),
    **{f"ERF_{number}": _erf_around(number, m) for number, m in enumerate(ERF_CENTRES) if number},
    # in f64, for pow: log2(1 + f) = f POW_LOG2(f), 2^r = 1 + r POW_EXP2(r)
    "POW_LOG2": Fit(_ratio(lambda f: mp.log1p(f) / mp.log(2), 1, float(1 / mp.log(2))), range(14), LOG_LO, LOG_HI,
                    lambda f: abs(f / mp.log1p(f)) if f else mp.mpf(1), np.float64),
    "POW_EXP2": Fit(_ratio(lambda r: mp.mpf(2) ** r - 1, 1, float(mp.log(2))), range(7), -0.50001, 0.50001,
                    lambda r: abs(r) / mp.mpf(2) ** r,
                    np.float64),
}


def coefficients(fit: Fit, points: int = 1500) -> tuple[np.ndarray, float]:
    """Coefficients, lowest power first, and the weighted error after they are rounded."""
    x = 0.5 * (fit.lo + fit.hi) - 0.5 * (fit.hi - fit.lo) * np.cos(np.linspace(0, np.pi, points))
    values, weights = [np.array([np.longdouble(mp.nstr(g(mp.mpf(float(v))), 25)) for v in x])
                       for g in (fit.f, fit.weight)]
    basis = np.stack([x.astype(np.longdouble) ** p for p in fit.powers], axis=1)
    count = len(fit.powers) + 1
    chosen = np.linspace(0, points - 1, count).astype(int)
    chosen[weights[chosen] == 0] += 1
    for _ in range(40):
        c = _level(basis, values, weights, chosen)
        error = weights * (values - basis @ c)
        chosen, before = _extrema(error, count), chosen
        if np.array_equal(chosen, before):
            break
    rounded = c.astype(fit.dtype)
    return rounded, float(np.max(np.abs(weights * (values - basis @ rounded.astype(np.longdouble)))))


def _level(basis: np.ndarray, values: np.ndarray, weights: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The polynomial whose weighted error has equal size and alternating sign at the chosen points."""
    signs = np.where(np.arange(len(chosen)) % 2, -1.0, 1.0)
    system = np.column_stack([basis[chosen], signs / weights[chosen]])
    solution = mp.lu_solve(mp.matrix(system.astype(float).tolist()), mp.matrix(values[chosen].astype(float).tolist()))
    return np.array([np.longdouble(mp.nstr(v, 25)) for v in solution][:-1])


def _extrema(error: np.ndarray, count: int) -> np.ndarray:
    """The place of the largest error in each run of equal sign; the `count` neighbouring runs that matter most."""
    edges = np.flatnonzero(np.diff(np.sign(error))) + 1
    runs = np.split(np.arange(len(error)), edges)
    peaks = [run[np.argmax(np.abs(error[run]))] for run in runs]
    while len(peaks) > count:
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return np.array(peaks)


def main() -> None:
    for name, fit in FITS.items():
        c, error = coefficients(fit)
        print(f"{name} = ({', '.join(repr(float(v)) for v in c)})    # error 2^{np.log2(error):.1f}")


if __name__ == "__main__":
    main()
