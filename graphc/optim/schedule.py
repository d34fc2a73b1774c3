"""Learning rates as functions of the number of updates done so far."""
from __future__ import annotations

from math import log, pi

import graphc as gc
from graphc.dsl.arguments import converted
from graphc.errors import GraphError
from graphc.optim.base import Schedule


@converted
def constant(lr: float) -> Schedule:
    """Always lr."""
    return lambda step: step * 0.0 + lr


@converted
def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """From lr to `final` along half a cosine in `steps` updates, `final` afterwards (Loshchilov and Hutter 2017)."""
    _positive("cosine", steps)
    return lambda step: (1.0 + gc.cos(gc.minimum(step / steps, 1.0) * pi)) * ((lr - final) / 2) + final


@converted
def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr times `factor` once every `every` updates (torch's StepLR)."""
    _positive("step_decay", every)
    return lambda step: power(factor, gc.floor(step / every)) * lr


@converted
def exponential(lr: float, factor: float) -> Schedule:
    """lr times factor^step (torch's ExponentialLR)."""
    return lambda step: power(factor, step) * lr


@converted
def warmup(schedule: float | Schedule, steps: int) -> Schedule:
    """The first `steps` updates rise linearly to lr; then `schedule` (a number or a schedule), counted from their
    end."""
    _positive("warmup", steps)

    def rate(step):
        after = schedule(gc.maximum(step - steps, 0.0)) if callable(schedule) else schedule
        return gc.minimum((step + 1.0) / steps, 1.0) * after
    return rate


def _positive(name: str, steps: int) -> None:
    if steps < 1:
        raise GraphError(f"{name} takes a number of updates >= 1, got {steps}")


def power(base: float, exponent):
    """base ** exponent for a number base >= 0 and an f64 scalar exponent > 0 (a base above 0: any)."""
    if base < 0:
        raise GraphError(f"expected a factor >= 0, got {base}")
    return gc.exp(exponent * log(base)) if base else 0.0
