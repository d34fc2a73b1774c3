"""The LLVM text of every value operation: one table for the regular ones, a function for each irregular one, an index at the end.

A function gets the emitter, the statement and the operands' texts, and returns the result's text.
"""
from __future__ import annotations

from graphc.codegen.llvm.types import (
    BITS, KIND, MEMORY, REGISTER, constant, lanes_constant, mangled, scalar_constant, type_of, vector)
from graphc.codegen.loops.index import Ix, at_least, at_most
from graphc.codegen.loops.loop_ir import Compute, Val
from graphc.codegen.loops.ops import MATH
from graphc.errors import InternalError
from graphc.ir.types import f32

# (operation, kind of the operands) -> instruction: all operands have one type
INSTRUCTIONS = {
    ("add", "f"): "fadd", ("sub", "f"): "fsub", ("mul", "f"): "fmul", ("div", "f"): "fdiv", ("neg", "f"): "fneg",
    ("add", "i"): "add", ("sub", "i"): "sub", ("mul", "i"): "mul",
    ("shl", "i"): "shl", ("lshr", "i"): "lshr", ("ashr", "i"): "ashr",
    **{(op, kind): op for op in ("and", "or", "xor") for kind in "ib"},
    ("eq", "f"): "fcmp oeq", ("ne", "f"): "fcmp une", ("lt", "f"): "fcmp olt",
    ("le", "f"): "fcmp ole", ("gt", "f"): "fcmp ogt", ("ge", "f"): "fcmp oge",
    ("eq", "i"): "icmp eq", ("ne", "i"): "icmp ne", ("lt", "i"): "icmp slt",
    ("le", "i"): "icmp sle", ("gt", "i"): "icmp sgt", ("ge", "i"): "icmp sge",
    ("eq", "b"): "icmp eq", ("ne", "b"): "icmp ne", ("lt", "b"): "icmp ult",
    ("le", "b"): "icmp ule", ("gt", "b"): "icmp ugt", ("ge", "b"): "icmp uge",
}

# (operation, kind) -> intrinsic overloaded on its operand type
INTRINSICS = {
    ("fma", "f"): "llvm.fma", ("sqrt", "f"): "llvm.sqrt", ("floor", "f"): "llvm.floor", ("ceil", "f"): "llvm.ceil",
    ("round", "f"): "llvm.roundeven", ("trunc", "f"): "llvm.trunc", ("abs", "f"): "llvm.fabs", ("copysign", "f"): "llvm.copysign",
    ("min", "i"): "llvm.smin", ("max", "i"): "llvm.smax",
}


def compute(e, s: Compute, args: list[str]) -> str:
    """Emits `s` and returns the text of its result."""
    first = s.args[0] if s.args else s.dst
    key = s.op, KIND[first.dtype.name]
    head = INSTRUCTIONS.get(key)
    if head is not None:
        return e.emit(f"{head} {type_of(first)} {', '.join(args)}")
    name = INTRINSICS.get(key)
    if name is not None:
        return intrinsic(e, name, s, args)
    rule = IRREGULAR.get(key) or IRREGULAR.get(s.op)
    if rule is None:
        raise InternalError(f"no LLVM translation of loop operation {s.op!r} on {first.dtype}", "llvm")
    return rule(e, s, args)


def intrinsic(e, name: str, s: Compute, args: list[str]) -> str:
    ty = type_of(s.args[0])
    return e.emit(f"call {ty} @{name}.{mangled(s.args[0].dtype, s.args[0].lanes)}({', '.join([f'{ty} {a}' for a in args])})")


# ---- floats
def float_extremum(e, s: Compute, args: list[str]) -> str:
    """minps and maxps give the second operand when either is NaN; so put a constant first, else look whether the first is NaN."""
    ty = type_of(s.dst)
    (a, b), (va, vb) = args, s.args
    if vb.const is not None and vb.const == vb.const:
        (a, b), (va, vb) = (b, a), (vb, va)
    wins = e.emit(f"fcmp {'olt' if s.op == 'min' else 'ogt'} {ty} {a}, {b}")
    best = select_text(e, s.dst.lanes, wins, ty, a, b)
    if va.const is not None and va.const == va.const:
        return best
    nan = e.emit(f"fcmp uno {ty} {a}, {a}")
    return select_text(e, s.dst.lanes, nan, ty, a, best)


def float_rem(e, s: Compute, args: list[str]) -> str:
    """np.remainder: C's fmod, moved to the sign of the divisor."""
    ty, lanes, (a, b) = type_of(s.dst), s.dst.lanes, args
    zero = constant(0.0, s.dst.dtype, lanes)
    r = e.emit(f"frem {ty} {a}, {b}")
    nonzero = e.emit(f"fcmp une {ty} {r}, {zero}")
    negative = e.emit(f"fcmp olt {ty} {r}, {zero}")
    wanted = e.emit(f"fcmp olt {ty} {b}, {zero}")
    differ = e.emit(f"xor {vector('i1', lanes)} {negative}, {wanted}")
    fix = e.emit(f"and {vector('i1', lanes)} {differ}, {nonzero}")
    moved = e.emit(f"fadd {ty} {r}, {b}")
    signed_zero = e.emit(f"call {ty} @llvm.copysign.{mangled(s.dst.dtype, lanes)}({ty} {zero}, {ty} {b})")
    return select_text(e, lanes, fix, ty, moved, select_text(e, lanes, nonzero, ty, r, signed_zero))


def isnan(e, s: Compute, args: list[str]) -> str:
    return e.emit(f"fcmp uno {type_of(s.args[0])} {args[0]}, {args[0]}")


def isfinite(e, s: Compute, args: list[str]) -> str:
    magnitude = intrinsic(e, "llvm.fabs", s, args)
    return e.emit(f"fcmp olt {type_of(s.args[0])} {magnitude}, {constant(float('inf'), s.args[0].dtype, s.args[0].lanes)}")


def rsqrt(e, s: Compute, args: list[str]) -> str:
    root = intrinsic(e, "llvm.sqrt", s, args)
    return e.emit(f"fdiv {type_of(s.dst)} {constant(1.0, s.dst.dtype, s.dst.lanes)}, {root}")


def scale(e, s: Compute, args: list[str]) -> str:
    return _by_registers(e, s, "scalef", args, "")


def fraction(e, s: Compute, args: list[str]) -> str:
    return _by_registers(e, s, "reduce", args, ", i32 1")               # rounds down


def _by_registers(e, s: Compute, name: str, args: list[str], option: str) -> str:
    """An instruction of AVX-512, for each register of its operands: a scalar or a short vector in a longer one."""
    if s.dst.dtype is not f32 or not e.module.target.has_scaling:
        raise InternalError(f"{s.op} of {s.dst.dtype} is no instruction of {e.module.target.name}", "llvm")
    ty, lanes = type_of(s.dst), s.dst.lanes
    width = min(max(lanes, 4), 16)
    register, result = f"<{width} x float>", "poison"
    for at in range(0, lanes, width):
        parts = [f"{register} {_register(e, a, ty, lanes, register, at)}" for a in args]
        rounding = ", i32 4" if width == 16 else ""         # as the others round
        found = e.emit(f"call {register} @llvm.x86.avx512.mask.{name}.ps.{width * 32}({', '.join(parts)}{option}, {register} zeroinitializer, "
                       f"i{max(width, 8)} -1{rounding})")
        if lanes == 1:
            return e.emit(f"extractelement {register} {found}, i64 0")
        if lanes < width:
            return e.emit(f"call {ty} @llvm.vector.extract.{mangled(f32, lanes)}.{mangled(f32, width)}({register} {found}, i64 0)")
        result = e.emit(f"call {ty} @llvm.vector.insert.{mangled(f32, lanes)}.{mangled(f32, width)}({ty} {result}, {register} {found}, i64 {at})")
    return result


def _register(e, value: str, ty: str, lanes: int, register: str, at: int) -> str:
    """The part of a value from lane `at` on."""
    width = min(max(lanes, 4), 16)
    if lanes == 1:
        return e.emit(f"insertelement {register} poison, float {value}, i64 0")
    if lanes < width:
        return e.emit(f"call {register} @llvm.vector.insert.{mangled(f32, width)}.{mangled(f32, lanes)}({register} poison, {ty} {value}, i64 0)")
    return _half(e, ty, "float", value, at, width)


def math_call(e, s: Compute, args: list[str]) -> str:
    ty = type_of(s.dst)
    return e.emit(f"call {ty} {e.module.math(s.op, s.dst.dtype, s.dst.lanes)}({', '.join([f'{ty} {a}' for a in args])})")


def repair(e, s: Compute, args: list[str]) -> str:
    """A branch to an outlined function, taken when any lane is bad."""
    bad, result, *operands = args
    lanes, ty = s.dst.lanes, type_of(s.dst)
    slow = e.module.libm_repair(s.attr, s.dst.dtype, lanes, len(operands))
    actual = ", ".join([f"{vector('i1', lanes)} {bad}", f"{ty} {result}"] + [f"{ty} {o}" for o in operands])
    return e.cold_path(any_lane(e, bad, lanes), f"call preserve_allcc {ty} {slow}({actual})", ty, result)


def libm_call(e, s, args: list[str]) -> str:
    """One libm call for each lane."""
    ty, element, lanes = type_of(s.dst), REGISTER[s.dst.dtype.name], s.dst.lanes
    symbol = e.module.libm(s.attr, s.dst.dtype, len(args))
    result = "poison"
    for lane in range(lanes):
        actual = ", ".join([f"{element} {lane_text(e, ty, a, lanes, lane)}" for a in args])
        value = e.emit(f"call {element} {symbol}({actual})")
        result = value if lanes == 1 else e.emit(f"insertelement {ty} {result}, {element} {value}, i64 {lane}")
    return result


def lane_text(e, ty: str, text: str, lanes: int, lane: int) -> str:
    """One lane of a value; the value itself when it is a scalar."""
    return text if lanes == 1 else e.emit(f"extractelement {ty} {text}, i64 {lane}")


def any_lane(e, bools: str, lanes: int) -> str:
    if lanes == 1:
        return bools
    word = e.emit(f"bitcast <{lanes} x i1> {bools} to i{lanes}")
    return e.emit(f"icmp ne i{lanes} {word}, 0")


# ---- integers
def int_neg(e, s: Compute, args: list[str]) -> str:
    return e.emit(f"sub {type_of(s.dst)} zeroinitializer, {args[0]}" if s.dst.lanes > 1 else f"sub {type_of(s.dst)} 0, {args[0]}")


def int_abs(e, s: Compute, args: list[str]) -> str:
    ty = type_of(s.dst)
    return e.emit(f"call {ty} @llvm.abs.{mangled(s.dst.dtype, s.dst.lanes)}({ty} {args[0]}, i1 false)")


def int_div(e, s: Compute, args: list[str]) -> str:
    return _floor_division(e, s, args)[0]


def int_rem(e, s: Compute, args: list[str]) -> str:
    return _floor_division(e, s, args)[1]


def _floor_division(e, s: Compute, args: list[str]) -> tuple[str, str]:
    """(quotient, remainder) rounded down; 0 and 0 for a zero divisor; most negative / -1 wraps."""
    ty, lanes, dtype, (a, b) = type_of(s.dst), s.dst.lanes, s.dst.dtype, args
    bools, number = vector("i1", lanes), lambda n: constant(n, dtype, lanes)
    divisor = s.args[1].const
    safe = b
    if divisor is None or divisor in (0, -1):
        is_zero = e.emit(f"icmp eq {ty} {b}, {number(0)}")
        is_minus = e.emit(f"icmp eq {ty} {b}, {number(-1)}")
        special = e.emit(f"or {bools} {is_zero}, {is_minus}")
        safe = select_text(e, lanes, special, ty, number(1), b)
    q, r = e.emit(f"sdiv {ty} {a}, {safe}"), e.emit(f"srem {ty} {a}, {safe}")
    signs = e.emit(f"xor {ty} {r}, {safe}")
    opposite = e.emit(f"icmp slt {ty} {signs}, {number(0)}")
    nonzero = e.emit(f"icmp ne {ty} {r}, {number(0)}")
    fix = e.emit(f"and {bools} {opposite}, {nonzero}")
    q = select_text(e, lanes, fix, ty, e.emit(f"sub {ty} {q}, {number(1)}"), q)
    r = select_text(e, lanes, fix, ty, e.emit(f"add {ty} {r}, {safe}"), r)
    if safe is not b:
        q = select_text(e, lanes, is_minus, ty, e.emit(f"sub {ty} {number(0)}, {a}"), q)
        q = select_text(e, lanes, is_zero, ty, number(0), q)
        r = select_text(e, lanes, special, ty, number(0), r)
    return q, r


def int_not(e, s: Compute, args: list[str]) -> str:
    ones = constant(True if s.dst.dtype.kind == "bool" else -1, s.dst.dtype, s.dst.lanes)
    return e.emit(f"xor {type_of(s.dst)} {args[0]}, {ones}")


def mulhi_u(e, s: Compute, args: list[str]) -> str:
    ty, bits = type_of(s.dst), BITS[s.dst.dtype.name]
    wide = vector(f"i{2 * bits}", s.dst.lanes)
    a, b = [e.emit(f"zext {ty} {x} to {wide}") for x in args]
    product = e.emit(f"mul {wide} {a}, {b}")
    shift = str(bits) if s.dst.lanes == 1 else f"splat (i{2 * bits} {bits})"
    return e.emit(f"trunc {wide} {e.emit(f'lshr {wide} {product}, {shift}')} to {ty}")


# ---- selection and conversion
def select(e, s: Compute, args: list[str]) -> str:
    return select_text(e, s.dst.lanes, args[0], type_of(s.dst), args[1], args[2])


def select_text(e, lanes: int, condition: str, ty: str, a: str, b: str) -> str:
    return e.emit(f"select {vector('i1', lanes)} {condition}, {ty} {a}, {ty} {b}")


def cast(e, s: Compute, args: list[str]) -> str:
    return CASTS[KIND[s.args[0].dtype.name] + KIND[s.dst.dtype.name]](e, s, args[0])


def _int_to_float(e, s: Compute, a: str) -> str:
    return e.emit(f"sitofp {type_of(s.args[0])} {a} to {type_of(s.dst)}")


def _float_to_int(e, s: Compute, a: str) -> str:
    source, to = s.args[0], s.dst
    name = f"llvm.fptosi.sat.{mangled(to.dtype, to.lanes)}.{mangled(source.dtype, source.lanes)}"
    return e.emit(f"call {type_of(to)} @{name}({type_of(source)} {a})")


def _resize(narrow: str, widen: str):
    def rule(e, s: Compute, a: str) -> str:
        head = narrow if BITS[s.dst.dtype.name] < BITS[s.args[0].dtype.name] else widen
        return e.emit(f"{head} {type_of(s.args[0])} {a} to {type_of(s.dst)}")
    return rule


def _from_bool(e, s: Compute, a: str) -> str:
    one, zero = [constant(s.dst.dtype.np.type(n).item(), s.dst.dtype, s.dst.lanes) for n in (1, 0)]
    return select_text(e, s.dst.lanes, a, type_of(s.dst), one, zero)


def _to_bool(compare: str):
    def rule(e, s: Compute, a: str) -> str:
        source = s.args[0]
        return e.emit(f"{compare} {type_of(source)} {a}, {constant(source.dtype.np.type(0).item(), source.dtype, source.lanes)}")
    return rule


CASTS = {"if": _int_to_float, "fi": _float_to_int, "ff": _resize("fptrunc", "fpext"), "ii": _resize("trunc", "sext"),
         "bf": _from_bool, "bi": _from_bool, "fb": _to_bool("fcmp une"), "ib": _to_bool("icmp ne")}


def bitcast(e, s: Compute, args: list[str]) -> str:
    return e.emit(f"bitcast {type_of(s.args[0])} {args[0]} to {type_of(s.dst)}")


# ---- lanes
def splat(e, s: Compute, args: list[str]) -> str:
    ty, element = type_of(s.dst), REGISTER[s.dst.dtype.name]
    one = e.emit(f"insertelement {ty} poison, {element} {args[0]}, i64 0")
    return e.emit(f"shufflevector {ty} {one}, {ty} poison, <{s.dst.lanes} x i32> zeroinitializer")


def iota(e, s: Compute, args: list[str]) -> str:
    values = [scalar_constant(s.dst.dtype.np.type(i).item(), s.dst.dtype) for i in range(s.dst.lanes)]
    return values[0] if s.dst.lanes == 1 else lanes_constant(REGISTER[s.dst.dtype.name], values)


def shuffle(e, s: Compute, args: list[str]) -> str:
    ty, indices = type_of(s.args[0]), s.attr
    if s.args[0].lanes == 1:
        parts = [args[i] for i in indices]
        return parts[0] if s.dst.lanes == 1 else build_vector(e, REGISTER[s.dst.dtype.name], parts)
    order = lanes_constant("i32", indices)
    mixed = e.emit(f"shufflevector {ty} {args[0]}, {ty} {args[1]}, <{len(indices)} x i32> {order}")
    return e.emit(f"extractelement <1 x {REGISTER[s.dst.dtype.name]}> {mixed}, i64 0") if s.dst.lanes == 1 else mixed


def build_vector(e, element: str, parts: list[str]) -> str:
    """A vector of scalars."""
    ty, whole = f"<{len(parts)} x {element}>", "poison"
    for lane, part in enumerate(parts):
        whole = e.emit(f"insertelement {ty} {whole}, {element} {part}, i64 {lane}")
    return whole


def extract(e, s: Compute, args: list[str]) -> str:
    return e.emit(f"extractelement {type_of(s.args[0])} {args[0]}, i64 {s.attr}")


def insert(e, s: Compute, args: list[str]) -> str:
    return e.emit(f"insertelement {type_of(s.dst)} {args[0]}, {type_of(s.args[1])} {args[1]}, i64 {s.attr}")


def reduce(e, s: Compute, args: list[str]) -> str:
    dtype, lanes, value = s.dst.dtype, s.args[0].lanes, args[0]
    if dtype.kind == "bool":
        return e.emit(f"call i1 @llvm.vector.reduce.{s.attr}.v{lanes}i1(<{lanes} x i1> {value})")
    element = REGISTER[dtype.name]
    while lanes > 1:
        ty, half = f"<{lanes} x {element}>", lanes // 2
        low, high = [_half(e, ty, element, value, start, half) for start in (0, half)]
        value, lanes = _combine(e, s.attr, Val(None, dtype, half, 0), low, high), half
    return value


def _combine(e, op: str, like: Val, a: str, b: str) -> str:
    return compute(e, Compute(op, like, (like, like)), [a, b])


def _half(e, ty: str, element: str, value: str, start: int, count: int) -> str:
    if count == 1:
        return e.emit(f"extractelement {ty} {value}, i64 {start}")
    order = lanes_constant("i32", range(start, start + count))
    return e.emit(f"shufflevector {ty} {value}, {ty} poison, <{count} x i32> {order}")


def tail_mask(e, s: Compute, args: list[str]) -> str:
    """iota < count, in integers as wide as the lanes are likely to be: AVX2 masks have the width of the data."""
    lanes, count = s.dst.lanes, e.resolve(s.attr)
    if count.is_const:
        return lanes_constant("i1", ["true" if i < count.const else "false" for i in range(lanes)])
    element = "i64" if lanes <= 4 else "i32"
    if not (at_least(count, -(1 << 31)) and at_most(count, (1 << 31) - 1)):
        element = "i64"
    number = e.value(count)
    if element == "i32":
        number = e.emit(f"trunc i64 {number} to i32")
    ty = f"<{lanes} x {element}>"
    one = e.emit(f"insertelement {ty} poison, {element} {number}, i64 0")
    counts = e.emit(f"shufflevector {ty} {one}, {ty} poison, <{lanes} x i32> zeroinitializer")
    return e.emit(f"icmp sgt {ty} {counts}, {lanes_constant(element, range(lanes))}")


def index_value(e, s: Compute, args: list[str]) -> str:
    return e.value(e.resolve(s.attr))


def is_aligned(e, s: Compute, args: list[str]) -> str:
    view, nbytes = s.attr
    address = e.emit(f"ptrtoint ptr {e.address(view, (Ix(),) * len(view.shape), MEMORY[view.dtype.name])} to i64")
    rest = e.emit(f"and i64 {address}, {nbytes - 1}")
    return e.emit(f"icmp eq i64 {rest}, 0")


# operation, or (operation, kind of the operands) -> rule
IRREGULAR = {
    ("min", "f"): float_extremum, ("max", "f"): float_extremum, ("rem", "f"): float_rem,
    ("div", "i"): int_div, ("rem", "i"): int_rem, ("neg", "i"): int_neg, ("abs", "i"): int_abs,
    "isnan": isnan, "isfinite": isfinite, "not": int_not, "mulhi_u": mulhi_u,
    **dict.fromkeys(MATH, math_call), "pow": math_call, "rsqrt": rsqrt, "scale": scale, "fraction": fraction, "repair": repair, "libm": libm_call,
    "select": select, "cast": cast, "bitcast": bitcast,
    "splat": splat, "iota": iota, "shuffle": shuffle, "extract": extract, "insert": insert, "reduce": reduce,
    "tail_mask": tail_mask, "value": index_value, "is_aligned": is_aligned,
}
