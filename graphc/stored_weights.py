"""Graphs whose weights are kept in fewer bits than they compute in (`store=`), and what that does to the weights."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph, Value
from graphc.ir.interp import evaluate
from graphc.ir.types import BY_NAME, DType, TensorType, f32
from graphc.nn.parameter import Parameter
from graphc.passes.block_weights import block_product, block_weight, largest_of_rows
from graphc.passes.integer_weights import IntegerWeight, KeptWeight, reading
from graphc.records import dataclass
from graphc.weight_storage import ROW_INTEGERS, IntegerBlocks, Kind, Store, StoreByName, matches

SHOWN = 8                                       # names in a message


@dataclass(frozen=True)
class WeightError:
    """A weight of a network with `store=`. kept: how, "" in f32; largest, rms: the largest error and the root of the
    mean square of all, absolute; nbytes, kept_bytes: in f32, and as it is kept; note: why it stays f32, or what the
    errors do not tell."""
    name: str
    type: str
    kept: str
    largest: float
    rms: float
    nbytes: int
    kept_bytes: int
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        errors = (f"{self.largest:.2e}", f"{self.rms:.2e}") if self.kept else ("", "")
        return self.name, self.type, self.kept or "f32", *errors, str(self.nbytes), str(self.kept_bytes), self.note


@dataclass(frozen=True)
class StoredWeights:
    """What `storing` did to a function: of its state, in that order, the arrays that are `kept` in fewer bits, and why
    others, weights too, stay f32."""
    function: str
    state: tuple[Value, ...]
    kept: Mapping[Value, Kind]
    left: Mapping[Value, str]

    def check(self, arrays: Sequence[np.ndarray]) -> None:
        """GraphError if integers were to stand for NaN or infinity, which they cannot, in these arrays of the state."""
        for v, array in zip(self.state, arrays, strict=True):
            kind = self.kept.get(v)
            if kind is None or _is_float(kind) or not array.size:
                continue
            low, high = float(array.min()), float(array.max())      # NaN, if there is one
            if not np.isfinite(low) or not np.isfinite(high):
                strange = array[~np.isfinite(array)]
                raise GraphError(f"store=: weight {v.name!r} of {self.function} holds {strange[0]} ({strange.size} of "
                                 f"its {array.size} numbers are not finite): it cannot be kept as {_text(kind)}; in "
                                 f'bf16 it can, {{"{v.name}": "bf16", …}}', user_loc())

    def errors(self, arrays: Sequence[np.ndarray]) -> tuple[WeightError, ...]:
        """A row for each weight, of these arrays of the state."""
        return tuple(self._error(v, a) for v, a in zip(self.state, arrays, strict=True)
                     if v in self.kept or v in self.left)

    def _error(self, v: Value, array: np.ndarray) -> WeightError:
        if v in self.left:
            return WeightError(v.name, str(v.type), "", 0.0, 0.0, array.nbytes, array.nbytes, self.left[v])
        kind = self.kept[v]
        numbers = _rounded(array, kind)
        with np.errstate(invalid="ignore"):
            errors = np.abs(numbers - array, dtype=np.float64)
        infinite = int(np.isinf(numbers).sum() - np.isinf(array).sum())
        note = f"{infinite} numbers are beyond {kind} and became infinite" if infinite else ""
        return WeightError(v.name, str(v.type), _text(kind), float(errors.max(initial=0.0)),
                           float(np.sqrt(np.mean(np.square(errors)))) if errors.size else 0.0, array.nbytes,
                           kept_bytes(array.shape, kind), note)


def kept_bytes(shape: Sequence[int], kind: Kind) -> int:
    """Of a weight [N, K], codes and scales (and minima), or numbers."""
    rows, columns = shape
    if isinstance(kind, IntegerBlocks):
        scales = rows * columns // kind.size * (1 + kind.minimum)
        return rows * columns * kind.bits // 8 + scales * f32.itemsize
    if kind in ROW_INTEGERS:
        return rows * columns * ROW_INTEGERS[kind][0].itemsize + rows * f32.itemsize
    return rows * columns * BY_NAME[kind].itemsize


def _rounded(array: np.ndarray, kind: Kind) -> np.ndarray:
    """The f32 numbers that are kept for those of the array."""
    b = Builder("kept")
    weight = b.state_input("w", TensorType(f32, array.shape))
    graph = b.finish((weight,), ("w",))
    with np.errstate(all="ignore"):
        return evaluate(_stored(graph, {graph.state[0]: kind}), (array,))[0]


def storing(function: GraphFunction, store: Store | None,
            computes: bool = False) -> tuple[GraphFunction, StoredWeights | None]:
    """The function with its trained f32 arrays of two axes rounded to what `store` keeps, and what was done. computes:
    products of many rows are to be made of other numbers (`compute=`), and read none of the codes. GraphError if it has
    none, or none of a name."""
    if store is None:
        return function, None
    weights = [v for v, key in zip(function.graph.state, function.keys, strict=True)
               if isinstance(key, Parameter) and key.is_weight and v.type.dtype is f32]
    matrices = [v for v in weights if v.type.rank == 2]
    if not matrices:
        raise GraphError(f"store={_written(store)}: {function.name} has no f32 parameter with two axes to keep so",
                         user_loc())
    if isinstance(store, StoreByName):
        _check_patterns(store, [v.name for v in matrices])
        kept = {v: kind for v in matrices if (kind := store.of(v.name)) is not None}
        _check_blocks(kept)
    else:
        kept = {v: store for v in matrices if _fits(v, store)}
        if not kept:
            raise GraphError(f"store={_written(store)}: {function.name} has no f32 parameter with rows of whole blocks",
                             user_loc())
    done = StoredWeights(function.name, function.graph.state, kept,
                         {v: _why_not(v, store) for v in weights if v not in kept})
    return (replace(function, graph=_stored(function.graph, kept, not computes)) if kept else function), done


def _why_not(weight: Value, store: Store) -> str:
    """Why a weight stays f32."""
    if weight.type.rank != 2:
        return "no matrix: store= keeps arrays with two axes"
    if isinstance(store, StoreByName):
        named = any(matches(weight.name, pattern) for pattern, _ in store.choices)
        return "store= says so" if named else "no pattern of store= matches its name"
    return f"rows of {weight.type.shape[1]} are no whole blocks"


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


def _stored(graph: Graph, kept: Mapping[Value, Kind], for_all: bool = True) -> Graph:
    """The graph, reading these state arrays as they are after rounding. What is rounded depends on state alone, so it
    is derived: made when the state has changed, packed, and all that calls read.

    Of integers, products and lookups, those in loops too, read the integers: scales of rows are multiplied into the
    result, or into the other factor; blocks are read so by products of few rows. Any other operator reads the numbers
    that they stand for."""
    w = Rewriter(graph)
    integers: dict[Value, KeptWeight] = {}
    for v, kind in kept.items():
        if isinstance(kind, IntegerBlocks):
            op = block_product(kind.size, kind.bits, kind.minimum)
            integers[v] = block_weight(w, w[v], op, kind.minimum, for_all)
        elif kind in ROW_INTEGERS:
            integers[v] = _integer_weight(w, w[v], *ROW_INTEGERS[kind])
        else:
            w.map[v] = w.cast(w.cast(w[v], dtype=BY_NAME[kind]), dtype=v.type.dtype)
    return reading(w, integers, {})


def _integer_weight(w: Rewriter, weight: Value, dtype: DType, most: int) -> IntegerWeight:
    """The nearest one: each row's largest number becomes `most`. Both are derived from state alone."""
    scale = w.div(largest_of_rows(w, weight), most)
    return IntegerWeight(w.cast(w.round(w.div(weight, scale)), dtype=dtype), scale, 0)


def _is_float(kind: Kind) -> bool:
    return not isinstance(kind, IntegerBlocks) and kind not in ROW_INTEGERS


def _text(kind: Kind) -> str:
    return kind.text if isinstance(kind, IntegerBlocks) else f"{kind} by row" if kind in ROW_INTEGERS else kind
