"""Weights kept in 16 bits: `store=` of gc.compile and gc.generate."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Value
from graphc.ir.types import BY_NAME, DTYPES, DType, f32
from graphc.nn.parameter import Parameter

STORES = tuple(d.name for d in DTYPES if d.is_storage)


def store_name(store: object) -> str | None:
    """`store=` as the name of a type. GraphError unless weights can be kept in it."""
    name = store.name if isinstance(store, DType) else store
    if name is None or (isinstance(name, str) and name in STORES):
        return name
    raise GraphError(f"store= keeps weights as {' or '.join(STORES)}, got {shown(store)}", user_loc())


def storing(function: GraphFunction, store: str | None) -> GraphFunction:
    """The function with its trained f32 arrays of two axes rounded to the type `store`. GraphError if it has none."""
    if store is None:
        return function
    weights = [v for v, key in zip(function.graph.state, function.keys, strict=True)
               if isinstance(key, Parameter) and key.trainable and v.type.dtype is f32 and v.type.rank == 2]
    if not weights:
        raise GraphError(f"store={store!r}: {function.name} has no f32 parameter with two axes to keep so", user_loc())
    return replace(function, graph=_rounded(function.graph, weights, BY_NAME[store]))


def _rounded(graph: Graph, weights: Collection[Value], dtype: DType) -> Graph:
    """The graph, reading its state arrays `weights` as they are after rounding. The rounded weights depend on state
    alone, so they are derived values: made when the state has changed, packed, and all that calls read."""
    w = Rewriter(graph)
    for v in weights:
        w.map[v] = w.cast(w.cast(w[v], dtype=dtype), dtype=v.type.dtype)
    for node in graph.nodes:
        w.keep(node)
    return w.done()
