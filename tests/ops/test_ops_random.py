"""Philox against published vectors; the distributions against what they should be."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.autodiff.backward import backward
from graphc.ir.builder import Builder
from graphc.ir.interp import evaluate
from graphc.ir.ops.random import (
    Dropout, RandomBernoulli, RandomBits, RandomNormal, RandomPermutation, RandomUniform, philox)
from graphc.ir.types import f32, f64, i64

KEY = np.array([12345, 6])
ONES = 0xFFFFFFFF


@pytest.mark.parametrize("counter, key, words", (       # kat_vectors of Random123, philox4x32 with 10 rounds
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))))
def test_published_vectors(counter, key, words):
    assert tuple(int(w) for w in philox([np.uint64(c) for c in counter], [np.uint64(k) for k in key])) == words


def one_word(i: int, key, stream: int, lane: int) -> int:
    """The documented word of element i, in Python integers."""
    seed, step = (int(k) % 2 ** 64 for k in key)
    c, k = [i // 4, lane, stream, step % 2 ** 32], [seed % 2 ** 32, seed >> 32]
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [q >> 32 ^ c[1] ^ k[0], q & ONES, p >> 32 ^ c[3] ^ k[1], p & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return c[i % 4]


@pytest.mark.parametrize("key", ((0, 0), (2 ** 40 + 3, 2 ** 33 + 1), (-1, -5)))
def test_element_and_word(key):
    words = RandomBits((2, 5), 4000000000, 3).reference(np.array(key)).ravel().view(np.uint32)
    assert words.tolist() == [one_word(i, key, 4000000000, 3) for i in range(10)]


def test_shape_does_not_matter_stream_lane_step_and_seed_do():
    base = RandomBits((40,), 1).reference(KEY)
    np.testing.assert_array_equal(RandomBits((5, 8), 1).reference(KEY).ravel(), base)
    np.testing.assert_array_equal(RandomBits((7,), 1).reference(KEY), base[:7])
    others = [RandomBits((40,), 2).reference(KEY), RandomBits((40,), 1, 1).reference(KEY),
              RandomBits((40,), 1).reference(KEY + [0, 1]), RandomBits((40,), 1).reference(KEY + [1, 0])]
    assert all(np.mean(base == other) < 0.1 for other in others)


@pytest.mark.parametrize("dtype", (f32, f64))
def test_uniform(dtype):
    x = RandomUniform((200_000,), dtype, 1).reference(KEY)
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 0.003 and abs(x.var() - 1 / 12) < 0.001
    counts, _ = np.histogram(x, 64, (0, 1))
    assert np.sum((counts - 3125) ** 2 / 3125) < 63 + 5 * np.sqrt(2 * 63)       # chi squared
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("dtype", (f32, f64))
def test_normal(dtype):
    x = RandomNormal((200_000,), dtype, 1).reference(KEY)
    assert x.dtype == dtype.np and np.isfinite(x).all()
    moments = [np.mean(x.astype(float) ** n) for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.06)
    assert abs(np.mean(np.abs(x) < 1) - 0.682689) < 0.005 and abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("p", (0.0, 0.1, 0.75, 1.0))
def test_bernoulli(p):
    x = RandomBernoulli((100_000,), p, 1).reference(KEY)
    assert x.dtype == bool and abs(x.mean() - p) <= 0.005 * (0 < p < 1)


def test_permutation():
    x = RandomPermutation(1000, 1).reference(KEY)
    assert sorted(x) == list(range(1000)) and abs(np.corrcoef(x, np.arange(1000))[0, 1]) < 0.1
    assert not np.array_equal(x, RandomPermutation(1000, 1).reference(KEY + [0, 1]))


def test_dropout_gradient_has_the_same_mask():
    b = Builder()
    x, key = b.input("x", f64[1000]), b.input("key", i64[2])
    y = b.dropout(x, key, rate=0.3, stream=2)
    dx, = backward(b, list(b.nodes), {y: x}, [x])
    ones = np.ones(1000)
    out, slope = evaluate(b.finish([y, dx]), [ones, KEY])
    np.testing.assert_array_equal(out, slope)
    assert set(np.unique(out)) == {0.0, 1 / 0.7} and abs(out.mean() - 1) < 0.1
    np.testing.assert_array_equal(Dropout(0.3, 2).reference(np.ones(1000, np.float32), KEY) != 0, out != 0)
