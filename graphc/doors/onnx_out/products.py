"""Matrix products and einsum."""
from __future__ import annotations

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.rule import WORDS, Rule, Rules
from graphc.ir.graph import NodeOf
from graphc.ir.ops.contract import Einsum, Matmul, parse_equation
from graphc.ir.types import i8, i32, i64, u8, u32, u64

BYTES = (i8, u8)


def _in_type(e: Emitter, node: NodeOf[Matmul] | NodeOf[Einsum]) -> list[str]:
    """The operands in the type of the sums."""
    dtype = node.outputs[0].type.dtype
    return [e.values[v] if v.type.dtype is dtype else e.cast(e.values[v], dtype) for v in node.inputs]



def _matmul(e: Emitter, node: NodeOf[Matmul]) -> list[str] | None:
    x, y = node.inputs
    dtype = node.outputs[0].type.dtype
    if dtype is i32 and x.type.dtype in BYTES and y.type.dtype in BYTES and min(x.type.rank, y.type.rank) > 1:
        return [e.op("MatMulInteger", e.values[x], e.values[y])]
    return [e.op("MatMul", *_in_type(e, node))] if dtype in WORDS | {u32, u64} else _by_words(e, node, "MatMul")


def _einsum(e: Emitter, node: NodeOf[Einsum]) -> list[str] | None:
    equation = written(node.op.equation, *(v.type.rank for v in node.inputs))
    if node.outputs[0].type.dtype not in WORDS:
        return _by_words(e, node, "Einsum", equation=equation)
    return [e.op("Einsum", *_in_type(e, node), equation=equation)]


def _by_words(e: Emitter, node: NodeOf[Matmul] | NodeOf[Einsum], kind: str, **attributes: str) -> list[str]:
    """Of other integers by way of those that runtimes multiply, modulo the range."""
    dtype = node.outputs[0].type.dtype
    wide = i32 if dtype.bits < 32 else i64
    return [e.cast(e.op(kind, *(e.cast(e.values[v], wide) for v in node.inputs), **attributes), dtype)]


def written(equation: str, *ranks: int) -> str:
    """The equation with a letter for every axis and with its result."""
    labels = parse_equation(equation, *ranks)
    letters = {label: chr(ord("a") + i) for i, label in enumerate(dict.fromkeys(i for term in labels for i in term))}
    *terms, out = ("".join(letters[i] for i in term) for term in labels)
    return f"{','.join(terms)}->{out}"


RULES: Rules = {Matmul: Rule(_matmul), Einsum: Rule(_einsum)}
