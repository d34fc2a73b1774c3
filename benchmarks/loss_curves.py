"""python -m benchmarks loss-curves: how far the loss of training in bf16 strays from that in f32, over 200 steps of the
networks of the benchmark, from the same weights and batches.

Judged is the plain distance of the two curves: means of each ten steps, relative to those of f32, the furthest of all,
and the mean of all 200 steps.

Training is chaotic: rounding alone leads two runs in f32 apart. So f32 trains again with the examples of every batch in
other orders, which changes nothing but the order of sums. The same two distances of these runs from the first one stand
beside as what f32 moves by itself, and how far bf16 lies outside of all that f32 covers; neither changes the verdict.

Tokens are the source text of Python's `argparse`, which any machine has: each character is to be told from those
before. Images are noise around one picture of each of ten classes; half of them are called by any class, so that the
loss stays above zero. AdamW with a rate of 3e-4. `--out` keeps the losses of each run; `--resume` goes on with them.
"""
from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

import graphc as gc
from benchmarks.low_precision import type_of
from benchmarks.networks import NETWORKS
from benchmarks.workloads import TRAIN, WORKLOADS, Workload
from graphc import nn, optim

NAMES = ("gpt 6x384", "resnet18", "lstm 2x512")
STEPS, WINDOW, RATE = 200, 10, 3e-4
ORDERS = 4                          # of the examples, in f32; the first as in bf16
WANTED = 0.01
CLASSES, NOISE, SURE = 10, 1.0, 0.5      # of the images; the share that has its own label
SMALL_VOCABULARY = 128              # of characters
HEAD = (f"training, {STEPS} steps", "first loss", f"last {WINDOW}: f32", "bf16", "mean of all: f32", "bf16",
        "bf16 from f32: mean of all", f"furthest {WINDOW} steps", f"within {WANTED:.0%}",
        "f32 in other orders from f32: mean of all", f"furthest {WINDOW} steps", "bf16 outside of all f32")
RUNS = (("bf16", 0), *((None, order) for order in range(ORDERS)))


def main(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    path, wanted = options.out / "loss_curves.jsonl", options.workload or NAMES
    kept = _kept(path) if options.resume else {}
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    with path.open("a" if options.resume else "w") as file:
        for w in WORKLOADS:
            if w.mode == TRAIN and any(text in w.name for text in wanted):
                low, *exact = (_curve_once(w, *run, options.threads[0], kept, file) for run in RUNS)
                print(f"| {w.name} | {' | '.join(cells(low, exact))} |", flush=True)


def cells(low: np.ndarray, exact: Sequence[np.ndarray]) -> list[str]:
    """Of a row: losses of all steps in bf16, and of each run in f32, the one with the same order of examples first."""
    same, *others = exact
    ours, theirs = distances(low, same), [max(pair) for pair in zip(*(distances(c, same) for c in others))]
    losses = (same[0], *(c[-WINDOW:].mean() for c in (same, low)), same.mean(), low.mean())
    shares = [f"{share:.2%}" for share in (*ours, *theirs, outside(low, exact))]
    return [*(f"{loss:.4f}" for loss in losses), *shares[:2], verdict(ours, theirs), *shares[2:]]


def verdict(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Of the plain distances: of all steps, and of the furthest ten, in bf16 and between runs in f32."""
    if max(ours) <= WANTED:
        return "yes"
    is_near = ours[0] <= WANTED
    return f"no{': of all steps yes, of ten no' * is_near}{'; f32 neither' * (max(theirs) > WANTED)}"


def distances(curve: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of the mean of all steps from that of the other curve, relative to it, and of means of ten steps at most."""
    return abs(float(curve.mean() / other.mean()) - 1), float(np.abs(_windows(curve) / _windows(other) - 1).max())


def outside(curve: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """How far the means of ten steps lie below or above those of all others, relative to these, at most."""
    means, own = np.array([_windows(c) for c in others]), _windows(curve)
    return float(np.maximum(own / means.max(0) - 1, 1 - own / means.min(0)).max(initial=0.0))


def _windows(losses: np.ndarray) -> np.ndarray:
    """Means of so many steps each."""
    return losses.reshape(-1, WINDOW).mean(1)


def _kept(path: Path) -> dict[str, list[float]]:
    """The losses of earlier runs by their names."""
    if not path.exists():
        return {}
    return {run["run"]: run["losses"] for run in map(json.loads, path.read_text().splitlines())}


def _curve_once(w: Workload, compute: str | None, order: int, threads: int, kept: dict[str, list[float]],
                file: TextIO) -> np.ndarray:
    name = f"{w.name}, {compute or 'f32'}, order {order}"
    if name not in kept:
        kept[name] = curve(w, compute, threads, order).tolist()
        print(json.dumps({"run": name, "losses": kept[name]}), file=file, flush=True)
    return np.array(kept[name])


def curve(w: Workload, compute: str | None, threads: int, order: int = 0) -> np.ndarray:
    """Losses of the steps. order: of the examples of each batch, 0 as they come, others as drawn with that seed."""
    batches = (texts if w.network == "gpt" or "vocabulary" in w.options else pictures)(w)
    batch = next(batches)
    types = {name: type_of(a) for name, a in zip("xy", batch)}
    step = gc.train_step(NETWORKS[w.network](**w.options), loss=nn.cross_entropy, optimizer=optim.AdamW(RATE),
                         threads=threads, compute=compute, seed=0, **types)
    axis = batch[0].shape.index(w.batch)
    places = np.random.default_rng(order).permutation(w.batch) if order else np.arange(w.batch)
    return np.array([float(step(*(a.take(places, axis) for a in next(batches)))) for _ in range(STEPS)])


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
