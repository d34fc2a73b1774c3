"""Elementwise operators and conversions."""
from __future__ import annotations

from graphc.doors.onnx_out.emitter import ELEMENT, Emitter
from graphc.doors.onnx_out.rule import (
    ALL, BOOL, FLOATS, INTEGERS, NUMBERS, SIGNED, SINGLE, Rule, Rules, plain)
from graphc.ir.graph import Node, NodeOf
from graphc.ir.ops.elementwise import BitCast, Cast, Elementwise, ShardSum, StopGradient
from graphc.ir.ops.remat import Hold
from graphc.ir.types import DType, bool_, f32, f64, i8, i32, i64, u8, u32, u64

BITCAST_SINCE = 26
EXTREMA = FLOATS | {i8, i32, i64, u8, u32, u64}
CHOSEN = FLOATS | {i8, i32, i64, u8, u32}

# function: its operator, the types that runtimes have
KINDS: dict[str, tuple[str, frozenset[DType]]] = {
    "add": ("Add", NUMBERS), "sub": ("Sub", NUMBERS), "mul": ("Mul", NUMBERS), "div": ("Div", FLOATS),
    "pow": ("Pow", FLOATS), "minimum": ("Min", EXTREMA), "maximum": ("Max", EXTREMA), "copy": ("Identity", ALL),
    "neg": ("Neg", FLOATS | SIGNED), "abs": ("Abs", NUMBERS), "sign": ("Sign", NUMBERS), "floor": ("Floor", FLOATS),
    "ceil": ("Ceil", FLOATS), "round": ("Round", FLOATS), "exp": ("Exp", FLOATS), "log": ("Log", FLOATS),
    "sqrt": ("Sqrt", FLOATS), "sin": ("Sin", FLOATS), "cos": ("Cos", FLOATS), "tanh": ("Tanh", FLOATS),
    "sigmoid": ("Sigmoid", SINGLE), "erf": ("Erf", SINGLE),
    "lt": ("Less", NUMBERS), "le": ("LessOrEqual", NUMBERS), "gt": ("Greater", NUMBERS),
    "ge": ("GreaterOrEqual", NUMBERS), "eq": ("Equal", NUMBERS | BOOL), "isnan": ("IsNaN", FLOATS)}
LOGIC = {"bitand": ("And", "BitwiseAnd"), "bitor": ("Or", "BitwiseOr"), "bitxor": ("Xor", "BitwiseXor"),
         "bitnot": ("Not", "BitwiseNot")}


def _logic(of_bools: str, of_words: str) -> Rule:
    def write(e: Emitter, node: Node) -> list[str]:
        kind = of_words if node.inputs[0].type.dtype.is_int else of_bools
        return [e.op(kind, *(e.values[v] for v in node.inputs))]
    return Rule(write, INTEGERS | BOOL)


def _not_equal(e: Emitter, node: Node) -> list[str]:
    return [e.op("Not", e.op("Equal", *(e.values[v] for v in node.inputs)))]


def _rsqrt(e: Emitter, node: Node) -> list[str]:
    return [e.op("Reciprocal", e.op("Sqrt", e.values[node.inputs[0]]))]


def _same(e: Emitter, node: Node) -> list[str]:
    return [e.values[node.inputs[0]]]


def _cast(e: Emitter, node: Node) -> list[str]:
    """Floats to integers saturate, which ONNX leaves open; f64 becomes f16 or bf16 by way of f32."""
    x, source, target = e.values[node.inputs[0]], node.inputs[0].type.dtype, node.outputs[0].type.dtype
    if source is target:
        return [x]
    if source.is_float and target.is_int:
        return [_saturated(e, x, source, target)]
    if source is f64 and target.is_storage:
        x = e.cast(x, f32)
    return [e.cast(x, target)]


def _bitcast(e: Emitter, node: NodeOf[BitCast]) -> list[str]:
    x = e.values[node.inputs[0]]
    return [e.cast(x, bool_) if node.op.dtype is bool_ else e.op("BitCast", x, to=ELEMENT[node.op.dtype])]


def _saturated(e: Emitter, x: str, source: DType, target: DType) -> str:
    """The whole number of a float; beyond the range its ends, of NaN 0."""
    if source.is_storage:
        x, source = e.cast(x, f32), f32
    zero = e.constant(0, source)
    x = e.op("Where", e.op("IsNaN", x), zero, x)
    low, high = target.range
    if int(source.np.type(high)) == high:                    # both ends are floats
        return e.cast(e.op("Clip", x, e.constant(low, source), e.constant(high, source)), target)
    if target.bits == 64 and not target.is_signed or target is u32:
        below = e.op("Less", x, zero)
        return _with_ends(e, x, below, (source, target), zero)
    return _with_ends(e, x, e.op("Less", x, e.constant(low, source)), (source, target), zero)


def _with_ends(e: Emitter, x: str, below: str, types: tuple[DType, DType], zero: str) -> str:
    source, target = types
    low, high = target.range
    above = e.op("GreaterOrEqual", x, e.constant(float(high), source))
    inside = e.cast(e.op("Where", e.op("Or", below, above), zero, x), target)
    wide = i64 if target is u64 else target             # runtimes choose among u64 as among i64
    parts = [e.constant(low, target), e.constant(high, target), inside]
    if wide is not target:
        parts = [e.cast(part, wide) for part in parts]
    chosen = e.op("Where", above, parts[1], e.op("Where", below, parts[0], parts[2]))
    return chosen if wide is target else e.cast(chosen, target)


RULES: Rules = {Elementwise(fn): Rule(plain(kind), types, ordered=fn in ("minimum", "maximum", "lt", "le", "gt", "ge"))
                for fn, (kind, types) in KINDS.items()}
RULES |= {Elementwise(fn): _logic(*kinds) for fn, kinds in LOGIC.items()}
RULES |= {Elementwise("ne"): Rule(_not_equal, NUMBERS | BOOL), Elementwise("rsqrt"): Rule(_rsqrt, FLOATS),
          Elementwise("where"): Rule(plain("Where"), CHOSEN, of=1), StopGradient: Rule(_same), Hold: Rule(_same),
          ShardSum: Rule(_same), Cast: Rule(_cast), BitCast: Rule(_bitcast, since=BITCAST_SINCE)}
