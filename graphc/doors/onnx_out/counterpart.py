"""An operator of ONNX in a graph of graphc, for rules that are written in graphc's operators."""
from __future__ import annotations

from typing import ClassVar

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.rule import Rule, Rules
from graphc.ir.graph import Node, Value
from graphc.ir.op import Op, OpBuilder
from graphc.ir.types import TensorType, broadcast_shapes


class Counterpart(Op):
    """The elementwise operator `kind` of ONNX, with attributes; results have the type of the first operand."""
    name: ClassVar[str] = "onnx"
    kind: str
    given: tuple[tuple[str, int | str], ...] = ()

    def infer(self, *ins: TensorType) -> TensorType:
        return ins[0].with_shape(broadcast_shapes(*(t.shape for t in ins)))


def counterpart(b: OpBuilder, kind: str, *operands: Value, **given: int | str) -> Value:
    return b.apply(Counterpart(kind, tuple(given.items())), operands)[0]


def _written(e: Emitter, node: Node) -> list[str]:
    op = node.op
    assert isinstance(op, Counterpart)
    return [e.op(op.kind, *(e.values[v] for v in node.inputs), **dict(op.given))]


RULES: Rules = {Counterpart: Rule(_written)}
