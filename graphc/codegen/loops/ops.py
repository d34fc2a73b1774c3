"""The operations of the loop IR: what types each takes and gives. Semantics are in `loop_arith`, machine text in
`llvm_ops`."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from graphc.codegen.loops.loop_ir import Val
from graphc.errors import InternalError
from graphc.ir.types import DType, bf16, bf16x2, bool_, f16, f32, f64, i8x4, i32, i64, u8x4, u16, u32, u64


class OpSignature(NamedTuple):
    """How many operands an operation takes, which element types it accepts, and whether it gives bools."""
    arity: int
    accepts: Callable[[DType], bool]
    gives_bool: bool = False


def is_float(dtype: DType) -> bool:
    return dtype.is_float and not dtype.is_storage


def is_int(dtype: DType) -> bool:
    return dtype.is_int


def is_number(dtype: DType) -> bool:
    return dtype.is_int or is_float(dtype)


def is_bits(dtype: DType) -> bool:
    return dtype.is_int or dtype.kind == "bool"


def is_any(dtype: DType) -> bool:
    return not dtype.is_storage and not dtype.is_packed


MATH = ("exp", "exp2", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "rsqrt")
# within half a unit in the last place and little more: computed in f64
SPECIAL = ("lgamma", "digamma", "erfc", "erfinv", "i0", "i1", "log2", "log10", "cbrt")

REGULAR: dict[str, OpSignature] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "rem", "min", "max"), OpSignature(2, is_number)),
    **dict.fromkeys(("neg", "abs"), OpSignature(1, is_number)),
    **dict.fromkeys(("sqrt", "floor", "ceil", "round", "trunc") + MATH + SPECIAL, OpSignature(1, is_float)),
    "pow": OpSignature(2, is_float),
    "copysign": OpSignature(2, is_float),
    "fma": OpSignature(3, is_float),
    "scale": OpSignature(2, is_float),
    "fraction": OpSignature(1, is_float),
    **dict.fromkeys(("and", "or", "xor"), OpSignature(2, is_bits)),
    "not": OpSignature(1, is_bits),
    **dict.fromkeys(("shl", "lshr", "ashr", "mulhi_u"), OpSignature(2, is_int)),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), OpSignature(2, is_any, gives_bool=True)),
    **dict.fromkeys(("isnan", "isfinite"), OpSignature(1, is_float, gives_bool=True)),
}

# operations with a rule of their own, made by one builder method each
IRREGULAR = ("select", "cast", "widen", "narrow", "bitcast", "splat", "iota", "shuffle", "extract", "insert", "reduce",
             "tail_mask", "value",
             "repair", "libm", "is_aligned", "dot", "words", "lookup")

REDUCTIONS = {"add": is_number, "mul": is_number, "min": is_number, "max": is_number, "and": is_bits, "or": is_bits}
BITCASTS = {(f32, i32), (i32, f32), (f64, i64), (i64, f64), (u32, i32), (i32, u32), (u64, i64), (i64, u64),
            (f16, u16), (u16, f16), (bf16, u16), (u16, bf16), (u32, bf16x2), (u32, i8x4), (u32, u8x4)}


def result_dtype(op: str, args: tuple[Val, ...]) -> DType:
    """The element type that a regular operation gives; InternalError if it does not take these operands."""
    signature = REGULAR.get(op)
    if signature is None:
        raise InternalError(f"unknown loop operation {op!r}", "loops")
    first = args[0]
    if (len(args) != signature.arity or any(a.dtype is not first.dtype or a.lanes != first.lanes for a in args)
        or not signature.accepts(first.dtype)):
        raise InternalError(f"{op} does not take ({', '.join(a.type_text for a in args)})", "loops")
    return bool_ if signature.gives_bool else first.dtype
