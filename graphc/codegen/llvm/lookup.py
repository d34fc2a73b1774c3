"""The LLVM text of `lookup`: a number of a short table in each lane."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.lanes import lane_text, part_of_lanes
from graphc.codegen.llvm.types import REGISTER, lanes_constant, scalar_constant, type_of
from graphc.codegen.loops.loop_ir import Compute
from graphc.errors import InternalError
from graphc.ir.types import f32
from graphc.schedule.target import LOOKUP_NUMBERS

PERMUTE = {8: "avx2.permps", 16: "avx512.permvar.sf.512"}       # by the lanes of a vector


def lookup(e: BodyEmitter, s: Compute, args: list[str]) -> str:
    """Of a table of LOOKUP_NUMBERS for any lanes and any target: vector by vector where that is an instruction, else
    lane by lane from memory, where LLVM puts a vector of which a number that it does not know is taken."""
    lanes, table, target = s.dst.lanes, s.attr, e.module.target
    if len(table) > LOOKUP_NUMBERS and not target.has_lookup(lanes):
        raise InternalError(f"lookup of {lanes} lanes is no instruction of {target.name}", "llvm")
    width = 16 if lanes >= 16 and target.has_lookup(16) else LOOKUP_NUMBERS
    if not target.has_short_lookup:
        return _by_lanes(e, s, args[0])
    index = args[0]
    ty, numbers = f"<{width} x float>", f"<{width} x i32>"
    values = lanes_constant("float", [scalar_constant(v, f32) for v in table * (width // len(table))])
    found = []
    for start in range(0, lanes, width):
        part = _widened(e, type_of(s.args[0]), index, lanes, start, width)
        found.append(e.emit(f"call {ty} @llvm.x86.{PERMUTE[width]}({ty} {values}, {numbers} {part})"))
    if lanes < width:
        return part_of_lanes(e, ty, "float", found[0], 0, lanes)
    return _joined(e, found, width)


def _widened(e: BodyEmitter, ty: str, index: str, lanes: int, start: int, width: int) -> str:
    """Lanes from `start` on as a vector of `width`; what is beyond them may be anything."""
    if lanes == width:
        return index
    if lanes == 1:
        return e.emit(f"insertelement <{width} x i32> poison, i32 {index}, i64 0")
    order = lanes_constant("i32", [start + min(k, lanes - 1) for k in range(width)])
    return e.emit(f"shufflevector {ty} {index}, {ty} poison, <{width} x i32> {order}")


def _joined(e: BodyEmitter, parts: list[str], width: int) -> str:
    while len(parts) > 1:
        ty, order = f"<{width} x float>", lanes_constant("i32", range(2 * width))
        parts = [e.emit(f"shufflevector {ty} {a}, {ty} {b}, <{2 * width} x i32> {order}")
                 for a, b in zip(parts[::2], parts[1::2])]
        width *= 2
    return parts[0]


def _by_lanes(e: BodyEmitter, s: Compute, index: str) -> str:
    ty, lanes, numbers = type_of(s.args[0]), s.dst.lanes, len(s.attr)
    values = f"<{numbers} x float> {lanes_constant('float', [scalar_constant(v, f32) for v in s.attr])}"
    result = "poison"
    for lane in range(lanes):
        place = e.emit(f"and i32 {lane_text(e, ty, index, lanes, lane)}, {numbers - 1}")
        value = e.emit(f"extractelement {values}, i32 {place}")
        result = value if lanes == 1 else e.emit(f"insertelement {type_of(s.dst)} {result}, {REGISTER['f32']} {value}, "
                                                 f"i64 {lane}")
    return result
