"""Keys that a mask hides are not copied for attention, and what a product streams through is not stored for it."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

LONG = 2 << 10


def decode(queries: int | str = 1, heads: int = 4, size: int = 64):
    """Few queries, many keys, of which a mask hides some."""
    @gc.graph
    def f(q: gc.f32[2, heads, queries, size], k: gc.f32[2, heads, LONG, size], v: gc.f32[2, heads, LONG, size],
          seen: gc.bool_[2, 1, 1, LONG]):
        return gc.attention(q, k, v, seen)
    return f


def arrays(queries: int = 1, heads: int = 4, size: int = 64):
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((2, heads, n, size), np.float32) for n in (queries, LONG, LONG))
    seen = rng.random((2, 1, 1, LONG)) < 0.5
    hidden = ~np.broadcast_to(seen[..., 0, :, None], k.shape)
    return (q, np.where(hidden, np.nan, k), np.where(hidden, np.inf, v), seen), (q, np.where(hidden, 0, k),
                                                                                np.where(hidden, 0, v), seen)


@pytest.mark.parametrize("queries", [1, 2, 16, "T"])
def test_hidden_keys_do_not_count_though_they_are_read_as_they_are(queries):
    wild, tame = arrays(5 if queries == "T" else queries)
    run = gc.compile(decode(queries))
    found, expected = run(*wild), run(*tame)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, expected)


def test_few_queries_store_neither_keys_nor_values_again():
    """Nor do few: all that is stored is a number for each key, if that."""
    for queries in (1, 4):
        run = gc.compile(decode(queries))
        assert run.memory.arena < 2 * 4 * LONG * 64 * 4 // 8


def test_gradients_of_hidden_keys_stay_zero():
    f = decode()

    @gc.graph
    def total(q: gc.f32[2, 4, 1, 64], k: gc.f32[2, 4, LONG, 64], v: gc.f32[2, 4, LONG, 64],
              seen: gc.bool_[2, 1, 1, LONG]):
        return gc.sum(gc.square(f(q, k, v, seen)))
    wild, tame = arrays()
    slopes = gc.compile(gc.grad(total, wrt=("q", "k", "v")))
    for a, b in zip(slopes(*wild), slopes(*tame)):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
