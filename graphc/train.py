"""The training step: forward, backward and update of a network as ONE graph, with the state that it owns."""
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc import optim
from graphc.checkpoint import load_arrays, save_arrays
from graphc.config import MOST_I64, thread_count, whole
from graphc.contained import contained
from graphc.dsl.arguments import converted
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.inline import solve_dims
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.execute import Executable, make_executable
from graphc.ir.builder import bind_graph
from graphc.ir.convert import callable_
from graphc.ir.graph import Graph
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType, dtype_of, i64
from graphc.nn.module import Function, Module, as_module
from graphc.nn.network import call, entries, inputs, network_name
from graphc.nn.parameter import Parameter
from graphc.nn.path import rooted
from graphc.once import recent
from graphc.passes.backward import backward
from graphc.state import State

KEPT_BINDINGS = 16                  # executables for different sizes of named dimensions, and for evaluation
STEP = "step"


@dataclass(frozen=True)
class Objective:
    """What is minimised: a network and a loss (`loss` given), or one function that returns the loss."""
    root: Module
    loss: Callable | None

    def __call__(self, arrays: Mapping[str, Array], metrics: Mapping[str, Callable]) -> tuple[Array, dict[str, Array]]:
        """The loss, and what else is reported."""
        if self.loss is None:
            return _loss_and_values(call(self.root, arrays), metrics)
        names = list(arrays)
        y = call(self.root, {name: arrays[name] for name in names[:-1]})
        target = arrays[names[-1]]
        return self.loss(y, target), {name: metric(y, target) for name, metric in metrics.items()}


@dataclass(frozen=True)
class Model:
    """A network bound to the state of a training step: what is compiled from it sees every later step."""
    net: Module
    state: State


@dataclass(frozen=True)
class SlotKey:
    """Owner of an optimizer's array for one parameter."""
    slot: str
    parameter: Parameter


@converted
def train_step(f: Callable, *, optimizer: optim.Optimizer, loss: Callable | None = None, trainable=None, seed: int = 0,
               threads: int | str = 0, **types: TensorType) -> "TrainStep":
    """A training step that is one native call.

    Short form: `train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32[64, 784], y=gc.i32[64])`; the last
    input goes to the loss, the others to the network. General form, without `loss`: `f` takes all inputs by name and returns a
    scalar loss, or (loss, {name: array}). `trainable`: a network, a list of networks, or a predicate on parameter names; what it
    leaves out keeps its value. `seed` decides the first parameters and all random numbers. `threads`: as of `gc.compile`.
    """
    if not isinstance(optimizer, optim.Optimizer):
        raise GraphError(f"optimizer= takes one of graphc.optim, for example optim.AdamW(1e-3), got {optimizer!r}", user_loc())
    if loss is not None:
        callable_(loss, "loss")
    if loss is not None and len(types) < 2:
        raise GraphError("with loss=, give the types of the network's inputs and, last, of the target: x=gc.f32[…], y=gc.i32[…]", user_loc())
    seed, threads = whole(seed, "seed", 0, MOST_I64, user_loc()), thread_count(threads, loc=user_loc())
    return TrainStep(Objective(as_module(f), loss), types, optimizer, trainable, seed, threads)


class TrainStep(Shown):
    """Call it with one batch: it returns the loss as a float, or a dict if the function reports more values.

    `state[name]` reads and writes parameters, running statistics, optimizer arrays ("optim.<array>.<parameter>"), "step" and
    "random.key". `model` can be compiled for inference. `graph` is the whole step.
    """

    def __init__(self, objective: Objective, types: Mapping[str, TensorType], optimizer, trainable, seed: int, threads: int):
        self._objective, self._types, self._threads = objective, dict(types), threads
        self._function = training_function(objective, types, optimizer, trainable)
        self.state = State.create(entries(self._function), seed)
        self._seed = seed
        self._executables: OrderedDict[tuple, Executable] = OrderedDict()
        self._evaluations: OrderedDict[tuple, Executable] = OrderedDict()
        self._static = not self.graph.dim_names
        self._fixed: Executable | None = None

    @property
    def graph(self) -> Graph:
        """Forward, backward and update, before any optimisation."""
        return self._function.graph

    @property
    def model(self) -> Model:
        """The network, bound to this state: `gc.compile(step.model, x=gc.f32[1, 784])`."""
        if self._objective.loss is None and isinstance(self._objective.root, Function):
            raise GraphError("this step trains a function, not a network: compile the network inside with state=step.state", user_loc())
        return Model(self._objective.root, self.state)

    def __call__(self, *arrays, **named) -> float | dict:
        """One step on one batch, in the order of the declared inputs or by name."""
        if named or len(arrays) != len(self._types):
            arrays = self._ordered(arrays, named)
        run = self._fixed or self._executable(arrays)
        result = run(*arrays)
        return {name: _number(value) for name, value in result.items()} if isinstance(result, dict) else float(result)

    def evaluate(self, batches: Iterable, **metrics: Callable) -> dict[str, float]:
        """Means of the loss and of `metrics` (name=function of prediction and target; general form: what `f` reports) over batches,
        weighted by their length, in inference mode. Batches may be of any length; nothing is changed."""
        totals, count = {}, 0
        for batch in batches:
            arrays = self._ordered(tuple(batch), {})
            size = arrays[0].shape[0] if arrays[0].ndim else 1
            for name, value in self._evaluated(arrays, metrics).items():
                totals[name] = totals.get(name, 0.0) + size * value
            count += size
        if not count:
            raise GraphError("evaluate got no batch: if it is a generator, it may have been used up", user_loc())
        return {name: total / count for name, total in totals.items()}

    def save(self, path: str | os.PathLike) -> None:
        """The whole state as safetensors; training resumes from it bit for bit."""
        save_arrays(path, self.state.copy())

    def load(self, path: str | os.PathLike, partial: bool = False) -> None:
        """Takes the state from a file that `save` wrote; `partial`: what the file has (weights from elsewhere, say), the rest stays.
        GraphError, and nothing changed, if it does not fit."""
        self.state.load(load_arrays(path), str(path), partial)

    @property
    def memory(self):
        """Bytes of arena, parameters, inputs and outputs; known before the first run."""
        return self._only().memory

    def dump(self, stage: str = "graph") -> str:
        """The step as text at a stage: graph, fused, loops, llvm or asm."""
        return self._only().dump(stage)

    def explain(self) -> str:
        """What was fused with what, and why neighbours were not."""
        return self._only().explain()

    def profile(self, *arrays, runs: int = 5):
        """Where the time of a step on one batch goes: print it, or `save("roofline.svg")`. Runs on a copy of the state."""
        return self._executable(arrays).profile(*self._ordered(arrays, {}), runs=runs)

    def _only(self) -> Executable:
        """The executable, of the last sizes used if dimensions are named."""
        if self._static:
            return self._executable(())
        if not self._executables:
            raise GraphError(f"the sizes of {', '.join(sorted(self.graph.dim_names))} are not known before the first call", user_loc())
        return next(reversed(self._executables.values()))

    def _ordered(self, arrays: Sequence, named: Mapping) -> tuple[np.ndarray, ...]:
        names = list(self._types)
        given = dict(zip(names, arrays)) | dict(named)
        wrong = [n for n in given if n not in names] or [n for n in names if n not in given]
        if wrong or len(arrays) + len(named) != len(names):
            raise GraphError(f"the step takes {', '.join(names)}; got {len(arrays)} arrays"
                             + (f" and {', '.join(named)}" if named else ""), user_loc())
        return tuple(np.asarray(given[n]) for n in names)

    def _executable(self, arrays: Sequence[np.ndarray]) -> Executable:
        if self._static:
            self._fixed = self._fixed or self._made(self._function, {})
            return self._fixed
        sizes = self._sizes(arrays)
        key = tuple(sorted(sizes.items()))
        return recent(self._executables, key, lambda: self._made(self._function, sizes), KEPT_BINDINGS)

    def _made(self, function: GraphFunction, sizes: Mapping[str, int]) -> Executable:
        arrays = [self.state.array(entry) for entry in entries(function)]
        return make_executable(bind_graph(function.graph, sizes), arrays, self.state.lock, self._threads)

    def _sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        return solve_dims([(n, t, TensorType(dtype_of(a), a.shape)) for (n, t), a in zip(self._types.items(), map(np.asarray, arrays))])

    def _evaluated(self, arrays: Sequence[np.ndarray], metrics: Mapping[str, Callable]) -> dict[str, float]:
        types = {name: TensorType(dtype_of(a), a.shape) for name, a in zip(self._types, arrays)}
        _check_free_axes(self._types, types)
        key = (tuple(types.items()), tuple(metrics.items()))
        run = recent(self._evaluations, key, lambda: self._inference(types, metrics), KEPT_BINDINGS)
        return {name: float(np.mean(value)) for name, value in run(*arrays).items()}

    @contained
    def _inference(self, types: Mapping[str, TensorType], metrics: Mapping[str, Callable]) -> Executable:
        with Trace("evaluate_" + network_name(self._objective.root)) as trace, rooted(self._objective.root):
            loss, values = self._objective(inputs(trace, types), metrics)
            function = finish(trace, {"loss": loss, **values}, user_loc())
        fixed = replace(function.graph, updates=(None,) * len(function.graph.state))
        for entry in entries(function):
            if entry.name not in self.state:
                self.state.add(entry, entry.initial(self._seed))
        return self._made(replace(function, graph=fixed), {})


@contained
def training_function(objective: Objective, types: Mapping[str, TensorType], optimizer, trainable) -> GraphFunction:
    """The graph of one whole step, in training mode."""
    with Trace("train_" + network_name(objective.root), training=True) as trace, rooted(objective.root):
        loss, values = objective(inputs(trace, types), {})
        if not isinstance(loss, Array) or loss.shape or not loss.dtype.is_float:
            raise GraphError(f"the loss must be a float scalar, got {loss.type if isinstance(loss, Array) else loss!r}; "
                             "reduce it with gc.mean or gc.sum", user_loc())
        _descend(trace, loss, optimizer, trainable)
        return finish(trace, {"loss": loss, **values} if values else loss, user_loc())


def _descend(trace: Trace, loss: Array, optimizer: optim.Optimizer, trainable) -> None:
    """Appends the gradients and the update to the trace."""
    chosen = _chooser(trainable)
    known = [(key, v) for key, v in trace.state_values.items() if isinstance(key, Parameter) and key.trainable and chosen(v.name, key)]
    b = trace.builder
    one = b.constant(1, loss.dtype)
    grads = backward(b, tuple(b.nodes), {trace.value(loss): one}, [v for _, v in known])
    moved = [(key, optim.Item(v.name, trace.state(key, v.name, v.type), Array(g, trace), _Slots(trace, key, v.name)))
             for (key, v), g in zip(known, grads) if g is not None]
    if not moved:
        raise GraphError("there is nothing to train: the loss depends on no trainable parameter", user_loc())
    step = trace.state(STEP, STEP, i64[()])
    new = optim.apply(optimizer, [item for _, item in moved], step)
    for (key, _), value in zip(moved, new):
        trace.update_state(key, value)
    trace.update_state(STEP, step + 1)


@dataclass(frozen=True)
class _Slots:
    """An optimizer's arrays for one parameter, as state of the trace."""
    trace: Trace
    parameter: Parameter
    name: str

    def read(self, slot: str) -> Array:
        return self.trace.state(SlotKey(slot, self.parameter), f"optim.{slot}.{self.name}", self.parameter.type)

    def write(self, slot: str, value: Array) -> None:
        self.trace.update_state(SlotKey(slot, self.parameter), value)


def _chooser(trainable) -> Callable[[str, Parameter], bool]:
    """Which parameters are trained: all, those of some networks, or those whose name a predicate likes."""
    if trainable is None:
        return lambda name, parameter: True
    networks = list(trainable) if isinstance(trainable, (list, tuple)) else [trainable]
    if all(isinstance(n, Module) for n in networks):
        return lambda name, parameter: any(parameter is p for n in networks for p in n.parameters())
    if callable(trainable):
        return lambda name, parameter: bool(trainable(name))
    raise GraphError(f"trainable= takes a network, a list of networks, or a function of a parameter's name, got {trainable!r}", user_loc())


def _loss_and_values(result, metrics: Mapping) -> tuple[Array, dict[str, Array]]:
    if metrics:
        raise GraphError("metrics of a general training step are what its function returns: return loss, {name: value}", user_loc())
    if isinstance(result, tuple):
        if len(result) == 2 and isinstance(result[1], dict):
            return result
        raise GraphError("the function of a training step returns a scalar loss, or (loss, {name: array})", user_loc())
    return result, {}


def _check_free_axes(declared: Mapping[str, TensorType], given: Mapping[str, TensorType]) -> None:
    for name, type in declared.items():
        if type.dtype != given[name].dtype or type.rank != given[name].rank:
            raise GraphError(f"argument {name!r} is {type}, got {given[name]}", user_loc())


def _number(result: np.ndarray) -> float | np.ndarray:
    return float(result) if np.ndim(result) == 0 else result
