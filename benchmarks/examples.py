"""The training step of each example against PyTorch eager: the same sizes, batch, optimizer and number of threads.

The numbers are not compared here (dropout draws differ; PyTorch's Transformer learns its positions): tests/parity does
that.
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks import examples_torch
from benchmarks.peers import torch_or_none
from benchmarks.protocol import compare

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import char_lstm  # noqa: E402
import char_transformer  # noqa: E402
from language_model import training_step  # noqa: E402

import graphc as gc  # noqa: E402
from graphc import demo, nn, optim  # noqa: E402

LETTERS = 96


def digits(threads: int):
    """The digits network's step, and a batch of random images."""
    rng = np.random.default_rng(0)
    step = gc.train_step(demo.network(), loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3),
                         x=gc.f32[demo.BATCH, 1, 8, 8],
                         y=gc.i32[demo.BATCH], seed=0, threads=threads)
    return step, (rng.random((demo.BATCH, 1, 8, 8), np.float32), rng.integers(0, 10, demo.BATCH).astype(np.int32))


def characters(example, threads: int):
    settings = example.DEFAULTS
    step = training_step(example.network(LETTERS, settings), settings, threads)
    ids = np.random.default_rng(0).integers(0, LETTERS, (2, settings.batch, settings.length)).astype(np.int32)
    return step, tuple(ids)


CASES = {"digits_cnn": digits, "char_lstm": lambda threads: characters(char_lstm, threads),
         "char_transformer": lambda threads: characters(char_transformer, threads)}


TORCH_NETWORKS = {
    "digits_cnn": examples_torch.digits,
    "char_lstm": lambda torch: examples_torch.lstm(torch, LETTERS, char_lstm.DEFAULTS),
    "char_transformer": lambda torch: examples_torch.transformer(torch, LETTERS, char_transformer.DEFAULTS,
                                                                 char_transformer.LAYERS, char_transformer.HEADS),
}


def main(threads: int) -> None:
    torch = torch_or_none(threads)
    for name, make in CASES.items():
        step, batch = make(threads)
        engines = {"graphc": lambda i: step(*batch)}
        if torch:
            engines["torch"] = torch_step(torch, name, batch)
        print(compare(f"{name} training step, {threads} threads", engines))


def torch_step(torch, name: str, batch):
    """One eager step of the same network, dropout included."""
    net = TORCH_NETWORKS[name](torch)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    x, y = torch.from_numpy(batch[0]), torch.from_numpy(batch[1]).long()
    x = x if x.is_floating_point() else x.long()
    clip = name != "digits_cnn"

    def step(i):
        optimizer.zero_grad()
        scores = net(x)
        loss = torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.item()
    return step
