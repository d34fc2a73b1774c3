"""`gc.compile` and `gc.plan`: from what the user wrote to native code, or to the memory plan without any."""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any

import numpy as np

from graphc.checkpoint import load_arrays
from graphc.compiled import CompiledGraph
from graphc.compiler import Compilation
from graphc.config import MOST_I64, thread_count
from graphc.contained import contained
from graphc.dsl.context import user_loc
from graphc.dsl.debug import PrintingGraph, with_printed
from graphc.dsl.form import formed
from graphc.dsl.function import GraphFunction
from graphc.dsl.outputs import with_outputs
from graphc.errors import GraphError, Unsized
from graphc.execute import sized_executable
from graphc.given import integer
from graphc.ir.builder import bind_graph
from graphc.ir.convert import is_integer, is_sequence, items, shown
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph
from graphc.ir.open import Bounds, open_graph
from graphc.ir.shown import Shown
from graphc.ir.types import DType, TensorType
from graphc.memory.budget import Budget
from graphc.nn.entry import RANDOM_KEY, Entry
from graphc.nn.module import Module, as_module
from graphc.nn.network import entries, sorted_out, trace_network
from graphc.optim import Optimizer
from graphc.origin import Origin
from graphc.records import dataclass
from graphc.report import PlanReport
from graphc.sized import SizedGraph, for_all_sizes
from graphc.specialised import SpecialisedGraph
from graphc.state import Model, State, initial_values
from graphc.training_graph import Objective, Recipe
from graphc.product_types import compute_kind, computing
from graphc.quantisation_report import Quantisation
from graphc.quantized_products import Calibration
from graphc.stored_weights import storing
from graphc.weight_storage import Store, StoreOption, store_choice


@formed
def compile(f: GraphFunction | Module | Model | Graph | Callable[..., Any], /, *, threads: int | str = 0,
            training: bool = False, seed: int | None = None,
            state: str | os.PathLike[str] | Mapping[str, np.ndarray] | None = None,
            outputs: Sequence[str] | None = None, store: StoreOption = None,
            compute: str | DType | Calibration | None = None, memory: str | int | None = None,
            **bindings: TensorType | int | tuple[int, int]) -> CompiledGraph | SpecialisedGraph | PrintingGraph:
    """Native code for `f`, called with numpy arrays: `run(x, y)`, `run(x=…)`, `run(x, out=array)`.

    `f`: a graph, with sizes for its named dimensions (`B=64`; or bounds, `B=(1, 64)`; those left out are taken from
    each call's arrays, and one program serves all sizes); or a network, with the types of its inputs
    (`x=gc.f32[1, 784]`) and its parameters: `state=` a safetensors file, a mapping from names to arrays, or a training
    step's state; `seed=` for fresh ones; `step.model` brings its own. Calls follow what a step's state becomes. All
    others are taken as they are now, and what calls do not read is not kept. An input may be called like an option
    (`state=gc.f32[1, 64]`); then that option cannot be given. `training`: trace a network in training mode. `threads`:
    exactly so many take part in a call; 0 or "all": as many as the process may use.

    `outputs`: names of intermediate values to return too: what `gc.name` named, and results of layers by path ("2",
    "features.3"). A call then returns a flat dict: the function's own results first ("result"; "result0", "result1", …
    of a tuple; a dict's own keys), then these. A name that several values have, as of a layer called twice, is counted:
    "encoder#1", "encoder#2". Gradients have the names of the graph that they are of: `gc.compile(gc.grad(f, "x"),
    outputs=["features.3"])`.

    `store`: "bf16", "f16", "int8", "int4" or gc.IntegerBlocks: the f32 parameters with two axes (weights of linear and
    recurrent layers, attention, tables of embeddings) are rounded, kept so and read so, while the network computes in
    f32: to this type, or to integers from -127 to 127 times a scale for each row ("int4": from -7 to 7, for each block
    of 32). Where memory must deliver the weights anew in each call, that is two to four times as fast. The state itself
    stays as it is. By name, `store={"head": "bf16", "layers.*": "int8"}`: the first pattern (as of fnmatch, of
    parameters or layers) that matches a weight says how it is kept; others stay f32 (docs/numerics.md).

    `compute`: "bf16": the factors of f32 products (matmul, einsum, attention, convolutions) are rounded to bf16, their
    sums stay f32; all else is f32. CPUs that multiply bf16 in pairs (AVX512-BF16) take half the time; on others it
    saves memory traffic of matrices at most, and the rest stays f32 (docs/numerics.md). `quantisation()` of the result
    says what stays f32, and why.

    `memory`: bytes that a call may take in all (`run.memory.total`), or a text such as "300 MB", as of gc.train_step;
    of named dimensions it needs bounds (`B=(1, 64)`), and holds for the largest sizes.

    Raises GraphError for what does not fit, with the user's line.

    Examples:
        >>> net = nn.Linear(16) >> nn.relu >> nn.Linear(3)
        >>> run = gc.compile(net, x=gc.f32["B", 8], seed=0)
        >>> run(np.zeros((5, 8), np.float32)).shape
        (5, 3)
    """
    given = {"threads": threads, "training": training, "seed": seed, "state": state, "outputs": outputs,
             "store": store_choice(store), "compute": compute_kind(compute), "memory": memory}
    options, inputs = sorted_out(f, compile, given, bindings)
    return _compiled(f, {**options, "threads": thread_count(options["threads"], loc=user_loc())}, inputs)


@contained
def _compiled(f: object, options: Mapping[str, Any],
              bindings: Mapping[str, Any]) -> CompiledGraph | SpecialisedGraph | PrintingGraph:
    """What `compile` gives."""
    threads, training, seed, state, outputs, store, compute, memory = options.values()
    budget = budget_of(memory)
    source = _declared(f, training, outputs, bindings)
    function, printer = with_printed(source.function)
    made = _made(replace(source, function=function), threads, seed, state, store, compute, budget)
    return made if printer is None else PrintingGraph(made, printer)


def _made(source: TracedFunction, threads: int, seed: int | None,
          state: str | os.PathLike[str] | Mapping[str, np.ndarray] | State | None, store: Store | None,
          compute: str | Calibration | None, budget: Budget | None) -> CompiledGraph | SpecialisedGraph:
    """The native code of a traced function, with its parameters."""
    declared, stored = storing(source.function, store, compute is not None)
    function, rewriter = computing(declared, compute)
    source = replace(source, function=function)
    graph, needed = source.graph, entries(function)
    given = state if source.state is None else source.state

    def quantisation(arrays: Callable[[], Sequence[np.ndarray]]) -> Quantisation | None:
        return Quantisation(declared.graph, rewriter, stored, arrays) if rewriter or stored else None
    if not graph.dim_names and not graph.writes and not isinstance(given, State):
        values = partial(initial_values, needed, *_origin(function.name, needed, seed, given))
        arrays = values()
        if stored:
            stored.check(arrays)
        run = CompiledGraph(graph, threads, arrays, budget=budget)
        run.origin = Origin(graph, budget=budget, quantisation=quantisation(values))
        return run
    owner = state_for(function.name, needed, seed, given)
    named = _by_name(owner, needed)
    if stored and owner:
        stored.check(owner.arrays(named))
    native = partial(_native, owner, named, threads, budget)
    made = native(graph) if not graph.dim_names else SpecialisedGraph(
        graph, native, "; give them to gc.compile to see more", partial(_sized_native, owner, named, threads, budget),
        source.bounds)
    made.origin = Origin(graph, named, source.bounds, owner, budget,
                         quantisation(lambda: owner.arrays(named) if owner else ()))
    return made


def _by_name(owner: State | None, needed: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries by the names that they have in the state, so that a pickle needs no layer."""
    return tuple(replace(e, name=owner.name(e.key) or e.name, key=None) for e in needed) if owner else ()


def _native(owner: State | None, needed: Sequence[Entry], threads: int, budget: Budget | None,
            bound: Graph) -> CompiledGraph:
    """Native code of a graph without named dimensions, on the live arrays of a state."""
    arrays, lock = (owner.arrays(needed), owner.lock) if owner else ((), None)
    return CompiledGraph(bound, threads, arrays, lock, budget=budget)


def _sized_native(owner: State | None, needed: Sequence[Entry], threads: int, budget: Budget | None, graph: Graph,
                  bounds: Mapping[str, Bounds]) -> SizedGraph:
    """One program for all sizes of the named dimensions, on the live arrays of a state."""
    arrays, lock = (owner.arrays(needed), owner.lock) if owner else ((), None)
    return sized_executable(graph, bounds, threads, arrays, lock, budget=budget)


@formed
def plan(f: GraphFunction | Module | Graph | Callable[..., Any], /, *, training: bool = False,
         outputs: Sequence[str] | None = None, optimizer: Optimizer | None = None,
         loss: Callable[..., Any] | None = None, trainable: object = None, store: StoreOption = None,
         compute: str | DType | Calibration | None = None, memory: str | int | None = None,
         **bindings: TensorType | int | tuple[int, int]) -> PlanReport:
    """Everything up to the memory plan: no weight is allocated and no code is made. Of named dimensions that stay free
    it is the plan of the one program for all their sizes: arithmetic and memory are formulas in the names, `at(B=8)`
    gives the numbers, and bounds such as `B=(1, 64)` the most.

    With `optimizer`, and `loss` and `trainable` as for gc.train_step, it is that of a whole training step. `store`,
    `compute`, `memory`: as of gc.compile. Printed, the report is a table of layers (kind, shape of the result,
    parameters, flops), the totals, and memory by purpose.
    """
    given = {"training": training, "outputs": outputs, "optimizer": optimizer, "loss": loss, "trainable": trainable,
             "store": store_choice(store), "compute": compute_kind(compute), "memory": memory}
    return _planned(f, *sorted_out(f, plan, given, bindings))


def _planned(f: object, options: Mapping[str, Any], bindings: Mapping[str, Any]) -> PlanReport:
    """What `plan` gives."""
    training, outputs, optimizer, loss, trainable, store, compute, memory = options.values()
    budget = budget_of(memory)
    if optimizer is not None and (training or outputs is not None or store is not None):
        raise GraphError("with optimizer= the plan is that of a training step, which returns its loss: leave out "
                         "training= and outputs=, and store=", user_loc())
    if optimizer is not None:
        source = _step(f, optimizer, loss, trainable, bindings)
    elif loss is not None or trainable is not None:
        raise GraphError("loss= and trainable= are those of a training step: give optimizer= too", user_loc())
    else:
        source = _declared(f, training, outputs, bindings)
    stored, _ = storing(source.function, store, compute is not None)
    graph = bind_graph(computing(stored, compute)[0].graph, source.sizes)
    if graph.dim_names:
        return _sized_plan(source, graph, budget)
    return PlanReport.of(source.function, source.sizes, Compilation(graph, budget=budget))


def _sized_plan(source: TracedFunction, graph: Graph, budget: Budget | None) -> PlanReport:
    """Of the one program for all sizes of the names that are free."""
    names = sorted(graph.dim_names)
    ends = {name: source.bounds[name].high for name in names if name in source.bounds}
    largest = {name: end for name, end in ends.items() if end is not None}
    try:
        opened, _ = open_graph(graph, source.bounds)
        budget = budget and budget.for_sizes(graph.name, names, ends)
        return for_all_sizes(lambda: PlanReport.of(source.function, source.sizes, Compilation(opened, budget=budget),
                                                   largest if len(largest) == len(names) else {}))
    except Unsized as reason:
        raise GraphError(f"there is no one program for all sizes of {', '.join(names)} ({reason.text}): give them to "
                         f"plan, for example {names[0]}=64", user_loc()) from reason


@dataclass(frozen=True)
class TracedFunction:
    """What was given to compile, as a traced function: with the sizes of named dimensions (or other names for them),
    and the state that it brings."""
    function: GraphFunction
    sizes: Mapping[str, Dim] = field(default_factory=dict)
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    state: State | None = None

    @property
    def graph(self) -> Graph:
        """For the sizes that are given."""
        return bind_graph(self.function.graph, self.sizes)


def traced(f: object, training: bool, bindings: Mapping[str, Any]) -> TracedFunction:
    """A graph, a network, a function of arrays or a step's model as a traced function. GraphError for anything else."""
    if isinstance(f, Graph | GraphFunction):
        function = (GraphFunction(f) if isinstance(f, Graph) else f).in_mode(training)
        return TracedFunction(function, _sizes(function, bindings), _bounds(function, bindings))
    net, state = (f.net, f.state) if isinstance(f, Model) else (f, None)
    if isinstance(f, Shown):
        raise GraphError(f"{f!r} is compiled already; of a training step give step.model", user_loc())
    if not callable(net):
        raise GraphError(f"compile takes a graph, a network or step.model, got {type(f).__name__}", user_loc())
    types, sizes = _parted(bindings)
    function = trace_network(net, training, **types)
    return TracedFunction(function, _sizes(function, sizes), _bounds(function, sizes), state)


def _declared(f: object, training: bool, outputs: Sequence[str] | None,
              bindings: Mapping[str, Any]) -> TracedFunction:
    """The same with these outputs besides its own."""
    source = traced(f, training, bindings)
    try:
        return source if outputs is None else replace(source, function=with_outputs(source.function, outputs))
    except GraphError as error:
        raise error.at(user_loc()) from None


def _step(f: Any, optimizer: Optimizer, loss: Callable[..., Any] | None, trainable: object,
          bindings: Mapping[str, Any]) -> TracedFunction:
    """The whole training step of `f`."""
    types, sizes = _parted(bindings)
    function, _ = Recipe(Objective(as_module(f), loss), types, optimizer, trainable).function()
    return TracedFunction(function, _sizes(function, sizes), _bounds(function, sizes))


def _parted(bindings: Mapping[str, Any]) -> tuple[dict[str, TensorType], dict[str, Any]]:
    """The types of inputs, and the sizes of named dimensions, or bounds of these."""
    sizes = {name: value for name, value in bindings.items() if is_integer(value) or is_sequence(value)}
    return {name: value for name, value in bindings.items() if name not in sizes}, sizes


def _sizes(function: GraphFunction, bindings: Mapping[str, Any]) -> dict[str, Dim]:
    return {name: as_dim(value) for name, value in bindings.items()
            if not is_sequence(value) and _named(function.graph, name)}


def _bounds(function: GraphFunction, bindings: Mapping[str, Any]) -> dict[str, Bounds]:
    return {name: _bound(name, value) for name, value in bindings.items()
            if is_sequence(value) and _named(function.graph, name)}


def _named(graph: Graph, name: str) -> bool:
    if name not in graph.dim_names:
        known = ", ".join(sorted(graph.dim_names)) or "none"
        raise GraphError(f"{graph.name} has no named dimension {name!r}; its names: {known}", user_loc())
    return True


def _bound(name: str, value: object) -> Bounds:
    """What the user says of a size that comes with each call."""
    ends = [end for end in map(as_dim, items(value, f"{name}: bounds")) if isinstance(end, int)]
    if len(ends) != 2 or len(items(value, name)) != 2 or ends[0] > ends[1]:
        raise GraphError(f"{name}= takes a size, or the least and the greatest size such as {name}=(1, 64), got "
                         f"{shown(value)}", user_loc())
    low, high = ends
    return Bounds(low, high)


def state_for(name: str, needed: Sequence[Entry], seed: int | None, state: object) -> State | None:
    """The arrays for what the graph `name` needs: a state, or from a file, a mapping or a seed; None if that is
    nothing."""
    if not needed:
        return None
    if isinstance(state, State):
        return state
    return State.create(needed, *_origin(name, needed, seed, state), mapped=isinstance(state, str | os.PathLike))


def _origin(name: str, needed: Sequence[Entry], seed: int | None,
            state: object) -> tuple[int | None, Mapping[str, np.ndarray] | None, str]:
    """A seed, or arrays and where they came from."""
    if seed is not None:
        seed = integer(seed, "seed", 0, MOST_I64, user_loc())
    if state is None:
        if seed is None and not all(e.is_given for e in needed):
            raise GraphError(f"{name} draws random numbers: give seed=0" if [e.name for e in needed] == [RANDOM_KEY]
                             else f"{name} has {len(needed)} parameters: give state=\"file.safetensors\" or seed=0",
                             user_loc())
        return seed or 0, None, "seed"
    if isinstance(state, Mapping):
        return None, state, "state"
    if not isinstance(state, str | os.PathLike):
        raise GraphError(f"state= takes a safetensors file, a mapping from names to arrays, or a training step's "
                         f"state, got {type(state).__name__}", user_loc())
    return None, load_arrays(state), str(state)


def budget_of(memory: object) -> Budget | None:
    """What memory= says, at the user's line."""
    try:
        return Budget.of(memory)
    except GraphError as error:
        raise error.at(user_loc()) from None
