"""Weights kept in fewer bits than they compute in: `store=` of gc.compile and gc.generate."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

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
SHOWN = 8                                       # names in a message
STORES = (*(d.name for d in DTYPES if d.is_storage), *INTEGERS)


@dataclass(frozen=True)
class StoreByName:
    """Weights whose names, or whose layers' names, match a pattern (as of fnmatch) are kept as `choices` says of the
    first that does; all others in f32."""
    choices: tuple[tuple[str, str | None], ...]

    def of(self, weight: str) -> str | None:
        return next((store for pattern, store in self.choices if matches(weight, pattern)), None)


Store = str | StoreByName


def matches(weight: str, pattern: str) -> bool:
    return fnmatchcase(weight, pattern) or fnmatchcase(weight, f"{pattern}.*")


def store_choice(store: object) -> Store | None:
    """`store=` as a name, or names by patterns. GraphError unless weights can be kept so."""
    if not isinstance(store, Mapping):
        return _store_name(store)
    if wrong := [key for key in store if not isinstance(key, str)]:
        raise GraphError(f'store= by name takes patterns, {{"head": "bf16", "layers.*": "int8"}}; got '
                         f"{shown(wrong[0])}", user_loc())
    return StoreByName(tuple((pattern, _store_name(value, pattern)) for pattern, value in store.items()))


def _store_name(store: object, pattern: str = "") -> str | None:
    name = store.name if isinstance(store, DType) else store
    if name is None or (isinstance(name, str) and name in STORES):
        return name
    place = f"[{pattern!r}]" * bool(pattern)
    raise GraphError(f"store={place} keeps weights as {', '.join(STORES[:-1])} or {STORES[-1]}, got {shown(store)}",
                     user_loc())


def storing(function: GraphFunction, store: Store | None) -> GraphFunction:
    """The function with its trained f32 arrays of two axes rounded to what `store` keeps. GraphError if it has none,
    or none of a name."""
    if store is None:
        return function
    weights = [v for v, key in zip(function.graph.state, function.keys, strict=True)
               if isinstance(key, Parameter) and key.is_weight and v.type.dtype is f32 and v.type.rank == 2]
    if not weights:
        raise GraphError(f"store={_written(store)}: {function.name} has no f32 parameter with two axes to keep so",
                         user_loc())
    if isinstance(store, StoreByName):
        _check_patterns(store, [v.name for v in weights])
        kept = {v: name for v in weights if (name := store.of(v.name)) is not None}
    else:
        kept = dict.fromkeys(weights, store)
    return replace(function, graph=_stored(function.graph, kept)) if kept else function


def _written(store: Store) -> str:
    return repr(dict(store.choices) if isinstance(store, StoreByName) else store)


def _check_patterns(store: StoreByName, weights: Sequence[str]) -> None:
    for pattern, _ in store.choices:
        if not any(matches(weight, pattern) for weight in weights):
            raise GraphError(f"store=: no f32 parameter with two axes is called {pattern!r}; there are "
                             f"{', '.join(weights[:SHOWN])}{', …' * (len(weights) > SHOWN)}", user_loc())


def _stored(graph: Graph, kept: Mapping[Value, str]) -> Graph:
    """The graph, reading these state arrays as they are after rounding. What is rounded depends on state alone, so it
    is derived: made when the state has changed, packed, and all that calls read.

    Of integers, products and lookups, those in loops too, read the integers: the scales are multiplied into the result,
    or into the other factor. Any other operator reads the numbers that they stand for."""
    w, integers = Rewriter(graph), {}
    for v, name in kept.items():
        if name in INTEGERS:
            integers[v] = _integer_weight(w, w[v], *INTEGERS[name])
        else:
            w.map[v] = w.cast(w.cast(w[v], dtype=BY_NAME[name]), dtype=v.type.dtype)
    return reading(w, integers, {})


def _integer_weight(w: Rewriter, weight: Value, dtype: DType, most: int) -> IntegerWeight:
    """The nearest one: each row's largest number becomes `most`. Both are derived from state alone."""
    largest = w.max(w.abs(weight), axes=(1,), keepdims=True)
    scale = w.div(w.maximum(largest, TINY), most)
    return IntegerWeight(w.cast(w.round(w.div(weight, scale)), dtype=dtype), scale, 0)
