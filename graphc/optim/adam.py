"""Adam and what follows it."""
from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.form import formed, formed_methods
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed, shrunk
from graphc.optim.limits import DECAY, FROM_0, Limits
from graphc.optim.schedule import power
from graphc.records import dataclass


@formed
@dataclass(frozen=True)
class Adam(Optimizer):
    """p -= lr m̂ / (sqrt(v̂) + eps) (Kingma and Ba 2015). Weight decay adds weight_decay p to the gradient. amsgrad: v
    never falls (Reddi et al. 2018)."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "betas": DECAY, "eps": FROM_0}
    lr: float | Schedule = 1e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = False

    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *("max_exp_avg_sq",) * self.amsgrad)

    def scalars(self, step: Array) -> Scalars:
        lr = super().scalars(step)["lr"]
        first, second = (1.0 - power(beta, step + 1.0) for beta in self.betas)
        return {"lr": lr, "step": step, "size": lr / first, "root": gc.sqrt(second)}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        return self.moved(p, decayed(g, p, self.weight_decay), slots, s)

    def moved(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        b1, b2 = self.betas
        m = slots["exp_avg"] + (g - slots["exp_avg"]) * (1 - b1)
        v = slots["exp_avg_sq"] * b2 + g * g * (1 - b2)
        new = {"exp_avg": m, "exp_avg_sq": v}
        if self.amsgrad:
            v = new["max_exp_avg_sq"] = gc.maximum(slots["max_exp_avg_sq"], v)
        p = p - as_like(s["size"], p) * (m / (gc.sqrt(v) / as_like(s["root"], p) + self.eps))
        return p, new


@formed
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: first p *= 1 - lr weight_decay (Loshchilov and Hutter 2019)."""
    _: KW_ONLY
    weight_decay: float = 1e-2

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        return self.moved(shrunk(p, s, self.weight_decay), g, slots, s)


for _class in (Adam, AdamW):
    formed_methods(_class, "optimizer")
