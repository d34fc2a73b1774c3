"""The same graph in double precision."""
from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.op import Literal, Op
from graphc.ir.types import DType, TensorType, f32, f64


def widened(graph: Graph) -> Graph:
    """`graph` with f64 wherever it has f32: arguments, constants, results of casts and draws, bodies of loops and rules
    of the user's own."""
    b = Builder(graph.name)
    mapping = {v: b.input(v.name, _wide(v.type)) for v in graph.inputs}
    mapping |= {v: b.state_input(v.name, _wide(v.type)) for v in graph.state}
    for node in graph.nodes:
        with b.at(node.loc, node.scope):
            outs = b.apply(_wide_op(node.op), [mapping[v] for v in node.inputs])
        for old, new in zip(node.outputs, outs, strict=True):
            new.name, mapping[old] = old.name, new
    for state, new in zip(graph.state, graph.updates):
        if new is not None:
            b.update(mapping[state], mapping[new])
    return b.finish([mapping[v] for v in graph.outputs], graph.output_names)


def _wide_op(op: Op) -> Op:
    changes = {name: wide for name, value in vars(op).items() if (wide := _wide(value)) is not value}
    return op.replace(**changes) if changes else op


def _wide(value):
    """An attribute with f64 for f32; itself if there is none in it."""
    if isinstance(value, Graph):
        return widened(value)
    if isinstance(value, Literal) and value.dtype == f32:
        return Literal.of(value.array.astype(f64.np))
    if isinstance(value, TensorType) and value.dtype == f32:
        return TensorType(f64, value.shape)
    if isinstance(value, tuple):
        return tuple(map(_wide, value))
    return f64 if isinstance(value, DType) and value == f32 else value
