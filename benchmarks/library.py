"""Exported C libraries beside the calls that they were made from, in one process and the same turns. Called by ctypes,
which adds about a microsecond to each call of a library."""
from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import graphc as gc
from benchmarks.protocol import compare
from graphc import nn, optim

Case = tuple[str, Callable[..., object], str, list[np.ndarray], list[np.ndarray], tuple[int, ...]]


def cases(threads: int) -> list[Case]:
    """(name, what is called and exported, function in C, inputs, outputs, sizes)."""
    rng = np.random.default_rng(0)
    lenet = (nn.Conv2d(6, 5) >> nn.relu >> nn.MaxPool2d(2) >> nn.Conv2d(16, 5) >> nn.relu >> nn.MaxPool2d(2)
             >> nn.Flatten() >> nn.Linear(120) >> nn.relu >> nn.Linear(84) >> nn.relu >> nn.Linear(10))
    images, labels = rng.standard_normal((64, 1, 28, 28), np.float32), rng.integers(0, 10, 64).astype(np.int32)
    step = gc.train_step(lenet, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), threads=threads,
                         x=gc.f32[64, 1, 28, 28], y=gc.i32[64], seed=0)
    mlp = nn.Linear(512) >> nn.relu >> nn.Linear(512)
    rows = rng.standard_normal((64, 512), np.float32)
    lstm, sequence = nn.LSTM(128) >> nn.Linear(10), rng.standard_normal((50, 8, 64), np.float32)
    return [
        ("training step of LeNet, 64 images", step, "step", [images, labels], [np.zeros((), np.float32)], ()),
        ("MLP 512-512-512, 64 rows", gc.compile(mlp, x=gc.f32["B", 512], seed=0, threads=threads), "run", [rows],
         [np.zeros((64, 512), np.float32)], (64,)),
        ("LSTM 128, 50 steps of 8", gc.compile(lstm, x=gc.f32["T", 8, 64], seed=0, threads=threads), "run", [sequence],
         [np.zeros((50, 8, 10), np.float32)], (50,))]


def exported(what: object, function: str, inputs: list[np.ndarray], outputs: list[np.ndarray], sizes: tuple[int, ...],
             threads: int) -> Callable[[int], int]:
    """The same call of its library."""
    folder = tempfile.mkdtemp()
    gc.export(what, folder)
    library = ctypes.CDLL(str(Path(folder) / "libnet.so"))
    library.net_create.restype = ctypes.c_void_p
    words = [ctypes.c_int64(size) for size in sizes]
    instance = ctypes.c_void_p(library.net_create(*words, ctypes.c_int(threads)))
    arguments = (instance, *words, *(ctypes.c_void_p(a.ctypes.data) for a in (*inputs, *outputs)))
    call = getattr(library, f"net_{function}")
    return lambda _: call(*arguments)


def main(threads: int) -> None:
    for name, what, function, inputs, outputs, sizes in cases(threads):
        library = exported(what, function, inputs, outputs, sizes, threads)
        print(compare(f"{name}, {threads} threads", {"graphc": lambda _: what(*inputs), "library": library}))
