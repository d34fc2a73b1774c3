"""A function of which nothing is kept for its gradient: what that needs is computed again from the operands."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.graph import Graph, Value
from graphc.ir.interp import evaluate
from graphc.ir.op import ALL, Arrays, Composite, Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.control import graph_flops
from graphc.ir.types import TensorType


class Hold(Op):
    """The first operand, once the second is there: what is computed from it is another value than what was computed
    before, and is computed after the second operand. No memory is copied."""
    name: ClassVar[str] = "hold"
    is_view = True
    linear_in = ((0,), ALL)
    element_flops = 0

    def infer(self, x: TensorType, after: TensorType) -> TensorType:
        return x

    def reference(self, x: np.ndarray, after: np.ndarray) -> np.ndarray:
        return x

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (gs[0] if ins[0].type.dtype.is_float else None, None)

    def cost(self, x: TensorType, after: TensorType) -> Cost:
        return Cost(0, 2 * x.nbytes)


class Remat(Composite):
    """`body` of the operands. Its gradient is another one, of the operands and the gradients of the results, which
    computes again what it needs (`autodiff/backward_remat.py`).

    `held`: of such a gradient, the number of operands of the function; they are held till the first gradient is there,
    so that what is computed again is not taken from what was computed before."""
    name: ClassVar[str] = "remat"
    body: Graph
    held: int = 0

    def infer(self, *ins: TensorType) -> tuple[TensorType, ...]:
        wanted = tuple(v.type for v in self.body.inputs)
        require(not self.body.state, "remat: its function must not own state")
        require(ins == wanted, f"remat of {', '.join(map(str, ins))}: its function takes {', '.join(map(str, wanted))}")
        require(0 <= self.held < max(1, len(ins)), f"remat holds {self.held} of {len(ins)} operands for a later one")
        return tuple(v.type for v in self.body.outputs)

    def reference(self, *arrays: np.ndarray) -> Arrays:
        return evaluate(self.body, arrays)

    def decompose(self, b: OpBuilder, *ins: Value) -> Values:
        held = [b.hold(v, ins[self.held]) for v in ins[:self.held]]
        return tuple(b.inline(self.body, [*held, *ins[self.held:]]))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        raise InternalError("the gradient of remat has a rule of its own", "backward")

    def cost(self, *ins: TensorType) -> Cost:
        return Cost(graph_flops(self.body), sum(t.nbytes for t in ins + self.infer(*ins)))


OPS = (Hold, Remat)
