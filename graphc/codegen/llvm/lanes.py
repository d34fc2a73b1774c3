"""Vectors and their lanes as LLVM text."""
from __future__ import annotations

from graphc.codegen.llvm.body import BodyEmitter
from graphc.codegen.llvm.types import lanes_constant, vector


def select_text(e: BodyEmitter, lanes: int, condition: str, ty: str, a: str, b: str) -> str:
    return e.emit(f"select {vector('i1', lanes)} {condition}, {ty} {a}, {ty} {b}")


def lane_text(e: BodyEmitter, ty: str, text: str, lanes: int, lane: int) -> str:
    """One lane of a value; the value itself when it is a scalar."""
    return text if lanes == 1 else e.emit(f"extractelement {ty} {text}, i64 {lane}")


def any_lane(e: BodyEmitter, bools: str, lanes: int) -> str:
    if lanes == 1:
        return bools
    word = e.emit(f"bitcast <{lanes} x i1> {bools} to i{lanes}")
    return e.emit(f"icmp ne i{lanes} {word}, 0")


def build_vector(e: BodyEmitter, element: str, parts: list[str]) -> str:
    """A vector of scalars."""
    ty, whole = f"<{len(parts)} x {element}>", "poison"
    for lane, part in enumerate(parts):
        whole = e.emit(f"insertelement {ty} {whole}, {element} {part}, i64 {lane}")
    return whole


def part_of_lanes(e: BodyEmitter, ty: str, element: str, value: str, start: int, count: int) -> str:
    if count == 1:
        return e.emit(f"extractelement {ty} {value}, i64 {start}")
    order = lanes_constant("i32", range(start, start + count))
    return e.emit(f"shufflevector {ty} {value}, {ty} poison, <{count} x i32> {order}")
