"""Relatives of Adam."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.form import formed, formed_methods
from graphc.ir.dims import Sizes
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed, from_first, shrunk
from graphc.optim.limits import DECAY, FROM_0, Limits
from graphc.optim.schedule import power
from graphc.records import dataclass


@formed
@dataclass(frozen=True)
class Adamax(Optimizer):
    """p -= lr m̂ / u with u = max(b2 u, |g| + eps) (Kingma and Ba 2015, section 7)."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "betas": DECAY, "eps": FROM_0}
    lr: float | Schedule = 2e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_inf")

    def scalars(self, step: Array) -> Scalars:
        lr = super().scalars(step)["lr"]
        return {"lr": lr, "step": step, "size": lr / (1.0 - power(self.betas[0], step + 1.0))}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        g = decayed(g, p, self.weight_decay)
        m = slots["exp_avg"] + (g - slots["exp_avg"]) * (1 - self.betas[0])
        u = gc.maximum(slots["exp_inf"] * self.betas[1], gc.abs(g) + self.eps)
        return p - as_like(s["size"], p) * m / u, {"exp_avg": m, "exp_inf": u}


@dataclass(frozen=True)
class _Corrected(Optimizer):
    """What NAdam, RAdam and LAMB share: Adam's two means, with weight decay of either kind."""
    limits: ClassVar[Limits] = {**Optimizer.limits, "betas": DECAY, "eps": FROM_0}
    lr: float | Schedule = 1e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decoupled_weight_decay: bool = False

    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, step: Array) -> Scalars:
        first, second = (1.0 - power(beta, step + 1.0) for beta in self.betas)
        return {**super().scalars(step), "step": step, "first": first, "second": second}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        if self.decoupled_weight_decay:
            p = shrunk(p, s, self.weight_decay)
        else:
            g = decayed(g, p, self.weight_decay)
        m = slots["exp_avg"] + (g - slots["exp_avg"]) * (1 - self.betas[0])
        v = slots["exp_avg_sq"] * self.betas[1] + g * g * (1 - self.betas[1])
        new = {"exp_avg": m, "exp_avg_sq": v}
        return self.step_from(p, g, new, slots, s), new

    def step_from(self, p: Array, g: Array, new: dict[str, Array], slots: Kept, s: Scalars) -> Array:
        """The new parameter, from the new means."""
        raise NotImplementedError


@formed
@dataclass(frozen=True)
class NAdam(_Corrected):
    """Adam with Nesterov's momentum mu = b1 (1 - 0.96^(t momentum_decay) / 2) (Dozat 2016)."""
    limits: ClassVar[Limits] = {**_Corrected.limits, "momentum_decay": FROM_0}
    lr: float | Schedule = 2e-3
    _: KW_ONLY
    momentum_decay: float = 4e-3

    def slot_shapes(self, shape: Sizes) -> Mapping[str, Sizes]:
        return {**super().slot_shapes(shape), "mu_product": ()}

    def scalars(self, step: Array) -> Scalars:
        mu, after = (self.betas[0] * (1.0 - power(0.96, (step + ahead) * self.momentum_decay) * 0.5)
                     for ahead in (1.0, 2.0))
        return {**super().scalars(step), "mu": mu, "after": after}

    def step_from(self, p: Array, g: Array, new: dict[str, Array], slots: Kept, s: Scalars) -> Array:
        mu, after, lr = (as_like(s[name], p) for name in ("mu", "after", "lr"))
        product = new["mu_product"] = from_first(slots["mu_product"], 1.0, s) * mu
        root = gc.sqrt(new["exp_avg_sq"] / as_like(s["second"], p)) + self.eps
        return p - (g * (lr * (1 - mu) / (1 - product)) + new["exp_avg"] * (lr * after / (1 - product * after))) / root


@formed
@dataclass(frozen=True)
class RAdam(_Corrected):
    """Adam whose step is rectified while the variance of 1 / sqrt(v̂) is large; at first plain momentum (Liu et al.
    2020)."""

    def scalars(self, step: Array) -> Scalars:
        s, b2 = super().scalars(step), self.betas[1]
        most = 2.0 / (1.0 - b2) - 1.0
        rho = most - (step + 1.0) * power(b2, step + 1.0) * 2.0 / s["second"]
        ratio = (rho - 4.0) * (rho - 2.0) * most / (rho * ((most - 4.0) * (most - 2.0)))
        return {**s, "known": rho > 5.0, "rectified": gc.sqrt(gc.maximum(ratio, 0.0) * s["second"])}

    def step_from(self, p: Array, g: Array, new: dict[str, Array], slots: Kept, s: Scalars) -> Array:
        scale = as_like(s["rectified"], p) / (gc.sqrt(new["exp_avg_sq"]) + self.eps)
        return p - new["exp_avg"] * as_like(s["lr"] / s["first"], p) * gc.where(s["known"], scale, 1.0)


@formed
@dataclass(frozen=True)
class LAMB(_Corrected):
    """p -= lr r u with u = m̂ / (sqrt(v̂) + eps) + weight_decay p and the trust ratio r = |p| / |u|, 1 where either is 0
    (You et al. 2020): for large batches."""
    _: KW_ONLY
    eps: float = 1e-6
    weight_decay: float = 1e-2
    decoupled_weight_decay: bool = True

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        m = slots["exp_avg"] + (g - slots["exp_avg"]) * (1 - self.betas[0])
        v = slots["exp_avg_sq"] * self.betas[1] + g * g * (1 - self.betas[1])
        u = m / as_like(s["first"], p) / (gc.sqrt(v / as_like(s["second"], p)) + self.eps) + p * self.weight_decay
        own, step = gc.sum(p * p), gc.sum(u * u)
        ratio = gc.where((own > 0) & (step > 0), gc.sqrt(own / step), 1.0)
        return p - u * (ratio * as_like(s["lr"], p)), {"exp_avg": m, "exp_avg_sq": v}


for _class in (Adamax, NAdam, RAdam, LAMB):
    formed_methods(_class, "optimizer")
