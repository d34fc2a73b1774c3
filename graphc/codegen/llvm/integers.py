"""Operations on integers that are no single instruction, as LLVM text. Called as those of `ops`."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.lanes import select_text
from graphc.codegen.llvm.types import constant, mangled, type_of, vector
from graphc.codegen.loops.loop_ir import Compute


def int_neg(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return e.emit(f"sub {type_of(s.dst)} zeroinitializer, {args[0]}" if s.dst.lanes > 1
                  else f"sub {type_of(s.dst)} 0, {args[0]}")


def int_abs(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    ty = type_of(s.dst)
    return e.emit(f"call {ty} @llvm.abs.{mangled(s.dst.dtype, s.dst.lanes)}({ty} {args[0]}, i1 false)")


def int_div(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _floor_division(e, s, args)[0]


def int_rem(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _floor_division(e, s, args)[1]


def _floor_division(e: BodyEmitter, s: Compute, args: list[str]) -> tuple[str, str]:
    """(quotient, remainder) rounded down; 0 and 0 for a zero divisor; most negative / -1 wraps."""
    ty, lanes, dtype, (a, b) = type_of(s.dst), s.dst.lanes, s.dst.dtype, args
    bools, number = vector("i1", lanes), lambda n: constant(n, dtype, lanes)
    divisor = s.args[1].const
    safe, wary = b, divisor is None or divisor in (0, -1)
    is_zero = is_minus = special = ""
    if wary:
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
    if wary:
        q = select_text(e, lanes, is_minus, ty, e.emit(f"sub {ty} {number(0)}, {a}"), q)
        q = select_text(e, lanes, is_zero, ty, number(0), q)
        r = select_text(e, lanes, special, ty, number(0), r)
    return q, r


def unsigned_div(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _unsigned_division(e, s, args, "udiv")


def unsigned_rem(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _unsigned_division(e, s, args, "urem")


def _unsigned_division(e: BodyEmitter, s: Compute, args: list[str], head: str) -> str:
    """0 for a zero divisor."""
    ty, lanes, (a, b) = type_of(s.dst), s.dst.lanes, args
    if s.args[1].const:
        return e.emit(f"{head} {ty} {a}, {b}")
    zero, one = [constant(n, s.dst.dtype, lanes) for n in (0, 1)]
    is_zero = e.emit(f"icmp eq {ty} {b}, {zero}")
    result = e.emit(f"{head} {ty} {a}, {select_text(e, lanes, is_zero, ty, one, b)}")
    return select_text(e, lanes, is_zero, ty, zero, result)


def int_not(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    ones = constant(True if s.dst.dtype.kind == "bool" else -1, s.dst.dtype, s.dst.lanes)
    return e.emit(f"xor {type_of(s.dst)} {args[0]}, {ones}")


def mulhi_u(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    ty, bits = type_of(s.dst), s.dst.dtype.bits
    wide = vector(f"i{2 * bits}", s.dst.lanes)
    a, b = [e.emit(f"zext {ty} {x} to {wide}") for x in args]
    product = e.emit(f"mul {wide} {a}, {b}")
    shift = str(bits) if s.dst.lanes == 1 else f"splat (i{2 * bits} {bits})"
    return e.emit(f"trunc {wide} {e.emit(f'lshr {wide} {product}, {shift}')} to {ty}")
