"""PyTorch's optimizers as graphc's, with what they remember."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graphc.doors.torch.network import TensorValue
from graphc.doors.torch.read import array_of
from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.nn.parameter import Parameter
from graphc.optim.adam import Adam, AdamW
from graphc.optim.base import Group, Optimizer, group
from graphc.optim.descent import SGD, RMSprop
from graphc.state import Own
from graphc.train import TrainStep

# of each optimizer: its class here, options that both have, and what each remembers: name there -> name here
KINDS: dict[type[torch.optim.Optimizer], tuple[type[Optimizer], tuple[str, ...], Mapping[str, str]]] = {
    torch.optim.SGD: (SGD, ("momentum", "dampening", "nesterov"), {"momentum_buffer": "momentum"}),
    torch.optim.AdamW: (AdamW, ("betas", "eps", "amsgrad"), {
        "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "max_exp_avg_sq": "max_exp_avg_sq"}),
    torch.optim.Adam: (Adam, ("betas", "eps", "amsgrad"), {
        "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "max_exp_avg_sq": "max_exp_avg_sq"}),
    torch.optim.RMSprop: (RMSprop, ("alpha", "eps", "momentum", "centered"), {
        "square_avg": "square_avg", "momentum_buffer": "momentum", "grad_avg": "grad_avg"})}
EVERYWHERE = ("lr", "weight_decay")


def from_torch(optimizer: torch.optim.Optimizer, module: torch.nn.Module | None = None) -> Optimizer:
    """torch.optim's SGD, Adam, AdamW or RMSprop as graphc's, with its groups, and with its moments and number of steps
    as the first values of a training step of a network that `gc.from_torch` made of the same module.

    module: needed where the optimizer has several groups of parameters without names: it has their names.

    Raises GraphError for another optimizer, or for options that have no counterpart.
    """
    kind = next((k for k in KINDS if isinstance(optimizer, k)), None)
    if kind is None:
        known = ", ".join(k.__name__ for k in KINDS)
        raise GraphError(f"optim.from_torch takes {known} of torch.optim, got {type(optimizer).__name__}", user_loc())
    made, options, _ = KINDS[kind]
    if kind is torch.optim.Adam and optimizer.param_groups[0].get("decoupled_weight_decay"):
        made = AdamW
    first, *others = [_options(g, options) for g in optimizer.param_groups]
    maximize = {bool(g.get("maximize", False)) for g in optimizer.param_groups}
    if len(maximize) > 1:
        raise GraphError("optim.from_torch: maximize differs between groups of parameters", user_loc())
    names = _names(optimizer, module) if others else []
    groups = [_group(names, number, {k: v for k, v in changed.items() if v != first[k]})
              for number, changed in enumerate(others, 1)]
    return made(**first, groups=groups, maximize=maximize.pop(), start=Moments(optimizer, KINDS[kind][2]))


def _options(group: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The options of a group of parameters."""
    found = {name: group[name] for name in (*EVERYWHERE, *names)}
    return {name: float(value) if isinstance(value, torch.Tensor) else tuple(map(float, value))
            if isinstance(value, tuple | list) else value for name, value in found.items()}


def _names(optimizer: torch.optim.Optimizer, module: torch.nn.Module | None) -> list[frozenset[str]]:
    """The names of the parameters of each group."""
    known = {} if module is None else {id(p): name for name, p in module.named_parameters()}
    groups = []
    for g in optimizer.param_groups:
        named = g.get("param_names") or [known.get(id(p), "") for p in g["params"]]
        if "" in named:
            raise GraphError("the optimizer has several groups of parameters without names: give the module that they "
                             "belong to, optim.from_torch(optimizer, module)", user_loc())
        groups.append(frozenset(named))
    return groups


def _group(names: list[frozenset[str]], number: int, changes: Mapping[str, Any]) -> Group:
    """The group with this number. A network that is part of a larger one has its path before its names: the longest
    known name that a name ends with counts."""
    def where(name: str, shape: tuple[int, ...]) -> bool:
        fitting = [(len(n), i) for i, group in enumerate(names) for n in group if name == n or name.endswith(f".{n}")]
        return bool(fitting) and max(fitting)[1] == number
    return group(where, **changes)


class Moments:
    """What an optimizer remembers, as the first values of a training step."""

    def __init__(self, optimizer: torch.optim.Optimizer, slots: Mapping[str, str]):
        self.optimizer, self.slots = optimizer, slots

    def __call__(self, step: TrainStep) -> None:
        """Writes them into the state of a new step. GraphError where a parameter is trained that the optimizer has not,
        or of which it remembers nothing while it does of others."""
        states = {p.data_ptr(): self.optimizer.state.get(p) for g in self.optimizer.param_groups for p in g["params"]}
        begun = any(states.values())
        counts: set[int] = set()
        own = [(e.name, e.key) for e in step.entries() if isinstance(e.key, Own)]
        for entry in step.entries():
            if isinstance(entry.key, Parameter) and entry.key.trainable and _memory(entry.key) not in states and any(
                    key.parameter is entry.key for _, key in own):
                raise GraphError(f"the optimizer does not have {entry.name}, which the step would train: leave it out "
                                 "with trainable=, or make the optimizer of the module that was read", step.made)
        for name, key in own if begun else ():
            there = next((there for there, here in self.slots.items() if here == key.what), None)
            if there is None or not isinstance(key.parameter, Parameter):
                continue
            state = states[_memory(key.parameter)]
            if not state or state.get(there) is None:
                raise GraphError(f"the optimizer remembers nothing of {name}, but of others", step.made)
            step.state[name] = array_of(state[there])
            counts.add(int(state.get("step", 1)))
        if len(counts) > 1:
            raise GraphError("the optimizer has made different numbers of steps for its parameters", step.made)
        for name, key in own if counts else ():
            if key.what == "step":
                step.state[name] = np.int64(min(counts))


def _memory(parameter: Parameter) -> int:
    """Where PyTorch has the numbers that a parameter starts with."""
    init = parameter.init
    return init.source.address() if isinstance(init, TensorValue) and init.source is not None else 0
