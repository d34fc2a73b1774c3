"""Elements of at most 32 bits as i64 keys, which integers' order sorts: the element's bits, then its position. Keys are
distinct, so that any sort of them is stable."""
from __future__ import annotations

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import i32, i64, u32

POSITION_BITS, POSITION_MASK = 32, 0xFFFFFFFF   # of a key
SIGN_SHIFT, MAGNITUDE_MASK = 31, 0x7FFFFFFF     # of 32 bits


def key_of(f: LoopFunction, element: Val, position: Val | int, descending: bool) -> Val:
    """Of scalars or vectors. NaN is larger than everything, zeros of both signs are equal."""
    bits = element
    if element.dtype.is_float:
        raw = f.bitcast(f.add(element, 0.0), i32)
        ordered = f.xor(raw, f.and_(f.ashr(raw, SIGN_SHIFT), MAGNITUDE_MASK))
        bits = f.select(f.isnan(element), MAGNITUDE_MASK, ordered)
    elif element.dtype is u32:
        bits = f.xor(f.bitcast(element, i32), ~MAGNITUDE_MASK)          # whose sign bit puts them in order
    if descending:
        bits = f.not_(bits)
    return f.or_(f.shl(f.cast(bits, i64), POSITION_BITS), position)


def position_of(f: LoopFunction, key: Val) -> Val:
    return f.and_(key, POSITION_MASK)
