"""Weights kept in fewer bits than they compute in: `store=` of gc.compile and gc.generate."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.dsl.context import user_loc
from graphc.dsl.function import GraphFunction
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter
from graphc.ir.convert import shown
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.control import Scan
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


@dataclass(frozen=True)
class IntegerWeight:
    """A matrix as codes * scale: the codes integers, or f32 that hold integers; scale f32, with a size of 1 where
    `axis` is not."""
    codes: Value
    scale: Value
    axis: int

    @staticmethod
    def of(w: Rewriter, weight: Value, dtype: DType, most: int) -> IntegerWeight:
        """The nearest one: each row's largest number becomes `most`. Both are derived from state alone."""
        largest = w.max(w.abs(weight), axes=(1,), keepdims=True)
        scale = w.div(w.maximum(largest, TINY), most)
        return IntegerWeight(w.cast(w.round(w.div(weight, scale)), dtype=dtype), scale, 0)

    def turned(self, w: Rewriter) -> IntegerWeight:
        """The transposed matrix."""
        codes, scale = (w.transpose(v, perm=(1, 0)) for v in (self.codes, self.scale))
        return IntegerWeight(codes, scale, 1 - self.axis)

    def wide(self, w: Rewriter) -> Value:
        """The codes as f32."""
        return self.codes if self.codes.type.dtype is f32 else w.cast(self.codes, dtype=f32)

    def numbers(self, w: Rewriter) -> Value:
        return w.mul(self.wide(w), self.scale)


def _integers(graph: Graph, weights: Collection[Value], dtype: DType, most: int) -> Graph:
    """The graph, with products and lookups, those in loops too, that read the integers of its state arrays `weights`:
    the scales are multiplied into the result, or into the other factor. Any other operator reads the numbers that they
    stand for."""
    w = Rewriter(graph)
    return _reading(w, {v: IntegerWeight.of(w, w[v], dtype, most) for v in weights})


def _reading(w: Rewriter, kept: dict[Value, IntegerWeight]) -> Graph:
    """The graph that `w` rewrites, with integers for these of its values, and for their transposes."""
    for v, weight in kept.items():
        w.map[v] = weight.numbers(w)
    for node in w.old.nodes:
        with w.at(node.loc, node.scope):
            new = _product(w, node, kept) or _lookup(w, node, kept) or _loop(w, node, kept)
            if new is None:
                w.keep(node)
            else:
                w.replace(node, new)
            if isinstance(node.op, Transpose) and node.inputs[0] in kept:
                kept[node.outputs[0]] = kept[node.inputs[0]].turned(w)
    return w.done()


def _product(w: Rewriter, node: Node, kept: Mapping[Value, IntegerWeight]) -> Sequence[Value] | None:
    """A product with one of the weights; None for any other node."""
    place = next((i for i, v in enumerate(node.inputs) if v in kept), None)
    if place is None or not isinstance(node.op, Matmul) or node.op.dtype not in (None, f32):
        return None
    weight, other = kept[node.inputs[place]], w[node.inputs[1 - place]]
    # the axis with the scales is summed over, or one of the result: its last one, or the one before
    summed, last = weight.axis != place, place == 1 or other.type.rank == 1
    size = weight.scale.type.shape[weight.axis]
    scale = w.reshape(weight.scale, shape=(size,) if last else (size, 1))
    other = w.mul(other, scale) if summed else other
    y = w.matmul(weight.wide(w), other) if place == 0 else w.matmul(other, weight.wide(w))
    return [y if summed else w.mul(y, scale)]


def _lookup(w: Rewriter, node: Node, kept: Mapping[Value, IntegerWeight]) -> Sequence[Value] | None:
    """Rows of one of the weights; None for any other node."""
    weight = kept.get(node.inputs[0]) if isinstance(node.op, Take) and node.op.axis == 0 else None
    if weight is None or weight.axis != 0:
        return None
    rows, scale = (w.apply(node.op, [a, w[node.inputs[1]]])[0] for a in (weight.codes, weight.scale))
    return [w.mul(w.cast(rows, dtype=f32), scale)]


def _loop(w: Rewriter, node: Node, kept: Mapping[Value, IntegerWeight]) -> Sequence[Value] | None:
    """A loop that captures some of the weights: it captures their integers, and their scales besides."""
    if not isinstance(node.op, Scan):
        return None
    first = node.op.carries + node.op.xs
    captured = {i: kept[v] for i, v in enumerate(node.inputs) if i >= first and v in kept}
    if not captured:
        return None
    body, operands = Rewriter(node.op.body), [w[v] for v in node.inputs]
    inside = {}
    for i, weight in captured.items():
        v, operands[i] = node.op.body.inputs[i], weight.wide(w)
        inside[v] = IntegerWeight(body[v], body.input(f"{v.name}.scale", weight.scale.type), weight.axis)
    op = node.op.replace(body=_reading(body, inside))
    return w.apply(op, [*operands, *(weight.scale for weight in captured.values())])
