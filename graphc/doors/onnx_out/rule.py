"""What a rule of the table of operators is."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.doors.onnx_out.emitter import Emitter
from graphc.ir.graph import Node, NodeOf
from graphc.ir.op import Opcode
from graphc.ir.types import DTYPES, DType, bool_, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from graphc.records import dataclass

OLDEST = 18                         # opset: reductions take their axes as an input, integers have bitwise operators

# names of the outputs; None: this form of the operator has no counterpart
Write = Callable[[Emitter, NodeOf[Any]], Sequence[str] | None]

SINGLE = frozenset((f32,))
FLOATS = frozenset((f32, f64))
SIGNED = frozenset((i8, i16, i32, i64))
INTEGERS = SIGNED | frozenset((u8, u16, u32, u64))
NUMBERS = FLOATS | INTEGERS
WORDS = frozenset((f32, f64, i32, i64))
ALL = frozenset(DTYPES)
BOOL = frozenset((bool_,))


@dataclass(frozen=True)
class Rule:
    """How an operator is written in ONNX.

    `types`: the element types, of operand number `of`, for which runtimes have the counterpart; others are computed in
    a wider one. `since`: the opset that has it. `ordered`: the result depends on which number is greater, so that u64
    is not simply read as i64.
    """
    write: Write
    types: frozenset[DType] = ALL
    since: int = OLDEST
    of: int = 0
    ordered: bool = False

    def applies(self, node: Node, opset: int) -> bool:
        return opset >= self.since and (not node.inputs or self.dtype(node) in self.types)

    def dtype(self, node: Node) -> DType:
        return node.inputs[self.of].type.dtype


Rules = dict[Opcode, Rule]


def plain(kind: str, **attributes: object) -> Write:
    """The operator `kind` of the operands as they are."""
    def write(e: Emitter, node: Node) -> list[str]:
        return [e.op(kind, *(e.values[v] for v in node.inputs), **attributes)]
    return write
