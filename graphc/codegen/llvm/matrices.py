"""The LLVM text of products of matrices (x86's AMX): what registers are, what they load, multiply and store."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.types import MEMORY
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import MatrixDot, MatrixMove, MatrixShapes, MatrixZero
from graphc.ir.types import bf16x2

ELEMENT_BYTES = 4
# The 64 bytes that say what registers are: the first is the palette, 1; then come 16 bits each, the bytes of a row,
# and 8 bits each, the rows
SHAPES_BYTES, PALETTE, ROW_BYTES_AT, ROWS_AT = 64, 1, 16, 48


def matrix_shapes(b: BodyEmitter, s: MatrixShapes) -> None:
    if not s.rows:
        return b.line("call void @llvm.x86.tilerelease()")
    memory = b.frame(SHAPES_BYTES)
    b.line(f"store <8 x i64> <i64 {PALETTE}{', i64 0' * 7}>, ptr {memory}, align 64")
    for i, (rows, columns) in enumerate(zip(s.rows, s.columns)):
        _store(b, memory, ROW_BYTES_AT + 2 * i, "i16", columns * ELEMENT_BYTES)
        _store(b, memory, ROWS_AT + i, "i8", rows)
    b.line(f"call void @llvm.x86.ldtilecfg(ptr {memory})")


def _store(b: BodyEmitter, memory: str, at: int, ty: str, ix: Ix) -> None:
    text = b.value(b.resolve(ix))
    text = b.emit(f"trunc {b.ix} {text} to {ty}") if text.startswith("%") else text
    b.line(f"store {ty} {text}, ptr {b.emit(f'getelementptr i8, ptr {memory}, i64 {at}')}, align 1")


def matrix_move(b: BodyEmitter, s: MatrixMove) -> None:
    pointer = b.address(s.view, s.index, MEMORY[s.view.dtype.name])
    name = "tilestored64" if s.stores else "tileloadd64"
    b.line(f"call void @llvm.x86.{name}(i8 {s.number}, ptr {pointer}, i64 {s.step * ELEMENT_BYTES})")


def matrix_zero(b: BodyEmitter, s: MatrixZero) -> None:
    b.line(f"call void @llvm.x86.tilezero(i8 {s.number})")


def matrix_dot(b: BodyEmitter, s: MatrixDot) -> None:
    x, y = s.types
    signs = "".join("s" if t.element.is_signed else "u" for t in s.types)
    name = "tdpbf16ps" if x is bf16x2 is y else f"tdpb{signs}d"
    b.line(f"call void @llvm.x86.{name}(i8 {s.c}, i8 {s.a}, i8 {s.b})")
