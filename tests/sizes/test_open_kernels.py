"""Kernels that are compiled once for all sizes: every operator, against the reference, at sizes around vectors, tiles
and blocks."""
from __future__ import annotations

from math import prod

import numpy as np
import pytest
from open_cases import CASES
from open_kernels import Case, OpenKernel

from graphc.ir.dims import parse_dim
from graphc.ir.interp import evaluate
from graphc.ir.types import TensorType

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


ALONE = (
    "add", "add row", "add features", "add odd features", "mul column", "integers", "gelu", "other order", "bias gelu",
    "iota", "heads", "sum of rows", "prod of rows", "max of rows", "sum of features", "sum in the middle", "argmax", "var",
    "softmax", "softmax of classes", "softmax of scores", "softmax gradient", "layer norm", "layer norm of names",
    "rms norm", "group norm", "batch norm inference", "flip rows", "take along columns", "take along axis",
    "take along named axis", "scatter to columns", "pick rows", "cumsum", "linear scan",
    "max_pool2d of a batch with padding", "avg_pool2d of images", "max_pool2d gradient with padding")
"""Cases of which each sample gives a result of its own."""


@pytest.mark.parametrize("name", ALONE)
def test_a_sample_has_the_same_bits_in_every_batch(name: str):
    case = next(c for c in CASES if c.name == name)
    kernel, batch = OpenKernel(case), 40
    sizes = {"B": batch, "T": 37, "C": 9} | {n: 37 for n in case.names if n not in "BTC"}
    arrays = case.arrays(sizes)
    whole = kernel.run(sizes, arrays)
    for start, count in ((0, 1), (39, 1), (3, 7), (8, 32)):
        part = [_part(a, t, start, count, batch) for a, t in zip(arrays, case.types)]
        for got, want in zip(kernel.run(sizes | {"B": count}, part), whole):
            rows = len(want) // batch
            assert got.tobytes() == want[start * rows:(start + count) * rows].tobytes(), (start, count)


def _part(array: np.ndarray, t: TensorType, start: int, count: int, batch: int) -> np.ndarray:
    """The samples start … start + count - 1 of an operand that has some."""
    if not t.shape or "B" not in getattr(t.shape[0], "names", ()):
        return array
    rows = len(array) // batch
    return array[start * rows:(start + count) * rows]


@pytest.mark.parametrize("name, filling", [("sum of rows", 0.0), ("softmax", -np.inf), ("log softmax of columns", -np.inf),
                                           ("sum of columns", 0.0), ("sum in the middle", 0.0), ("sum of all", 0.0)])
def test_what_is_appended_and_does_not_count_changes_no_bits(name: str, filling: float):
    """Sums of several blocks, which end within a vector, at its end, and at that of a block."""
    case = next(c for c in CASES if c.name == name)
    kernel, axis = OpenKernel(case), "B" if name in ("log softmax of columns", "sum of columns") else "T"
    other = "T" if axis == "B" else "B"
    for size, more in ((5000, 1), (5000, 31), (4995, 5), (4096, 4096), (31, 1), (1, 9000), (255, 3)):
        sizes = {axis: size, other: 3}
        array, = case.arrays(sizes)
        along = case.types[0].shape.index(parse_dim(axis))
        longer = np.concatenate([array, np.full([more if i == along else n for i, n in enumerate(array.shape)], filling,
                                                array.dtype)], along)
        if name == "sum of all" and other == "B":
            array, longer, sizes = array[:1], longer[:1], sizes | {other: 1}
        short, = kernel.run(sizes, [array])
        long, = kernel.run(sizes | {axis: size + more}, [longer])
        kept = long if long.shape == short.shape else long.take(range(size), along)
        assert short.tobytes() == kept.tobytes(), (size, more)
