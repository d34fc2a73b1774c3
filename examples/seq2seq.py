"""Dates as people write them to ISO dates, character by character: an encoder–decoder LSTM, an encoder–decoder
Transformer, one language model.

    python examples/seq2seq.py [--steps 500] [--batch 64] [--judged 500]
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
from text import Letters

import graphc as gc
from graphc import nn, optim
from graphc.progress import Progress

FORMS = ("{d} {month} {y}", "{month} {d}, {y}", "{weekday}, {d} {mon} {y}", "{d}.{m}.{y}", "{y}/{m:02}/{d:02}",
         "{mon} {d:02} {y}", "the {d}{th} of {month}, {y}",
         "{weekday} {month} {d}{th} {y}", "{d:02}-{mon}-{y}", "{y} {month} {d}")
SOURCE, TARGET = 36, 10                     # characters of the longest date, and of an ISO date
PAD, START, IGNORED = 0, 1, -1
LETTERS = Letters("\0="
                  + "".join(sorted(set("0123456789 ,./-thsndrof" + "".join(date(2023, m, 1 + m % 7).strftime("%B %A")
                                                                           for m in range(1, 13))
                                             + "MondayTuesdayWednesdayThursdayFridaySaturdaySunday"))))


def written(day: date, random: np.random.Generator) -> str:
    """The date in one of the forms."""
    th = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day not in (11, 12, 13) else 0, "th")
    form = FORMS[random.integers(len(FORMS))]
    return form.format(y=day.year, m=day.month, d=day.day, th=th, month=day.strftime("%B"), mon=day.strftime("%b"),
                       weekday=day.strftime("%A"))


def batch(size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Written dates [size, SOURCE] padded behind, their lengths [size], and START with the ISO dates [size, 1 +
    TARGET]."""
    days = [date(1900, 1, 1) + timedelta(int(n)) for n in random.integers(0, 73000, size)]
    texts = [LETTERS.encode(written(day, random)) for day in days]
    source = np.stack([np.pad(t, (0, SOURCE - len(t))) for t in texts])
    target = np.stack([LETTERS.encode("=" + day.isoformat()) for day in days])
    return source, np.array([len(t) for t in texts], np.int32), target


# --- the three models
# ------------------------------------------------------------------------------------------------------

def lstm() -> nn.Seq2Seq:
    encoder = nn.Embedding(LETTERS.count, 32) >> nn.LSTM(128, batch_first=True)
    return nn.Seq2Seq(encoder, nn.Embedding(LETTERS.count, 32) >> nn.LSTM(128, batch_first=True) >> nn.AttendTo()
                      >> nn.Linear(LETTERS.count))


def transformer(width: int = 64, heads: int = 4) -> nn.Seq2Seq:
    embed = nn.Embedding(LETTERS.count, width, std=width ** -0.5)
    encoder = embed >> nn.SinusoidalPosition() >> nn.TransformerBlock(heads, pre_norm=True) ** 2
    decoder = (embed >> nn.SinusoidalPosition() >> nn.DecoderBlock(heads, pre_norm=True) ** 2 >> nn.LayerNorm()
               >> nn.GenerateToken(embed))
    return nn.Seq2Seq(encoder, decoder)


def language_model(width: int = 96, heads: int = 4) -> nn.LanguageModel:
    """The written date, "=", the ISO date: one sequence."""
    embed = nn.Embedding(LETTERS.count, width, std=width ** -0.5)
    return nn.LanguageModel(embed, nn.SinusoidalPosition()
                            >> nn.TransformerBlock(heads, causal=True, pre_norm=True) ** 3 >> nn.LayerNorm())


def joined(source: np.ndarray, lengths: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One sequence of each pair, [B, SOURCE + TARGET], and what follows each token of it: IGNORED but for the ISO
    date."""
    ids = np.zeros((len(source), SOURCE + target.shape[1]), np.int32)
    asked = np.full_like(ids, IGNORED)
    for row, answer, s, n, t in zip(ids, asked, source, lengths, target):
        row[:n + len(t)] = np.concatenate([s[:n], t])
        answer[n:n + TARGET] = t[1:]
    return ids, asked


# --- training and judging
# --------------------------------------------------------------------------------------------------

class Pair:
    """An encoder–decoder: trained with the right beginning of the answer given, used without."""

    def __init__(self, model: nn.Seq2Seq, optimizer: optim.Optimizer, size: int):
        self.model = model
        self.step = gc.train_step(model.loss, optimizer=optimizer, source=gc.i32[size, SOURCE],
                                  target=gc.i32[size, 1 + TARGET], source_lengths=gc.i32[size])

    def train(self, source, lengths, target) -> float:
        return self.step(source, target, lengths)

    def forced(self, source, lengths, target) -> np.ndarray:
        run = gc.compile(self.model, source=gc.i32[source.shape], target=gc.i32[len(target), TARGET],
                         source_lengths=gc.i32[len(source)], state=self.step.state)
        return run(source, target[:, :-1], lengths).argmax(-1)

    def free(self, source, lengths) -> np.ndarray:
        return gc.generate(self.model, np.full((len(source), 1), START), TARGET, source=source, source_lengths=lengths,
                           state=self.step.state)


class Joined:
    """A language model of questions and answers."""

    def __init__(self, model: nn.LanguageModel, optimizer: optim.Optimizer, size: int):
        shape = gc.i32[size, SOURCE + 1 + TARGET]
        self.step = gc.train_step(model, loss=lambda y, t: nn.cross_entropy(y, t, ignore_index=IGNORED),
                                  optimizer=optimizer, x=shape, y=shape)

    def train(self, source, lengths, target) -> float:
        return self.step(*joined(source, lengths, target))

    def forced(self, source, lengths, target) -> np.ndarray:
        ids, asked = joined(source, lengths, target)
        scores = gc.compile(self.step.model, x=gc.i32[ids.shape])(ids)
        return scores.argmax(-1)[asked != IGNORED].reshape(-1, TARGET)

    def free(self, source, lengths) -> np.ndarray:
        prompts = [np.append(s[:n], START) for s, n in zip(source, lengths)]
        return gc.generate(self.step.model, prompts, TARGET)


MODELS: dict[str, Callable] = {"encoder–decoder LSTM": lambda *o: Pair(lstm(), *o),
                               "encoder–decoder Transformer": lambda *o: Pair(transformer(), *o),
                               "one language model": lambda *o: Joined(language_model(), *o)}


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Trains the three models; prints and returns the shares of dates that are wholly right, (teacher forcing, free
    running)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 500), ("batch", 64), ("judged", 500), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    judged = batch(options.judged, np.random.default_rng((options.seed, 1)))
    right = {}
    for name, make in MODELS.items():
        optimizer = optim.AdamW(optim.warmup(optim.cosine(4e-3, options.steps), steps=options.steps // 10 + 1),
                                clip_norm=1.0)
        model, random, start = make(optimizer, options.batch), np.random.default_rng(options.seed), time.perf_counter()
        bar = Progress(range(options.steps), name, examples=options.batch, unit="dates")
        for _ in bar:
            bar.loss(model.train(*batch(options.batch, random)))
        seconds = time.perf_counter() - start
        answers = {"forced": model.forced(*judged), "free": model.free(*judged[:2])}
        right[name] = tuple(float((ids == judged[2][:, 1:]).all(1).mean()) for ids in answers.values())
        print(f"{name}: {100 * right[name][0]:.1f} % right with teacher forcing, {100 * right[name][1]:.1f} % free "
              f"running; {seconds:.0f} s")
        print(f"    {LETTERS.decode(judged[0][0][:judged[1][0]])} -> {LETTERS.decode(answers['free'][0])}")
    return right


if __name__ == "__main__":
    main()
