"""`@gc.graph` and the object it makes: a graph that can be called, inlined, printed and transformed."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import field
from typing import Any, overload

import numpy as np

from graphc.contained import contained
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import current_trace, tracing, user_frame, user_loc
from graphc.dsl.debug import Print
from graphc.dsl.form import formed, formed_methods
from graphc.dsl.inline import inline
from graphc.dsl.order import AxisOrders
from graphc.dsl.other_methods import OF_FUNCTIONS, Answering
from graphc.dsl.outputs import LayerCall
from graphc.dsl.signature import Argument, arguments, location, typed
from graphc.dsl.trace import Trace, Trains
from graphc.errors import GraphError, Loc
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType
from graphc.records import dataclass

_COMPILE: list[Callable] = []


def set_compiler(compile_graph: Callable) -> None:
    """Tells graphs how to run when they are called with numpy arrays: `compile_graph(function)` returns a callable."""
    _COMPILE[:] = [compile_graph]


@formed
@dataclass(eq=False)
class GraphFunction(Shown, Answering):
    """A traced function. `str(f)` is its graph as text; `f(...)` inlines it in a trace, and compiles and runs it on
    numpy arrays.

    `keys[i]` is the object that owns the state `graph.state[i]`; `constants` are the Python arguments fixed at tracing.
    `retrace(training, trains)`, if something in it depends on the mode or on what a step trains, gives the function
    traced for these; `follows`: the mode is that of the caller, nobody fixed it. `calls` are those of layers,
    `orders` what they know of sequences. `derived`: there are derivatives in it, so that it may choose by integers
    that no user wrote. `prints`: what `debug_print` shows. `remarks`: what `explain` says first.
    """
    answers = OF_FUNCTIONS
    graph: Graph
    keys: tuple[Hashable, ...] = ()
    loc: Loc | None = None
    constants: tuple[str, ...] = ()
    training: bool = False
    trains: Trains | None = None
    follows: bool = False
    retrace: "Callable[[bool, Trains | None], GraphFunction] | None" = None
    calls: tuple[LayerCall, ...] = ()
    orders: AxisOrders | None = None
    derived: bool = False
    prints: tuple[Print, ...] = ()
    remarks: str = ""
    _others: "dict[bool, GraphFunction]" = field(default_factory=dict)
    _compiled: Callable | None = None

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def __name__(self) -> str:
        return self.graph.name

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The array arguments: name to type."""
        return {v.name: v.type for v in self.graph.inputs}

    def __str__(self) -> str:
        return print_graph(self.graph)

    def __repr__(self) -> str:
        return f"<graph {self.graph.heading}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """On symbolic arrays (or anywhere inside a trace): inlined. On numpy arrays: compiled on first use, then run.
        """
        values = self._matched(args, kwargs)
        if tracing():
            return self._inlined(values)
        if not _COMPILE:
            raise GraphError(f"{self.name} was called with numpy arrays, but no compiler is loaded: import graphc")
        if self._compiled is None:
            self._compiled = _COMPILE[0](self)
        try:
            return self._compiled(*values)
        except GraphError as error:
            raise error.at(user_loc()) from None

    def in_mode(self, training: bool, trains: Trains | None = None) -> "GraphFunction":
        """The same function traced for training or for inference, and for a step that trains these layers; itself
        where that makes no difference."""
        training = training if self.follows else self.training
        if self.retrace is None or (training, trains) == (self.training, self.trains):
            return self
        if trains is not None:
            return self.retrace(training, trains)
        if training not in self._others:
            self._others[training] = self.retrace(training, None)
        return self._others[training]

    def pack(self, outputs: Sequence) -> Any:
        """`outputs` as the function returns them: one, a tuple or a dict."""
        names = self.graph.output_names
        if names is None:
            return outputs[0]
        return dict(zip(names, outputs)) if any(names) else tuple(outputs)

    def _matched(self, args: tuple, kwargs: Mapping) -> list:
        """Arguments in the order of the inputs; GraphError for what Python would call a TypeError."""
        names = [v.name for v in self.graph.inputs]
        call = f"{self.name}({', '.join(names)})"
        if len(args) > len(names):
            raise GraphError(f"{call} takes {len(names)} arrays, got {len(args)}", user_loc())
        given = dict(zip(names, args))
        for name, value in kwargs.items():
            if name in self.constants:
                raise GraphError(f"{name!r} of {self.name} is a Python constant, fixed when the function was traced: "
                                 "define the graph inside a function that takes it", user_loc())
            if name not in names:
                raise GraphError(f"{call} has no argument {name!r}", user_loc())
            if name in given:
                raise GraphError(f"{call} got {name!r} twice", user_loc())
            given[name] = value
        missing = [n for n in names if n not in given]
        if missing:
            raise GraphError(f"{call} needs {missing[0]!r}", user_loc())
        return [given[n] for n in names]

    def _inlined(self, values: Sequence) -> Any:
        trace = current_trace()
        wanted = self
        if self.retrace:
            wanted = self.in_mode(trace.training if self.follows else self.training, trace.trained)
        if wanted is not self:
            return wanted._inlined(values)
        trace.root.derived |= self.derived
        arrays = [as_array(x, v.type.dtype) for x, v in zip(values, self.graph.inputs)]
        return self.pack(inline(trace, self.graph, self.keys, arrays, self.calls, self.orders, self.prints))


formed_methods(GraphFunction)


@overload
def graph(f: Callable, *, training: bool | None = None) -> GraphFunction: ...


@overload
def graph(f: None = None, *, training: bool | None = None) -> Callable[[Callable], GraphFunction]: ...


@formed
def graph(f: Callable | None = None, *,
          training: bool | None = None) -> GraphFunction | Callable[[Callable], GraphFunction]:
    """Traces `f` now and returns its graph: `@gc.graph` or `@gc.graph(training=True)`.

    Each argument is annotated with an array type (`x: gc.f32[3, "B"]`, `gc.f32[()]` for a scalar) or has a default,
    which makes it a Python constant. `f` returns an array, a tuple of arrays or a flat dict of arrays. `training` is
    what dropout and batch normalisation inside see; left open, it is that of the graph or training step that calls
    this one, else inference.

    Examples:
        >>> @gc.graph
        ... def area(r: gc.f64["N"]):
        ...     return gc.sum(3.0 * r * r)
        >>> area(np.array([1.0, 2.0]))
        array(15.)
    """
    if f is None:
        return lambda f: graph(f, training=training)
    return trace_function(f, arguments(f, user_frame()), training=training)


def trace_types(f: Callable, types: Mapping[str, TensorType], name: str = "",
                training: bool | None = None) -> GraphFunction:
    """The graph of `f` for arguments of the given types (by name) instead of annotations."""
    return trace_function(f, typed(f, types), name, training)


@contained
def trace_function(f: Callable, args: Sequence[Argument], name: str = "", training: bool | None = None,
                   trains: Trains | None = None) -> GraphFunction:
    """Runs `f` on symbolic arrays and returns the graph of what it did; `training` None: inference, until a caller
    trains. `trains`: of the step that it is a part of.
    """
    name = name or getattr(f, "__name__", type(f).__name__).replace("<lambda>", "graph")
    with Trace(name, bool(training)) as trace:
        trace.function, trace.trains = f, trains
        given = {a.name: a.value if a.type is None else trace.input(a.name, a.type) for a in args}
        try:
            result = f(**given)
        except RecursionError:
            raise GraphError(f"tracing {name} did not end: a Python recursion over symbolic arrays is unrolled for "
                             "ever; use gc.while_loop",
                             location(f)) from None
        function = finish(trace, result, location(f), tuple(a.name for a in args if a.type is None))
    function.follows = training is None and trace.mode_matters
    if function.follows or trace.trains_matter:
        function.retrace = lambda training, trains: _open(trace_function(f, args, name, training, trains), function)
    return function


def _open(other: GraphFunction, function: GraphFunction) -> GraphFunction:
    """`other` is `function` in another mode, and the way back."""
    other.follows, other.retrace = function.follows, function.in_mode
    return other


def finish(trace: Trace, result: object, loc: Loc | None = None, constants: tuple[str, ...] = ()) -> GraphFunction:
    """The graph of a trace whose function returned `result`."""
    outputs, names = results(trace.builder.name, result, loc)
    graph = trace.builder.finish([trace.value(as_array(x)) for x in outputs], names)
    calls = tuple(call for call in trace.calls if call)
    return GraphFunction(graph, tuple(trace.state_values), loc, constants, trace.in_training, trace.trains, calls=calls,
                         orders=AxisOrders.of(trace),
                         derived=trace.derived, prints=tuple(trace.prints or ()))


def results(name: str, result: object, loc: Loc | None) -> tuple[list, tuple[str, ...] | None]:
    """The arrays that a traced function returned and their names: None for one, "" each in a tuple, the keys of a
    dict."""
    if isinstance(result, dict):
        outputs, names = list(result.values()), tuple(result)
        if not all(isinstance(k, str) and k for k in names):
            raise GraphError(f"{name} returns a dict: its keys must be names, got {list(names)}", loc)
    elif isinstance(result, (tuple, list)):
        outputs, names = list(result), ("",) * len(result)
    else:
        outputs, names = [result], None
    if not outputs:
        raise GraphError(f"{name} returns nothing", loc)
    for x in outputs:
        if not isinstance(x, (Array, np.ndarray, np.generic, int, float)):
            what = "nothing (is a return missing?)" if x is None else f"a {type(x).__name__}"
            raise GraphError(f"{name} returns {what}: a graph returns an array, a tuple of arrays, or a flat dict of "
                             "arrays", loc)
    return outputs, names
