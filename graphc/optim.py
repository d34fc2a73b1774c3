"""Optimizers as graph functions: from parameters, gradients and slots to new parameters and new slots.

The formulas are those of torch.optim, so that twenty steps of either agree. Step numbers, schedules and bias
corrections are computed in f64 scalars, then converted to the parameter's dtype.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import wraps
from math import log, pi
from typing import Protocol

import numpy as np

import graphc as gc
from graphc.dsl.arguments import Converted, converted
from graphc.dsl.array import as_array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.live_number import LiveNumber, live_number, readable
from graphc.errors import GraphError
from graphc.ir.convert import callable_, is_number, is_sequence, shown

# of the number of updates done so far, an f64 scalar array -> learning rate, an f64 scalar array
Schedule = Callable
Where = Callable[[str, tuple], bool]
Scalars = Mapping[str, object]


@formed
@dataclass(frozen=True)
class Group:
    """The parameters for which `where(name, shape)` holds are updated with these options changed."""
    where: Where
    changes: tuple[tuple[str, object], ...]


@converted
def group(where: Where, **changes) -> Group:
    """For `groups=[…]` of an optimizer: `group(lambda name, shape: name.startswith("head."), lr=1e-4)`. The first
    that fits counts."""
    return Group(callable_(where, "group: where"), tuple(changes.items()))


def _is_small(name: str, shape: tuple) -> bool:
    """Whether a parameter has fewer than two axes, as biases and scales of norms."""
    return len(shape) < 2


@converted
def no_decay(where: Where = _is_small) -> Group:
    """No weight decay on biases and on the scales of norms: on arrays with fewer than two axes, unless `where` says
    otherwise."""
    return group(where, weight_decay=0.0)


class Slots(Protocol):
    """Where an optimizer keeps arrays of the parameter's type between steps; they start as zeros."""
    def read(self, slot: str): ...
    def write(self, slot: str, value) -> None: ...


@formed
@dataclass(frozen=True)
class Item:
    """One parameter of a step: its name, its value, its gradient, and its slots."""
    name: str
    value: object
    grad: object
    slots: Slots


@formed
@dataclass(frozen=True)
class Optimizer(Converted):
    """What all optimizers share. `lr` is a number, or a schedule: a function of the number of updates done so far.

    `groups`: other options for some parameters, see `group`. `clip_norm`: gradients are scaled so that their joint
    2-norm is at most this. `accumulate`: the mean gradient of so many calls is applied at the last of them.
    """
    lr: float | Schedule
    _: KW_ONLY
    weight_decay: float = 0.0
    groups: Sequence[Group] = ()
    clip_norm: float | None = None
    accumulate: int = 1

    def __post_init__(self):
        if not _is_rate(self.lr):
            name = type(self).__name__
            raise GraphError(f"{name}({_called(self.lr)}): lr is a number or a schedule, a function of the number of "
                             "updates; an optimizer is not "
                             f"given the parameters, the training step finds them: optim.{name}(1e-3)", user_loc())
        super().__post_init__()
        if not is_sequence(self.groups) or not all(isinstance(g, Group) for g in self.groups):
            raise GraphError(f"groups is a list of optim.group(…), got {shown(self.groups)}", user_loc())
        names = {f.name for f in fields(self)} - {"groups", "clip_norm", "accumulate"}
        for g in self.groups:
            for name, _ in g.changes:
                if name not in names:
                    raise GraphError(f"{type(self).__name__} has no option {name!r} for a group; "
                                     f"it has {', '.join(sorted(names))}", user_loc())
        if self.accumulate < 1:
            raise GraphError(f"accumulate is a number of calls >= 1, got {self.accumulate}", user_loc())

    def scalars(self, step) -> Scalars:
        """What the update needs from the number of updates done so far (f64 scalar array). Computed once per group."""
        return {"lr": _checked_rate(self.lr(step)) if is_schedule(self.lr) else self.lr}

    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept per parameter."""
        return ()

    def update(self, p, g, slots: Mapping, s: Scalars):
        """(new parameter, new slots) from parameter, gradient, slots by name, and scalars."""
        raise GraphError(f"{type(self).__name__} defines no update")

    def group_of(self, name: str, shape: tuple) -> int | None:
        """The number of the first group that the parameter belongs to; None for those in no group."""
        return next((i for i, g in enumerate(self.groups) if g.where(name, shape)), None)

    def for_parameter(self, name: str, shape: tuple) -> "Optimizer":
        """The optimizer with the options of the first group that the parameter belongs to."""
        return self.for_group(self.group_of(name, shape))

    def for_group(self, number: int | None) -> "Optimizer":
        """The optimizer with the options of this group; None: of no group."""
        return replace(self, groups=(), **({} if number is None else dict(self.groups[number].changes)))


@formed
@dataclass(frozen=True)
class SGD(Optimizer):
    """p -= lr v with v = momentum v + g; nesterov: p -= lr (g + momentum v). Weight decay adds weight_decay p to g."""
    _: KW_ONLY
    momentum: float = 0.0
    nesterov: bool = False

    def slots(self):
        return ("momentum",) if self.momentum else ()

    def update(self, p, g, slots, s):
        g = _decayed(g, p, self.weight_decay)
        if not self.momentum:
            return p - _as(s["lr"], p) * g, {}
        v = slots["momentum"] * self.momentum + g
        direction = g + v * self.momentum if self.nesterov else v
        return p - _as(s["lr"], p) * direction, {"momentum": v}


@formed
@dataclass(frozen=True)
class Adam(Optimizer):
    """p -= lr m̂ / (sqrt(v̂) + eps) (Kingma and Ba 2015). Weight decay adds weight_decay p to the gradient."""
    lr: float | Schedule = 1e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def slots(self):
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, step):
        lr = super().scalars(step)["lr"]
        first, second = (1.0 - _power(beta, step + 1.0) for beta in self.betas)
        return {"lr": lr, "size": lr / first, "root": gc.sqrt(second)}

    def update(self, p, g, slots, s):
        return self.moved(p, _decayed(g, p, self.weight_decay), slots, s)

    def moved(self, p, g, slots, s):
        b1, b2 = self.betas
        m = slots["exp_avg"] + (g - slots["exp_avg"]) * (1 - b1)
        v = slots["exp_avg_sq"] * b2 + g * g * (1 - b2)
        p = p - _as(s["size"], p) * (m / (gc.sqrt(v) / _as(s["root"], p) + self.eps))
        return p, {"exp_avg": m, "exp_avg_sq": v}


@formed
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: first p *= 1 - lr weight_decay (Loshchilov and Hutter 2019)."""
    _: KW_ONLY
    weight_decay: float = 1e-2

    def update(self, p, g, slots, s):
        if self.weight_decay:
            p = p * _as(1.0 - s["lr"] * self.weight_decay, p)
        return self.moved(p, g, slots, s)


@formed
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """p -= lr g / (sqrt(v) + eps) with v = alpha v + (1 - alpha) g²; with momentum, a running sum of these steps
    (Hinton 2012)."""
    lr: float | Schedule = 1e-2
    _: KW_ONLY
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def slots(self):
        return ("square_avg", "momentum") if self.momentum else ("square_avg",)

    def update(self, p, g, slots, s):
        g = _decayed(g, p, self.weight_decay)
        v = slots["square_avg"] * self.alpha + g * g * (1 - self.alpha)
        direction, new = g / (gc.sqrt(v) + self.eps), {"square_avg": v}
        if self.momentum:
            direction = new["momentum"] = slots["momentum"] * self.momentum + direction
        return p - _as(s["lr"], p) * direction, new


for _class in (Optimizer, SGD, Adam, AdamW, RMSprop):
    formed_methods(_class, "optimizer")


# (an optimizer, the number of a group or None, names of options) -> the same with these options as numbers of the state
Live = Callable[[Optimizer, int | None, Sequence[str]], Optimizer]


@formed
def hyperparameters(optimizer: Optimizer) -> tuple[str, ...]:
    """Names of the options that are numbers, pairs of numbers or schedules."""
    kinds = [(f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type)) for f in fields(optimizer)]
    return tuple(name for name, kind in kinds if kind.startswith(("float", "tuple[float")))


@formed
def apply(optimizer: Optimizer, items: Sequence[Item], calls, live: Live = lambda optimizer, group, names: optimizer
          ) -> list:
    """The new values of the parameters, in order; slots are written. `calls`: i64 scalar array, the number of calls
    before this one. `live` puts numbers of the state in the place of options."""
    every = optimizer.accumulate
    due = None if every == 1 else gc.equal((calls + 1) % every, 0)
    if every > 1:
        items = [_accumulated(item, every, due) for item in items]
    if optimizer.clip_norm is not None:
        items = _clipped(items, live(optimizer, None, ("clip_norm",)).clip_norm)
    updates = (calls if every == 1 else calls // every).astype(gc.f64)
    known: dict[int | None, tuple[Optimizer, Scalars]] = {}
    for item in items:
        group = optimizer.group_of(item.name, item.value.shape)
        if group not in known:
            own = optimizer.for_group(group)
            own = live(own, group, [name for name in hyperparameters(own) if name != "clip_norm"])
            known[group] = own, own.scalars(updates)
    return [_updated(*known[optimizer.group_of(item.name, item.value.shape)], item, due) for item in items]


def _updated(optimizer: Optimizer, scalars: Scalars, item: Item, due):
    """The new value of one parameter. `due`: whether this call updates at all (None: always)."""
    before = {slot: item.slots.read(slot) for slot in optimizer.slots()}
    value, after = optimizer.update(item.value, item.grad, before, scalars)
    for slot, new in after.items():
        item.slots.write(slot, new if due is None else gc.where(due, new, before[slot]))
    return value if due is None else gc.where(due, value, item.value)


def _accumulated(item: Item, every: int, due) -> Item:
    total = item.slots.read("accumulated") + item.grad
    item.slots.write("accumulated", gc.where(due, gc.zeros_like(total), total))
    return replace(item, grad=total / every)


def _clipped(items: Sequence[Item], limit: float) -> list[Item]:
    """torch.nn.utils.clip_grad_norm_: factor min(1, limit / (norm + 1e-6))."""
    norm = global_norm([item.grad for item in items])
    factor = gc.minimum(limit / (norm + 1e-6), 1.0)
    return [replace(item, grad=item.grad * factor.astype(item.grad.dtype)) for item in items]


@formed
def global_norm(arrays: Sequence):
    """The 2-norm of all elements of all arrays, an f32 scalar."""
    total = None
    for a in arrays:
        square = gc.sum(a * a).astype(gc.f32)
        total = square if total is None else total + square
    return gc.sqrt(total) if total is not None else gc.full((), 0.0, gc.f32)


# schedules: functions of the number of updates done so far

@formed
def schedule(made: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Decorator of a function that makes a schedule: what it makes can be asked with a number, too."""
    callable_(made, "schedule: made")

    @wraps(made)
    def make(*args, **options) -> Schedule:
        return readable(made(*args, **options))
    return make


@schedule
@converted
def constant(lr: float) -> Schedule:
    """Always lr."""
    return lambda step: step * 0.0 + lr


@schedule
@converted
def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """From lr to `final` along half a cosine in `steps` updates, `final` afterwards (Loshchilov and Hutter 2017)."""
    _positive("cosine", steps)
    return lambda step: (1.0 + gc.cos(gc.minimum(step / steps, 1.0) * pi)) * ((lr - final) / 2) + final


@schedule
@converted
def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr times `factor` once every `every` updates (torch's StepLR)."""
    _positive("step_decay", every)
    return lambda step: _power(factor, gc.floor(step / every)) * lr


@schedule
@converted
def exponential(lr: float, factor: float) -> Schedule:
    """lr times factor^step (torch's ExponentialLR)."""
    return lambda step: _power(factor, step) * lr


@schedule
@converted
def warmup(schedule: float | Schedule, steps: int) -> Schedule:
    """The first `steps` updates rise linearly to lr; then `schedule` (a number or a schedule), counted from their
    end."""
    _positive("warmup", steps)

    def rate(step):
        after = schedule(gc.maximum(step - steps, 0.0)) if callable(schedule) else schedule
        return gc.minimum((step + 1.0) / steps, 1.0) * after
    return rate


@formed
def is_schedule(rate) -> bool:
    """Whether this is a function of the number of updates, and no number."""
    return callable(rate)


def _positive(name: str, steps: int) -> None:
    if steps < 1:
        raise GraphError(f"{name} takes a number of updates >= 1, got {steps}")


def _is_rate(lr) -> bool:
    """Whether this is a number or a function: what is callable among torch's habits is a network or a generator of
    its parameters."""
    return isinstance(lr, (int, float, np.number,
                           gc.Array)) and not isinstance(lr, bool) or callable(lr) and not isinstance(lr, gc.nn.Module)


def _called(value) -> str:
    return repr(value) if isinstance(value, (str, bool, type(None))) else f"<{type(value).__name__}>"


def _decayed(g, p, weight_decay: float):
    return g + p * weight_decay if weight_decay else g


def _as(scalar, p):
    """A scalar in the dtype of `p`; numbers adapt by themselves."""
    return scalar if is_number(scalar) else scalar.astype(p.dtype)


def _checked_rate(rate):
    """What a schedule gave: a number or a scalar array."""
    array = as_array(rate)
    if array.shape:
        raise GraphError(f"a schedule gives one learning rate, got {array.type}")
    return rate if is_number(rate) else live_number(array.astype(gc.f64))


def _power(base: float, exponent):
    """base ** exponent for a number base >= 0 and an f64 scalar exponent > 0 (a base above 0: any)."""
    if isinstance(base, LiveNumber):
        return gc.exp(exponent * gc.log(base))
    if base < 0:
        raise GraphError(f"expected a factor >= 0, got {base}")
    return gc.exp(exponent * log(base)) if base else 0.0
