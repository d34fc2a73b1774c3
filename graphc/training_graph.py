"""The graph of a whole training step: forward pass, gradients, update."""
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any

import graphc as gc
from graphc import optim
from graphc.autodiff.backward import backward
from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import current_trace, user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.live_number import live_number
from graphc.dsl.outputs import with_outputs
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.graph import Value
from graphc.ir.types import TensorType, f32, f64, i64
from graphc.memory.budget import Budget
from graphc.nn.module import Module
from graphc.nn.network import call, inputs, network_name
from graphc.nn.parameter import Parameter
from graphc.nn.path import rooted
from graphc.product_types import INT8, training_in
from graphc.quantisation_aware import rounding_factors
from graphc.records import dataclass
from graphc.state import Own, Setting

STEP, RATE, WEIGHTS, EMA = "step", "lr", "sample_weight", "ema"
REPORTS = ("grad_norm", "update_norm", "param_norm", "update_ratio")
TINY = 1e-30                        # instead of a norm of 0 below a fraction


@dataclass(frozen=True)
class Objective:
    """What is minimised: a network and a loss (`loss` given), or one function that returns the loss."""
    root: Module
    loss: Callable[..., Any] | None

    def __call__(self, arrays: Mapping[str, Array],
                 metrics: Mapping[str, Callable[..., Any]]) -> tuple[Array, dict[str, Array]]:
        """The loss, and what else is reported."""
        if self.loss is None:
            return _loss_and_values(call(self.root, arrays), metrics)
        y, target = self.predicted(arrays)
        return self.loss(y, target), _measured(metrics, y, target)

    def predicted(self, arrays: Mapping[str, Array]) -> tuple[Any, Array]:
        """What the network makes of all but the last array, and the last one, the target."""
        *names, last = arrays
        return call(self.root, {name: arrays[name] for name in names}), arrays[last]

    def weighted(self, arrays: Mapping[str, Array], weights: Array) -> Array:
        """The mean loss of the examples, each counted by its weight; 0 if all weights are."""
        if self.loss is None:
            raise GraphError("weights of examples need loss=: a function that returns the loss itself takes them as "
                             "an input of its own", user_loc())
        losses = _of_each(self.loss, *self.predicted(arrays))
        weights, total = weights.astype(losses.dtype), gc.sum(weights).astype(losses.dtype)
        return gc.sum(losses * weights) / gc.where(total > 0, total, 1.0)


@dataclass(frozen=True)
class Recipe:
    """All that the graph of a training step is made from. `key`: what the arrays of the step alone belong to; recipes
    that have it in common share them. `live`: which hyperparameters, beside learning rates, are arrays of the state.
    `weighted`: the last input, after the target, weighs the examples. `report`, `outputs`, `ema`, `compute`, `shards`,
    `memory`: as of train_step."""
    objective: Objective
    types: Mapping[str, TensorType]
    optimizer: optim.Optimizer
    trainable: Any = None
    live: frozenset[str] = frozenset()
    weighted: bool = False
    report: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    ema: float | None = None
    compute: str | None = None
    shards: int | None = None
    memory: Budget | None = None
    key: object = field(default_factory=object)

    @contained
    def function(self) -> tuple[GraphFunction, frozenset[Parameter]]:
        """The graph of one whole step, in training mode, and what it trains."""
        root = self.objective.root
        with Trace("train_" + network_name(root), training=True) as trace, rooted(root):
            chosen = Chosen.by(self.trainable)
            trace.trains = None if self.trainable is None else chosen.layer
            loss, values = self.loss(inputs(trace, self.types))
            grads = self.gradients(trace, loss, chosen)
            norms = self.descend(trace, grads)
            if twice := values.keys() & norms.keys():
                raise GraphError(f"the function reports {min(twice)!r}, and report= asks for the one of that name",
                                 user_loc())
            named = {"loss": loss, **values, **norms}
            function = finish(trace, named if len(named) > 1 or self.outputs or trace.prints else loss, user_loc())
            if function.prints and self.shards is not None:
                raise GraphError("debug_print in a step with shards= would print for each shard and rank: leave "
                                 "shards= out to look into it", user_loc())
            function = with_outputs(function, self.outputs) if self.outputs else function
            return training_in(function, self.compute), frozenset(key for key, _, _ in grads)

    def loss(self, arrays: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """The loss of a batch, a float scalar, and what else is reported."""
        loss, values = self._loss(arrays)
        if self.compute != INT8:
            return loss, values
        loss, *others = rounding_factors(current_trace(), [loss, *values.values()])
        return loss, dict(zip(values, others))

    def _loss(self, arrays: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        if self.weighted:
            *names, last = arrays
            return self.objective.weighted({name: arrays[name] for name in names}, arrays[last]), {}
        loss, values = self.objective(arrays, {})
        if not isinstance(loss, Array) or loss.shape or not loss.dtype.is_float:
            got = loss.type if isinstance(loss, Array) else repr(loss)
            raise GraphError(f"the loss must be a float scalar, got {got}; reduce it with gc.mean or gc.sum",
                             user_loc())
        return loss, values

    def for_batches(self, rows: int | None, weighted: bool) -> Recipe:
        """The same step on batches of `rows` examples (None: as declared), with weights as a last input or without."""
        types = {name: type if rows is None else TensorType(type.dtype, (rows, *type.shape[1:]))
                 for name, type in self.types.items()}
        if weighted:
            first = next(iter(types.values())).shape[0]
            types[WEIGHTS if WEIGHTS not in types else f"{WEIGHTS}_of_examples"] = f32[first]
        return replace(self, types=types, weighted=weighted)

    def gradients(self, trace: Trace, loss: Array, chosen: Chosen,
                  share: Array | None = None) -> list[tuple[Parameter, str, Array]]:
        """Appends the gradients to the trace: what is trained, by owner and name, with the gradient of each. `share`: a
        factor of the loss, 1 by default."""
        known = chosen.among([(key, v) for key, v in trace.state_values.items()
                              if isinstance(key, Parameter) and key.trainable])
        b = trace.builder
        one = b.constant(1, loss.dtype) if share is None else trace.value(share)
        grads = backward(b, tuple(b.nodes), {trace.value(loss): one}, [v for _, v in known])
        found = [(key, v.name, Array(g, trace)) for (key, v), g in zip(known, grads) if g is not None]
        if not found:
            raise GraphError("there is nothing to train: the loss depends on no trainable parameter", user_loc())
        return found

    def descend(self, trace: Trace, grads: Sequence[tuple[Parameter, str, Array]]) -> dict[str, Array]:
        """Appends the update by these gradients to the trace; what is reported of it."""
        items = []
        for key, name, g in grads:
            slots = _Slots(trace, self.key, key, name)
            items.append(optim.Item(name, trace.state(key, name, key.type), g, slots))
        step = trace.state(self.counter, STEP, i64[()])
        new = optim.apply(self.optimizer, items, step, partial(self._live, trace))
        for (key, name, _), value in zip(grads, new):
            trace.update_state(key, value)
            if self.ema is not None:
                self._average(_Slots(trace, self.key, key, name), value, step)
        trace.update_state(self.counter, step + 1)
        return self._norms(items, new)

    @property
    def counter(self) -> Own:
        """The owner of the number of steps done."""
        return Own(self.key, STEP)

    def _average(self, slots: "_Slots", value: Array, step: Array) -> None:
        """The exponential average of a parameter after its update: the first update begins it."""
        every, decay = self.optimizer.accumulate, self.ema or 0.0
        before = slots.read(EMA)
        new = gc.where(step < every, value, before * decay + value * (1.0 - decay))
        due = gc.equal((step + 1) % every, 0)
        slots.write(EMA, new if every == 1 else gc.where(due, new, before))

    def _norms(self, items: Sequence[optim.Item], new: Sequence[Array]) -> dict[str, Array]:
        """What `report` asks for: 2-norms over all that is trained."""
        values = [item.value for item in items]
        moves = [a - b for a, b in zip(new, values)]
        norms = {"grad_norm": lambda: optim.global_norm([item.grad for item in items]),
                 "update_norm": lambda: optim.global_norm(moves), "param_norm": lambda: optim.global_norm(values),
                 "update_ratio": lambda: optim.global_norm(moves) / gc.maximum(optim.global_norm(values), TINY)}
        return {name: norms[name]() for name in self.report}

    def hyperparameters(self) -> dict[str, Any]:
        """What was declared, by name: "lr", and "groups.0.lr" of what the first group changes. Schedules are functions.
        """
        names = optim.hyperparameters(self.optimizer)
        found = {name: getattr(self.optimizer, name) for name in names}
        for i, group in enumerate(self.optimizer.groups):
            own = self.optimizer.for_group(i)
            numbers = optim.hyperparameters(own)
            found |= {f"groups.{i}.{name}": getattr(own, name) for name, _ in group.changes if name in numbers}
        return {name: value for name, value in found.items() if value is not None}

    def optimizer_with(self, name: str, value: Any) -> optim.Optimizer:
        """The optimizer, or that of a group, with another number. GraphError where it does not take it."""
        group, _, option = name.removeprefix("groups.").rpartition(".")
        return replace(self.optimizer.for_group(int(group) if group else None), **{option: value})

    def setting(self, name: str, value: Any) -> Setting:
        """The owner of a hyperparameter's array."""
        return Setting(self.key, name, None, value if isinstance(value, tuple) else (float(value),))

    def _live(self, trace: Trace, optimizer: optim.Optimizer, group: int | None,
              names: Sequence[str]) -> optim.Optimizer:
        """The optimizer of a group with numbers of the state in the place of those options that live there."""
        own = () if group is None else [name for name, _ in self.optimizer.groups[group].changes]
        made = copy.copy(optimizer)
        for option in names:
            name, value = f"groups.{group}.{option}" if option in own else option, getattr(optimizer, option)
            if value is None or optim.is_schedule(value) or isinstance(value, Array):
                continue
            if option == RATE or name in self.live:
                object.__setattr__(made, option, self._number(trace, name, value))
        return made

    def _number(self, trace: Trace, name: str, value: Any) -> Any:
        """A hyperparameter as a number of the state, or as several."""
        setting = self.setting(name, value)
        if not isinstance(value, tuple):
            return live_number(trace.state(setting, f"optim.{name}", f64[()]))
        array = trace.state(setting, f"optim.{name}", f64[len(value)])
        return tuple(live_number(array[i]) for i in range(len(value)))


@dataclass(frozen=True)
class _Slots:
    """An optimizer's arrays for one parameter, as state of the trace."""
    trace: Trace
    step: object
    parameter: Parameter
    name: str

    def read(self, slot: str, shape: tuple[int, ...] | None = None) -> Array:
        place = EMA if slot == EMA else f"optim.{slot}"
        type = self.parameter.type if shape is None else self.parameter.type.dtype[shape]
        return self.trace.state(Own(self.step, slot, self.parameter), f"{place}.{self.name}", type)

    def write(self, slot: str, value: Array) -> None:
        self.trace.update_state(Own(self.step, slot, self.parameter), value)


@dataclass(frozen=True)
class Chosen:
    """What `trainable=` chooses: all, or the parameters of some networks, or those whose name a predicate likes."""
    networks: tuple[Module, ...] | None = None
    predicate: Callable[[str], bool] | None = None

    @staticmethod
    def by(trainable: Any) -> "Chosen":
        networks = trainable if isinstance(trainable, (list, tuple)) else (trainable,)
        if trainable is None:
            return Chosen()
        if all(isinstance(n, Module) for n in networks):
            return Chosen(networks=tuple(networks))
        if callable(trainable):
            return Chosen(predicate=trainable)
        raise GraphError(f"trainable= takes a network, a list of networks, or a function of a parameter's name, got "
                         f"{trainable!r}", user_loc())

    def among(self, known: Sequence[tuple[Parameter, Value]]) -> list[tuple[Parameter, Value]]:
        """Those of the parameters (with their inputs) that are trained."""
        if self.networks is None:
            return [(p, v) for p, v in known if self.predicate is None or self.predicate(v.name)]
        inside = {p for n in self.networks for p in n.parameters()}
        return [(p, v) for p, v in known if p in inside]

    def layer(self, layer: object, names: Sequence[str]) -> bool:
        """Whether anything of the layer, which has parameters and statistics of these names, is trained."""
        if self.networks is None:
            return self.predicate is None or any(map(self.predicate, names))
        return any(layer is inner for n in self.networks for _, inner in n.named_modules())


def counted(metric: str, key: str) -> str:
    """What a count of a metric is called among the values of an evaluation."""
    return f"{metric}/{key}"


def _measured(metrics: Mapping[str, Callable[..., Any]], y: Any, target: Array) -> dict[str, Array]:
    """Values of metrics; several of one have its name and theirs."""
    found: dict[str, Array] = {}
    for name, metric in metrics.items():
        value = metric(y, target)
        found |= {counted(name, k): v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _of_each(loss: Callable[..., Any], y: Any, target: Array) -> Array:
    """The loss of each example, [B]: of several numbers for one their mean."""
    left_out = [o for o in ("ignore_index", "lengths", "mask") if isinstance(loss, partial) and o in loss.keywords]
    try:
        if left_out:
            raise TypeError(f"{left_out[0]} leaves targets out, whose weight is not known here")
        losses = loss(y, target, reduction="none")
    except TypeError as error:
        raise GraphError(f"weights of examples need a loss with reduction=\"none\", such as nn.cross_entropy ({error})"
                         "; or weigh in a function of your own that returns the loss", user_loc()) from None
    if losses.shape[:1] != target.shape[:1]:
        raise GraphError(f"the loss of each example would be {losses.type} for targets {target.type}", user_loc())
    return gc.mean(losses, axis=tuple(range(1, losses.ndim))) if losses.ndim > 1 else losses


def _loss_and_values(result: Any, metrics: Mapping[str, object]) -> tuple[Array, dict[str, Array]]:
    if metrics:
        raise GraphError("metrics of a general training step are what its function returns: return loss, {name: value}",
                         user_loc())
    if isinstance(result, tuple):
        if len(result) == 2 and isinstance(result[1], dict):
            return result
        raise GraphError("the function of a training step returns a scalar loss, or (loss, {name: array})", user_loc())
    return result, {}
