"""Sorting and selecting: networks by the zero-one principle, sizes around blocks and runs, ties, zeros of both signs,
NaN, other axes.
"""
from itertools import product

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.lower.sort_network import comparators, padded
from graphc.ir.ops.sort import order_of

SIZES = (1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200, 1000, 4097)
TYPES = (gc.f32, gc.i32, gc.f64, gc.i64)


@pytest.mark.parametrize("lines", (1, 2, 4, 8))
def test_a_network_sorts_all_zeros_and_ones(lines):
    """Then it sorts everything (Knuth, The Art of Computer Programming 3, 5.3.4)."""
    for values in product((0, 1), repeat=lines):
        found = list(values)
        for a, b in comparators(lines):
            found[a], found[b] = min(found[a], found[b]), max(found[a], found[b])
        assert found == sorted(values)


def test_a_sort_needs_whole_blocks():
    assert [padded(n, 8) for n in (1, 64, 65)] == [64, 64, 128]


def row(dtype, shape, seed=0):
    """Many equal elements; of floats also what compares otherwise than its bits."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal(shape) * 5).astype(dtype.np)
    if dtype.is_float:
        special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40], dtype.np)
        at = rng.random(shape) < 0.3
        x[at] = rng.choice(special, int(at.sum()))
    else:
        x[rng.random(shape) < 0.1] = np.iinfo(dtype.np).min
        x[rng.random(shape) < 0.1] = np.iinfo(dtype.np).max
    return x


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape, axis", [((2, n), -1) for n in SIZES] + [((65, 3), 0), ((3, 70, 2), 1)], ids=str)
def test_order(dtype, shape, axis):
    x = row(dtype, shape)

    @gc.graph
    def both(x: dtype[shape]):
        return tuple(f(x, axis, descending) for descending in (False, True) for f in (gc.sort, gc.argsort))
    found = gc.compile(both)(x)
    for descending in (False, True):
        order = order_of(x, axis, descending)
        np.testing.assert_array_equal(found[2 * descending + 1], order)
        assert found[2 * descending].tobytes() == np.take_along_axis(x, order, axis).tobytes()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("n", (1, 9, 64, 300, 5000))
@pytest.mark.parametrize("arrangement", ("drawn", "rising", "falling", "equal"))
def test_selection(dtype, n, arrangement):
    """Also where every element is below the threshold, the worst order."""
    drawn = row(dtype, (2, n), n)
    x = {"drawn": drawn, "rising": np.sort(drawn), "falling": -np.sort(-drawn),
         "equal": np.ones_like(drawn)}[arrangement]
    counts = sorted({1, min(2, n), min(50, n), n // 4, n // 4 + 1, n} - {0})

    @gc.graph
    def largest(x: dtype[2, n]):
        return tuple(y for k in counts for y in gc.topk(x, k))
    found = gc.compile(largest)(x)
    for i, k in enumerate(counts):
        order = order_of(x, -1, True)[:, :k]
        np.testing.assert_array_equal(found[2 * i + 1], order)
        assert found[2 * i].tobytes() == np.take_along_axis(x, order, -1).tobytes()
