"""nonzero, compress and unique: more results than room, masks of several axes, gradients, named sizes, mistakes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("size", (1, 3, 12, 40))
def test_room_for_fewer_and_for_more(size):
    x = RNG.integers(0, 3, (4, 3))

    @gc.graph
    def f(x: gc.i64[4, 3]):
        (i, j), n = gc.nonzero(x, size=size, fill=-1)
        kept, m = gc.compress(x > 1, x, size=size, fill=9)
        return i, j, n, kept, m
    i, j, n, kept, m = gc.compile(f)(x)
    want, picked = np.nonzero(x), x[x > 1]
    assert n == len(want[0]) and m == len(picked)
    for found, exact in ((i, want[0]), (j, want[1])):
        np.testing.assert_array_equal(found, np.concatenate([exact, np.full(size, -1)])[:size])
    np.testing.assert_array_equal(kept, np.concatenate([picked, np.full(size, 9)])[:size])


@pytest.mark.parametrize("size", (2, 9))
def test_unique_is_numpys(size):
    x = np.array([[3, np.nan, -0.0], [1, 0.0, np.nan], [3, np.inf, 3]], np.float32)

    @gc.graph
    def f(x: gc.f32[3, 3]):
        return tuple(gc.unique(x, size=size, fill=-7))
    values, indices, inverse, counts, count = gc.compile(f)(x)
    want = np.unique(x, True, True, True)
    kept = min(size, len(want[0]))
    assert count == len(want[0]) and inverse.shape == x.shape
    np.testing.assert_array_equal(values, np.concatenate([want[0], np.full(9, -7)])[:size])
    np.testing.assert_array_equal(indices[:kept], want[1][:kept])
    np.testing.assert_array_equal(inverse, np.minimum(want[2], size - 1))
    np.testing.assert_array_equal(counts, np.concatenate([want[3], np.zeros(9, int)])[:size])


def test_rows_by_a_mask_with_their_gradient():
    x, keep = RNG.random((5, 2)), np.array([True, False, True, True, False])

    @gc.graph
    def f(x: gc.f64[5, 2], keep: gc.bool_[5]):
        rows, n = gc.compress(keep, x, size=4)
        return gc.sum(rows ** 2)
    gc.check_gradients(f, raises=True, x=x, keep=keep)
    np.testing.assert_allclose(gc.compile(gc.grad(f))(x, keep), np.where(keep[:, None], 2 * x, 0))


def test_named_sizes_and_empty_masks():
    @gc.graph
    def f(x: gc.f32["N", 2]):
        rows, n = gc.compress(x[:, 0] > 0, x, size=3)
        return rows, n
    x = np.array([[1, 2], [-1, 3], [4, 5]], np.float32)
    rows, n = gc.compile(f)(x)
    assert n == 2
    np.testing.assert_array_equal(rows, [[1, 2], [4, 5], [0, 0]])
    rows, n = gc.compile(f)(np.zeros((0, 2), np.float32))
    assert n == 0 and (rows == 0).all()


MISTAKES = (
    (lambda x: x[x > 0], r"gc\.compress\(mask, x, size=…\)"), (lambda x: gc.nonzero(x, size=0), "1 or more, got 0"),
    (lambda x: gc.nonzero(x), "size"), (lambda x: gc.compress(x, x, size=3), "must be bool, got f32"),
    (lambda x: gc.compress(x[:, 0] > 0, x, size=3, axis=1), "from axis 1 on, \\[4\\] or a part, got \\[3\\]"),
    (lambda x: gc.nonzero(gc.sum(x), size=3), "scalar"), (lambda x: gc.unique(x > 0, size=2), "astype"),
    (lambda x: gc.compress(x > 0, x, size=3, fill="a"), "fill is a number"))


@pytest.mark.parametrize("f, says", MISTAKES)
def test_mistakes(f, says):
    with pytest.raises(gc.GraphError, match=says) as caught:
        gc.compile(lambda x: f(x), x=gc.f32[3, 4])
    assert caught.value.loc.file == __file__
