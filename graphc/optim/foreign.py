"""Optimizers of other libraries."""
from __future__ import annotations

from importlib import import_module
from typing import Any

from graphc.dsl.form import formed
from graphc.optim.base import Optimizer


@formed
def from_torch(optimizer: Any, module: Any = None) -> Optimizer:
    """torch.optim's SGD, Adam, AdamW or RMSprop as graphc's, with its groups, moments and number of steps: see
    `graphc.doors.torch.optimizer`. `module`: needed where the optimizer has several groups without names."""
    return import_module("graphc.doors.torch.public").door("optimizer").from_torch(optimizer, module)
