"""What a user gives to export, as functions with the arrays of their state."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.api import TracedFunction, state_for, traced
from graphc.compiled import CompiledGraph
from graphc.doors.library.programs import LibraryFunction
from graphc.doors.library.state_image import StateArray
from graphc.dsl.context import user_loc
from graphc.dsl.debug import PrintingGraph
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import bind_graph
from graphc.ir.graph import Graph
from graphc.nn.entry import Entry
from graphc.nn.network import entries
from graphc.origin import Origin
from graphc.records import dataclass
from graphc.specialised import SpecialisedGraph
from graphc.state import Model, Setting, State
from graphc.train import TrainStep

STEP, RUN = "step", "run"           # what a function is called that the user did not name


@dataclass(frozen=True, eq=False)
class Source:
    """A function without the numbers of its state's arrays, and these arrays."""
    function: LibraryFunction
    arrays: tuple[StateArray, ...]


class Values:
    """Copies of the arrays of states, each taken at one moment; one array has one copy."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[State, dict[str, np.ndarray], set[str]]] = {}
        self._live: dict[int, StateArray] = {}

    def of(self, state: State, needed: Sequence[Entry]) -> tuple[StateArray, ...]:
        """The arrays of these entries."""
        if id(state) not in self._kept:
            self._kept[id(state)] = state, state.copy(), set(state.names_of(Setting))
        _, copies, settings = self._kept[id(state)]
        found = []
        for entry in needed:
            name, live = state.name(entry.key) or entry.name, state.array(entry)
            found.append(self._live.setdefault(
                live.ctypes.data if live.nbytes else id(live), StateArray(name, copies[name], name in settings)))
        return tuple(found)


def sources(what: object, options: Mapping[str, Any], bindings: Mapping[str, Any]) -> list[Source]:
    """The functions of a library: `what` is one, or a mapping from names to some. `options`, `bindings`: of gc.compile,
    where `what` is a graph or a network."""
    values = Values()
    if not isinstance(what, Mapping):
        return [_source(STEP if isinstance(what, TrainStep) else RUN, what, options, bindings, values)]
    if bindings or any(v is not None for v in options.values()) or not what:
        raise GraphError("of several functions each is given as it is called: a training step, or what gc.compile "
                         "made, such as {\"step\": step, \"predict\": gc.compile(step.model, x=gc.f32[1, 784])}",
                         user_loc())
    return [_source(name, each, options, bindings, values) for name, each in what.items()]


def _source(name: str, what: object, options: Mapping[str, Any], bindings: Mapping[str, Any],
            values: Values) -> Source:
    if isinstance(what, (TrainStep, CompiledGraph, SpecialisedGraph)):
        if bindings or any(v is not None for v in options.values()):
            raise GraphError("types, seed= and state= belong to a network or a graph; this one is compiled already",
                             user_loc())
        if isinstance(what, TrainStep):
            function = what.as_one("a library")
            origin = Origin(function.graph, entries(function), state=what.state, budget=what.recipe.memory)
            return _of(name, origin, values, ("loss",))
        if what.origin is None:
            raise GraphError(f"{name}: export takes what gc.compile made, not a copy of it", user_loc())
        if what.origin.state is None and isinstance(what, CompiledGraph) and what.graph.state:
            return _settled(name, what)
        return _of(name, what.origin, values)
    if isinstance(what, PrintingGraph):
        raise GraphError(f"{name}: a library prints nothing; export the network or the graph itself, whose "
                         "gc.debug_print is left out then", user_loc())
    if not isinstance(what, (Graph, GraphFunction, Model)) and not callable(what):
        raise GraphError(f"{name}: export takes a graph, a network, step.model, a training step or what gc.compile "
                         f"made, got {type(what).__name__}", user_loc())
    source = traced(what, bool(options["training"]), bindings)
    return _of(name, _origin(source, options), values)


def _origin(source: TracedFunction, options: Mapping[str, Any]) -> Origin:
    """Of a graph or a network."""
    bound = replace(source.function, graph=bind_graph(source.function.graph, source.sizes))
    given = options["state"] if source.state is None else source.state
    needed = entries(bound)
    return Origin(bound.graph, needed, source.bounds, state_for(bound.name, needed, options["seed"], given))


def _of(name: str, origin: Origin, values: Values, results: tuple[str, ...] = ()) -> Source:
    arrays = values.of(origin.state, origin.entries) if origin.state is not None else ()
    return Source(LibraryFunction(name, origin.graph, origin.bounds, results=results, budget=origin.budget),
                  arrays)


def _settled(name: str, run: CompiledGraph) -> Source:
    """Of a compiled function that has its arrays alone, and may have let some go."""
    if run.executable.program.idle:
        raise GraphError(f"{name} keeps its parameters only in the form that this machine reads: export the network "
                         "itself, gc.export(net, folder, x=…, state=…), or what was compiled from step.model",
                         user_loc())
    arrays = [StateArray(v.name, a.reshape(v.type.shape))
              for v, a in zip(run.graph.state, run.executable.state.arrays)]
    return Source(LibraryFunction(name, run.graph, budget=run.compilation.budget), tuple(arrays))

