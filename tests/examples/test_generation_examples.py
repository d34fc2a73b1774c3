"""The examples that write: dates by sequence-to-sequence models, text by language models; in short form."""
import re
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import islice

import language_models
import numpy as np
import pytest
import seq2seq
from language_model import Settings, held_out_bits, train, training_step
from text import python_topics

import graphc as gc
from graphc import optim

PARSED = {"{d} {month} {y}": "%d %B %Y", "{month} {d}, {y}": "%B %d, %Y", "{weekday}, {d} {mon} {y}": "%A, %d %b %Y",
          "{d}.{m}.{y}": "%d.%m.%Y",
          "{y}/{m:02}/{d:02}": "%Y/%m/%d", "{mon} {d:02} {y}": "%b %d %Y",
          "the {d}{th} of {month}, {y}": "the %dth of %B, %Y",
          "{weekday} {month} {d}{th} {y}": "%A %B %dth %Y", "{d:02}-{mon}-{y}": "%d-%b-%Y",
          "{y} {month} {d}": "%Y %B %d"}
ISO = re.compile(r"\d{4}-\d{2}-\d{2}")


def test_every_form_has_a_parser_here():
    assert set(PARSED) == set(seq2seq.FORMS)


@pytest.mark.parametrize("form", seq2seq.FORMS)
def test_written_dates_are_read_as_the_same_day(form, monkeypatch):
    monkeypatch.setattr(seq2seq, "FORMS", (form,))
    for day in (date(1900, 1, 1) + timedelta(n) for n in range(0, 73000, 61)):
        text = seq2seq.written(day, np.random.default_rng(0))
        assert datetime.strptime(re.sub(r"(?<=\d)(st|nd|rd)\b", "th", text), PARSED[form]).date() == day
        assert "{weekday}" not in form or f"{day:%A}" in text
        assert len(text) <= seq2seq.SOURCE and set(text) <= set(seq2seq.LETTERS.letters[2:])


def test_ordinals(monkeypatch):
    monkeypatch.setattr(seq2seq, "FORMS", ("{d}{th}",))
    ends = [seq2seq.written(date(2024, 1, d), np.random.default_rng(0)) for d in range(1, 32)]
    others = {1: "1st", 2: "2nd", 3: "3rd", 21: "21st", 22: "22nd", 23: "23rd", 31: "31st"}
    assert ends == [others.get(d, f"{d}th") for d in range(1, 32)]


def test_batches_of_dates_and_their_answers():
    source, lengths, target = seq2seq.batch(200, np.random.default_rng(3))
    assert source.shape == (200, seq2seq.SOURCE) and target.shape == (200, 1 + seq2seq.TARGET)
    for row, n, answer in zip(source, lengths, target):
        text, iso = seq2seq.LETTERS.decode(row[:n]), seq2seq.LETTERS.decode(answer)
        assert (row[n:] == seq2seq.PAD).all() and iso[0] == "=" and ISO.fullmatch(iso[1:])
        assert iso[1:5] in text and str(date.fromisoformat(iso[1:]).day) in text


def test_question_and_answer_as_one_sequence():
    letters = seq2seq.LETTERS
    question, answer = "3 May 1985", "=1985-05-03"
    source = np.pad(letters.encode(question), (0, seq2seq.SOURCE - len(question)))[None]
    ids, asked = seq2seq.joined(source, np.int32([len(question)]), letters.encode(answer)[None])
    judged = asked[0] != seq2seq.IGNORED
    assert letters.decode(ids[0]).rstrip("\0") == question + answer
    assert letters.decode(asked[0][judged]) == answer[1:] and letters.decode(ids[0][judged]) == answer[:-1]


@pytest.mark.parametrize("name, steps", [("encoder–decoder LSTM", 80), ("encoder–decoder Transformer", 80),
                                         pytest.param("one language model", 140, marks=pytest.mark.slow)])
def test_models_of_dates_learn_what_a_date_looks_like(name, steps):
    random, size = np.random.default_rng(0), 16
    model = seq2seq.MODELS[name](optim.AdamW(3e-3, clip_norm=1.0), size)
    losses = [model.train(*seq2seq.batch(size, random)) for _ in range(steps)]
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    source, lengths, target = seq2seq.batch(40, np.random.default_rng(1))
    forced, free = model.forced(source, lengths, target), model.free(source, lengths)
    assert forced.shape == free.shape == (40, seq2seq.TARGET)
    assert np.mean([bool(ISO.fullmatch(seq2seq.LETTERS.decode(row))) for row in free]) > 0.5
    # while the beginning is right, both see the same
    begun = [(ids == target[:, 1:]).cumprod(1) for ids in (forced, free)]
    assert np.array_equal(*begun) and begun[0].any()


def test_figures_of_dates_are_printed(capsys, monkeypatch):
    name = "encoder–decoder LSTM"
    monkeypatch.setattr(seq2seq, "MODELS", {name: seq2seq.MODELS[name]})
    right = seq2seq.main(["--steps", "3", "--batch", "8", "--judged", "10"])
    said = capsys.readouterr().out
    assert set(right) == {name} and all(0 <= share <= 1 for share in right[name])
    assert re.search(rf"{name}: {100 * right[name][0]:.1f} % right with teacher forcing, {100 * right[name][1]:.1f} % "
                     rf"free running; \d+ s\n    .+ -> .+", said)


# --- language models ----------------------------------------------------------------------------------------------

SHORT = Settings(steps=60, hidden=64, batch=16, length=32, lr=5e-3, decay=0.01, dropout=0.1, characters=40_000,
                 sample=20)


def unigram_bits(text) -> float:
    """Bits per held-out character when each is drawn on its own, as often as in the text to train with."""
    counts = np.bincount(text.train, minlength=text.count) + 1
    return float(-np.log2(counts / counts.sum())[text.held_out[1:]].mean())


@pytest.mark.parametrize("name", language_models.NETWORKS)
def test_language_models_use_what_stands_before(name):
    text = python_topics(SHORT.characters)
    settings = replace(SHORT, steps=200) if name == "Transformer" else SHORT
    step = training_step(language_models.NETWORKS[name](text.count, settings), settings)
    losses = train(step, text, settings)
    assert losses[0] > 0.9 * np.log2(text.count)
    assert held_out_bits(step, text, settings) < 0.95 * unigram_bits(text) < np.log2(text.count)


def test_bengio_s_network_is_the_formula():
    context, hidden, letters, ids = 3, 10, 7, np.int32([[0, 4, 2, 6, 1]])
    shapes = {"embed.weight": (letters, 32), "skip.weight": (letters, 32 * context), "skip.bias": (letters,),
              "inner.weight": (hidden, 32 * context), "inner.bias": (hidden,), "outer.weight": (letters, hidden)}
    random = np.random.default_rng(0)
    state = {name: random.standard_normal(shape, np.float32) / 4 for name, shape in shapes.items()}
    run = gc.compile(language_models.Bengio(letters, hidden // 2, context), x=gc.i32[ids.shape], state=state)
    seen = np.concatenate([np.zeros((context - 1, 32)), state["embed.weight"][ids[0]]])
    x = np.stack([seen[t:t + context].ravel() for t in range(ids.shape[1])])
    inner = np.tanh(state["inner.bias"] + x @ state["inner.weight"].T)
    wanted = state["skip.bias"] + x @ state["skip.weight"].T + inner @ state["outer.weight"].T
    np.testing.assert_allclose(run(ids)[0], wanted, rtol=1e-4, atol=1e-5)


def test_table_of_language_models(capsys, monkeypatch):
    """Of two: all of them are trained above."""
    monkeypatch.setattr(language_models, "NETWORKS", dict(islice(language_models.NETWORKS.items(), 2)))
    options = ["--steps", "3", "--hidden", "16", "--batch", "4", "--length", "16", "--characters", "5000", "--sample",
               "3"]
    bits = language_models.main(options)
    said = capsys.readouterr().out
    assert set(bits) == {"n-gram", *language_models.NETWORKS}
    for name in language_models.NETWORKS:
        assert re.search(rf"^{name} +{bits[name]:.3f} bits per character; [\d,]+ parameters, [\d,]+ characters/s\n    "
                         rf"'The ...'$", said, re.MULTILINE | re.DOTALL)
    assert f"{bits['n-gram']:.3f} bits per character" in said and "never followed" in said
