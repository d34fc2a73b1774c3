"""Models of PyTorch through graphc against PyTorch eager, in alternating turns: inference and the training step, with
the times of the first calls."""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn as tnn

import graphc as gc
from benchmarks.torch_zoo import Tagger
from graphc import nn, optim
from graphc.doors.torch.backend import graphc

TURN, TURNS = 0.2, 7


def models() -> dict[str, tuple[tnn.Module, torch.Tensor]]:
    """Small ones of each kind, dropout off."""
    layer = tnn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
    return {
        "MLP 784-512-512-10, batch 64": (tnn.Sequential(tnn.Linear(784, 512), tnn.ReLU(), tnn.Linear(512, 512),
                                                        tnn.ReLU(), tnn.Linear(512, 10)), torch.randn(64, 784)),
        "CNN 28x28, batch 16": (tnn.Sequential(
            tnn.Conv2d(1, 32, 3), tnn.BatchNorm2d(32), tnn.ReLU(), tnn.Conv2d(32, 64, 3), tnn.ReLU(), tnn.MaxPool2d(2),
            tnn.Flatten(), tnn.Linear(9216, 10)), torch.randn(16, 1, 28, 28)),
        "Transformer 2x128, T = 64, batch 8": (tnn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                                               torch.randn(8, 64, 128)),
        "LSTM 128, T = 64, batch 16": (Tagger(tnn.LSTM(16, 128, batch_first=True), 128),
                                       torch.randint(0, 50, (16, 64)))}


def alternated(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median milliseconds of a call of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, call in calls.items():
            end = time.perf_counter() + TURN
            while time.perf_counter() < end:
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def first(call: Callable[[], Any]) -> float:
    """Seconds of the first call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    """Prints a line for each model and mode."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks torch speed")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name, (module, x) in models().items():
        array = x.numpy()
        made: dict[str, Any] = {}

        def read(module: tnn.Module = module, x: torch.Tensor = x, made: dict[str, Any] = made) -> None:
            made["run"] = gc.compile(gc.from_torch(module.eval(), x), threads=options.threads)
        took = first(read)
        compiled = torch.compile(module.eval(), backend=graphc)
        with torch.inference_mode():
            began = first(lambda: compiled(x))
            found = alternated({"eager": lambda: module(x), "from_torch": lambda: made["run"](array),
                                "torch.compile": lambda: compiled(x)})
        print(f"{name}, inference: " + ", ".join(f"{k} {v:.3f} ms" for k, v in found.items())
              + f"; first call: from_torch {took:.1f} s, torch.compile {began:.1f} s", flush=True)
        with torch.no_grad():
            target = torch.randn(module(x).shape)
        module.train()
        optimizer = torch.optim.AdamW(module.parameters(), 1e-4)

        def eager(module: tnn.Module = module, x: torch.Tensor = x, target: torch.Tensor = target,
                  optimizer: torch.optim.Optimizer = optimizer) -> None:
            loss = tnn.functional.mse_loss(module(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def stepped(module: tnn.Module = module, x: torch.Tensor = x, target: torch.Tensor = target,
                    made: dict[str, Any] = made) -> None:
            made["step"] = gc.train_step(gc.from_torch(module, x), loss=nn.mse, optimizer=optim.AdamW(1e-4),
                                         threads=options.threads, y=gc.f32[tuple(target.shape)])
        took = first(stepped)
        y = target.numpy()
        found = alternated({"eager": eager, "from_torch": lambda: made["step"](array, y)})
        print(f"{name}, training step: " + ", ".join(f"{k} {v:.3f} ms" for k, v in found.items())
              + f"; first call: from_torch {took:.1f} s", flush=True)


if __name__ == "__main__":
    main([])
