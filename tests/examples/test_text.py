"""The text helper of the language models."""
from math import log2

import numpy as np
import pytest
from text import IGNORED, every_window, ngrams, python_topics, random_windows, sample


def test_text_is_split_and_coded():
    text = python_topics(10_000)
    assert len(text.train) == 9_000 and len(text.held_out) == 1_000
    assert np.array_equal(text.encode(text.decode(text.train[:50])), text.train[:50])


def test_random_windows_are_shifted_by_one():
    ids = np.arange(100, dtype=np.int32)
    for x, y in random_windows(ids, 4, 7, 3, seed=0):
        assert x.shape == (4, 7) and np.array_equal(y, x + 1)


@pytest.mark.parametrize("count, length, context", [(100, 16, 8), (97, 16, 0), (9, 16, 8), (17, 16, 8), (2, 8, 4)])
def test_every_character_counts_once_and_with_context(count, length, context):
    ids = np.arange(1, count + 1, dtype=np.int32)
    seen = []
    for x, y in every_window(ids, 4, length, context):
        assert x.shape == y.shape == (4, length)
        rows, places = np.nonzero(y != IGNORED)
        assert np.array_equal(x[rows, places] + 1, y[rows, places])
        seen += y[rows, places].tolist()
        assert all(p >= context or y[r, p] <= length + 1 for r, p in zip(rows, places))
    assert sorted(seen) == list(range(2, count + 1))


def test_ngram_probabilities_sum_to_one():
    train, letters = np.array([0, 1, 2, 0, 1, 1, 0, 2], np.int32), 4
    for before in ([0], [0, 1], [3], [2, 0]):
        bits = [ngrams(train, np.array(before + [c]), letters, order=3).interpolated * len(before)
                for c in range(letters)]
        base = ngrams(train, np.array(before), letters,
                      order=3).interpolated * max(len(before) - 1, 0) if len(before) > 1 else 0.0
        assert sum(2 ** (base - b) for b in bits) == pytest.approx(1)


def test_a_bigram_by_hand():
    train = np.array([0, 0, 1], np.int32)               # after 0: 0 once, 1 once
    unigram = (1 + 2 * 0.5) / (3 + 2)                   # of 1, interpolated with uniform
    assert ngrams(train, np.array([0, 1]), 2, order=2).interpolated == pytest.approx(-log2((1 + 2 * unigram) / (2 + 2)))


def test_sampling_follows_the_scores_and_the_seed():
    def scores(ids):
        return np.eye(5)[(ids[-1] + 1) % 5] * 50
    assert sample(scores, np.array([0]), 6).tolist() == [1, 2, 3, 4, 0, 1]
    def flat(ids):
        return np.zeros(5)
    assert np.array_equal(sample(flat, np.array([0]), 9, seed=1), sample(flat, np.array([0]), 9, seed=1))


def test_maximum_likelihood_by_hand():
    train = np.array([0, 0, 1, 0], np.int32)            # after 0: 0 once, 1 once; after 1: 0
    counted = ngrams(train, np.array([0, 1, 0, 2]), 3, order=2)
    assert counted.likeliest == pytest.approx((1 + 0) / 2) and counted.unseen == pytest.approx(1 / 3)
