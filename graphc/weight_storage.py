"""Weights kept in fewer bits than they compute in: `store=` of gc.compile and gc.generate."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Value
from graphc.ir.types import BY_NAME, DTYPES, DType, f32, i8
from graphc.nn.parameter import Parameter
from graphc.passes.integer_weights import IntegerWeight, reading

TINY = 1e-30                                    # the largest number of a row counts as that at least: a row of zeros
INTEGERS = {"int8": (i8, 127)}                  # names of `store`, with their types and the largest number in use
STORES = (*(d.name for d in DTYPES if d.is_storage), *INTEGERS)


def store_name(store: object) -> str | None:
    """`store=` as a name. GraphError unless weights can be kept so."""
    name = store.name if isinstance(store, DType) else store
    if name is None or (isinstance(name, str) and name in STORES):
        return name
    raise GraphError(f"store= keeps weights as {', '.join(STORES[:-1])} or {STORES[-1]}, got {shown(store)}",
                     user_loc())


def storing(function: GraphFunction, store: str | None) -> GraphFunction:
    """The function with its trained f32 arrays of two axes rounded to what `store` keeps. GraphError if it has none."""
    if store is None:
        return function
    weights = [v for v, key in zip(function.graph.state, function.keys, strict=True)
               if isinstance(key, Parameter) and key.is_weight and v.type.dtype is f32 and v.type.rank == 2]
    if not weights:
        raise GraphError(f"store={store!r}: {function.name} has no f32 parameter with two axes to keep so", user_loc())
    graph = (_integers(function.graph, weights, *INTEGERS[store]) if store in INTEGERS
             else _rounded(function.graph, weights, BY_NAME[store]))
    return replace(function, graph=graph)


def _rounded(graph: Graph, weights: Collection[Value], dtype: DType) -> Graph:
    """The graph, reading its state arrays `weights` as they are after rounding. The rounded weights depend on state
    alone, so they are derived values: made when the state has changed, packed, and all that calls read."""
    w = Rewriter(graph)
    for v in weights:
        w.map[v] = w.cast(w.cast(w[v], dtype=dtype), dtype=v.type.dtype)
    for node in graph.nodes:
        w.keep(node)
    return w.done()


def _integers(graph: Graph, weights: Collection[Value], dtype: DType, most: int) -> Graph:
    """The graph, with products and lookups, those in loops too, that read the integers of its state arrays `weights`:
    the scales are multiplied into the result, or into the other factor. Any other operator reads the numbers that they
    stand for."""
    w = Rewriter(graph)
    return reading(w, {v: _integer_weight(w, w[v], dtype, most) for v in weights}, {})


def _integer_weight(w: Rewriter, weight: Value, dtype: DType, most: int) -> IntegerWeight:
    """The nearest one: each row's largest number becomes `most`. Both are derived from state alone."""
    largest = w.max(w.abs(weight), axes=(1,), keepdims=True)
    scale = w.div(w.maximum(largest, TINY), most)
    return IntegerWeight(w.cast(w.round(w.div(weight, scale)), dtype=dtype), scale, 0)
