"""`gc.compile` and `gc.plan`: from what the user wrote to native code, or to the memory plan without any."""
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.checkpoint import load_arrays
from graphc.compiler import Compilation, Compiled, compiled
from graphc.config import MOST_I64, thread_count, whole
from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.function import GraphFunction
from graphc.dsl.inline import solve_dims
from graphc.dsl.outputs import with_outputs
from graphc.errors import GraphError
from graphc.ir.builder import bind_graph
from graphc.ir.convert import is_integer
from graphc.ir.graph import Graph
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType, as_dim, dtype_of
from graphc.memory.usage import Memory
from graphc.nn.entry import Entry
from graphc.nn.module import Module, as_module
from graphc.nn.network import entries, sorted_out, trace_network
from graphc.once import recent
from graphc.optim import Optimizer
from graphc.report import PlanReport
from graphc.state import State, initial_values
from graphc.train import Model, Objective, training_function

KEPT_BINDINGS = 16                  # of named dimensions to sizes


@formed
def compile(f: GraphFunction | Module | Model | Graph | Callable, /, *, threads: int | str = 0, training: bool = False, seed: int | None = None,
            state: str | os.PathLike | Mapping[str, np.ndarray] | None = None, outputs: Sequence[str] | None = None, **bindings: TensorType | int):
    """Native code for `f`, called with numpy arrays: `run(x, y)`, `run(x=…)`, `run(x, out=array)`.

    `f`: a graph, with sizes for its named dimensions (`B=64`; those left out are taken from each call's arrays, and every
    combination is compiled once); or a network, with the types of its inputs (`x=gc.f32[1, 784]`) and its parameters: `state=`
    a safetensors file, a mapping from names to arrays, or a training step's state; `seed=` for fresh ones; `step.model` brings its own.
    Calls follow what a step's state becomes. All others are taken as they are now, and what calls do not read is not kept.
    An input may be called like an option (`state=gc.f32[1, 64]`); then that option cannot be given.
    `training`: trace a network in training mode. `threads`: exactly so many take part in a call; 0 or "all": as many as the process may use.

    `outputs`: names of intermediate values to return too: what `gc.name` named, and results of layers by path ("2", "features.3"). A call
    then returns a flat dict: the function's own results first ("result"; "result0", "result1", … of a tuple; a dict's own keys), then
    these. A name that several values have, as of a layer called twice, is counted: "encoder#1", "encoder#2". Gradients have the names of
    the graph that they are of: `gc.compile(gc.grad(f, "x"), outputs=["features.3"])`.

    Raises GraphError for what does not fit, with the user's line.
    """
    options, bindings = sorted_out(f, compile, {"threads": threads, "training": training, "seed": seed, "state": state, "outputs": outputs}, bindings)
    threads, training, seed, state, outputs = options.values()
    return _bound(f, thread_count(threads, loc=user_loc()), training, seed, state, outputs, bindings)


@contained
def _bound(f, threads: int, training: bool, seed, state, outputs, bindings: Mapping) -> "Compiled | Polymorphic":
    """What `compile` gives."""
    function, sizes = _declared(f, training, outputs, bindings)
    graph = bind_graph(function.graph, sizes)
    needed, given = entries(function), f.state if isinstance(f, Model) else state
    if not graph.dim_names and not graph.writes and not isinstance(given, State):
        return compiled(graph, threads, initial_values(needed, *_source(function.name, needed, seed, given)))
    owner = state_for(function.name, needed, seed, given)
    return Polymorphic(graph, function, owner, threads) if graph.dim_names else _compiled(graph, function, owner, threads)


@formed
def plan(f: GraphFunction | Module | Graph | Callable, /, *, training: bool = False, outputs: Sequence[str] | None = None,
         optimizer: Optimizer | None = None, loss: Callable | None = None, trainable=None, **bindings: TensorType | int) -> PlanReport:
    """Everything up to the memory plan: no weight is allocated and no code is made. All dimensions must be bound.

    With `optimizer`, and `loss` and `trainable` as for gc.train_step, it is that of a whole training step.
    Printed, the report is a table of layers (kind, shape of the result, parameters, flops), the totals, and memory by purpose.
    """
    options = {"training": training, "outputs": outputs, "optimizer": optimizer, "loss": loss, "trainable": trainable}
    options, bindings = sorted_out(f, plan, options, bindings)
    training, outputs, optimizer, loss, trainable = options.values()
    if optimizer is not None and (training or outputs is not None):
        raise GraphError("with optimizer= the plan is that of a training step, which returns its loss: leave out training= and outputs=", user_loc())
    if optimizer is not None:
        function, sizes = _step(f, optimizer, loss, trainable, bindings)
    elif loss is not None or trainable is not None:
        raise GraphError("loss= and trainable= are those of a training step: give optimizer= too", user_loc())
    else:
        function, sizes = _declared(f, training, outputs, bindings)
    graph = bind_graph(function.graph, sizes)
    if graph.dim_names:
        raise GraphError(f"plan needs the sizes of {', '.join(sorted(graph.dim_names))}, for example {min(graph.dim_names)}=64", user_loc())
    return PlanReport.of(function, sizes, Compilation(graph))


class Polymorphic(Shown):
    """A graph with named dimensions: compiled for the sizes that come, once for each; the last `KEPT_BINDINGS` are kept."""

    def __init__(self, graph: Graph, function: GraphFunction, owner: State | None, threads: int):
        self.graph, self._function, self._owner, self._threads = graph, function, owner, threads
        self._kept: OrderedDict[tuple, Compiled] = OrderedDict()

    def __repr__(self) -> str:
        return f"<compiled {self.graph.heading}, for each size of {', '.join(sorted(self.graph.dim_names))}>"

    def __call__(self, *args, **named):
        arrays = dict(zip((v.name for v in self.graph.inputs), args)) | {k: v for k, v in named.items() if k != "out"}
        return self.bound(**self._sizes(arrays))(*args, **named)

    def bound(self, **sizes: int) -> Compiled:
        """The native code for these sizes of the named dimensions."""
        key = tuple(sorted(sizes.items()))
        return recent(self._kept, key, lambda: _compiled(bind_graph(self.graph, sizes), self._function, self._owner, self._threads), KEPT_BINDINGS)

    @property
    def memory(self) -> Memory:
        return self._last().memory

    def dump(self, stage: str = "graph") -> str:
        """The text of a stage; those after "graph" are of the sizes used last."""
        return Compilation(self.graph).text("graph") if stage == "graph" else self._last().dump(stage)

    def explain(self) -> str:
        return self._last().explain()

    def profile(self, *arrays, runs: int = 5):
        """As of the compiled function for the sizes of these arrays."""
        return self.bound(**self._sizes(dict(zip((v.name for v in self.graph.inputs), arrays)))).profile(*arrays, runs=runs)

    def _last(self) -> Compiled:
        if not self._kept:
            raise GraphError(f"the sizes of {', '.join(sorted(self.graph.dim_names))} are not known before the first call; "
                             "give them to gc.compile to see more", user_loc())
        return next(reversed(self._kept.values()))

    def _sizes(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        missing = [v.name for v in self.graph.inputs if v.name not in arrays]
        if missing:
            raise GraphError(f"{self.graph.name} needs {missing[0]!r}", user_loc())
        try:
            given = {name: np.asarray(a) for name, a in arrays.items()}
            return solve_dims([(v.name, v.type, TensorType(dtype_of(given[v.name]), given[v.name].shape)) for v in self.graph.inputs])
        except GraphError as error:
            raise error.at(user_loc()) from None


formed_methods(Polymorphic)


def _declared(f, training: bool, outputs, bindings: Mapping) -> tuple[GraphFunction, dict[str, int]]:
    """The graph of `f` with these outputs besides its own, and the sizes of named dimensions."""
    function, sizes = traced(f, training, bindings)
    try:
        return function if outputs is None else with_outputs(function, outputs), sizes
    except GraphError as error:
        raise error.at(user_loc()) from None


def traced(f, training: bool, bindings: Mapping[str, TensorType | int]) -> tuple[GraphFunction, dict[str, int]]:
    """What `compile` takes as a traced function, and the sizes of named dimensions."""
    if isinstance(f, Graph):
        f = GraphFunction(f)
    if isinstance(f, GraphFunction):
        f = f.in_mode(training)
        return f, {name: _size(f.graph, name, value) for name, value in bindings.items()}
    if isinstance(f, Model):
        return trace_network(f.net, training, **bindings), {}
    if not callable(f):
        raise GraphError(f"compile takes a graph, a network or step.model, got {type(f).__name__}", user_loc())
    function = trace_network(f, training, **{n: t for n, t in bindings.items() if not is_integer(t)})
    return function, {n: _size(function.graph, n, t) for n, t in bindings.items() if is_integer(t)}


def _step(f: Callable, optimizer: Optimizer, loss: Callable | None, trainable, bindings: Mapping) -> tuple[GraphFunction, dict[str, int]]:
    """The whole training step of `f`, and the sizes of named dimensions."""
    types = {n: t for n, t in bindings.items() if not is_integer(t)}
    function, _ = training_function(Objective(as_module(f), loss), types, optimizer, trainable)
    return function, {n: _size(function.graph, n, t) for n, t in bindings.items() if is_integer(t)}


def _size(graph: Graph, name: str, value) -> int:
    if name not in graph.dim_names:
        known = ", ".join(sorted(graph.dim_names)) or "none"
        raise GraphError(f"{graph.name} has no named dimension {name!r}; its names: {known}", user_loc())
    return as_dim(value)


def state_for(name: str, needed: Sequence[Entry], seed: int | None, state) -> State | None:
    """The arrays for what the graph `name` needs: a state, or from a file, a mapping or a seed; None if that is nothing."""
    if not needed:
        return None
    return state if isinstance(state, State) else State.create(needed, *_source(name, needed, seed, state))


def _source(name: str, needed: Sequence[Entry], seed: int | None, state) -> tuple[int | None, Mapping[str, np.ndarray] | None, str]:
    """A seed, or arrays and where they came from."""
    if seed is not None:
        seed = whole(seed, "seed", 0, MOST_I64, user_loc())
    if state is None:
        if needed and seed is None:
            raise GraphError(f"{name} has {len(needed)} parameters: give state=\"file.safetensors\" or seed=0", user_loc())
        return seed, None, "seed"
    if isinstance(state, Mapping):
        return None, state, "state"
    if not isinstance(state, str | os.PathLike):
        raise GraphError(f"state= takes a safetensors file, a mapping from names to arrays, or a training step's state, got {type(state).__name__}", user_loc())
    return None, load_arrays(state), str(state)


def _compiled(graph: Graph, function: GraphFunction, owner: State | None, threads: int) -> Compiled:
    arrays = [owner.array(entry) for entry in entries(function)] if owner else []
    return compiled(graph, threads, arrays, owner.lock if owner else None)
