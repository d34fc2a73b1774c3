"""Language models and sequence-to-sequence networks: training by teacher forcing, free running, and the state they
share.
"""
import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.nn.network import entries, trace_network

COUNT, WIDTH, START, END = 11, 24, 9, 10
RNG = np.random.default_rng(0)


def copies(batch, low=2, high=6):
    """Sources of digits, padded behind with 0, their lengths, and targets: START, the source backwards, END, padding.
    """
    lengths = RNG.integers(low, high + 1, batch)
    source, target = np.zeros((batch, high), np.int64), np.full((batch, high + 2), END)
    for i, n in enumerate(lengths):
        source[i, :n] = RNG.integers(0, 9, n)
        target[i, :n + 1] = [START, *source[i, :n][::-1]]
    return source, lengths, target


def with_attention():
    embed = nn.Embedding(COUNT, WIDTH)
    return nn.Seq2Seq(embed >> nn.GRU(WIDTH, batch_first=True),
                      embed >> nn.GRU(WIDTH, batch_first=True) >> nn.AttendTo() >> nn.GenerateToken(embed, tied=False))


def lstm():
    return nn.Seq2Seq(nn.Embedding(COUNT, WIDTH) >> nn.LSTM(WIDTH, layers=2, batch_first=True),
                      nn.Embedding(COUNT, WIDTH) >> nn.LSTM(WIDTH, layers=2, batch_first=True) >> nn.Linear(COUNT))


def both_ways():
    """A bidirectional encoder; a bridge makes one state of its two."""
    return nn.Seq2Seq(nn.Embedding(COUNT, WIDTH) >> nn.GRU(WIDTH, batch_first=True, bidirectional=True),
                      nn.Embedding(COUNT, WIDTH) >> nn.GRU(2 * WIDTH, batch_first=True) >> nn.Linear(COUNT),
                      bridge=lambda h: gc.concat([h[:1], h[1:]], axis=-1))


def transformer(position=nn.SinusoidalPosition):
    embed = nn.Embedding(COUNT, WIDTH)
    return nn.Seq2Seq(embed >> position() >> nn.TransformerBlock(2),
                      embed >> position() >> nn.DecoderBlock(2) ** 2 >> nn.GenerateToken(embed, tied=False))


NETWORKS = {"GRU with attention": with_attention, "LSTM": lstm, "bidirectional GRU": both_ways,
            "Transformer": transformer}


@pytest.mark.parametrize("name", NETWORKS)
def test_free_running_is_the_argmax_of_teacher_forcing_on_its_own_tokens(name):
    net = NETWORKS[name]()
    source, lengths, _ = copies(4)
    types = dict(source=gc.i64[4, 6], target=gc.i64[4, 8], source_lengths=gc.i64[4])
    random = np.random.default_rng(1)
    state = {e.name: random.normal(0, 0.6, e.type.shape).astype(np.float32)
             for e in entries(trace_network(net, **types))}
    generate, full = gc.Generator(net, state=state), gc.compile(net, state=state, **types)
    for _ in range(2):                                      # the second time with another source, by the same programs
        made = generate(START, 7, source=source, source_lengths=lengths)
        target = np.concatenate([np.full((4, 1), START), made], 1)
        scores = full(source=source, target=target, source_lengths=lengths)
        np.testing.assert_array_equal(scores.argmax(-1)[:, :7], made)
        source, lengths, _ = copies(4)
    padding = np.arange(6) >= lengths[:, None]
    other = generate(START, 7, source=np.where(padding, 8, source), source_lengths=lengths)
    # padding says nothing
    np.testing.assert_array_equal(generate(START, 7, source=source, source_lengths=lengths), other)


@pytest.mark.parametrize("name", ["GRU with attention", "Transformer"])
def test_sequence_to_sequence_learns_to_turn_digits_round(name):
    net = NETWORKS[name]()
    step = gc.train_step(lambda source, target, n, m: net.loss(source, target, source_lengths=n, lengths=m),
                         optimizer=optim.AdamW(5e-3),
                         source=gc.i64[64, 4], target=gc.i64[64, 6], n=gc.i64[64], m=gc.i64[64], seed=0)
    for _ in range(400):
        source, n, target = copies(64, 1, 4)
        loss = step(source, target, n, n + 2)
    assert loss < 0.3
    source, n, target = copies(100, 1, 4)
    made = gc.generate(net, START, 5, state=step.state, stop=END, source=source, source_lengths=n)
    assert np.mean((made == target[:, 1:1 + made.shape[1]]).all(axis=1)) > 0.8


def test_a_language_model_learns_and_generation_sees_later_training():
    """Counting: the next digit. The short form of the training step, whose model generates."""
    embed = nn.Embedding(10, WIDTH)
    model = nn.LanguageModel(embed, nn.LSTM(WIDTH, batch_first=True))
    step = gc.train_step(model, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-2), ids=gc.i64[16, 8], y=gc.i64[16, 8],
                         seed=0)
    ids = (np.arange(9) + np.arange(16)[:, None]) % 10
    before = gc.generate(step.model, [3, 4, 5], 6)
    for _ in range(150):
        step(ids[:, :-1].copy(), ids[:, 1:].copy())
    after = gc.generate(step.model, [3, 4, 5], 6)
    assert before.tolist() != after.tolist() == [6, 7, 8, 9, 0, 1]
    assert gc.generate(model, [3, 4, 5], 6, state=step.state).tolist() == after.tolist()
    assert len(step.state.programs) == 1                    # compiled once
    version = step.state.lock.version
    gc.generate(step.model, [3, 4, 5], 6)
    assert step.state.lock.version == version               # caches are no news for other programs on this state
    step.state["embed.weight"] = step.state["embed.weight"][::-1]
    assert gc.generate(step.model, [3, 4, 5], 6).tolist() != after.tolist()


def test_the_losses_of_a_language_model_are_the_sums_over_its_real_tokens():
    embed = nn.Embedding(COUNT, WIDTH)
    model = nn.LanguageModel(embed, nn.GRU(WIDTH, batch_first=True), collapse="average")
    ids, lengths = RNG.integers(0, COUNT, (3, 6)), np.array([6, 2, 4])
    state = gc.Generator(model, seed=1)
    state(ids, 1)
    state = state.state
    scores = gc.compile(model, ids=gc.i64[3, 6], state=state)(ids)
    logp = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    each = np.array([[logp[b, t, ids[b, t + 1]] for t in range(5)]
                     for b in range(3)]) * (np.arange(5) < lengths[:, None] - 1)
    types = dict(ids=gc.i64[3, 6], lengths=gc.i64[3])
    loss = gc.compile(lambda ids, lengths: model.loss(ids, lengths), state=state, **types)(ids, lengths)
    likelihood = gc.compile(lambda ids, lengths: model.log_likelihood(ids, lengths), state=state, **types)(ids, lengths)
    np.testing.assert_allclose(likelihood, each.sum(1), rtol=1e-4)
    np.testing.assert_allclose(loss, -each.sum() / (lengths - 1).sum(), rtol=1e-4)


@pytest.mark.parametrize("how", ["first", "last", "average"])
def test_the_lecture_s_chain_gives_the_scores_of_every_prefix(how):
    """GenerateToken ∘ Collapse ∘ SequenceModel ∘ EmbedToken, word for word, on each prefix, is what LanguageModel gives
    in one call.
    """
    embed, gru = nn.Embedding(COUNT, WIDTH), nn.GRU(WIDTH, batch_first=True)
    generate = nn.GenerateToken(embed, tied=False)
    chain, model = embed >> gru >> nn.Collapse(how,
                                               batch_first=True) >> generate, nn.LanguageModel(embed, gru, how, generate)
    random = np.random.default_rng(1)
    values = {id(e.key): random.normal(0, 0.7, e.type.shape).astype(np.float32)
              for e in entries(trace_network(model, ids=gc.i64[2, 9]))}

    def of(net, **types):
        return {e.name: values[id(e.key)] for e in entries(trace_network(net, **types))}
    prompts = [[1, 2, 3], [4]]
    made = gc.generate(chain, prompts, 5, state=of(chain, x=gc.i64[2, 9]))
    np.testing.assert_array_equal(made, gc.generate(model, prompts, 5, state=of(model, ids=gc.i64[2, 9])))
    for prompt, row in zip(prompts, made):
        ids = np.array([[*prompt, *row]])
        scores = gc.compile(model, ids=gc.i64["B", "T"], state=of(model, ids=gc.i64[2, 9]))(ids)[0]
        for n in range(len(prompt), len(prompt) + 5):
            prefix = gc.compile(chain, x=gc.i64[1, n], state=of(chain, x=gc.i64[2, 9]))(ids[:, :n])
            np.testing.assert_allclose(scores[n - 1], prefix[0], rtol=1e-4, atol=1e-5)
            assert prefix[0].argmax() == row[n - len(prompt)]
