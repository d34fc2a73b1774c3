"""What all optimizers share, and the parameters that they are given."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, field, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np

import graphc as gc
from graphc.dsl.arguments import Converted, converted
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import user_loc
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.live_number import live_number
from graphc.dsl.other_methods import OF_OPTIMIZERS, Answering
from graphc.errors import GraphError
from graphc.ir.convert import callable_, is_number, is_sequence, shown
from graphc.ir.dims import Sizes, static_shape
from graphc.optim.limits import BOUND, FROM_0, Limits, check_numbers
from graphc.records import dataclass

# of the number of updates done so far, an f64 scalar array -> learning rate, an f64 scalar array
Schedule = Callable[[Array], Operand]
Where = Callable[[str, Sizes], bool]
Scalars = Mapping[str, Operand]     # what an update needs from the number of updates
Kept = Mapping[str, Array]          # the arrays of a parameter, by the names of slots
Update = tuple[Array, Kept]         # the new parameter and the new arrays
# options that are those of a whole step, not of a group
OF_ALL = frozenset({"groups", "clip_norm", "clip_value", "accumulate", "maximize", "start"})


@formed
@dataclass(frozen=True)
class Group:
    """The parameters for which `where(name, shape)` holds are updated with these options changed, or by another
    optimizer."""
    where: Where
    changes: tuple[tuple[str, Any], ...]        # options of any optimizer
    optimizer: "Optimizer | None" = None


@converted
def group(where: Where, *, optimizer: "Optimizer | None" = None, **changes: object) -> Group:
    """For `groups=[…]` of an optimizer: `group(lambda name, shape: name.startswith("head."), lr=1e-4)`. The first
    that fits counts. `optimizer`: another one for these parameters, `group(lambda name, shape: len(shape) != 2,
    optimizer=optim.AdamW(1e-3))`; how gradients are clipped, accumulated and turned round says the outer one.

    Examples:
        >>> slow_head = optim.group(lambda name, shape: name.startswith("2."), lr=1e-4)
        >>> net = nn.Linear(8) >> nn.relu >> nn.Linear(1)
        >>> adam = optim.Adam(1e-2, groups=[slow_head])
        >>> step = gc.train_step(net, loss=nn.mse, optimizer=adam, x=gc.f32[4, 3], y=gc.f32[4, 1])
        >>> step.hyper["lr"], step.hyper["groups.0.lr"]
        (0.01, 0.0001)
    """
    where = callable_(where, "group: where")
    if optimizer is None:
        return Group(where, tuple(changes.items()))
    if not isinstance(optimizer, Optimizer) or changes:
        raise GraphError("group takes another optimizer, such as optim.AdamW(1e-3), or options to change, got "
                         f"{shown(optimizer)}{' and ' * bool(changes)}{', '.join(changes)}", user_loc())
    for name in OF_ALL:
        if getattr(optimizer, name) != next(f.default for f in fields(Optimizer) if f.name == name):
            raise GraphError(f"the optimizer of a group has no {name} of its own: give it to the outer one", user_loc())
    return Group(where, tuple((f.name, getattr(optimizer, f.name)) for f in fields(optimizer) if f.name not in OF_ALL),
                 optimizer)


def _is_small(name: str, shape: Sizes) -> bool:
    """Whether a parameter has fewer than two axes, as biases and scales of norms."""
    return len(shape) < 2


@converted
def no_decay(where: Where = _is_small) -> Group:
    """No weight decay on biases and on the scales of norms: on arrays with fewer than two axes, unless `where` says
    otherwise."""
    return group(where, weight_decay=0.0)


class Slots(Protocol):
    """Where an optimizer keeps arrays of the parameter's dtype between steps; they start as zeros."""
    def read(self, slot: str, shape: Sizes) -> Array: ...
    def write(self, slot: str, value: Array) -> None: ...


@formed
@dataclass(frozen=True)
class Item:
    """One parameter of a step: its name, its value, its gradient, and its slots."""
    name: str
    value: Array
    grad: Array
    slots: Slots

    @property
    def shape(self) -> Sizes:
        """Of the parameter: it has no named dimensions."""
        return static_shape(self.value.shape)


@formed
@dataclass(frozen=True)
class Optimizer(Converted, Answering):
    """What all optimizers share. `lr` is a number, or a schedule: a function of the number of updates done so far.

    `groups`: other options for some parameters, see `group`. `clip_norm`: gradients are scaled so that their joint
    2-norm is at most this; `clip_value`: each element is limited to [-clip_value, clip_value]. `accumulate`: the mean
    gradient of so many calls is applied at the last of them. `maximize`: the objective is to grow, not to fall.
    `start`: called with each new training step, whose state it may give other first values than zeros.

    One of your own is a dataclass with options that defines `update`, and `slots` for what it remembers
    (docs/extending.md). `limits`: of its numbers, by name; those that it does not name are finite.
    """
    answers = OF_OPTIMIZERS
    limits: ClassVar[Limits] = {"lr": FROM_0, "weight_decay": FROM_0, "clip_norm": BOUND, "clip_value": BOUND}
    lr: float | Schedule
    _: KW_ONLY
    weight_decay: float = 0.0
    groups: Sequence[Group] = ()
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    maximize: bool = False
    start: Callable[[Any], None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not is_rate(self.lr):
            name = type(self).__name__
            raise GraphError(f"{name}({_called(self.lr)}): lr is a number or a schedule, a function of the number of "
                             "updates; an optimizer is not "
                             f"given the parameters, the training step finds them: optim.{name}(1e-3)", user_loc())
        super().__post_init__()
        if not is_sequence(self.groups) or not all(isinstance(g, Group) for g in self.groups):
            raise GraphError(f"groups is a list of optim.group(…), got {shown(self.groups)}", user_loc())
        numbers = hyperparameters(self)
        check_numbers(type(self).__name__, {name: getattr(self, name) for name in numbers}, self.limits)
        names = {f.name for f in fields(self)} - OF_ALL
        for g in self.groups:
            for name, _ in g.changes:
                if name not in names and g.optimizer is None:
                    raise GraphError(f"{type(self).__name__} has no option {name!r} for a group; "
                                     f"it has {', '.join(sorted(names))}", user_loc())
            if g.optimizer is None:
                check_numbers("group", {name: value for name, value in g.changes if name in numbers}, self.limits)
        if self.accumulate < 1:
            raise GraphError(f"accumulate is a number of calls >= 1, got {self.accumulate}", user_loc())

    def scalars(self, step: Array) -> Scalars:
        """What the update needs from the number of updates done so far (f64 scalar array). Computed once per group."""
        return {"lr": _checked_rate(self.lr(step)) if callable(self.lr) else self.lr, "step": step}

    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept per parameter, of its shape."""
        return ()

    def slot_shapes(self, shape: Sizes) -> Mapping[str, Sizes]:
        """The arrays kept for a parameter of this shape, by name, with the shape of each; all start as zeros (see
        `from_first`)."""
        return dict.fromkeys(self.slots(), shape)

    def update(self, p: Array, g: Array, slots: Kept, s: Scalars) -> Update:
        """(new parameter, new slots) from parameter, gradient, slots by name, and scalars."""
        raise GraphError(f"{type(self).__name__} defines no update")

    def update_all(self, parameters: Sequence[tuple[Array, Array, Kept]], s: Scalars) -> list[Update]:
        """`update` of each parameter of a group, given as (parameter, gradient, slots). One that looks at all of them
        together defines this instead."""
        return [self.update(p, g, slots, s) for p, g, slots in parameters]

    def group_of(self, name: str, shape: Sizes) -> int | None:
        """The number of the first group that the parameter belongs to; None for those in no group."""
        return next((i for i, g in enumerate(self.groups) if g.where(name, shape)), None)

    def for_group(self, number: int | None) -> "Optimizer":
        """The optimizer with the options of this group, or the group's own; None: of no group."""
        found = None if number is None else self.groups[number]
        if found is None or found.optimizer is None:
            return replace(self, groups=(), **dict(found.changes if found else ()))
        return replace(found.optimizer, groups=())


formed_methods(Optimizer, "optimizer")


@formed
def hyperparameters(optimizer: Optimizer) -> tuple[str, ...]:
    """Names of the options that are numbers, pairs of numbers or schedules."""
    kinds = [(f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type)) for f in fields(optimizer)]
    return tuple(name for name, kind in kinds if kind.startswith(("float", "tuple[float")))


@formed
def is_schedule(rate: object) -> bool:
    """Whether this is a function of the number of updates, and no number."""
    return callable(rate)


def is_rate(lr: object) -> bool:
    """Whether this is a number or a function: what is callable among torch's habits is a network or a generator of
    its parameters."""
    return isinstance(lr, (int, float, np.number,
                           gc.Array)) and not isinstance(lr, bool) or callable(lr) and not isinstance(lr, gc.nn.Module)


def _called(value: object) -> str:
    return repr(value) if isinstance(value, (str, bool, type(None))) else f"<{type(value).__name__}>"


def decayed(g: Array, p: Array, weight_decay: float) -> Array:
    """The gradient of the loss plus weight_decay / 2 p²."""
    return g + p * weight_decay if weight_decay else g


def shrunk(p: Array, s: Scalars, weight_decay: float) -> Array:
    """Decoupled weight decay: p (1 - lr weight_decay)."""
    return p * as_like(1.0 - s["lr"] * weight_decay, p) if weight_decay else p


def from_first(slot: Array, start: Operand, s: Scalars) -> Array:
    """The array of a slot, which is `start` before the first update."""
    return gc.where(gc.equal(s["step"], 0), start, slot)


def size_of(x: Array) -> Array:
    """The root of the mean square of all elements."""
    return gc.sqrt(gc.mean(x * x))


@formed
def as_like(scalar: Operand, p: Array) -> Operand:
    """A scalar of those that an update is given, such as the learning rate, in the dtype of the parameter `p`; numbers
    adapt by themselves."""
    return scalar if is_number(scalar) else as_array(scalar).astype(p.dtype)


def _checked_rate(rate: Operand) -> Operand:
    """What a schedule gave: a number or a scalar array."""
    array = as_array(rate)
    if array.shape:
        raise GraphError(f"a schedule gives one learning rate, got {array.type}")
    return rate if is_number(rate) else live_number(array.astype(gc.f64))
