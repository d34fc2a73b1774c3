"""The same graph in double precision."""
from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.stored import Types, retyped, retyped_op
from graphc.ir.types import DTYPES, f64

WIDE = {d: f64 for d in DTYPES if d.is_float}


def widened(graph: Graph) -> Graph:
    """`graph` with f64 for every other float type."""
    return retyped_graph(graph, WIDE)


def retyped_graph(graph: Graph, types: Types) -> Graph:
    """`graph` with other types: in arguments, constants, results of casts and draws, bodies of loops and rules of the
    user's own."""
    b = Builder(graph.name)
    mapping = {v: b.input(v.name, retyped(v.type, types)) for v in graph.inputs}
    mapping |= {v: b.state_input(v.name, retyped(v.type, types)) for v in graph.state}
    for node in graph.nodes:
        with b.at(node.loc, node.scope):
            op = retyped_op(node.op, types, lambda region: retyped_graph(region, types))
            outs = b.apply(op, [mapping[v] for v in node.inputs])
        for old, new in zip(node.outputs, outs, strict=True):
            new.name, mapping[old] = old.name, new
    for state, update in zip(graph.state, graph.updates):
        if update is not None:
            b.update(mapping[state], mapping[update])
    return b.finish([mapping[v] for v in graph.outputs], graph.output_names)
