"""Kernels that are compiled once for all sizes: every operator, against the reference, at sizes around vectors, tiles
and blocks."""
from __future__ import annotations

from math import prod

import numpy as np
import pytest
from open_cases import CASES
from open_kernels import Case, OpenKernel

from graphc.ir.interp import evaluate

SIZES = (1, 2, 3, 7, 16, 17, 31, 64, 100, 1000)


def assignments(case: Case) -> list[dict[str, int]]:
    """Sizes of the names, each apart from the others; none so large that the case would take long."""
    found = []
    for k in range(len(SIZES)):
        sizes = {n: max(SIZES[(k + 3 * i) % len(SIZES)], case.least.get(n, 1)) for i, n in enumerate(case.names)}
        if max(prod(t.bind(sizes).shape) for t in case.types) <= case.most:
            found.append(sizes)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_kernel_serves_all_sizes(case: Case):
    kernel = OpenKernel(case)
    tried = assignments(case)
    assert len(tried) >= 5
    for sizes in tried:
        arrays = case.arrays(sizes)
        for got, want in zip(kernel.run(sizes, arrays), evaluate(case.graph(sizes), arrays), strict=True):
            check(got, want, sizes)


def check(got: np.ndarray, want: np.ndarray, sizes: dict[str, int]) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    if got.dtype.kind == "f":
        scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
        eps = np.finfo(got.dtype).eps
        np.testing.assert_allclose(got, want, rtol=64 * eps, atol=64 * eps * scale, err_msg=str(sizes))
    else:
        np.testing.assert_array_equal(got, want, err_msg=str(sizes))
