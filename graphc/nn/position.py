"""Layers that tell a sequence its order: x [B, T, E] plus a vector for each place."""
from __future__ import annotations

import numpy as np

from graphc.errors import GraphError
from graphc.nn.module import Module
from graphc.nn.parameter import Normal


class SinusoidalPosition(Module):
    """x[b, t, 2i] + sin(t / 10000^(2i / E)), x[b, t, 2i + 1] + cos(the same) (Vaswani et al. 2017). No parameters."""

    def forward(self, x):
        _check("SinusoidalPosition", x)
        length, width = x.shape[1:]
        angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, width, 2) / width)
        table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)[:, :width]
        return x + table.astype(x.dtype.np)


class LearnedPosition(Module):
    """x [B, T, E] + weight[:T]; weight [length, E] starts normal(0, std). `length`: that of the first input unless given."""

    def __init__(self, length: int | None = None, std: float = 0.02):
        super().__init__()
        self.length, self.std = length, std

    def forward(self, x):
        _check("LearnedPosition", x)
        self.length = self.length or x.shape[1]
        if x.shape[1] > self.length:
            raise GraphError(f"LearnedPosition knows {self.length} places, the input has {x.shape[1]}: give the length to LearnedPosition")
        weight = self.parameter("weight", (self.length, x.shape[2]), Normal(self.std), x.dtype)
        return x + weight[:x.shape[1]]


def _check(layer: str, x) -> None:
    if len(x.shape) != 3 or not all(isinstance(d, int) for d in x.shape[1:]):
        raise GraphError(f"{layer} takes [batch, time, features] with time and features as ints, got {list(x.shape)}")
