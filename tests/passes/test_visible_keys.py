"""Keys that a mask hides are not copied for attention, and what a product streams through is not stored for it."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import Compilation
from graphc.dsl.attention import attend
from graphc.schedule.target import AVX2, AVX512

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


def slopes(queries: int, keys: int, causal: bool = False):
    """The result, and its gradients by q, k and v, each traced by itself."""
    given = gc.f32[2, 3, queries, 20], gc.f32[2, 3, keys, 20], gc.f32[2, 3, keys, 20], gc.bool_[2, 1, 1, keys]

    @gc.graph
    def f(q: given[0], k: given[1], v: given[2], seen: given[3]):
        return gc.attention(q, k, v, seen, causal=causal)

    @gc.graph
    def total(q: given[0], k: given[1], v: given[2], seen: given[3]):
        return gc.sum(gc.square(f(q, k, v, seen)))

    @gc.graph
    def both(q: given[0], k: given[1], v: given[2], seen: given[3]):
        return f(q, k, v, seen), *gc.grad(total, wrt=("q", "k", "v"))(q, k, v, seen)
    return both


# one kernel, and in parts; a batch entry that sees nothing
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries, keys", [(70, 130), (3, 50), (1, 9)])
def test_gradients_read_keys_as_they_are_and_copy_none(queries, keys, causal):
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((2, 3, n, 20), np.float32) for n in (queries, keys, keys))
    seen = rng.random((2, 1, 1, keys)) < 0.6
    seen[1] = False
    hidden = ~np.broadcast_to(seen[..., 0, :, None], k.shape)
    run = gc.compile(slopes(queries, keys, causal))
    names = [node.op.name for node in run.compilation.simplified.nodes]
    assert queries < 70 or "attention_grad" in names
    if {"attention", "attention_grad"} <= {*names}:
        assert names.count("attention") == 1 and "where" not in names
    found = run(q, np.where(hidden, np.nan, k), np.where(hidden, np.inf, v), seen)
    for x, y in zip(found, run(q, np.where(hidden, 0, k), np.where(hidden, 0, v), seen)):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x, y)
    assert not found[2][hidden].any() and not found[3][hidden].any() and not found[1][1].any()
    expected = slopes(queries, keys, causal)(q, np.where(hidden, 0, k), np.where(hidden, 0, v), seen)
    for x, y in zip(found, expected):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_what_others_read_stays():
    """Values that are a result, too, and keys behind other numbers than 0, are read as they were."""
    @gc.graph
    def f(q: gc.f32[2, 70, 16], k: gc.f32[2, 130, 16], v: gc.f32[2, 130, 16], seen: gc.bool_[2, 1, 130]):
        column = seen.reshape(2, 130, 1)
        k, v = gc.where(column, k, 3.0), gc.where(column, v, 0.0)
        return attend(q, k, v, seen), v
    rng = np.random.default_rng(7)
    q, k, v = (rng.standard_normal((2, n, 16), np.float32) for n in (70, 130, 130))
    seen = rng.random((2, 1, 130)) < 0.6
    run = gc.compile(f)
    assert "hides_values" not in str(run.dump("simplified"))
    shown = np.where(seen.mT, v, 0)
    out, values = run(q, k, v, seen)
    np.testing.assert_array_equal(values, shown)
    np.testing.assert_allclose(out, f(q, k, v, seen)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
def test_a_result_that_was_traced_by_itself_shares_scores_with_the_gradient(target):
    """Scores, values, and the other four products of the gradient."""
    given = (gc.f32[5, 7, 6, 80], *[gc.f32[5, 7, 1707, 80]] * 2)

    @gc.graph
    def total(q: given[0], k: given[1], v: given[2]):
        return gc.sum(gc.square(gc.attention(q, k, v)))

    @gc.graph
    def both(q: given[0], k: given[1], v: given[2]):
        return gc.attention(q, k, v), *gc.grad(total, wrt=("q", "k", "v"))(q, k, v)
    names = [node.op.name for node in Compilation(both.graph, target).simplified.nodes]
    assert "attention" not in names and names.count("matmul") == 6
