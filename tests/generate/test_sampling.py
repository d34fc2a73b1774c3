"""Drawing tokens: distributions against their definition, sets of likely tokens exactly, seeds."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn

COUNT, DRAWS = 9, 40_000
SCORES = np.array([1.0, -0.5, 2.0, 0.3, -3.0, 1.2, 0.0, 1.9, -1.0], np.float32)
OPTIONS = [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 1}, {"top_k": 3}, {"top_k": 99}, {"top_p": 0.4},
           {"top_p": 0.75},
           {"top_p": 1.0}, {"top_k": 4, "top_p": 0.6, "temperature": 1.5}]


def wanted(scores, temperature=1.0, top_k=None, top_p=None):
    """The probabilities by the definition: sort, cut, cut, normalise."""
    order = np.argsort(-scores)
    p = np.exp((scores / temperature)[order].astype(np.float64))
    p[top_k or len(p):] = 0
    p /= p.sum()
    if top_p is not None:
        p[np.cumsum(p) - p >= top_p] = 0
    result = np.empty(len(p))
    result[order] = p / p.sum()
    return result


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens_are_drawn_from_the_distribution(options):
    @gc.graph
    def draw(scores: gc.f32[COUNT]):
        return nn.sample(gc.broadcast_to(scores, (DRAWS, COUNT)), key=3, **options)
    check_counts(np.bincount(draw(SCORES), minlength=COUNT), wanted(SCORES, **options))


def check_counts(counts, p):
    """No token outside of the set; chi-square within four standard deviations (the seed is fixed)."""
    kept, draws = p > 0, counts.sum()
    assert not counts[~kept].any()
    chi_square = np.sum((counts[kept] - draws * p[kept]) ** 2 / (draws * p[kept]))
    freedom = max(kept.sum() - 1, 1)
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("options",
                         [{"top_k": 1}, {"top_k": 7}, {"top_p": 0.05}, {"top_p": 0.9}, {"top_k": 12, "top_p": 0.5}],
                         ids=str)
def test_the_sets_of_likely_tokens_are_exact(options):
    @gc.graph
    def kept(x: gc.f32[50, 33]):
        return nn.likeliest(x, **options) == x
    scores = np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32) * 3
    np.testing.assert_array_equal(kept(scores), [wanted(row, **options) > 0 for row in scores])


def test_generation_draws_anew_for_each_token_and_sequence_and_repeats_with_the_seed():
    net = nn.Embedding(COUNT, 1) >> nn.Linear(COUNT)
    state = {"0.weight": np.zeros((COUNT, 1), np.float32), "1.weight": np.zeros((COUNT, 1), np.float32),
             "1.bias": SCORES}
    generate, prompt = gc.Generator(net, state=state), np.zeros((200, 1), np.int64)
    for options in ({"temperature": 1.0}, {"temperature": 0.7, "top_k": 5, "top_p": 0.8}):
        tokens = generate(prompt, 50, seed=5, **options)
        check_counts(np.bincount(tokens.ravel(), minlength=COUNT), wanted(SCORES, **options))
        firsts, seconds = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
        # independent of each other
        np.testing.assert_allclose(np.mean(firsts == seconds), np.sum(wanted(SCORES, **options) ** 2), atol=0.02)
        np.testing.assert_array_equal(tokens, generate(prompt, 50, seed=5, **options))
        assert (tokens != generate(prompt, 50, seed=6, **options)).any()


def test_probabilities_and_choice_of_the_layer():
    embed = nn.Embedding(COUNT, 4)
    layer = nn.GenerateToken(embed)

    def net(x):
        return layer.probabilities(x), layer.choose(x, temperature=0.0), layer(x)
    x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    run = gc.compile(net, x=gc.f32[3, 2, 4], seed=0)
    p, token, scores = run(x)
    table = gc.compile(lambda i: embed(i), i=gc.i64[COUNT], seed=0)
    assert table(np.arange(COUNT)).shape == (COUNT, 4)
    np.testing.assert_allclose(p, np.exp(scores) / np.exp(scores).sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(token, scores.argmax(-1))
