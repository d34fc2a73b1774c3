"""The training step: forward, backward and update of a network as ONE graph, with the state that it owns."""
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc import optim
from graphc.apart import Share, check_apart, started
from graphc.autodiff.backward import backward
from graphc.checkpoint import load_arrays, save_arrays
from graphc.config import MOST_I64, thread_count, whole
from graphc.contained import contained
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.inline import solve_dims
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.evaluation import MEANS, PREDICTION, MetricTotals, joined, metrics_graph, prediction, weight
from graphc.execute import Runnable, make_executable
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph, Value
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType, dtype_of, i64
from graphc.nn.module import Function, Module, as_module
from graphc.nn.network import call, entries, inputs, network_name, sorted_out
from graphc.nn.parameter import Parameter
from graphc.nn.path import rooted
from graphc.once import recent
from graphc.state import Own, State

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


@formed
def train_step(f: Callable, /, *, optimizer: optim.Optimizer, loss: Callable | None = None, trainable=None, seed: int = 0,
               threads: int | str = 0, state: State | str | None = None, **types: TensorType) -> "TrainStep":
    """A training step that is one native call.

    Short form: `train_step(net, loss=nn.cross_entropy, optimizer=optim.AdamW(1e-3), x=gc.f32[64, 784], y=gc.i32[64])`; the last
    input goes to the loss, the others to the network. General form, without `loss`: `f` takes all inputs by name and returns a
    scalar loss, or (loss, {name: array}). `trainable`: a network, a list of networks, or a predicate on parameter names; what it
    leaves out keeps its value, and batch norms among it work as in inference. `seed` decides the first parameters and all random numbers.
    `threads`: as of `gc.compile`.

    `state`: that of another step, `other.state`, with which this one shares the parameters and statistics of layers that both use, and the random
    numbers' key (generator and discriminator, actor and critic, pretraining and fine-tuning); steps and optimizer arrays are its own. Without
    it the step has parameters of its own. If another step that lives has trained one of the layers, the first call raises GraphError, unless
    values were loaded or written before, or the step is that one made again by the same line, or state="own" says that it is meant.
    An input may be called like an option (`state=gc.f32[3]`); then that option cannot be given.
    """
    options, types = sorted_out(f, train_step, {"loss": loss, "trainable": trainable, "seed": seed, "threads": threads, "state": state}, types)
    loss, trainable, seed, threads, state = options.values()
    if not isinstance(optimizer, optim.Optimizer):
        raise GraphError(f"optimizer= takes one of graphc.optim, for example optim.AdamW(1e-3), got {optimizer!r}", user_loc())
    if loss is not None and not callable(loss):
        raise GraphError(f"loss= takes a function of prediction and target such as nn.mse, got {loss!r}", user_loc())
    if state is not None and state != "own" and not isinstance(state, State):
        raise GraphError(f'state= takes the state of another step, step.state, to share layers with it, or "own"; got {type(state).__name__}. '
                         "Values come from a file by step.load(path), from a mapping by step.state.load(arrays)", user_loc())
    if loss is not None and len(types) < 2:
        raise GraphError("with loss=, give the types of the network's inputs and, last, of the target: x=gc.f32[…], y=gc.i32[…]", user_loc())
    seed, threads = whole(seed, "seed", 0, MOST_I64, user_loc()), thread_count(threads, loc=user_loc())
    return TrainStep(Objective(as_module(f), loss), types, optimizer, trainable, seed, threads, state)


class TrainStep(Shown):
    """Call it with one batch: it returns the loss as a float, or a dict if the function reports more values.

    `state[name]` reads and writes parameters, running statistics, optimizer arrays ("optim.<array>.<parameter>"), "step" and
    "random.key". `model` can be compiled for inference. `graph` is the whole step.
    """

    def __init__(self, objective: Objective, types: Mapping[str, TensorType], optimizer, trainable, seed: int, threads: int,
                 state: State | str | None = None):
        self._objective, self._types, self._threads, self._seed, self.made = objective, dict(types), threads, seed, user_loc()
        self._function, trained = training_function(objective, types, optimizer, trainable)
        needed = entries(self._function)
        self.state, self.own = (state if isinstance(state, State) else State()), state == "own"
        self.state.join(needed, seed, self)
        self.version = self.state.lock.version
        names = {e.key: e.name for e in needed if isinstance(e.key, Parameter)}
        self.share = Share(names, trained, {c.path: c.kind for c in self._function.calls})
        self._static = not self.graph.dim_names
        self._forget()

    def _forget(self) -> None:
        """Without native code: as made, and as copied or pickled."""
        self._executables: OrderedDict[tuple, Runnable] = OrderedDict()
        self._evaluations: OrderedDict[tuple, Runnable] = OrderedDict()
        self._only_one: Runnable | None = None
        self._fixed: Runnable | None = None
        self._called = False

    def __getstate__(self) -> dict:
        made = ("_executables", "_evaluations", "_only_one", "_fixed", "_called")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, values: dict) -> None:
        vars(self).update(values)
        self._forget()
        self.own = True                     # a copy of a step is apart from it on purpose

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {type}" for name, type in self._types.items())
        return f"<training step {self.graph.name}({inputs}), {len(self.state)} arrays of state>"

    @property
    def function(self) -> tuple[Module, Callable | None]:
        """What is trained: the network and the loss, or the function that returns the loss."""
        return self._objective.root, self._objective.loss

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
        run = self._fixed or self._first(arrays)
        result = run(*arrays)
        return {name: _number(value) for name, value in result.items()} if isinstance(result, dict) else float(result)

    def evaluate(self, batches: Iterable, **metrics: Callable) -> dict[str, float | np.ndarray]:
        """The loss and `metrics` (name=function of prediction and target) over batches, in inference mode. Batches, tuples of arrays in the order of
        the inputs or dicts, may be of any length; nothing is changed.

        The loss, and metrics that are means over targets (nn.accuracy, nn.cross_entropy, nn.mse, nn.bce), are averaged, weighted by targets (another
        loss: by the length of the first array). Any other metric, such as recall, F1, AUC or R², is computed once, of the predictions and targets of
        all batches, joined along their first axis. General form: of what `f` reports, numbers are averaged, weighted by the length of the first
        array, which is wrong for what is no mean over examples; arrays are joined and returned.
        """
        check_apart(self)
        whole = {name: metric for name, metric in metrics.items() if metric not in MEANS}
        if whole and self._objective.loss is None:
            raise GraphError("metrics of a general training step are what its function returns: return loss, {name: value}", user_loc())
        wanted = {name: metric for name, metric in metrics.items() if name not in whole} | ({PREDICTION: prediction} if whole else {})
        totals, targets = MetricTotals(), []
        for batch in batches:
            arrays = self._batch(batch)
            for name, value in self._evaluated(arrays, wanted).items():
                totals.add(name, value, weight(self._objective.loss if name == "loss" else wanted.get(name), arrays))
            targets.append(arrays[-1])
        if not targets:
            raise GraphError("evaluate got no batch: if it is a generator, it may have been used up", user_loc())
        found = totals.results()
        if not whole:
            return found
        every = [found.pop(PREDICTION), joined("targets", targets)]
        values = self._made(metrics_graph(whole, *every), {})(*every)
        return found | {name: _number(value) for name, value in values.items()}

    def save(self, path: str | os.PathLike) -> None:
        """The whole state as safetensors; training resumes from it bit for bit."""
        save_arrays(path, self.state.copy())

    def load(self, path: str | os.PathLike, partial: bool = False) -> None:
        """Takes the state from a file that `save` wrote; `partial`: what the file has (weights from elsewhere, say), the rest stays.
        GraphError, and nothing changed, if it does not fit."""
        self.state.load(load_arrays(path), str(path), partial=partial)

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

    def _only(self) -> Runnable:
        """The executable, of the last sizes used if dimensions are named."""
        if self._static:
            return self._executable(())
        if not self._executables:
            raise GraphError(f"the sizes of {', '.join(sorted(self.graph.dim_names))} are not known before the first call", user_loc())
        return next(reversed(self._executables.values()))

    def _batch(self, batch) -> tuple[np.ndarray, ...]:
        if isinstance(batch, Mapping):
            return self._ordered((), batch)
        if not isinstance(batch, (tuple, list)):
            raise GraphError(f"evaluate takes batches, each a tuple of arrays: [({', '.join(self._types)})]; got {type(batch).__name__} as a batch",
                             user_loc())
        return self._ordered(tuple(batch), {})

    def _ordered(self, arrays: Sequence, named: Mapping) -> tuple[np.ndarray, ...]:
        names = list(self._types)
        given = dict(zip(names, arrays)) | dict(named)
        wrong = [n for n in given if n not in names] or [n for n in names if n not in given]
        if wrong or len(arrays) + len(named) != len(names):
            raise GraphError(f"the step takes {', '.join(names)}; got {len(arrays)} arrays"
                             + (f" and {', '.join(named)}" if named else ""), user_loc())
        return tuple(np.asarray(given[n]) for n in names)

    def _first(self, arrays: Sequence[np.ndarray]) -> Runnable:
        """The executable for these arrays. It is `_fixed` from now on if it is that for all, so that later calls do not come here."""
        if not self._called:
            started(self)
            self._called = True
        run = self._executable(arrays)
        if self._static:
            self._fixed = run
        return run

    def _executable(self, arrays: Sequence[np.ndarray]) -> Runnable:
        if self._static:
            self._only_one = self._only_one or self._made(self._function, {})
            return self._only_one
        sizes = self._sizes(arrays)
        key = tuple(sorted(sizes.items()))
        return recent(self._executables, key, lambda: self._made(self._function, sizes), KEPT_BINDINGS)

    def _made(self, function: GraphFunction, sizes: Mapping[str, int]) -> Runnable:
        arrays = [self.state.array(entry) for entry in entries(function)]
        return make_executable(bind_graph(function.graph, sizes), arrays, self.state.lock, self._threads)

    def _sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        return solve_dims([(n, t, TensorType(dtype_of(a), a.shape)) for (n, t), a in zip(self._types.items(), map(np.asarray, arrays))])

    def _evaluated(self, arrays: Sequence[np.ndarray], metrics: Mapping[str, Callable]) -> dict[str, np.ndarray]:
        types = {name: TensorType(dtype_of(a), a.shape) for name, a in zip(self._types, arrays)}
        _check_free_axes(self._types, types)
        key = (tuple(types.items()), tuple(metrics.items()))
        run = recent(self._evaluations, key, lambda: self._inference(types, metrics), KEPT_BINDINGS)
        return run(*arrays)

    @contained
    def _inference(self, types: Mapping[str, TensorType], metrics: Mapping[str, Callable]) -> Runnable:
        with Trace("evaluate_" + network_name(self._objective.root)) as trace, rooted(self._objective.root):
            loss, values = self._objective(inputs(trace, types), metrics)
            function = finish(trace, {"loss": loss, **values}, user_loc())
        fixed = replace(function.graph, updates=(None,) * len(function.graph.state))
        for entry in entries(function):
            if not self.state.holds(entry):
                self.state.add(entry, entry.initial(self._seed))
        return self._made(replace(function, graph=fixed), {})


formed_methods(TrainStep)


@contained
def training_function(objective: Objective, types: Mapping[str, TensorType], optimizer, trainable) -> tuple[GraphFunction, frozenset[Parameter]]:
    """The graph of one whole step, in training mode, and what it trains."""
    with Trace("train_" + network_name(objective.root), training=True) as trace, rooted(objective.root):
        chosen = Chosen.by(trainable)
        trace.trains = None if trainable is None else chosen.layer
        loss, values = objective(inputs(trace, types), {})
        if not isinstance(loss, Array) or loss.shape or not loss.dtype.is_float:
            raise GraphError(f"the loss must be a float scalar, got {loss.type if isinstance(loss, Array) else loss!r}; "
                             "reduce it with gc.mean or gc.sum", user_loc())
        trained = _descend(trace, loss, optimizer, chosen)
        return finish(trace, {"loss": loss, **values} if values else loss, user_loc()), trained


def _descend(trace: Trace, loss: Array, optimizer: optim.Optimizer, chosen: "Chosen") -> frozenset[Parameter]:
    """Appends the gradients and the update to the trace; what it updates."""
    known = chosen.among([(key, v) for key, v in trace.state_values.items() if isinstance(key, Parameter) and key.trainable])
    b, step_key = trace.builder, object()
    one = b.constant(1, loss.dtype)
    grads = backward(b, tuple(b.nodes), {trace.value(loss): one}, [v for _, v in known])
    moved = [(key, optim.Item(v.name, trace.state(key, v.name, v.type), Array(g, trace), _Slots(trace, step_key, key, v.name)))
             for (key, v), g in zip(known, grads) if g is not None]
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

    def read(self, slot: str) -> Array:
        return self.trace.state(Own(self.step, slot, self.parameter), f"optim.{slot}.{self.name}", self.parameter.type)

    def write(self, slot: str, value: Array) -> None:
        self.trace.update_state(Own(self.step, slot, self.parameter), value)


@dataclass(frozen=True)
class Chosen:
    """What `trainable=` chooses: all, or the parameters of some networks, or those whose name a predicate likes."""
    networks: tuple[Module, ...] | None = None
    predicate: Callable[[str], bool] | None = None

    @staticmethod
    def by(trainable) -> "Chosen":
        networks = trainable if isinstance(trainable, (list, tuple)) else (trainable,)
        if trainable is None:
            return Chosen()
        if all(isinstance(n, Module) for n in networks):
            return Chosen(networks=tuple(networks))
        if callable(trainable):
            return Chosen(predicate=trainable)
        raise GraphError(f"trainable= takes a network, a list of networks, or a function of a parameter's name, got {trainable!r}", user_loc())

    def among(self, known: Sequence[tuple[Parameter, Value]]) -> list[tuple[Parameter, Value]]:
        """Those of the parameters (with their inputs) that are trained."""
        if self.networks is None:
            return [(p, v) for p, v in known if self.predicate is None or self.predicate(v.name)]
        inside = {p for n in self.networks for p in n.parameters()}
        return [(p, v) for p, v in known if p in inside]

    def layer(self, layer: Module, names: Sequence[str]) -> bool:
        """Whether anything of the layer, which has parameters and statistics of these names, is trained."""
        if self.networks is None:
            return self.predicate is None or any(map(self.predicate, names))
        return any(layer is inner for n in self.networks for _, inner in n.named_modules())


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
