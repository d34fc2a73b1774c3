"""Steps along the sign of a gradient, and averaged descent."""
from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.form import formed, formed_methods
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed, from_first, shrunk
from graphc.optim.limits import ABOVE_0, BELOW_1, FROM_0, FROM_1, SHARE, Limits
from graphc.records import dataclass


@formed
@dataclass(frozen=True)
class ASGD(Optimizer):
    """p -= eta g behind p *= 1 - lambd eta, with eta = lr / (1 + lambd lr t)^alpha after t updates; the slot "ax" holds
    the mean of the parameter over the updates from t0 on (Polyak and Juditsky 1992)."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "lambd": FROM_0, "alpha": FROM_0, "t0": FROM_0}
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    lambd: float = 1e-4
    alpha: float = 0.75
    t0: float = 1e6

    def slots(self) -> tuple[str, ...]:
        return ("ax",)

    def scalars(self, step: Array) -> Scalars:
        lr = super().scalars(step)["lr"]
        eta = lr * gc.exp(gc.log1p(step * lr * self.lambd) * -self.alpha)
        return {"lr": lr, "step": step, "eta": eta, "share": 1.0 / gc.maximum(step - self.t0, 1.0)}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        p = p * as_like(1.0 - s["eta"] * self.lambd, p) - as_like(s["eta"], p) * g
        return p, {"ax": slots["ax"] + (p - slots["ax"]) * as_like(s["share"], p)}


@formed
@dataclass(frozen=True)
class Rprop(Optimizer):
    """p -= step sign(g), where the step of each element, lr at first, grows by etas[1] while the sign of g stays and
    shrinks by etas[0] when it changes (and g then counts as 0), within step_sizes (Riedmiller and Braun 1993). For
    gradients of all data: those of small batches change sign by chance."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "etas": (BELOW_1, FROM_1), "step_sizes": ABOVE_0}
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    etas: tuple[float, float] = (0.5, 1.2)
    step_sizes: tuple[float, float] = (1e-6, 50.0)

    def slots(self) -> tuple[str, ...]:
        return ("prev", "step_size")

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        turn, size = g * slots["prev"], from_first(slots["step_size"], as_like(s["lr"], p), s)
        size = size * gc.where(turn > 0, self.etas[1], gc.where(turn < 0, self.etas[0], 1.0))
        size = gc.minimum(gc.maximum(size, self.step_sizes[0]), self.step_sizes[1])
        g = gc.where(turn < 0, 0.0, g)
        return p - size * gc.sign(g), {"prev": g, "step_size": size}


@formed
@dataclass(frozen=True)
class Lion(Optimizer):
    """p -= lr sign(b1 m + (1 - b1) g), m = b2 m + (1 - b2) g; weight decay as in AdamW (Chen et al. 2023). Its lr is a
    third to a tenth of Adam's."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "betas": SHARE}
    lr: float | Schedule = 1e-4
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.99)

    def slots(self) -> tuple[str, ...]:
        return ("exp_avg",)

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        m, (b1, b2) = slots["exp_avg"], self.betas
        p = shrunk(p, s, self.weight_decay) - as_like(s["lr"], p) * gc.sign(m * b1 + g * (1 - b1))
        return p, {"exp_avg": m * b2 + g * (1 - b2)}


for _class in (ASGD, Rprop, Lion):
    formed_methods(_class, "optimizer")
