"""f32 to bf16 by AVX512-BF16's instruction. It takes subnormal numbers for 0: where there are any, arithmetic on the
bits takes its place, so that all numbers round as everywhere."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.lanes import any_lane, part_of_lanes
from graphc.codegen.llvm.types import cold_convention, lanes_constant, vector

LANES, TWICE = 16, 32           # of the instructions for one vector, and for two
SUBNORMAL = 0x20                # among the classes of VFPCLASSPS


def rounding_text(body: BodyEmitter, name: str, lanes: int) -> str:
    """The definition of `name`, for so many lanes."""
    wide, to, count = vector("float", lanes), vector("i16", lanes), min(lanes, LANES)
    xs = ["%x" if count == lanes else part_of_lanes(body, wide, "float", "%x", start, count)
          for start in range(0, lanes, count)]
    bad = ""
    for x in xs:
        found = body.emit(f"call <{count} x i1> @llvm.x86.avx512.fpclass.ps.{32 * count}(<{count} x float> {x}, "
                          f"i32 {SUBNORMAL})")
        bad = body.emit(f"or <{count} x i1> {bad}, {found}") if bad else found
    careful = f"call {cold_convention(body.module.target)}{to} {body.module.careful_rounding(lanes)}({wide} %x)"
    result = body.cold_path(any_lane(body, bad, count), careful, to, _rounded(body, xs, count))
    body.line(f"ret {to} {result}")
    return body.text(f"define internal {to} {name}({wide} %x) #1")


def _rounded(body: BodyEmitter, xs: list[str], count: int) -> str:
    """The bits of vectors of so many lanes, rounded, one after the other; a power of two of them."""
    ty = f"<{count} x float>"
    if len(xs) == 1:
        half = body.emit(f"call <{count} x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.{32 * count}({ty} {xs[0]})")
        return body.emit(f"bitcast <{count} x bfloat> {half} to <{count} x i16>")
    parts = [body.emit(f"call <{TWICE} x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512({ty} {high}, {ty} {low})")
             for low, high in zip(xs[::2], xs[1::2])]
    parts, size = [body.emit(f"bitcast <{TWICE} x bfloat> {p} to <{TWICE} x i16>") for p in parts], TWICE
    while len(parts) > 1:
        order = lanes_constant("i32", range(2 * size))
        parts = [body.emit(f"shufflevector <{size} x i16> {a}, <{size} x i16> {b}, <{2 * size} x i32> {order}")
                 for a, b in zip(parts[::2], parts[1::2])]
        size *= 2
    return parts[0]
