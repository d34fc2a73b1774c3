"""Evaluates nodes whose inputs are all constant, with the operators' numpy references."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphc.ir.bits import is_uniform
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, regions
from graphc.ir.op import Op, as_tuple, is_symbolic
from graphc.ir.ops.constant import Constant, Iota
from graphc.ir.ops.control import Scan, WhileLoop
from graphc.ir.ops.elementwise import BitCast
from graphc.ir.ops.shape import BroadcastTo
from graphc.ir.stored import node_reference
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

MAX_EVALUATIONS = 1000      # of nodes in a loop, some microseconds each
MAX_FLOPS = 1 << 24         # of any other operator
# of operators of its class, which the type of a table cannot say
TRIPS: dict[type[Op], Callable[[Any], int]] = {Scan: lambda op: op.length, WhileLoop: lambda op: op.max_trips}


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Where dimensions are numbers. Counting arrays stay (a loop makes them for nothing); results above `max_bytes`
    stay computed, they would only fill the constants; and so does what numpy would work on for longer than the
    program."""
    name: ClassVar[str] = "fold_constants"
    max_bytes: int = 4096

    def run(self, graph: Graph) -> Graph:
        w = Rewriter(graph)
        known: dict[Value, np.ndarray] = {}
        folded = 0
        for node in graph.nodes:
            if isinstance(node.op, Constant):
                known[node.outputs[0]] = node.op.value.array
            elif node.op.opcode is BroadcastTo and node.inputs[0] in known and node.outputs[0].type.is_static:
                known[node.outputs[0]], = as_tuple(node.op.reference(known[node.inputs[0]]))
            elif self._foldable(node, known):
                arrays = node_reference(node, [known[v] for v in node.inputs])
                if isinstance(node.op, BitCast) and any(a.dtype.kind == "f" and np.any(a != a) for a in arrays):
                    w.keep(node)            # loops do not keep which NaN a constant is
                    continue
                with w.at(node.loc, node.scope):
                    w.replace(node, [_constant(w, a, v.type) for a, v in zip(arrays, node.outputs)])
                known.update(zip(node.outputs, arrays))
                folded += 1
                continue
            w.keep(node)
        return w.done() if folded else graph

    def _foldable(self, node: Node, known: dict[Value, np.ndarray]) -> bool:
        if (isinstance(node.op, Iota) or not all(v in known for v in node.inputs) or is_symbolic(node.op)
                or sum(v.type.nbytes for v in node.outputs) > self.max_bytes):
            return False
        return (_evaluations(node.op) <= MAX_EVALUATIONS if regions(node.op)
                else node.op.cost(*(v.type for v in node.inputs)).flops <= MAX_FLOPS)


def _evaluations(op: Op) -> int:
    """How many nodes the interpreter evaluates for a loop or branch, of which it may take all steps."""
    inner = sum(_evaluations(node.op) if regions(node.op) else 1 for _, body in regions(op) for node in body.nodes)
    return inner * (TRIPS[type(op)](op) if type(op) in TRIPS else 1)


def _constant(w: Rewriter, array: np.ndarray, type: TensorType) -> Value:
    """A constant; one that repeats a number is that number, broadcast: loops take it as it is."""
    array = np.asarray(array, type.dtype.np)
    if array.size > 1 and is_uniform(array):
        return w.broadcast_to(w.constant(array.flat[0], type.dtype), shape=type.shape)
    return w.constant(array, type.dtype)
