"""One update of all parameters of a training step."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import cast

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.optim.base import Item, Optimizer, Scalars, hyperparameters

# (an optimizer, the number of a group or None, names of options) -> the same with these options as numbers of the state
Live = Callable[[Optimizer, int | None, Sequence[str]], Optimizer]
OF_STEPS = ("clip_norm", "clip_value")      # those that no group has


@formed
def apply(optimizer: Optimizer, items: Sequence[Item], calls: Array,
          live: Live = lambda optimizer, group, names: optimizer) -> list[Array]:
    """The new values of the parameters, in order; slots are written. `calls`: i64 scalar array, the number of calls
    before this one. `live` puts numbers of the state in the place of options."""
    every = optimizer.accumulate
    due = None
    if every > 1:
        due = gc.equal((calls + 1) % every, 0)
        items = [_accumulated(item, every, due) for item in items]
    if optimizer.clip_norm is not None:
        items = _clipped(items, cast(float, live(optimizer, None, ("clip_norm",)).clip_norm))
    if optimizer.clip_value is not None:
        limit = cast(float, live(optimizer, None, ("clip_value",)).clip_value)
        items = [replace(item, grad=gc.clip(item.grad, -limit, limit)) for item in items]
    if optimizer.maximize:
        items = [replace(item, grad=-item.grad) for item in items]
    updates = (calls if every == 1 else calls // every).astype(gc.f64)
    known: dict[int | None, tuple[Optimizer, Scalars]] = {}
    batches: dict[object, list[int]] = {}       # of items that are updated by one call: mostly of one
    for i, item in enumerate(items):
        group = optimizer.group_of(item.name, item.shape)
        if group not in known:
            own = optimizer.for_group(group)
            own = live(own, group, [name for name in hyperparameters(own) if name not in OF_STEPS])
            known[group] = own, own.scalars(updates)
        together = type(known[group][0]).update_all is not Optimizer.update_all
        batches.setdefault((group, 0 if together else i), []).append(i)
    new: dict[int, Array] = {}
    for members in batches.values():
        first = items[members[0]]
        own, scalars = known[optimizer.group_of(first.name, first.shape)]
        new |= zip(members, _updated(own, scalars, [items[i] for i in members], due))
    return [new[i] for i in range(len(items))]


def _updated(optimizer: Optimizer, scalars: Scalars, items: Sequence[Item], due: Array | None) -> list[Array]:
    """The new values of the parameters of a group. `due`: whether this call updates at all (None: always)."""
    known = [{slot: item.slots.read(slot, shape) for slot, shape in optimizer.slot_shapes(item.shape).items()}
             for item in items]
    made = optimizer.update_all([(item.value, item.grad, before) for item, before in zip(items, known)], scalars)
    values = []
    for item, before, each in zip(items, known, made, strict=True):
        value, after = _checked(optimizer, each, before.keys())
        for slot, new in after.items():
            item.slots.write(slot, new if due is None else gc.where(due, new, before[slot]))
        values.append(value if due is None else gc.where(due, value, item.value))
    return values


def _checked(optimizer: Optimizer, made: object, slots: Set[str]) -> tuple[Array, Mapping[str, Array]]:
    """What `update` of an optimizer returned; GraphError unless it is a parameter and what `slots` names."""
    name = f"{type(optimizer).__name__}.update"
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping)):
        raise GraphError(f"{name} returns (new parameter, {{slot: array}}), got {shown(made)}")
    value, after = made
    if unknown := sorted(after.keys() - slots):
        raise GraphError(f"{name} returned slot {unknown[0]!r}, which slots() does not name: it names "
                         f"{', '.join(slots) or 'none'}")
    if missing := sorted(slots - after.keys()):
        raise GraphError(f"{name} returned no {missing[0]!r}, which slots() names")
    return value, after


def _accumulated(item: Item, every: int, due: Array) -> Item:
    total = item.slots.read("accumulated", item.shape) + item.grad
    item.slots.write("accumulated", gc.where(due, gc.zeros_like(total), total))
    return replace(item, grad=total / every)


def _clipped(items: Sequence[Item], limit: float) -> list[Item]:
    """torch.nn.utils.clip_grad_norm_: factor min(1, limit / (norm + 1e-6))."""
    norm = global_norm([item.grad for item in items])
    factor = gc.minimum(limit / (norm + 1e-6), 1.0)
    return [replace(item, grad=item.grad * factor.astype(item.grad.dtype)) for item in items]


@formed
def global_norm(arrays: Sequence[Array]) -> Array:
    """The 2-norm of all elements of all arrays, an f32 scalar."""
    total = None
    for a in arrays:
        square = gc.sum(a * a).astype(gc.f32)
        total = square if total is None else total + square
    return gc.sqrt(total) if total is not None else gc.full((), 0.0, gc.f32)
