"""Descent without a schedule (Defazio et al. 2024): gradients are taken at y between the iterate z and its running mean
x, which is the result."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import ClassVar

import numpy as np

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.errors import GraphError
from graphc.ir.dims import Sizes
from graphc.optim.base import Kept, Optimizer, Scalars, Schedule, Update, as_like, decayed, from_first
from graphc.optim.limits import DECAY, FROM_0, SHARE, Limits
from graphc.optim.schedule import power
from graphc.records import dataclass


@dataclass(frozen=True)
class _ScheduleFree(Optimizer):
    """What both share: z -= lr d, x += c (z - x), y = (1 - m) z + m x for the direction d at y and the share c of this
    update, its largest rate so far squared over the sum of these."""
    lr: float | Schedule = 1.0
    _: KW_ONLY

    def slots(self) -> tuple[str, ...]:
        return ("z", "x")

    def slot_shapes(self, shape: Sizes) -> Mapping[str, Sizes]:
        return {**super().slot_shapes(shape), "lr_max": (), "weight_sum": ()}

    def moved(self, y: Array, direction: Array, between: float, slots: Kept, s: Scalars) -> Update:
        """The new y and slots; `between`: where y is between z and x."""
        lr = as_like(s["lr"], y)
        most = gc.maximum(slots["lr_max"], lr)
        total = slots["weight_sum"] + most * most
        z = from_first(slots["z"], y, s) - direction * lr
        x = from_first(slots["x"], y, s)
        x = x + (z - x) * gc.where(total > 0, most * most / total, 0.0)
        return z + (x - z) * between, {"z": z, "x": x, "lr_max": most, "weight_sum": total}


@formed
@dataclass(frozen=True)
class ScheduleFreeSGD(_ScheduleFree):
    """Schedule-free SGD. The parameters of the step are y, where its gradients are taken; the result is their mean x:
    gc.compile(net, state=optim.averages(step.state, "x")). A warm-up is lr=optim.warmup(1.0, steps)."""
    limits: ClassVar[Limits] = {**_ScheduleFree.limits, "momentum": SHARE}
    _: KW_ONLY
    momentum: float = 0.9

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        return self.moved(p, decayed(g, p, self.weight_decay), self.momentum, slots, s)


@formed
@dataclass(frozen=True)
class ScheduleFreeAdamW(_ScheduleFree):
    """Schedule-free AdamW: directions are gradients divided by the root of their mean square, plus weight_decay y. The
    parameters of the step are y, where its gradients are taken; the result is their mean x:
    gc.compile(net, state=optim.averages(step.state, "x")). A warm-up is lr=optim.warmup(2.5e-3, steps)."""
    limits: ClassVar[Limits] = {**_ScheduleFree.limits, "betas": (SHARE, DECAY), "eps": FROM_0}
    lr: float | Schedule = 2.5e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def slots(self) -> tuple[str, ...]:
        return (*super().slots(), "exp_avg_sq")

    def scalars(self, step: Array) -> Scalars:
        return {**super().scalars(step), "second": 1.0 - power(self.betas[1], step + 1.0)}

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        v = slots["exp_avg_sq"] * self.betas[1] + g * g * (1 - self.betas[1])
        direction = g / (gc.sqrt(v / as_like(s["second"], p)) + self.eps)
        y, new = self.moved(p, decayed(direction, p, self.weight_decay), self.betas[0], slots, s)
        return y, {**new, "exp_avg_sq": v}


for _class in (ScheduleFreeSGD, ScheduleFreeAdamW):
    formed_methods(_class, "optimizer")


@formed
def averages(state: Mapping[str, np.ndarray], slot: str) -> dict[str, np.ndarray]:
    """Copies of the arrays of a training step's state for inference, with the array `slot` that the optimizer keeps for
    each parameter in its place: "x" of the schedule-free optimizers, "ax" of ASGD. GraphError before the first step,
    and if the optimizer keeps no such array."""
    copies = {name: np.array(state[name]) for name in state}
    prefix = f"optim.{slot}."
    kept = {name.removeprefix(prefix): array for name, array in copies.items() if name.startswith(prefix)}
    if not kept:
        raise GraphError(f"the state has no arrays {prefix}…, which the optimizer would keep", user_loc())
    if "step" in copies and not copies["step"]:
        raise GraphError("there are no averages before the first update", user_loc())
    return {name: kept.get(name, array) for name, array in copies.items() if not name.startswith("optim.")}
