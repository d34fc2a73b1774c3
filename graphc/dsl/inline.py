"""Copies a graph into a running trace."""
from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.debug import Print, note
from graphc.dsl.order import AxisOrders
from graphc.dsl.outputs import LayerCall
from graphc.dsl.trace import RANDOM_KEY, Trace
from graphc.errors import GraphError
from graphc.ir.builder import Rewriter, bind_graph
from graphc.ir.dim_binding import bind
from graphc.ir.dims import Dim, Poly, exact_quotient
from graphc.ir.graph import Graph, regions
from graphc.ir.op import Op
from graphc.ir.ops.random import OPS as RANDOM
from graphc.ir.types import TensorType


def inline(trace: Trace, graph: Graph, keys: Sequence[Hashable], arrays: Sequence[Array],
           calls: Sequence[LayerCall] = (), orders: AxisOrders | None = None,
           prints: Sequence[Print] = ()) -> list[Array]:
    """The outputs of `graph` on `arrays`, its nodes, and what is known of them, copied into `trace`. State is shared
    by key; random operators draw anew.
    """
    fitted = _fitted(graph, [a.type for a in arrays])
    state = [trace.random_key() if k == RANDOM_KEY else trace.state(k, v.name, v.type)
             for k, v in zip(keys, fitted.state)]
    mapping = {old: trace.value(a) for old, a in zip(graph.arguments, [*arrays, *state])}
    streams: dict[int, int] = {}
    b = trace.builder
    for node, bound in zip(graph.nodes, fitted.nodes, strict=True):
        with b.at(node.loc, join(b.scope, node.scope)):
            outs = b.apply(_redrawn(bound.op, streams, trace), [mapping[v] for v in node.inputs])
        for old, new in zip(node.outputs, outs):
            new.name = old.name
            mapping[old] = new
    for key, update in zip(keys, graph.updates):
        if update is not None and key != RANDOM_KEY:
            trace.update_state(key, Array(mapping[update], trace))
    if orders:
        orders.moved(mapping).join(trace)
    trace.calls += [replace(call.moved(mapping), path=join(b.scope, call.path)) for call in calls]
    for each in prints:
        note(trace, each.moved(mapping))
    return [Array(mapping[v], trace) for v in graph.outputs]


def join(path: str, name: str) -> str:
    """The path of a layer inside another."""
    return f"{path}.{name}" if path and name else path or name


def solve_dims(types: Sequence[tuple[str, TensorType, TensorType]]) -> dict[str, Dim]:
    """Sizes of the named dimensions that make each declared type the given one: (name, declared, given) triples. A name
    is found where it stands alone; else where it is the only one that is not known of a multiple and a number, as in
    2*H + 1."""
    values: dict[str, Dim] = {}
    for name, declared, given in types:
        if declared.dtype != given.dtype or declared.rank != given.rank:
            right = "" if declared.rank != given.rank else (
                f"; convert it: {name}.astype({declared.dtype.written}), or declare gc.{given.dtype}")
            raise GraphError(f"argument {name!r} is {declared}, got {given}{right}")
        for dim, size in zip(declared.shape, given.shape):
            if isinstance(dim, Poly) and dim.terms in [(((name,), 1),) for name in dim.names]:
                values.setdefault(str(dim), size)
    for _, declared, given in types:
        for dim, size in zip(declared.shape, given.shape):
            solution = _solved(bind(dim, values), size)
            if solution is not None:
                values.setdefault(*solution)
    for name, declared, given in types:
        if declared.bind(values) != given:
            where = f", with {', '.join(f'{k} = {v}' for k, v in values.items())}" if values else ""
            raise GraphError(f"argument {name!r} is {declared}{where}, got {given}")
    return values


def _solved(dim: Dim, size: Dim) -> tuple[str, Dim] | None:
    """The name in factor * name + number, and what it is where that is the size; None if it is another formula, or
    nothing makes it the size."""
    if isinstance(dim, int):
        return None
    (monomial, factor), *rest = dim.terms
    number = rest[0][1] if rest else 0
    if dim.names != {*monomial} or len(monomial) != 1 or len(rest) > 1 or rest and rest[0][0]:
        return None
    value = exact_quotient(size - number, factor)
    return None if value is None or isinstance(value, int) and value < 0 else (str(monomial[0]), value)


def _fitted(graph: Graph, types: Sequence[TensorType]) -> Graph:
    """The graph with its named dimensions bound to those of the arguments."""
    try:
        values = solve_dims([(v.name, v.type, t) for v, t in zip(graph.inputs, types)])
    except GraphError as error:
        raise GraphError(f"{graph.name}: {error.text}", user_loc()) from None
    return bind_graph(graph, {name: d for name, d in values.items() if str(d) != name})


def _redrawn(op: Op, streams: dict[int, int], trace: Trace) -> Op:
    """The operator with its hidden random streams replaced by new ones, the same for the same old stream."""
    changes: Mapping[str, object] = {
        name: _regions_redrawn(region, streams, trace) for name, region in regions(op) if _draws(region)}
    if isinstance(op, RANDOM) and op.stream:
        if op.stream not in streams:
            streams[op.stream] = trace.next_stream(op.name)
        changes = {**changes, "stream": streams[op.stream]}
    return op.replace(**changes) if changes else op


def _regions_redrawn(graph: Graph, streams: dict[int, int], trace: Trace) -> Graph:
    r = Rewriter(graph)
    for node in graph.nodes:
        with r.at(node.loc, node.scope):
            r.replace(node, r.apply(_redrawn(node.op, streams, trace), [r[v] for v in node.inputs]))
    return r.done()


def _draws(graph: Graph) -> bool:
    return any(isinstance(n.op, RANDOM) and n.op.stream or any(_draws(r) for _, r in regions(n.op))
               for n in graph.nodes)
