"""From a network (a layer, or a function that uses layers) to the graph that it is for given inputs."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from graphc.contained import contained
from graphc.dsl.arguments import converted_options
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction, finish
from graphc.dsl.signature import typed
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.types import DType, TensorType
from graphc.nn.entry import Entry
from graphc.nn.module import Function, Module, argument_names, as_module
from graphc.nn.path import rooted


@contained
def trace_network(net: Callable[..., Any], training: bool = False, /, **types: TensorType) -> GraphFunction:
    """The graph of `net` on inputs of these types; its state inputs are the parameters, named by path. See `entries`.
    """
    root = as_module(net)
    with Trace(network_name(net), training) as trace, rooted(root):
        arrays = {} if not types and root.stands_alone else inputs(trace, types)
        return finish(trace, call(root, arrays), user_loc())


def entries(function: GraphFunction) -> tuple[Entry, ...]:
    """What each state input of the graph is, in order. GraphError for a bare graph with state, of which nothing is
    known but names and types."""
    if len(function.keys) != len(function.graph.state):
        names = ", ".join(v.name for v in function.graph.state)
        raise GraphError(f"a bare graph does not say how its state ({names}) begins and what of it is trained: give "
                         "the network or function that it is the graph of", user_loc())
    return tuple(Entry(v.name, v.type, key) for v, key in zip(function.graph.state, function.keys, strict=True))


def inputs(trace: Trace, types: Mapping[str, TensorType]) -> dict[str, Any]:
    """Array arguments of these names and types."""
    for name, type in types.items():
        if isinstance(type, DType):
            raise GraphError(f"{name}={type} is an element type; write gc.{type}[()] for a scalar, gc.{type}[2, "
                             "3] for an array", user_loc())
        if not isinstance(type, TensorType):
            raise GraphError(f"{name}= takes an array type such as gc.f32[64, 3], got {type!r}", user_loc())
    if not types:
        raise GraphError("give the type of each input, for example x=gc.f32[64, 784]", user_loc())
    return {name: trace.input(name, type) for name, type in types.items()}


def sorted_out(f: object, function: Callable[..., Any], options: Mapping[str, Any],
               inputs: Mapping[str, Any],
               kinds: tuple[type, ...] = (TensorType, DType)) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """(options, inputs) of a call of `function`, an entry such as gc.compile, for `f`: an option whose value is an
    array type, or another of the kinds that only inputs have, is an input of that name. Then inputs stand in the
    order of f's arguments, those that it does not name last; inputs that the network declares itself stand first.
    Options become what the function's annotations say."""
    function = inspect.unwrap(function)
    given = {name: value for name, value in options.items() if isinstance(value, kinds)}
    defaults = function.__kwdefaults__ or {}
    options = converted_options(function, {name: defaults[name] if name in given else value
                                           for name, value in options.items()})
    net = getattr(f, "net", f)          # of step.model
    declared = dict(net.declared_inputs()) if isinstance(net, Module) else {}
    if not given:
        return options, declared | dict(inputs)
    root = as_module(net) if callable(net) else None
    order = () if root is None else argument_names(root.function if isinstance(root, Function) else root.forward)
    places = {name: i for i, name in enumerate(order)}
    ordered = sorted((declared | given | dict(inputs)).items(), key=lambda item: places.get(item[0], len(places)))
    return options, dict(ordered)


def call(root: Module, arrays: Mapping[str, Any]) -> Any:
    """The network on its inputs: by name where it has an argument of that name, else by position."""
    if isinstance(root, Function):
        typed(root.function, {name: a.type for name, a in arrays.items()})
        return root(**arrays)
    signature = inspect.signature(root.forward)
    names = {*signature.parameters, *root.takes()}
    placed = [a for name, a in arrays.items() if name not in names]
    named = {name: a for name, a in arrays.items() if name in names}
    try:
        signature.bind(*placed, **named)
    except TypeError as error:
        known = dict.fromkeys([*argument_names(root.forward), *sorted(root.takes())])
        unknown = [name for name in arrays if name not in names] if named else []
        what = f"no layer takes {unknown[0]!r}" if unknown else f"inputs {', '.join(arrays)}: {error}"
        mask = (" (lengths = attention_mask.sum(1), where what is hidden is padding)"
                if "attention_mask" in unknown and "lengths" in known else "")
        raise GraphError(f"{what}; the network takes {', '.join(known)}{mask}", user_loc()) from None
    return root(*placed, **named)


def network_name(net: Callable[..., Any]) -> str:
    return getattr(net, "__name__", type(net).__name__).replace("<lambda>", "graph").lower()
