"""A function whose gradient the user gave."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.graph import Graph, Value
from graphc.ir.interp import evaluate
from graphc.ir.op import Arrays, Composite, Cost, Gradients, OpBuilder, Values, require
from graphc.ir.ops.constant import full
from graphc.ir.ops.control import graph_flops
from graphc.ir.types import TensorType


class CustomVjp(Composite):
    """`forward` of the operands. `backward` takes the operands, the outputs and the gradient of each float output, and
    gives the gradient of each float operand."""
    name: ClassVar[str] = "custom_vjp"
    forward: Graph
    backward: Graph

    def infer(self, *ins: TensorType) -> tuple[TensorType, ...]:
        outs = tuple(v.type for v in self.forward.outputs)
        floats = tuple(t for t in outs if t.dtype.is_float)
        require(not self.forward.state and not self.backward.state,
                "custom_vjp: its function and its rule must not own state")
        require(_types(self.forward) == ins,
                f"custom_vjp of {', '.join(map(str, ins))}: its function takes "
                f"{', '.join(map(str, _types(self.forward)))}")
        require(_types(self.backward) == ins + outs + floats,
                "custom_vjp: the rule must take inputs, outputs and gradients of float outputs")
        require(tuple(v.type for v in self.backward.outputs) == tuple(t for t in ins if t.dtype.is_float),
                "custom_vjp: the rule must give one gradient of the same type for each float input")
        return outs

    def reference(self, *arrays: np.ndarray) -> Arrays:
        return evaluate(self.forward, arrays)

    def decompose(self, b: OpBuilder, *ins: Value) -> Values:
        return tuple(b.inline(self.forward, ins))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        floats = [full(b, 0, y.type) if g is None else g for g, y in zip(gs, outs) if y.type.dtype.is_float]
        grads = iter(b.inline(self.backward, [*ins, *outs, *floats]))
        return tuple(next(grads) if v.type.dtype.is_float else None for v in ins)

    def cost(self, *ins: TensorType) -> Cost:
        return Cost(graph_flops(self.forward), sum(t.nbytes for t in ins + self.infer(*ins)))


def _types(graph: Graph) -> tuple[TensorType, ...]:
    return tuple(v.type for v in graph.inputs)


OPS = (CustomVjp,)
