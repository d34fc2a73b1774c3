"""Greedy generation is the argmax of the whole network at every position: caches, recurrent states, positions, prompts of several lengths."""
import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.nn.network import entries, trace_network

COUNT, WIDTH, HEADS = 23, 16, 2
RNG = np.random.default_rng(0)
PROMPTS = RNG.integers(0, COUNT, (3, 6))
SEVERAL = [[3], [1, 4, 1, 5, 9, 2], [6, 5, 3]]


def embedding():
    return nn.Embedding(COUNT, WIDTH)


def transformer(position=None, inner=None, layers=1, **options):
    """Weights of its own for scores: with tied ones a fresh network repeats itself."""
    embed = embedding()
    body = nn.TransformerBlock(HEADS, causal=True, position=inner, **options) ** layers
    return (embed >> position >> body if position else embed >> body) >> nn.GenerateToken(embed, tied=False, bias=True)


def recurrent(layer, **options):
    embed = embedding()
    return embed >> layer(WIDTH, batch_first=True, **options) >> nn.GenerateToken(embed, tied=False)


NETWORKS = {
    "learned position": lambda: transformer(nn.LearnedPosition(64, std=1.0), layers=2),
    "sinusoidal position": lambda: transformer(nn.SinusoidalPosition(), pre_norm=True),
    "rotary position": lambda: transformer(inner=nn.RotaryPosition()),
    "rotary position, halves": lambda: transformer(inner=nn.RotaryPosition(halves=True), pre_norm=True),
    "relative position": lambda: transformer(inner=nn.RelativePosition(8, max_distance=16, bidirectional=False, std=1.0)),
    "relative position, both ways": lambda: transformer(nn.SinusoidalPosition(), inner=nn.RelativePosition(8, max_distance=16, std=1.0), pre_norm=True),
    "root mean square norms": lambda: transformer(nn.LearnedPosition(64), norm="rms", pre_norm=True),
    "one head": lambda: embedding() >> nn.SinusoidalPosition() >> nn.residual(nn.Attention(WIDTH, causal=True)) >> nn.Linear(COUNT),
    "RNN": lambda: recurrent(nn.RNN), "LSTM": lambda: recurrent(nn.LSTM), "GRU": lambda: recurrent(nn.GRU),
    "three LSTMs": lambda: recurrent(nn.LSTM, layers=3),
    "GRU, then LSTM": lambda: embedding() >> nn.GRU(WIDTH, batch_first=True) >> nn.AddNorm(nn.LSTM(WIDTH, batch_first=True)) >> nn.Linear(COUNT),
    "attention over an LSTM": lambda: embedding() >> nn.LSTM(WIDTH, batch_first=True) >> nn.TransformerBlock(HEADS, causal=True) >> nn.Linear(COUNT),
    "one block twice": lambda: twice(nn.TransformerBlock(HEADS, causal=True)),
    "the average so far": lambda: nn.LanguageModel(embedding(), nn.GRU(WIDTH, batch_first=True), collapse="average", generate=nn.Linear(COUNT)),
    "language model": lambda: nn.LanguageModel(embedding(), nn.SinusoidalPosition() >> nn.TransformerBlock(HEADS, causal=True) ** 2),
}


def twice(block):
    return embedding() >> nn.SinusoidalPosition() >> block >> block >> nn.Linear(COUNT)


def restless(net):
    """Fresh networks repeat a token for ever; with some numbers for each pair of tokens they wander."""
    pairs = np.random.default_rng(2).normal(0, 6, (COUNT, COUNT)).astype(np.float32) - 100 * np.eye(COUNT, dtype=np.float32)
    return lambda ids: net(ids) + gc.one_hot(ids, COUNT) @ pairs


def whole(net, state, length):
    """The scores at every position of a text of `length`."""
    return gc.compile(net, state=state, ids=gc.i64[1, length])


def check(full, prompts, tokens, length):
    """Every token is the argmax of the whole network on what precedes it, padded behind to `length`."""
    for prompt, row in zip(prompts, tokens):
        padded, start = np.zeros((1, length), np.int64), len(prompt) - 1
        padded[0, :start + 1 + len(row)] = [*prompt, *row]
        np.testing.assert_array_equal(full(padded)[0, start:start + len(row)].argmax(-1), row)


def wild_state(net, **types):
    """Large random parameters, so that tokens vary."""
    random = np.random.default_rng(1)
    return {e.name: random.normal(0, 0.5, e.type.shape).astype(np.float32) for e in entries(trace_network(net, **types))}


@pytest.mark.parametrize("name", NETWORKS)
def test_generation_is_the_argmax_of_the_whole_network(name):
    net = restless(NETWORKS[name]())
    state = wild_state(net, ids=gc.i64[1, 16])
    generate = gc.Generator(net, state=state)
    made = generate(PROMPTS, 9)
    assert made.shape == (3, 9) and len(set(made.ravel().tolist())) > 2
    full = whole(net, state, 16)
    for prompts, tokens in ((PROMPTS, made), (SEVERAL, generate(SEVERAL, 9)), (PROMPTS[:1, :4], generate(PROMPTS[0, :4], 9)[None])):
        check(full, prompts, tokens, 16)


@pytest.mark.parametrize("inner", [None, nn.RelativePosition(8, max_distance=16, std=1.0)], ids=["sinusoidal", "relative"])
def test_a_token_looks_at_no_more_of_large_caches_than_is_filled(inner):
    net = restless(transformer(None if inner else nn.SinusoidalPosition(), inner, 1))
    state = wild_state(net, ids=gc.i64[1, 16])
    generate = gc.Generator(net, state=state, capacity=2048)
    prompts = [RNG.integers(0, COUNT, n).tolist() for n in (505, 498)]
    generate(prompts, 3)
    first, second = ("512", "1024") if inner else ("W", "W")
    assert f"f32[2, 2, {first}, 8]" in generate.dump("fused")
    made = generate(prompts, 20)                            # slots 505 … 524
    assert f"f32[2, 2, {second}, 8]" in generate.dump("fused")
    assert generate._used().sizes == ({} if inner else {"W": 576})
    check(whole(net, state, 526), prompts, made, 526)
