"""The LLVM text of `dot`: products of packed numbers, added to sums."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.types import constant, type_of, vector
from graphc.codegen.loops.loop_ir import Compute, Val
from graphc.ir.types import bf16x2, i32, u32

BF16_DOT_BITS = {"x86_64": (128, 256, 512), "aarch64": (64, 128)}      # of vectors
NUMBERS = 4                         # bytes in an element
# bits of a vector -> products of neighbouring 16-bit integers, added in pairs: every x86 CPU has the first
PAIRS = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}
# signs of the factors, unsigned first -> names of x86's and ARM's instructions
X86_DOTS = {"us": "avx512.vpdpbusd", "ss": "avx2.vpdpbssd", "uu": "avx2.vpdpbuud"}
ARM_DOTS = {"us": "usdot", "ss": "sdot", "uu": "udot"}


def packed_dot(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    return _bf16_dot(e, s, args) if s.args[0].dtype is bf16x2 else _byte_dot(e, s, args)


def _bf16_dot(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """One instruction where the target has it for so many lanes; else two products of widened numbers, in the order of
    x86's."""
    lanes, target, (a, b, c) = s.dst.lanes, e.module.target, args
    wide, bits = type_of(s.dst), type_of(s.args[0])
    if target.has_bf16_dot and lanes * 32 in BF16_DOT_BITS[target.architecture]:
        pairs = f"<{2 * lanes} x bfloat>"
        a, b = (e.emit(f"bitcast {bits} {x} to {pairs}") for x in (a, b))
        name = (f"x86.avx512bf16.dpbf16ps.{32 * lanes}" if target.architecture == "x86_64" else
                f"aarch64.neon.bfdot.v{lanes}f32.v{2 * lanes}bf16")
        return e.emit(f"call {wide} @llvm.{name}({wide} {c}, {pairs} {a}, {pairs} {b})")
    high, low = constant(0xFFFF0000, u32, lanes), constant(16, u32, lanes)
    for widen, by in (("and", high), ("shl", low)):
        x, y = (e.emit(f"bitcast {bits} {e.emit(f'{widen} {bits} {v}, {by}')} to {wide}") for v in (a, b))
        c = e.emit(f"fadd {wide} {c}, {e.emit(f'fmul {wide} {x}, {y}')}")       # the product is exact: one rounding
    return c


def _byte_dot(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """c and four products of bytes. All ways give the same integers, modulo 2^32: no step saturates."""
    a, b, c = args
    x, y = (_is_signed(v) for v in s.args[:2])
    if x and not y:
        a, b, x, y = b, a, y, x
    bits, target = 32 * s.dst.lanes, e.module.target
    signs = ("s" if x else "u") + ("s" if y else "u")
    if signs in target.byte_dots(bits):
        return _instruction(e, s.dst, signs, (c, a, b))
    if target.architecture == "x86_64" and 128 <= bits <= 8 * target.vector_bytes:
        return _by_pairs(e, s.dst, (a, x), (b, y), c)
    for place in range(NUMBERS):
        left, right = (_byte(e, s.dst, v, signed, place) for v, signed in ((a, x), (b, y)))
        c = e.emit(f"add {type_of(s.dst)} {c}, {e.emit(f'mul {type_of(s.dst)} {left}, {right}')}")
    return c


def _is_signed(v: Val) -> bool:
    return v.dtype.element.is_signed


def _instruction(e: BodyEmitter, dst: Val, signs: str, args: tuple[str, str, str]) -> str:
    ty, bits, bytes_ = type_of(dst), 32 * dst.lanes, vector("i8", NUMBERS * dst.lanes)
    c, a, b = args
    a, b = (e.emit(f"bitcast {ty} {v} to {bytes_}") for v in (a, b))
    if e.module.target.architecture == "x86_64":
        name = f"x86.{X86_DOTS[signs]}.{bits}"
    else:
        name = f"aarch64.neon.{ARM_DOTS[signs]}.v{dst.lanes}i32.v{NUMBERS * dst.lanes}i8"
    return e.emit(f"call {ty} @llvm.{name}({ty} {c}, {bytes_} {a}, {bytes_} {b})")


def _by_pairs(e: BodyEmitter, dst: Val, a: tuple[str, bool], b: tuple[str, bool], c: str) -> str:
    """The even and the odd bytes widened to 16 bits, whose products are added in pairs without overflow: each is at
    most 255 · 255 in size."""
    ty, bits = type_of(dst), 32 * dst.lanes
    halves = vector("i16", 2 * dst.lanes)
    for odd in (False, True):
        left, right = (_every_other(e, ty, halves, *v, odd) for v in (a, b))
        pairs = e.emit(f"call {ty} @llvm.x86.{PAIRS[bits]}({halves} {left}, {halves} {right})")
        c = e.emit(f"add {ty} {c}, {pairs}")
    return c


def _every_other(e: BodyEmitter, ty: str, halves: str, v: str, signed: bool, odd: bool) -> str:
    """The odd or the even bytes as 16-bit integers. Equal texts in a step are computed once."""
    v, by = e.emit(f"bitcast {ty} {v} to {halves}"), "splat (i16 8)"
    if not odd:
        v = e.emit(f"shl {halves} {v}, {by}")
    return e.emit(f"{'ashr' if signed else 'lshr'} {halves} {v}, {by}")


def _byte(e: BodyEmitter, dst: Val, v: str, signed: bool, place: int) -> str:
    """One byte of each element as i32."""
    ty, up = type_of(dst), 8 * (NUMBERS - 1 - place)
    if up:
        v = e.emit(f"shl {ty} {v}, {constant(up, i32, dst.lanes)}")
    return e.emit(f"{'ashr' if signed else 'lshr'} {ty} {v}, {constant(8 * (NUMBERS - 1), i32, dst.lanes)}")
