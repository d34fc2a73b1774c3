"""The LLVM text of every value operation: one table for the regular ones, a function for each irregular one, an index
at the end.

A function gets the emitter, the statement and the operands' texts, and returns the result's text.
"""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.floats import float_extremum, float_rem, fraction, intrinsic, isfinite, isnan, rsqrt, scale
from graphc.codegen.llvm.integers import (
    int_abs, int_div, int_neg, int_not, int_rem, mulhi_u, unsigned_div, unsigned_rem)
from graphc.codegen.llvm.lanes import any_lane, build_vector, lane_text, part_of_lanes, select_text
from graphc.codegen.llvm.lookup import lookup
from graphc.codegen.llvm.packed_dots import packed_dot
from graphc.codegen.llvm.types import (
    KIND, MEMORY, REGISTER, cold_convention, constant, lanes_constant, mangled, scalar_constant, type_of, vector)
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.index_proofs import at_least, at_most
from graphc.codegen.loops.loop_ir import Compute, Val
from graphc.codegen.loops.ops import MATH, SPECIAL
from graphc.errors import InternalError
from graphc.ir.types import f16, f32

Rule = Callable[[BodyEmitter, Compute, list[str]], str]
Conversion = Callable[[BodyEmitter, Compute, str], str]

# (operation, kind of the operands) -> instruction: all operands have one type
INSTRUCTIONS = {
    ("add", "f"): "fadd", ("sub", "f"): "fsub", ("mul", "f"): "fmul", ("div", "f"): "fdiv", ("neg", "f"): "fneg",
    **{(op, kind): op for op in ("add", "sub", "mul", "shl", "lshr") for kind in "iu"}, ("ashr", "i"): "ashr",
    **{(op, kind): op for op in ("and", "or", "xor") for kind in "iub"},
    ("eq", "f"): "fcmp oeq", ("ne", "f"): "fcmp une", ("lt", "f"): "fcmp olt",
    ("le", "f"): "fcmp ole", ("gt", "f"): "fcmp ogt", ("ge", "f"): "fcmp oge",
    ("eq", "i"): "icmp eq", ("ne", "i"): "icmp ne", ("lt", "i"): "icmp slt",
    ("le", "i"): "icmp sle", ("gt", "i"): "icmp sgt", ("ge", "i"): "icmp sge",
    **{(op, kind): f"icmp {head}" for kind in "ub" for op, head in dict(
        eq="eq", ne="ne", lt="ult", le="ule", gt="ugt", ge="uge").items()},
}

# (operation, kind) -> intrinsic overloaded on its operand type
INTRINSICS = {
    ("sqrt", "f"): "llvm.sqrt", ("floor", "f"): "llvm.floor", ("ceil", "f"): "llvm.ceil",
    ("trunc", "f"): "llvm.trunc", ("abs", "f"): "llvm.fabs",
    ("copysign", "f"): "llvm.copysign",
    ("min", "i"): "llvm.smin", ("max", "i"): "llvm.smax", ("min", "u"): "llvm.umin", ("max", "u"): "llvm.umax",
}


def compute(e: BodyEmitter, s: Compute, args: list[str]) -> str:
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


def fused(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """One instruction, or a function of ours; of f64 C's."""
    if s.dst.dtype is f32 and not e.module.target.has_fma:
        return math_call(e, s, args)
    return intrinsic(e, "llvm.fma", s, args)


def rounded(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """To the nearest integer, and to even ones between two. Where that is no instruction LLVM calls C's function of
    that name, which older libraries lack; they have rint, which does the same."""
    return intrinsic(e, "llvm.roundeven" if e.module.target.has_rounding else "llvm.rint", s, args)


# ---- functions
def math_call(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    ty = type_of(s.dst)
    return e.emit(f"call {ty} "
                  f"{e.module.math(s.op, s.dst.dtype, s.dst.lanes)}({', '.join([f'{ty} {a}' for a in args])})")


def repair(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """A branch to an outlined function, taken when any lane is bad."""
    bad, result, *operands = args
    lanes, ty = s.dst.lanes, type_of(s.dst)
    slow = e.module.libm_repair(s.attr, s.dst.dtype, lanes, len(operands))
    actual = ", ".join([f"{vector('i1', lanes)} {bad}", f"{ty} {result}"] + [f"{ty} {o}" for o in operands])
    return e.cold_path(any_lane(e, bad, lanes), f"call {cold_convention(e.module.target)}{ty} {slow}({actual})",
                       ty, result)


def libm_call(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """One libm call for each lane."""
    ty, element, lanes = type_of(s.dst), REGISTER[s.dst.dtype.name], s.dst.lanes
    symbol = e.module.libm(s.attr, s.dst.dtype, len(args))
    result = "poison"
    for lane in range(lanes):
        actual = ", ".join([f"{element} {lane_text(e, ty, a, lanes, lane)}" for a in args])
        value = e.emit(f"call {element} {symbol}({actual})")
        result = value if lanes == 1 else e.emit(f"insertelement {ty} {result}, {element} {value}, i64 {lane}")
    return result


# ---- selection and conversion
def select(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return select_text(e, s.dst.lanes, args[0], type_of(s.dst), args[1], args[2])


def cast(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return CASTS[KIND[s.args[0].dtype.name] + KIND[s.dst.dtype.name]](e, s, args[0])


def _convert(head: str) -> Conversion:
    return lambda e, s, a: e.emit(f"{head} {type_of(s.args[0])} {a} to {type_of(s.dst)}")


def _saturate(name: str) -> Conversion:
    def rule(e: BodyEmitter, s: Compute, a: str) -> str:
        source, to = s.args[0], s.dst
        if to.dtype.bits < 32:
            return _narrow_saturated(e, source, to, a)
        overload = f"{mangled(to.dtype, to.lanes)}.{mangled(source.dtype, source.lanes)}"
        return e.emit(f"call {type_of(to)} @{name}.{overload}({type_of(source)} {a})")
    return rule


def _narrow_saturated(e: BodyEmitter, source: Val, to: Val, a: str) -> str:
    """By way of i32, clamped before: of vectors, LLVM's conversions to fewer bits go lane by lane."""
    ty, wide, (low, high) = type_of(source), vector("i32", to.lanes), to.dtype.range
    if low:                                 # NaN gives 0: else a comparison with it takes the lower limit
        number = e.emit(f"fcmp ord {ty} {a}, {a}")
        a = select_text(e, to.lanes, number, ty, a, constant(0.0, source.dtype, to.lanes))
    for compare, limit in (("ogt", low), ("olt", high)):
        bound = constant(float(limit), source.dtype, to.lanes)
        a = select_text(e, to.lanes, e.emit(f"fcmp {compare} {ty} {a}, {bound}"), ty, a, bound)
    return e.emit(f"trunc {wide} {e.emit(f'fptosi {ty} {a} to {wide}')} to {type_of(to)}")


def _resize(narrow: str, widen: str) -> Conversion:
    """Nothing to do between integers of one size."""
    def rule(e: BodyEmitter, s: Compute, a: str) -> str:
        more = s.dst.dtype.bits - s.args[0].dtype.bits
        return _convert(narrow if more < 0 else widen)(e, s, a) if more else a
    return rule


def _from_bool(e: BodyEmitter, s: Compute, a: str) -> str:
    one, zero = [constant(n, s.dst.dtype, s.dst.lanes) for n in (1, 0)]
    return select_text(e, s.dst.lanes, a, type_of(s.dst), one, zero)


def _to_bool(compare: str) -> Conversion:
    def rule(e: BodyEmitter, s: Compute, a: str) -> str:
        source = s.args[0]
        return e.emit(f"{compare} {type_of(source)} {a}, {constant(0, source.dtype, source.lanes)}")
    return rule


SIGNED, UNSIGNED = _resize("trunc", "sext"), _resize("trunc", "zext")
# kinds of the operand and of the result -> conversion; floats that are only stored go by f32: `widen` and `narrow`
CASTS: dict[str, Conversion] = {
    "if": _convert("sitofp"), "uf": _convert("uitofp"), "ff": _resize("fptrunc", "fpext"),
    "fi": _saturate("llvm.fptosi.sat"), "fu": _saturate("llvm.fptoui.sat"),
    "ii": SIGNED, "iu": SIGNED, "ui": UNSIGNED, "uu": UNSIGNED,
    "bf": _from_bool, "bi": _from_bool, "bu": _from_bool,
    "fb": _to_bool("fcmp une"), "ib": _to_bool("icmp ne"), "ub": _to_bool("icmp ne")}


def convert_storage(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """f16 or bf16 to f32, or back: by instructions where the target has them, else by a function on the bits."""
    source, to, (a,) = s.args[0], s.dst, args
    stored = source.dtype if source.dtype.is_storage else to.dtype
    if stored is not f16 or not e.module.target.has_half:
        return e.emit(f"call {type_of(to)} {e.module.conversion(s.op, stored, to.lanes)}({type_of(source)} {a})")
    half, wide = vector("half", to.lanes), vector("float", to.lanes)
    if s.op == "widen":
        return e.emit(f"fpext {half} {e.emit(f'bitcast {type_of(source)} {a} to {half}')} to {wide}")
    return e.emit(f"bitcast {half} {e.emit(f'fptrunc {wide} {a} to {half}')} to {type_of(to)}")


def bitcast(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return e.emit(f"bitcast {type_of(s.args[0])} {args[0]} to {type_of(s.dst)}")


# ---- lanes
def splat(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    ty, element = type_of(s.dst), REGISTER[s.dst.dtype.name]
    one = e.emit(f"insertelement {ty} poison, {element} {args[0]}, i64 0")
    return e.emit(f"shufflevector {ty} {one}, {ty} poison, <{s.dst.lanes} x i32> zeroinitializer")


def iota(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    values = [scalar_constant(i, s.dst.dtype) for i in range(s.dst.lanes)]
    return values[0] if s.dst.lanes == 1 else lanes_constant(REGISTER[s.dst.dtype.name], values)


def shuffle(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    ty, indices = type_of(s.args[0]), s.attr
    if s.args[0].lanes == 1:
        parts = [args[i] for i in indices]
        return parts[0] if s.dst.lanes == 1 else build_vector(e, REGISTER[s.dst.dtype.name], parts)
    order = lanes_constant("i32", indices)
    mixed = e.emit(f"shufflevector {ty} {args[0]}, {ty} {args[1]}, <{len(indices)} x i32> {order}")
    return e.emit(f"extractelement <1 x {REGISTER[s.dst.dtype.name]}> {mixed}, i64 0") if s.dst.lanes == 1 else mixed


def extract(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return e.emit(f"extractelement {type_of(s.args[0])} {args[0]}, i64 {s.attr}")


def insert(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return e.emit(f"insertelement {type_of(s.dst)} {args[0]}, {type_of(s.args[1])} {args[1]}, i64 {s.attr}")


def reduce(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    dtype, lanes, value = s.dst.dtype, s.args[0].lanes, args[0]
    if dtype.kind == "bool":
        return e.emit(f"call i1 @llvm.vector.reduce.{s.attr}.v{lanes}i1(<{lanes} x i1> {value})")
    element = REGISTER[dtype.name]
    while lanes > 1:
        ty, half = f"<{lanes} x {element}>", lanes // 2
        if half == 1 and dtype.is_float and s.attr in ("min", "max"):
            # with its lanes exchanged: of two scalars LLVM would choose by a branch that nothing predicts
            turned = e.emit(f"shufflevector {ty} {value}, {ty} poison, <2 x i32> {lanes_constant('i32', (1, 0))}")
            value = _combine(e, s.attr, Val(s.dst.fn, dtype, lanes, 0), value, turned)
            return e.emit(f"extractelement {ty} {value}, i64 0")
        low, high = [part_of_lanes(e, ty, element, value, start, half) for start in (0, half)]
        value, lanes = _combine(e, s.attr, Val(s.dst.fn, dtype, half, 0), low, high), half
    return value


def _combine(e: BodyEmitter, op: str, like: Val, a: str, b: str) -> str:
    return compute(e, Compute(op, like, (like, like)), [a, b])


def tail_mask(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """iota < count, in integers as wide as the lanes are likely to be: AVX2 masks have the width of the data."""
    lanes, count = s.dst.lanes, e.resolve(s.attr)
    if lanes == 1:                          # of a target without vectors
        return e.emit(f"icmp sgt {e.ix} {e.value(count)}, 0")
    if count.is_const and isinstance(count.const, int):
        return lanes_constant("i1", ["true" if i < count.const else "false" for i in range(lanes)])
    element = e.ix if lanes <= 4 else "i32"
    if e.ix == "i64" and not (at_least(count, -(1 << 31)) and at_most(count, (1 << 31) - 1)):
        element = "i64"
    number = e.value(count)
    if element != e.ix:
        number = e.emit(f"trunc {e.ix} {number} to {element}")
    ty = f"<{lanes} x {element}>"
    one = e.emit(f"insertelement {ty} poison, {element} {number}, i64 0")
    counts = e.emit(f"shufflevector {ty} {one}, {ty} poison, <{lanes} x i32> zeroinitializer")
    return e.emit(f"icmp sgt {ty} {counts}, {lanes_constant(element, range(lanes))}")


def index_value(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return e.wide_value(s.attr)


def is_aligned(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    view, nbytes = s.attr
    address = e.emit(f"ptrtoint ptr {e.address(view, (Ix(),) * len(view.shape), MEMORY[view.dtype.name])} to i64")
    rest = e.emit(f"and i64 {address}, {nbytes - 1}")
    return e.emit(f"icmp eq i64 {rest}, 0")


# operation, or (operation, kind of the operands) -> rule
IRREGULAR: dict[str | tuple[str, str], Rule] = {
    ("fma", "f"): fused, ("round", "f"): rounded,
    ("min", "f"): float_extremum, ("max", "f"): float_extremum, ("rem", "f"): float_rem,
    ("div", "i"): int_div, ("rem", "i"): int_rem, ("abs", "i"): int_abs,
    ("div", "u"): unsigned_div, ("rem", "u"): unsigned_rem, ("abs", "u"): lambda e, s, args: args[0],
    ("neg", "i"): int_neg, ("neg", "u"): int_neg,
    "isnan": isnan, "isfinite": isfinite, "not": int_not, "mulhi_u": mulhi_u,
    **dict.fromkeys(MATH + SPECIAL, math_call), "pow": math_call, "rsqrt": rsqrt, "scale": scale, "fraction": fraction,
    "repair": repair, "libm": libm_call,
    "select": select, "cast": cast, "widen": convert_storage, "narrow": convert_storage, "bitcast": bitcast,
    "splat": splat, "iota": iota, "shuffle": shuffle, "extract": extract, "insert": insert, "reduce": reduce,
    "tail_mask": tail_mask, "dot": packed_dot, "words": bitcast, "lookup": lookup, "value": index_value,
    "is_aligned": is_aligned,
}
