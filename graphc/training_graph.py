"""The graph of a whole training step: forward pass, gradients, update."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc import optim
from graphc.autodiff.backward import backward
from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.graph import Value
from graphc.ir.types import TensorType, i64
from graphc.nn.module import Module
from graphc.nn.network import call, inputs, network_name
from graphc.nn.parameter import Parameter
from graphc.nn.path import rooted
from graphc.state import Own

STEP = "step"


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
        names = list(arrays)
        y = call(self.root, {name: arrays[name] for name in names[:-1]})
        target = arrays[names[-1]]
        return self.loss(y, target), {name: metric(y, target) for name, metric in metrics.items()}


@contained
def training_function(objective: Objective, types: Mapping[str, TensorType], optimizer: optim.Optimizer,
                      trainable: object) -> tuple[GraphFunction, frozenset[Parameter]]:
    """The graph of one whole step, in training mode, and what it trains."""
    with Trace("train_" + network_name(objective.root), training=True) as trace, rooted(objective.root):
        chosen = Chosen.by(trainable)
        trace.trains = None if trainable is None else chosen.layer
        loss, values = objective(inputs(trace, types), {})
        if not isinstance(loss, Array) or loss.shape or not loss.dtype.is_float:
            got = loss.type if isinstance(loss, Array) else repr(loss)
            raise GraphError(f"the loss must be a float scalar, got {got}; reduce it with gc.mean or gc.sum",
                             user_loc())
        trained = _descend(trace, loss, optimizer, chosen)
        return finish(trace, {"loss": loss, **values} if values else loss, user_loc()), trained


def _descend(trace: Trace, loss: Array, optimizer: optim.Optimizer, chosen: "Chosen") -> frozenset[Parameter]:
    """Appends the gradients and the update to the trace; what it updates."""
    known = chosen.among([(key, v) for key, v in trace.state_values.items()
                          if isinstance(key, Parameter) and key.trainable])
    b, step_key = trace.builder, object()
    one = b.constant(1, loss.dtype)
    grads = backward(b, tuple(b.nodes), {trace.value(loss): one}, [v for _, v in known])
    moved = []
    for (key, v), g in zip(known, grads):
        if g is not None:
            parameter, slots = trace.state(key, v.name, v.type), _Slots(trace, step_key, key, v.name)
            moved.append((key, optim.Item(v.name, parameter, Array(g, trace), slots)))
    if not moved:
        raise GraphError("there is nothing to train: the loss depends on no trainable parameter", user_loc())
    counter = Own(step_key, STEP)
    step = trace.state(counter, STEP, i64[()])
    new = optim.apply(optimizer, [item for _, item in moved], step)
    for (key, _), value in zip(moved, new):
        trace.update_state(key, value)
    trace.update_state(counter, step + 1)
    return frozenset(key for key, _ in moved)


@dataclass(frozen=True)
class _Slots:
    """An optimizer's arrays for one parameter, as state of the trace."""
    trace: Trace
    step: object
    parameter: Parameter
    name: str

    def read(self, slot: str, shape: tuple[int, ...] | None = None) -> Array:
        type = self.parameter.type if shape is None else self.parameter.type.dtype[shape]
        return self.trace.state(Own(self.step, slot, self.parameter), f"optim.{slot}.{self.name}", type)

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


def _loss_and_values(result: Any, metrics: Mapping[str, object]) -> tuple[Array, dict[str, Array]]:
    if metrics:
        raise GraphError("metrics of a general training step are what its function returns: return loss, {name: value}",
                         user_loc())
    if isinstance(result, tuple):
        if len(result) == 2 and isinstance(result[1], dict):
            return result
        raise GraphError("the function of a training step returns a scalar loss, or (loss, {name: array})", user_loc())
    return result, {}
