"""Operations on floats that are no single instruction, as LLVM text. Called as those of `ops`."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.lanes import part_of_lanes, select_text
from graphc.codegen.llvm.types import constant, mangled, type_of, vector
from graphc.codegen.loops.loop_ir import Compute
from graphc.errors import InternalError
from graphc.ir.types import f32


def intrinsic(e: BodyEmitter, name: str, s: Compute, args: list[str]) -> str:
    ty = type_of(s.args[0])
    return e.emit(f"call {ty} "
                  f"@{name}.{mangled(s.args[0].dtype, s.args[0].lanes)}({', '.join([f'{ty} {a}' for a in args])})")


def float_extremum(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """minps and maxps give the second operand when either is NaN; so put a constant first, else look whether the first
    is NaN."""
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


def float_rem(e: BodyEmitter, s: Compute, args: list[str]) -> str:
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


def isnan(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return e.emit(f"fcmp uno {type_of(s.args[0])} {args[0]}, {args[0]}")


def isfinite(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    magnitude = intrinsic(e, "llvm.fabs", s, args)
    return e.emit(f"fcmp olt {type_of(s.args[0])} {magnitude}, "
                  f"{constant(float('inf'), s.args[0].dtype, s.args[0].lanes)}")


def rsqrt(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    root = intrinsic(e, "llvm.sqrt", s, args)
    return e.emit(f"fdiv {type_of(s.dst)} {constant(1.0, s.dst.dtype, s.dst.lanes)}, {root}")


def scale(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _by_registers(e, s, "scalef", args, "")


def fraction(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _by_registers(e, s, "reduce", args, ", i32 1")               # rounds down


def _by_registers(e: BodyEmitter, s: Compute, name: str, args: list[str], option: str) -> str:
    """An instruction of AVX-512, for each register of its operands: a scalar or a short vector in a longer one."""
    if s.dst.dtype is not f32 or not e.module.target.has_scaling:
        raise InternalError(f"{s.op} of {s.dst.dtype} is no instruction of {e.module.target.name}", "llvm")
    ty, lanes = type_of(s.dst), s.dst.lanes
    width = min(max(lanes, 4), 16)
    register, result = f"<{width} x float>", "poison"
    for at in range(0, lanes, width):
        parts = [f"{register} {_register(e, a, ty, lanes, register, at)}" for a in args]
        rounding = ", i32 4" if width == 16 else ""         # as the others round
        found = e.emit(f"call {register} @llvm.x86.avx512.mask.{name}.ps.{width * 32}({', '.join(parts)}{option}, "
                       f"{register} zeroinitializer, i{max(width, 8)} -1{rounding})")
        if lanes == 1:
            return e.emit(f"extractelement {register} {found}, i64 0")
        if lanes < width:
            return e.emit(f"call {ty} @llvm.vector.extract.{mangled(f32, lanes)}.{mangled(f32, width)}("
                          f"{register} {found}, i64 0)")
        result = e.emit(f"call {ty} @llvm.vector.insert.{mangled(f32, lanes)}.{mangled(f32, width)}({ty} {result}, "
                        f"{register} {found}, i64 {at})")
    return result


def _register(e: BodyEmitter, value: str, ty: str, lanes: int, register: str, at: int) -> str:
    """The part of a value from lane `at` on."""
    width = min(max(lanes, 4), 16)
    if lanes == 1:
        return e.emit(f"insertelement {register} poison, float {value}, i64 0")
    if lanes < width:
        return e.emit(f"call {register} @llvm.vector.insert.{mangled(f32, width)}.{mangled(f32, lanes)}("
                      f"{register} poison, {ty} {value}, i64 0)")
    return part_of_lanes(e, ty, "float", value, at, width)
