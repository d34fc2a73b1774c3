"""Layers around layers."""
from __future__ import annotations

from collections.abc import Callable

from graphc.nn.module import Module, as_module


class Residual(Module):
    """x + body(x)."""

    def __init__(self, body: Callable):
        super().__init__()
        self.body = as_module(body)

    def forward(self, x):
        return x + self.body(x)


def residual(body: Callable) -> Residual:
    """The layer x + body(x)."""
    return Residual(body)
