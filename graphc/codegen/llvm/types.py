"""How loop types and constants are spelled in LLVM text."""
from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache

import numpy as np

from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import DTYPES, PACKED, DType
from graphc.schedule.target import Target


def _register(dtype: DType) -> str:
    """Floats that are only stored are their bits."""
    return {32: "float", 64: "double"}[dtype.bits] if dtype.is_float and not dtype.is_storage else f"i{dtype.bits}"


def _kind(dtype: DType) -> str:
    """What tells apart instructions: f floats, h floats that are only stored, i and u integers, b bools, p packed."""
    if dtype.is_packed:
        return "p"
    if dtype.is_float:
        return "h" if dtype.is_storage else "f"
    return ("i" if dtype.is_signed else "u") if dtype.is_int else "b"


ALL = (*DTYPES, *PACKED)
REGISTER = {d.name: _register(d) for d in ALL}
MEMORY = {**REGISTER, "bool": "i8"}
FLOATS = {"float": "f32", "double": "f64"}
# as in llvm.fma.v8f32: of graphc's types and of LLVM's
MANGLED = {name: FLOATS.get(ty, ty) for name, ty in (*REGISTER.items(), *((ty, ty) for ty in MEMORY.values()))}
KIND = {d.name: _kind(d) for d in ALL}

ELEMENT_BYTES = {REGISTER[d.name]: d.itemsize for d in DTYPES}


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
    if kind == "h":
        return str(np.asarray(value).astype(dtype.np).view(np.uint16))
    return ("true" if value else "false") if kind == "b" else str(value)


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


def cold_convention(target: Target) -> str:
    """The calling convention of functions that are rarely called, as it is written before a type: they leave all
    registers as they are where LLVM can do that; elsewhere it stops the process when asked to."""
    return "preserve_allcc " if target.can_preserve_registers else ""


def function_symbol(name: str) -> str:
    """The global name of a loop function: prefixed, lest one called pow be libm's. Any characters but quotes and
    backslashes."""
    return f'@"k.{name}"'
