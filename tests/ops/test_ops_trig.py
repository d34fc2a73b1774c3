"""Errors of the composites of ops/trig.py, in units in the last place, against numpy in a wider dtype."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.trig import Acos, Acosh, Asin, Asinh, Atan, Atan2, Atanh, Cosh, Sinh, Tan
from graphc.ir.types import DType, f32, f64

N = 50_000
WIDE = {f32: np.float64, f64: np.longdouble}
RANGES = ((Tan(), -1.5, 1.5, 4), (Sinh(), -80, 80, 3), (Cosh(), -80, 80, 3), (Asin(), -1, 1, 3), (Acos(), -1, 1, 3),
          (Atan(), -50, 50, 4),
          (Asinh(), -1e4, 1e4, 3), (Acosh(), 1, 1e4, 5), (Atanh(), -1, 1, 4), (Atan2(), -3, 3, 4))


def numbers(rng, low: float, high: float, dtype: DType) -> np.ndarray:
    """Spread over the range, a third of them close to its origin (0, or `low` if that is positive)."""
    start = max(low, 0)
    x = rng.uniform(low - start, high - start, N) * np.where(rng.random(N) < 0.3, 10.0 ** rng.uniform(-7, 0, N), 1)
    return (start + x).astype(dtype.np)


@pytest.mark.parametrize("dtype", (f32, f64), ids=str)
@pytest.mark.parametrize("op, low, high, most", RANGES, ids=lambda v: getattr(v, "name", ""))
def test_error(op, low, high, most, dtype):
    rng = np.random.default_rng(3)
    arrays = [numbers(rng, low, high, dtype) for _ in range(2 if op.name == "atan2" else 1)]
    b = Builder()
    y = op.decompose(b, *(b.input(f"x{i}", dtype[N]) for i in range(len(arrays))))
    actual = evaluate(b.finish([y]), arrays)[0]
    expect = getattr(np, op.name)(*(a.astype(WIDE[dtype]) for a in arrays))
    units = np.abs(actual.astype(WIDE[dtype]) - expect) / np.spacing(np.abs(expect).astype(dtype.np))
    assert units.max() <= most
