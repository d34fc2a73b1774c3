"""Span selection on generated paragraphs, in short form."""
from itertools import product
from random import Random

import numpy as np
import pytest
import question_answering as qa

QUESTION_WORDS = {"who": "{name}", "what": "{thing}", "where": "{place}"}


def facts_of(paragraph: list[str]) -> list[dict[str, str]]:
    """The paragraph read by a hand-written parser: for each sentence its name, its thing with adjectives, its place."""
    facts, sentence = [], []
    for word in paragraph:
        sentence.append(word)
        if word == ".":
            thing = next(i for i, w in enumerate(sentence) if w in qa.THINGS)
            first = next(i for i in range(thing, -1, -1) if sentence[i - 1] not in qa.COLOURS)
            facts.append({"{name}": next(w for w in sentence if w in qa.NAMES),
                          "{thing}": " ".join(sentence[first:thing + 1]),
                          "{place}": next(w for w in sentence if w in qa.PLACES)})
            sentence = []
    assert not sentence
    return facts


def test_the_span_is_the_answer():
    random, kinds = Random(5), set()
    for _ in range(500):
        tokens, first, last = qa.example(random)
        cut = tokens.index("[SEP]")
        question, paragraph, answer = tokens[1:cut], tokens[cut + 1:-1], " ".join(tokens[first:last + 1])
        facts = facts_of(paragraph)
        about = [f for f in facts if any(value.split()[-1] in question for value in f.values())]
        assert len(facts) == qa.FACTS and len(about) == 1 and first > cut
        assert answer == about[0][QUESTION_WORDS[question[0]]]
        kinds.add((question[0], last - first + 1))
    assert kinds == {("who", 1), ("where", 1), *(("what", n) for n in (1, 2, 3))}


def test_batches_are_padded_and_told_apart():
    ids, segments, lengths, spans = qa.batch(50, Random(1))
    places = np.arange(qa.LENGTH)
    assert (ids[places >= lengths[:, None]]
            == qa.ID["[PAD]"]).all() and (ids[places < lengths[:, None]] != qa.ID["[PAD]"]).all()
    for row, segment, n, (first, last) in zip(ids, segments, lengths, spans):
        start, end = np.flatnonzero(row == qa.ID["[SEP]"])
        assert end == n - 1 and np.array_equal(np.flatnonzero(segment),
                                               np.arange(start + 1, n)) and start < first <= last < end


def test_inputs_are_long_enough():
    longest = max(len(form.split()) for form in qa.FORMS) + 2               # two colours
    question = max(len(q.split()) for q in qa.QUESTIONS.values())
    assert 3 + question + qa.FACTS * longest <= qa.LENGTH


def test_repetitions_by_hand():
    words = "[CLS] who had the lamp ? [SEP] anna put the lamp in the barn . [SEP] [PAD]".split()
    ids = np.array([[qa.ID[w] for w in words]])
    marks = qa.repetitions(ids, np.array([[0] * 7 + [1] * 9 + [0]]))
    assert marks[0].tolist() == [qa.IGNORED] * 7 + [0, 0, 1, 1, 0, 1, 0, 0, 1] + [qa.IGNORED]


@pytest.mark.parametrize("longest", [1, 3, 20])
def test_the_best_span_is_that_of_all_tries(longest):
    scores = np.random.default_rng(longest).standard_normal((30, 2, 9))
    for row, found in zip(scores, qa.best_spans(scores, longest)):
        tries = [(s, e) for s, e in product(range(9), repeat=2) if s <= e < s + longest]
        assert tuple(found) == max(tries, key=lambda span: row[0, span[0]] + row[1, span[1]])


def test_figures_by_hand():
    figures = qa.judged(np.array([[3, 5], [2, 2], [7, 9]]), np.array([[3, 5], [3, 3], [8, 9]]))
    assert figures["exact"] == pytest.approx(1 / 3) and figures["F1"] == pytest.approx((1 + 0 + 2 * 2 / 5) / 3)


@pytest.mark.slow
def test_most_answers_are_right_after_some_training(monkeypatch, capsys):
    monkeypatch.setattr(qa, "FACTS", 2)
    monkeypatch.setattr(qa, "LENGTH", 32)
    figures = qa.main(["--steps", "450", "--batch", "16", "--judged", "200"])
    assert figures["F1"] >= figures["exact"] > 0.7          # one of the two words of the right kind by chance: 0.5
    said = capsys.readouterr().out
    assert f"exact match: {100 * figures['exact']:.1f} % of 200 questions" in said and said.count("[CLS]") == 3


def test_the_loss_falls_to_the_choice_between_words_of_a_kind(monkeypatch):
    monkeypatch.setattr(qa, "FACTS", 2)
    monkeypatch.setattr(qa, "LENGTH", 32)
    step, random, losses = qa.training_step(qa.SpanSelection(), 16, 300, 0), Random(0), []
    for _ in range(100):
        ids, segments, lengths, spans = qa.batch(16, random)
        losses.append(step(ids, segments, lengths, spans, qa.repetitions(ids, segments)))
    assert losses[0] > 0.8 * (np.log(28) + np.log(2))       # any of the words, and whether a word is repeated
    assert np.mean(losses[-10:]) < 0.6 * losses[0]


def test_keys_start_as_multiples_of_queries():
    step = qa.training_step(qa.SpanSelection(width=16), 2, 10, 0)
    weights = [step.state[name] for name in step.state if name.endswith("in_proj_weight")
               and not name.startswith("optim.")]
    assert [w.shape for w in weights] == [(48, 16)] * 2
    for w in weights:
        assert w[:16].any() and np.array_equal(w[16:32], 2 * w[:16]) and not np.array_equal(w[32:], w[:16])
