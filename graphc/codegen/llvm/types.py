"""How loop types and constants are spelled in LLVM text."""
from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache

from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import DType

REGISTER = {"f32": "float", "f64": "double", "i32": "i32", "i64": "i64", "bool": "i1"}
MEMORY = {**REGISTER, "bool": "i8"}
MANGLED = {"f32": "f32", "f64": "f64", "i32": "i32", "i64": "i64", "bool": "i1",       # as in llvm.fma.v8f32
           "float": "f32", "double": "f64", "i8": "i8"}
KIND = {"f32": "f", "f64": "f", "i32": "i", "i64": "i", "bool": "b"}
BITS = {"f32": 32, "f64": 64, "i32": 32, "i64": 64, "bool": 1}

ELEMENT_BYTES = {"float": 4, "double": 8, "i32": 4, "i64": 8, "i1": 1}


@cache
def vector(element: str, lanes: int) -> str:
    """`element` itself for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def type_of(value: Val) -> str:
    return vector(REGISTER[value.dtype.name], value.lanes)


@cache
def mangled(dtype: DType, lanes: int) -> str:
    """The suffix of an overloaded intrinsic: f32, v8f32."""
    return MANGLED[dtype.name] if lanes == 1 else f"v{lanes}{MANGLED[dtype.name]}"


def scalar_constant(value: int | float | bool, dtype: DType) -> str:
    kind = KIND[dtype.name]
    if kind == "f":                                     # f32 constants too are written as the bits of a double
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    return str(value) if kind == "i" else "true" if value else "false"


def constant(value: int | float | bool, dtype: DType, lanes: int = 1) -> str:
    text = scalar_constant(value, dtype)
    return text if lanes == 1 else f"splat ({REGISTER[dtype.name]} {text})"


def lanes_constant(element: str, values: Iterable[object]) -> str:
    """A vector constant with these lanes, without its type."""
    return "<" + ", ".join([f"{element} {v}" for v in values]) + ">"


def frame_bytes(ty: str) -> int:
    """Bytes that a value takes in a frame of captured values: a multiple of 8."""
    if not ty.startswith("<"):
        return 8
    lanes, element = ty.strip("<>").split(" x ")
    return -(-int(lanes) * ELEMENT_BYTES[element] // 8) * 8


def function_symbol(name: str) -> str:
    """The global name of a loop function: prefixed, lest one called pow be libm's. Any characters but quotes and
    backslashes."""
    return f'@"k.{name}"'
