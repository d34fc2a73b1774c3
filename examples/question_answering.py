"""Span selection as in BERT: [CLS] question [SEP] paragraph [SEP] -> where the answer starts and where it ends, on
generated paragraphs.

Too few texts for BERT's pretraining, so two hints take its place: keys start as multiples of queries,
so that equal words find each other, and after the first block the network also tells which words of the paragraph the
question repeats (Chen et al. 2017 give this to the network; here it has to see it).

    python examples/question_answering.py [--steps 2000] [--judged 1000]
"""
from __future__ import annotations

import argparse
import time
from random import Random

import numpy as np
from text import IGNORED

import graphc as gc
from graphc import nn, optim
from graphc.progress import Progress

NAMES = ("anna ben carla david emma frank greta henry ida john "
         "karin leo mary nora otto paula quinn rosa sam tina").split()
THINGS = ("apple book camera drum engine flute guitar hammer island jacket "
          "kettle lamp mirror needle orange piano quilt radio shovel table").split()
COLOURS = "red green blue old tiny heavy".split()
PLACES = "attic barn cellar garden kitchen library market office station tower".split()
FORMS = ("{name} put the {thing} in the {place} .", "in the {place} {name} found a {thing} .",
         "the {thing} of {name} came from the {place} .")
QUESTIONS = {"{name}": "who had the {thing} ?", "{thing}": "what did {name} have ?",
             "{place}": "where was the {thing} ?"}
OTHERS = sorted({word for text in (*FORMS, *QUESTIONS.values()) for word in text.split()} - set(QUESTIONS))
WORDS = ["[PAD]", "[CLS]", "[SEP]", *NAMES, *THINGS, *COLOURS, *PLACES, *OTHERS]
ID = {word: i for i, word in enumerate(WORDS)}
FACTS, LENGTH = 5, 64                       # sentences of a paragraph; tokens of the longest input


def example(random: Random) -> tuple[list[str], int, int]:
    """The tokens of one input, and the positions of the first and the last word of the answer."""
    drawn = zip(*(random.sample(words, FACTS) for words in (NAMES, THINGS, PLACES)))
    facts = [{"{name}": [name], "{thing}": [*random.sample(COLOURS, random.randrange(3)), thing], "{place}": [place]}
             for name, thing, place in drawn]
    asked, kind = random.choice(facts), random.choice(list(QUESTIONS))
    tokens, answer = ["[CLS]", *(asked.get(word, [word])[-1] for word in QUESTIONS[kind].split()), "[SEP]"], (0, 0)
    for fact in facts:
        for part in random.choice(FORMS).split():
            words = fact.get(part, [part])
            if fact is asked and part == kind:
                answer = len(tokens), len(tokens) + len(words) - 1
            tokens += words
    return [*tokens, "[SEP]"], *answer


def batch(size: int, random: Random) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Token ids [size, LENGTH] padded behind, segments (1 from the paragraph on), lengths [size], and answers [size,
    2]."""
    ids, segments, lengths, spans = np.zeros((size, LENGTH), np.int32), np.zeros((size, LENGTH), np.int32), [], []
    for row, segment in zip(ids, segments):
        tokens, *span = example(random)
        row[:len(tokens)] = [ID[t] for t in tokens]
        segment[tokens.index("[SEP]") + 1:len(tokens)] = 1
        lengths.append(len(tokens))
        spans.append(span)
    return ids, segments, np.array(lengths, np.int32), np.array(spans, np.int32)


def repetitions(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """1 for the words of the paragraph that the question has too, 0 for the others, IGNORED outside the paragraph:
    [size, LENGTH]."""
    in_question = ((ids[:, :, None] == ids[:, None, :]) & (segments == 0)[:, None, :]).any(2)
    return np.where(segments == 1, in_question, IGNORED).astype(np.int32)


class SpanSelection(nn.Module):
    """P(start = i) = softmax over i of s · Tᵢ, P(end = i) likewise with e (Devlin et al. 2019): scores [B, 2, T], where
    padding never answers; and of each word, whether the question has it, [B, T, 2]."""

    def __init__(self, width: int = 64, heads: int = 4):
        super().__init__()
        self.tokens, self.segments = nn.Embedding(len(WORDS), width, std=0.1), nn.Embedding(2, width, std=0.1)
        self.first, self.second = (nn.TransformerBlock(heads, pre_norm=True, position=nn.RotaryPosition())
                                   for _ in range(2))
        self.repeated, self.pointers = nn.Linear(2), nn.LayerNorm() >> nn.Linear(2)

    def forward(self, ids, segments, lengths):
        x = self.first(self.tokens(ids) + self.segments(segments), lengths=lengths)
        scores = self.pointers(self.second(x, lengths=lengths)).transpose(0, 2, 1)
        real = gc.iota((LENGTH,), dtype=gc.i32) < lengths.reshape(-1, 1, 1)
        return gc.where(real, scores, -1e9), self.repeated(x)


def training_step(net: SpanSelection, size: int, steps: int, seed: int) -> gc.train.TrainStep:
    def loss(ids, segments, lengths, spans, repeated):
        scores, found = net(ids, segments, lengths)
        return nn.cross_entropy(scores, spans, axis=-1) + nn.cross_entropy(found, repeated, ignore_index=IGNORED)
    optimizer = optim.AdamW(optim.warmup(optim.cosine(3e-3, steps), steps=steps // 20 + 1), clip_norm=1.0)
    tokens = gc.i32[size, LENGTH]
    step = gc.train_step(loss, optimizer=optimizer, ids=tokens, segments=tokens, lengths=gc.i32[size],
                         spans=gc.i32[size, 2], repeated=tokens, seed=seed)
    for name in step.state:
        if name.endswith("in_proj_weight") and not name.startswith("optim."):
            query, _, value = np.split(step.state[name], 3)
            step.state[name] = np.concatenate([query, 2 * query, value])
    return step


def best_spans(scores: np.ndarray, longest: int = 4) -> np.ndarray:
    """The (start, end) of greatest sum among start <= end < start + longest: scores [B, 2, T] -> [B, 2]."""
    sums = scores[:, 0, :, None] + scores[:, 1, None, :]
    allowed = np.triu(np.ones(sums.shape[1:], bool)) & ~np.triu(np.ones(sums.shape[1:], bool), longest)
    flat = np.where(allowed, sums, -np.inf).reshape(len(scores), -1).argmax(1)
    return np.stack(np.unravel_index(flat, sums.shape[1:]), axis=1)


def judged(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Exact match and F1, as for SQuAD, of spans [B, 2]."""
    shared = np.maximum(np.minimum(found[:, 1], wanted[:, 1]) - np.maximum(found[:, 0], wanted[:, 0]) + 1, 0)
    return {"exact": float((found == wanted).all(1).mean()),
            "F1": float(np.mean(2 * shared / sum(s[:, 1] - s[:, 0] + 1 for s in (found, wanted))))}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains; prints and returns the share of new questions that are answered with exactly the right words, and F1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 2000), ("batch", 32), ("judged", 1000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    net, random, start, seen = SpanSelection(), Random(options.seed), time.perf_counter(), set()
    step = training_step(net, options.batch, options.steps, options.seed)
    bar = Progress(range(options.steps), "questions", examples=options.batch, unit="questions")
    for _ in bar:
        ids, segments, lengths, spans = batch(options.batch, random)
        seen.update(row[s == 1].tobytes() for row, s in zip(ids, segments))
        bar.loss(step(ids, segments, lengths, spans, repetitions(ids, segments)))
    print(f"trained {options.steps} steps in {time.perf_counter() - start:.0f} s")
    ids, segments, lengths, spans = batch(options.judged, Random(-1 - options.seed))
    answer = gc.compile(net, ids=gc.i32[ids.shape], segments=gc.i32[ids.shape], lengths=gc.i32[len(ids)],
                        state=step.state)
    found = best_spans(answer(ids, segments, lengths)[0])
    for row, n, (first, last) in list(zip(ids, lengths, found))[:3]:
        words = [WORDS[i] for i in row[:n]]
        print(f"    {' '.join(words)} -> {' '.join(words[first:last + 1])}")
    new = np.mean([row[s == 1].tobytes() not in seen for row, s in zip(ids, segments)])
    figures = judged(found, spans)
    print(f"exact match: {100 * figures['exact']:.1f} % of {options.judged} questions, F1 {100 * figures['F1']:.1f} "
          f"%; {100 * new:.0f} % of the paragraphs were not in training; a word of the right kind by chance: "
          f"{100 / FACTS:.0f} %")
    return figures


if __name__ == "__main__":
    main()
