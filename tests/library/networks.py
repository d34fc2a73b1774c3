"""Networks that are exported, and batches for them."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import graphc as gc
from graphc import demo, nn, optim
from graphc.codegen.llvm.host import host_target
from graphc.schedule.platforms import PLATFORMS


def here() -> str:
    """The target of exports for this machine's instruction set alone, which take a third of the time."""
    target = host_target()
    return next(f"{p.name}:{t.name}" for p in PLATFORMS.values() for t in p.instruction_sets
                if target.covers(t))


@dataclass
class Trained:
    """A training step, what predicts with its state, and random batches: sizes and arrays of both."""
    step: gc.train.TrainStep
    predict: Callable
    batch: Callable[[np.random.Generator, int], tuple[dict[str, int], list[np.ndarray]]]

    @property
    def functions(self):
        return {"step": self.step, "predict": self.predict}

    def batches(self, count: int) -> Iterator[tuple[dict[str, int], list[np.ndarray]]]:
        rng = np.random.default_rng(1)
        for n in range(count):
            yield self.batch(rng, n)


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def mlp() -> Trained:
    net = nn.Linear(32) >> nn.tanh >> nn.Dropout(0.2) >> nn.Linear(3)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.Adam(1e-2), x=gc.f32[16, 5], y=gc.f32[16, 3], seed=0)
    return Trained(step, gc.compile(step.model, x=gc.f32[16, 5]),
                   lambda rng, n: ({}, [floats(rng, 16, 5), floats(rng, 16, 3)]))


def lenet() -> Trained:
    net = (nn.Conv2d(6, 5) >> nn.relu >> nn.MaxPool2d(2) >> nn.Conv2d(16, 5) >> nn.relu >> nn.MaxPool2d(2) >> nn.Flatten()
           >> nn.Linear(120) >> nn.relu >> nn.Linear(84) >> nn.relu >> nn.Linear(10))
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32[8, 1, 28, 28],
                         y=gc.i32[8], seed=0)
    return Trained(step, gc.compile(step.model, x=gc.f32[8, 1, 28, 28]),
                   lambda rng, n: ({}, [floats(rng, 8, 1, 28, 28), rng.integers(0, 10, 8).astype(np.int32)]))


def lstm() -> Trained:
    net = nn.LSTM(16) >> nn.Linear(4)
    step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(1e-2, momentum=0.9), x=gc.f32["T", 2, 6],
                         y=gc.f32["T", 2, 4], seed=0)

    def batch(rng, n):
        length = 3 + 4 * (n % 3)
        return {"T": length}, [floats(rng, length, 2, 6), floats(rng, length, 2, 4)]
    return Trained(step, gc.compile(step.model, x=gc.f32["T", 2, 6]), batch)


def gpt() -> Trained:
    net = gc.models.gpt(vocabulary=50, width=32, layers=2, heads=2, context=16)
    step = gc.train_step(net, loss=lambda p, t: gc.mean(nn.cross_entropy(p.reshape((-1, 50)), t.reshape((-1,)))),
                         optimizer=optim.AdamW(1e-3), x=gc.i32["B", 12], y=gc.i32["B", 12], seed=0)

    def batch(rng, n):
        size = 1 + n % 3
        return {"B": size}, [rng.integers(0, 50, (size, 12)).astype(np.int32) for _ in range(2)]
    return Trained(step, gc.compile(step.model, x=gc.i32["B", 12]), batch)


def digits() -> Trained:
    step = gc.train_step(demo.network(), loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32[64, 1, 8, 8],
                         y=gc.i32[64], seed=0)
    return Trained(step, gc.compile(step.model, x=gc.f32[64, 1, 8, 8]),
                   lambda rng, n: ({}, [floats(rng, 64, 1, 8, 8), rng.integers(0, 10, 64).astype(np.int32)]))


def resnet18() -> Trained:
    net = gc.models.resnet18(classes=10)
    step = gc.train_step(net, loss=nn.cross_entropy, optimizer=optim.SGD(1e-2, momentum=0.9),
                         x=gc.f32[2, 3, 48, 48], y=gc.i32[2], seed=0)
    return Trained(step, gc.compile(step.model, x=gc.f32[2, 3, 48, 48]),
                   lambda rng, n: ({}, [floats(rng, 2, 3, 48, 48), rng.integers(0, 10, 2).astype(np.int32)]))


def imported() -> Trained:
    """What an ONNX file says, trained: convolutions, batch norm, a residual, a named batch."""
    body = nn.Conv2d(8, 3, padding=1) >> nn.BatchNorm2d() >> nn.gelu >> nn.AvgPool2d(2)
    net = body >> nn.Residual(nn.Conv2d(8, 3, padding=1) >> nn.relu) >> nn.Flatten() >> nn.Linear(5)
    file = gc.to_onnx(net, x=gc.f32["N", 1, 8, 8], seed=0).SerializeToString()
    network = gc.from_onnx(file)
    step = gc.train_step(network, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32["N", 1, 8, 8],
                         y=gc.i32["N"], seed=0)

    def batch(rng, n):
        size = 2 + n % 4
        return {"N": size}, [floats(rng, size, 1, 8, 8), rng.integers(0, 5, size).astype(np.int32)]
    return Trained(step, gc.compile(step.model, x=gc.f32["N", 1, 8, 8]), batch)
