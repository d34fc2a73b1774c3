"""Weights kept in fewer bits than they compute in: `store=` of gc.compile and gc.generate."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.index import Take
from graphc.ir.ops.shape import Transpose
from graphc.ir.types import BY_NAME, DTYPES, DType, f32, i8
from graphc.nn.parameter import Parameter

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
               if isinstance(key, Parameter) and key.trainable and v.type.dtype is f32 and v.type.rank == 2]
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


@dataclass(frozen=True)
class IntegerWeight:
    """A weight [rows, columns] as codes * scale, the codes integers and scale [rows, 1] f32."""
    codes: Value
    scale: Value

    @staticmethod
    def of(w: Rewriter, weight: Value, dtype: DType, most: int) -> IntegerWeight:
        """The nearest one: each row's largest number becomes `most`. Both are derived from state alone."""
        largest = w.max(w.abs(weight), axes=(1,), keepdims=True)
        scale = w.div(w.maximum(largest, TINY), most)
        return IntegerWeight(w.cast(w.round(w.div(weight, scale)), dtype=dtype), scale)

    def numbers(self, w: Rewriter) -> Value:
        return w.mul(w.cast(self.codes, dtype=f32), self.scale)


def _integers(graph: Graph, weights: Collection[Value], dtype: DType, most: int) -> Graph:
    """The graph, with products and lookups that read the integers of its state arrays `weights`: a row's scale is
    multiplied into the result, or into the other factor. Any other operator reads the numbers that they stand for."""
    w = Rewriter(graph)
    kept = {v: IntegerWeight.of(w, w[v], dtype, most) for v in weights}
    for v, weight in kept.items():
        w.map[v] = weight.numbers(w)
    for node in graph.nodes:
        with w.at(node.loc, node.scope):
            new = _product(w, node, kept) or _lookup(w, node, kept)
            if new is None:
                w.keep(node)
            else:
                w.replace(node, [new])
    return w.done()


def _product(w: Rewriter, node: Node, kept: dict[Value, IntegerWeight]) -> Value | None:
    """A product with one of the weights, as it is or transposed; None for any other node."""
    if not isinstance(node.op, Matmul):
        return None
    for place, v in enumerate(node.inputs):
        turned = v.node is not None and isinstance(v.node.op, Transpose)
        weight = kept.get(v.node.inputs[0] if turned and v.node is not None else v)
        if weight is None:
            continue
        other = w[node.inputs[1 - place]]
        codes = w.cast(weight.codes, dtype=f32)
        codes = w.transpose(codes, perm=(1, 0)) if turned else codes
        # rows of the weight are summed over, or are an axis of the result: its last one, or the one before
        summed, last = turned == (place == 0), place == 1 or other.type.rank == 1
        scale = w.reshape(weight.scale, shape=weight.scale.type.shape[:1]) if last else weight.scale
        other = w.mul(other, scale) if summed else other
        y = w.matmul(codes, other) if place == 0 else w.matmul(other, codes)
        return y if summed else w.mul(y, scale)
    return None


def _lookup(w: Rewriter, node: Node, kept: dict[Value, IntegerWeight]) -> Value | None:
    """Rows of one of the weights; None for any other node."""
    if not isinstance(node.op, Take) or node.op.axis != 0 or node.inputs[0] not in kept:
        return None
    weight, ids = kept[node.inputs[0]], w[node.inputs[1]]
    rows, scale = (w.apply(node.op, [a, ids])[0] for a in (weight.codes, weight.scale))
    return w.mul(w.cast(rows, dtype=f32), scale)
