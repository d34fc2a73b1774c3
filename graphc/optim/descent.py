"""Gradient descent with momentum, and with steps divided by the gradient's recent size."""
from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.form import formed, formed_methods
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed, from_first
from graphc.optim.limits import FROM_0, SHARE, Limits
from graphc.records import dataclass


@formed
@dataclass(frozen=True)
class SGD(Optimizer):
    """p -= lr v with v = momentum v + (1 - dampening) g, at first g; nesterov: p -= lr (g + momentum v). Weight decay
    adds weight_decay p to g."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "momentum": FROM_0}
    _: KW_ONLY
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        if not self.momentum:
            return p - as_like(s["lr"], p) * g, {}
        v = slots["momentum"] * self.momentum + g
        if self.dampening:
            v = from_first(slots["momentum"] * self.momentum + g * (1 - self.dampening), g, s)
        direction = g + v * self.momentum if self.nesterov else v
        return p - as_like(s["lr"], p) * direction, {"momentum": v}


@formed
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """p -= lr g / (sqrt(v) + eps) with v = alpha v + (1 - alpha) g²; with momentum, a running sum of these steps
    (Hinton 2012); centered: v less the square of the mean gradient."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "alpha": SHARE, "eps": FROM_0, "momentum": FROM_0}
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def slots(self) -> tuple[str, ...]:
        return ("square_avg", *("momentum",) * bool(self.momentum), *("grad_avg",) * self.centered)

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        v = slots["square_avg"] * self.alpha + g * g * (1 - self.alpha)
        new, spread = {"square_avg": v}, v
        if self.centered:
            mean = new["grad_avg"] = slots["grad_avg"] + (g - slots["grad_avg"]) * (1 - self.alpha)
            spread = gc.maximum(v - mean * mean, 0.0)       # which rounding may make negative
        direction = g / (gc.sqrt(spread) + self.eps)
        if self.momentum:
            direction = new["momentum"] = slots["momentum"] * self.momentum + direction
        return p - as_like(s["lr"], p) * direction, new


for _class in (SGD, RMSprop):
    formed_methods(_class, "optimizer")
