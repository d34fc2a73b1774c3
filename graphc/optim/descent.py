"""Gradient descent with momentum, and with steps divided by the gradient's recent size."""
from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import graphc as gc
from graphc.dsl.form import formed, formed_methods
from graphc.optim.base import Optimizer, Schedule, as_like, decayed, from_first, shrunk


@formed
@dataclass(frozen=True)
class SGD(Optimizer):
    """p -= lr v with v = momentum v + (1 - dampening) g, at first g; nesterov: p -= lr (g + momentum v). Weight decay
    adds weight_decay p to g."""
    _: KW_ONLY
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def slots(self):
        return ("momentum",) if self.momentum else ()

    def update(self, p, g, slots, s):
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
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def slots(self):
        return ("square_avg", *("momentum",) * bool(self.momentum), *("grad_avg",) * self.centered)

    def update(self, p, g, slots, s):
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


@formed
@dataclass(frozen=True)
class ASGD(Optimizer):
    """p -= eta g behind p *= 1 - lambd eta, with eta = lr / (1 + lambd lr t)^alpha after t updates; the slot "ax" holds
    the mean of the parameter over the updates from t0 on (Polyak and Juditsky 1992)."""
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    lambd: float = 1e-4
    alpha: float = 0.75
    t0: float = 1e6

    def slots(self):
        return ("ax",)

    def scalars(self, step):
        lr = super().scalars(step)["lr"]
        eta = lr * gc.exp(gc.log1p(step * lr * self.lambd) * -self.alpha)
        return {"lr": lr, "step": step, "eta": eta, "share": 1.0 / gc.maximum(step - self.t0, 1.0)}

    def update(self, p, g, slots, s):
        g = decayed(g, p, self.weight_decay)
        p = p * as_like(1.0 - s["eta"] * self.lambd, p) - as_like(s["eta"], p) * g
        return p, {"ax": slots["ax"] + (p - slots["ax"]) * as_like(s["share"], p)}


@formed
@dataclass(frozen=True)
class Rprop(Optimizer):
    """p -= step sign(g), where the step of each element, lr at first, grows by etas[1] while the sign of g stays and
    shrinks by etas[0] when it changes (and g then counts as 0), within step_sizes (Riedmiller and Braun 1993). For
    gradients of all data: those of small batches change sign by chance."""
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    etas: tuple[float, float] = (0.5, 1.2)
    step_sizes: tuple[float, float] = (1e-6, 50.0)

    def slots(self):
        return ("prev", "step_size")

    def update(self, p, g, slots, s):
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
    lr: float | Schedule = 1e-4
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.99)

    def slots(self):
        return ("exp_avg",)

    def update(self, p, g, slots, s):
        m, (b1, b2) = slots["exp_avg"], self.betas
        p = shrunk(p, s, self.weight_decay) - as_like(s["lr"], p) * gc.sign(m * b1 + g * (1 - b1))
        return p, {"exp_avg": m * b2 + g * (1 - b2)}


for _class in (SGD, RMSprop, ASGD, Rprop, Lion):
    formed_methods(_class, "optimizer")
