"""Training and judging of a character language model, the same for every network."""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import log

import numpy as np
from text import IGNORED, Text, every_window, ngrams, python_topics, random_windows, sample

import graphc as gc
from graphc import nn, optim
from graphc.progress import Progress
from graphc.train import TrainStep, train_step


@dataclass(frozen=True)
class Settings:
    """Options of the command line. `characters`: use only the first so many; 0: all."""
    steps: int
    hidden: int
    batch: int
    length: int
    lr: float
    decay: float
    dropout: float
    seed: int = 0
    characters: int = 0
    sample: int = 300


def loss(scores, y):
    """Mean cross entropy in nats over the characters that count."""
    return nn.cross_entropy(scores, y, ignore_index=IGNORED)


def training_step(net: nn.Module, settings: Settings, threads: int = 0) -> TrainStep:
    schedule = optim.warmup(optim.cosine(settings.lr, settings.steps), steps=settings.steps // 10 + 1)
    optimizer = optim.AdamW(schedule, weight_decay=settings.decay, clip_norm=1.0, groups=[optim.no_decay()])
    shape = (settings.batch, settings.length)
    return train_step(net, loss=loss, optimizer=optimizer, x=gc.i32[shape], y=gc.i32[shape], seed=settings.seed,
                      threads=threads)


def train(step: TrainStep, text: Text, settings: Settings) -> list[float]:
    """Losses in bits per character."""
    losses: list[float] = []
    windows = list(random_windows(text.train, settings.batch, settings.length, settings.steps, settings.seed))
    bar = Progress(windows, "training", examples=settings.batch * settings.length, unit="characters")
    for x, y in bar:
        losses.append(step(x, y) / log(2))
        bar.loss(losses[-1])
    return losses


def held_out_bits(step: TrainStep, text: Text, settings: Settings) -> float:
    """Bits per character on the held-out text; each character is judged with at least half a window before it."""
    total = count = 0
    for x, y in every_window(text.held_out, settings.batch, settings.length, settings.length // 2):
        judged = int((y != IGNORED).sum())
        total, count = total + step.evaluate([(x, y)])["loss"] * judged, count + judged
    return total / count / log(2)


def continuation(step: TrainStep, text: Text, settings: Settings, start: str = "The ") -> str:
    """Text sampled from the model, one window of the last characters at a time."""
    scores = gc.compile(step.model, x=gc.i32[1, settings.length])

    def next_scores(ids: np.ndarray) -> np.ndarray:
        known = ids[-settings.length:]
        window = np.zeros((1, settings.length), np.int32)
        window[0, :len(known)] = known                  # what follows does not reach back
        return scores(window)[0, len(known) - 1]
    return start + text.decode(sample(next_scores, text.encode(start), settings.sample, seed=settings.seed))


def run(description: str, network: Callable, defaults: Settings, arguments: list[str] | None) -> dict[str, float]:
    """The whole example: trains, prints bits per character beside the 5-gram model's, and a sample."""
    settings = options(description, defaults, arguments)
    text = python_topics(settings.characters or None)
    step = training_step(network(text.count, settings), settings)
    start = time.perf_counter()
    losses = train(step, text, settings)
    seconds = time.perf_counter() - start
    figures = {"first": losses[0], "last": float(np.mean(losses[-10:])),
               "held_out": held_out_bits(step, text, settings),
               "5-gram": ngrams(text.train, text.held_out, text.count).interpolated}
    print(f"trained {settings.steps} steps in {seconds:.1f} s, "
          f"{settings.steps * settings.batch * settings.length / seconds:.0f} characters/s")
    print(f"training: {figures['first']:.3f} -> {figures['last']:.3f} bits per character")
    print(f"held out: {figures['held_out']:.3f} bits per character; interpolated 5-gram model: {figures['5-gram']:.3f}")
    print(f"--- sample\n{continuation(step, text, settings)}\n---")
    return figures


def options(description: str, defaults: Settings, arguments: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in fields(Settings):
        parser.add_argument(f"--{f.name}", type=type(getattr(defaults, f.name)), default=getattr(defaults, f.name))
    return replace(defaults, **vars(parser.parse_args(arguments)))
