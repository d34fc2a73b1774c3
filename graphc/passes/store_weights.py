"""Weights rounded to a type of 16 bits, in which they are then kept and read."""
from __future__ import annotations

from collections.abc import Collection

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Value
from graphc.ir.types import DType


def stored_weights(graph: Graph, weights: Collection[Value], dtype: DType) -> Graph:
    """`graph`, reading each of the state arrays `weights` as it is after it was rounded to `dtype`. The rounded weights
    depend on state alone, so they are derived values: made when the state has changed, packed, and all that calls read.
    """
    w = Rewriter(graph)
    for v in weights:
        w.map[v] = w.cast(w.cast(w[v], dtype=dtype), dtype=v.type.dtype)
    for node in graph.nodes:
        w.keep(node)
    return w.done()
