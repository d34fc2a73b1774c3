"""Evaluates nodes whose inputs are all constant, with the operators' numpy references."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.bits import is_uniform
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import as_tuple
from graphc.ir.ops.constant import Constant, Iota
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Needs bound dimensions. Counting arrays stay (a loop makes them for nothing); results above `max_bytes` stay computed, they would only fill the constants."""
    name: ClassVar[str] = "fold_constants"
    max_bytes: int = 4096

    def run(self, graph: Graph) -> Graph:
        w = Rewriter(graph)
        known: dict[Value, np.ndarray] = {}
        folded = 0
        for node in graph.nodes:
            if isinstance(node.op, Constant):
                known[node.outputs[0]] = node.op.value.array
            elif node.op.name == "broadcast_to" and node.inputs[0] in known:
                known[node.outputs[0]] = node.op.reference(known[node.inputs[0]])
            elif self._foldable(node, known):
                arrays = as_tuple(node.op.reference(*(known[v] for v in node.inputs)))
                with w.at(node.loc, node.scope):
                    w.replace(node, [_constant(w, a, v.type) for a, v in zip(arrays, node.outputs)])
                known.update(zip(node.outputs, arrays))
                folded += 1
                continue
            w.keep(node)
        return w.done() if folded else graph

    def _foldable(self, node: Node, known: dict[Value, np.ndarray]) -> bool:
        return (not isinstance(node.op, Iota) and all(v in known for v in node.inputs)
                and sum(v.type.nbytes for v in node.outputs) <= self.max_bytes)


def _constant(w: Rewriter, array: np.ndarray, type: TensorType) -> Value:
    """A constant; one that repeats a number is that number, broadcast: loops take it as it is."""
    array = np.asarray(array, type.dtype.np)
    if array.size > 1 and is_uniform(array):
        return w.broadcast_to(w.constant(array.flat[0], type.dtype), shape=type.shape)
    return w.constant(array, type.dtype)
