"""python -m benchmarks loss-curves: how far the loss of training in bf16 strays from that in f32, over 200 steps of the
networks of the benchmark, from the same weights and batches; and, beside it, how far f32 strays from itself when the
examples of each batch stand in the opposite order, which changes nothing but the order of sums.

Tokens are the source text of Python's `argparse`, which any machine has: each character is to be told from
those before. Images are noise around one picture of each of ten classes; half of them are called by any class, so that
the loss stays above zero. AdamW with a rate of 3e-4.
"""
from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator

import numpy as np

import graphc as gc
from benchmarks.low_precision import type_of
from benchmarks.networks import NETWORKS
from benchmarks.workloads import TRAIN, WORKLOADS, Workload
from graphc import nn, optim

NAMES = ("gpt 6x384", "resnet18", "lstm 2x512")
STEPS, WINDOW, RATE = 200, 10, 3e-4
CLASSES, NOISE, SURE = 10, 1.0, 0.5      # of the images; the share that has its own label
SMALL_VOCABULARY = 128              # of characters


def main(options: argparse.Namespace) -> None:
    wanted = options.workload or NAMES
    print(f"| training, {STEPS} steps | first loss | last {WINDOW}, f32 | bf16 | f32 turned | furthest {WINDOW} steps, "
          "bf16 | f32 turned | furthest step, bf16 | f32 turned |")
    print("|---|---|---|---|---|---|---|---|---|")
    for w in WORKLOADS:
        if w.mode == TRAIN and any(text in w.name for text in wanted):
            exact, *others = (curve(w, compute, options.threads[0], is_turned)
                              for compute, is_turned in ((None, False), ("bf16", False), (None, True)))
            last, *ends = (_windows(c)[-1] for c in (exact, *others))
            cells = [f"{loss:.4f}" for loss in (exact[0], last, *ends)]
            cells += [f"{_furthest(exact, c, of):.2%}" for of in (_windows, np.asarray) for c in others]
            print(f"| {w.name} | {' | '.join(cells)} |", flush=True)


def _windows(losses: np.ndarray) -> np.ndarray:
    """Means of so many steps each."""
    return losses.reshape(-1, WINDOW).mean(1)


def _furthest(exact: np.ndarray, other: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> float:
    return float(np.abs(of(other) / of(exact) - 1).max())


def curve(w: Workload, compute: str | None, threads: int, is_turned: bool = False) -> np.ndarray:
    """Losses of the steps; is_turned: the last example of each batch stands first."""
    batches = (texts if w.network == "gpt" or "vocabulary" in w.options else pictures)(w)
    batch = next(batches)
    types = {name: type_of(a) for name, a in zip("xy", batch)}
    step = gc.train_step(NETWORKS[w.network](**w.options), loss=nn.cross_entropy, optimizer=optim.AdamW(RATE),
                         threads=threads, compute=compute, seed=0, **types)
    axis = batch[0].shape.index(w.batch)
    return np.array([float(step(*(np.flip(a, axis).copy() if is_turned else a for a in next(batches))))
                     for _ in range(STEPS)])


def texts(w: Workload) -> Iterator[tuple[np.ndarray, ...]]:
    """Characters and those that follow, at drawn places of a text."""
    vocabulary = int(str(w.options["vocabulary"]))
    text = np.frombuffer(inspect.getsource(argparse).encode(), np.uint8).astype(np.int32)
    characters = np.unique(text, return_inverse=True)[1].astype(np.int32) % min(vocabulary, SMALL_VOCABULARY)
    (shape, *_), rng = [a.shape for a in w.arrays], np.random.default_rng(0)
    is_time_first = shape[1] == w.batch
    length = shape[0] if is_time_first else shape[1]
    while True:
        at = rng.integers(0, len(characters) - length - 1, w.batch)[:, None] + np.arange(length)
        x, y = characters[at], characters[at + 1]
        yield (x.T.copy(), y.T.copy()) if is_time_first else (x, y)


def pictures(w: Workload) -> Iterator[tuple[np.ndarray, ...]]:
    shape, rng = w.arrays[0].shape, np.random.default_rng(0)
    classes = rng.standard_normal((CLASSES, *shape[1:]), np.float32)
    while True:
        y = rng.integers(0, CLASSES, w.batch).astype(np.int32)
        x = classes[y] + np.float32(NOISE) * rng.standard_normal(shape, np.float32)
        yield x, np.where(rng.random(w.batch) < SURE, y, rng.integers(0, CLASSES, w.batch)).astype(np.int32)
