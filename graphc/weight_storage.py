"""Weights kept in fewer bits than they compute in: `store=` of gc.compile and gc.generate."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from graphc.dsl.arguments import converted
from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Value
from graphc.ir.types import BY_NAME, DTYPES, DType, f32, i8
from graphc.nn.parameter import Parameter
from graphc.passes.block_weights import TINY, block_weight
from graphc.passes.integer_weights import IntegerWeight, KeptWeight, reading
from graphc.records import dataclass

SHOWN = 8                                       # names in a message
ROW_INTEGERS = {"int8": (i8, 127)}              # integers with a scale for each row: their types and the largest in use
STORES = (*(d.name for d in DTYPES if d.is_storage), *ROW_INTEGERS, "int4")
BITS = {"int8": 8, "int4": 4}


@converted
@dataclass(frozen=True)
class IntegerBlocks:
    """`store=` for weights as integers with a scale for each block of `size` neighbours in a row, and with `minimum`
    its least number too: kind "int4" (0.63 bytes a weight with blocks of 32; 0.75 with minima) or "int8". store="int4"
    is `IntegerBlocks("int4", 32)`. A weight with rows that are no multiple of the block stays f32, unless `store` names
    it.

    Raises GraphError for another kind, or a size that is no power of two from 16 to 256.
    """
    kind: str
    size: int = 32
    minimum: bool = False

    def __post_init__(self) -> None:
        if self.kind not in BITS:
            raise GraphError(f'IntegerBlocks are of "int4" or "int8", got {shown(self.kind)}', user_loc())
        if self.size not in SIZES or isinstance(self.size, bool):
            raise GraphError(f"IntegerBlocks have {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} weights, got "
                             f"{shown(self.size)}", user_loc())


SIZES = (16, 32, 64, 128, 256)
Kind = str | IntegerBlocks


@dataclass(frozen=True)
class StoreByName:
    """Weights whose names, or whose layers' names, match a pattern (as of fnmatch) are kept as `choices` says of the
    first that does; all others in f32."""
    choices: tuple[tuple[str, Kind | None], ...]

    def of(self, weight: str) -> Kind | None:
        return next((store for pattern, store in self.choices if matches(weight, pattern)), None)


Store = Kind | StoreByName
StoreOption = Store | DType | Mapping[str, Kind | DType | None] | None      # what users give


def matches(weight: str, pattern: str) -> bool:
    return fnmatchcase(weight, pattern) or fnmatchcase(weight, f"{pattern}.*")


def store_choice(store: object) -> Store | None:
    """`store=` as a name, or names by patterns. GraphError unless weights can be kept so."""
    if isinstance(store, StoreByName):
        return store
    if not isinstance(store, Mapping):
        return _kind(store)
    if wrong := [key for key in store if not isinstance(key, str)]:
        raise GraphError(f'store= by name takes patterns, {{"head": "bf16", "layers.*": "int8"}}; got '
                         f"{shown(wrong[0])}", user_loc())
    return StoreByName(tuple((pattern, _kind(value, pattern)) for pattern, value in store.items()))


def _kind(store: object, pattern: str = "") -> Kind | None:
    name = store.name if isinstance(store, DType) else store
    if name is None or isinstance(name, IntegerBlocks):
        return name
    if isinstance(name, str) and name in STORES:
        return IntegerBlocks(name) if name == "int4" else name
    place = f"[{pattern!r}]" * bool(pattern)
    raise GraphError(f"store={place} keeps weights as {', '.join(STORES[:-1])} or {STORES[-1]}, or gc.IntegerBlocks, "
                     f"got {shown(store)}", user_loc())


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
        kept = {v: kind for v in weights if (kind := store.of(v.name)) is not None}
        _check_blocks(kept)
    else:
        kept = {v: store for v in weights if _fits(v, store)}
        if not kept:
            raise GraphError(f"store={_written(store)}: {function.name} has no f32 parameter with rows of whole blocks",
                             user_loc())
    return replace(function, graph=_stored(function.graph, kept)) if kept else function


def _fits(weight: Value, kind: Kind) -> bool:
    columns = weight.type.shape[1]
    return not isinstance(kind, IntegerBlocks) or isinstance(columns, int) and columns % kind.size == 0


def _check_blocks(kept: Mapping[Value, Kind]) -> None:
    for v, kind in kept.items():
        if not _fits(v, kind):
            raise GraphError(f"store=: rows of {v.name}, {v.type}, are no whole blocks of {_written(kind)}: keep it "
                             f'in another way, {{"{v.name}": "int8", …}}', user_loc())


def _written(store: Store) -> str:
    return repr(dict(store.choices) if isinstance(store, StoreByName) else store)


def _check_patterns(store: StoreByName, weights: Sequence[str]) -> None:
    for pattern, _ in store.choices:
        if not any(matches(weight, pattern) for weight in weights):
            raise GraphError(f"store=: no f32 parameter with two axes is called {pattern!r}; there are "
                             f"{', '.join(weights[:SHOWN])}{', …' * (len(weights) > SHOWN)}", user_loc())


def _stored(graph: Graph, kept: Mapping[Value, Kind]) -> Graph:
    """The graph, reading these state arrays as they are after rounding. What is rounded depends on state alone, so it
    is derived: made when the state has changed, packed, and all that calls read.

    Of integers, products and lookups, those in loops too, read the integers: scales of rows are multiplied into the
    result, or into the other factor; blocks are read so by products of few rows. Any other operator reads the numbers
    that they stand for."""
    w = Rewriter(graph)
    integers: dict[Value, KeptWeight] = {}
    for v, kind in kept.items():
        if isinstance(kind, IntegerBlocks):
            integers[v] = block_weight(w, w[v], kind.size, BITS[kind.kind], kind.minimum)
        elif kind in ROW_INTEGERS:
            integers[v] = _integer_weight(w, w[v], *ROW_INTEGERS[kind])
        else:
            w.map[v] = w.cast(w.cast(w[v], dtype=BY_NAME[kind]), dtype=v.type.dtype)
    return reading(w, integers, {})


def _integer_weight(w: Rewriter, weight: Value, dtype: DType, most: int) -> IntegerWeight:
    """The nearest one: each row's largest number becomes `most`. Both are derived from state alone."""
    largest = w.max(w.abs(weight), axes=(1,), keepdims=True)
    scale = w.div(w.maximum(largest, TINY), most)
    return IntegerWeight(w.cast(w.round(w.div(weight, scale)), dtype=dtype), scale, 0)
