"""f16 and bf16 to f32 and back, in loop operations on the bits: LLVM would call functions that no process has where the
target lacks the instructions.

From f32 numbers round to nearest even; too large ones become infinite. A NaN stays one, with its sign and the first of
its payload; it becomes quiet when it loses bits, and on its way from f16. f16's subnormals by a product with a power of
two, and by a sum that rounds at their last bit: F. Giesen, "Half to float done quick" (2012) and the reverse.
"""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.loops.arithmetic import Arithmetic
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import DType, bf16, f16, f32, i32, u16

QUIET_BF16, QUIET_F16, QUIET_F32 = 0x0040, 0x7E00, 0x00400000
MAGNITUDE_F32, MAGNITUDE_F16, SIGN_F16 = 0x7FFFFFFF, 0x7FFF, 0x8000
INFINITY_F32, INFINITY_F16 = 0x7F800000, 0x7C00
SHIFT = 13                              # bits of f32's significand that f16 lacks
REBIAS = 2.0 ** 112                     # between the exponents of f16 and f32: 127 - 15
BEYOND_F16 = (127 + 16) << 23           # bits of 2^16, which rounds to infinity whatever follows
NORMAL_F16 = (127 - 14) << 23           # bits of 2^-14, the least normal f16
LAST_BIT = 0.5                          # its ulp is 2^-24, the least f16
LAST_BIT_BITS = 126 << 23


def widen_bf16(f: Arithmetic, x: Val) -> Val:
    return f.bitcast(f.shl(_bits(f, x), 16), f32)


def narrow_bf16(f: Arithmetic, x: Val) -> Val:
    bits = f.bitcast(x, i32)
    high = f.lshr(bits, 16)
    rounded = f.lshr(f.add(f.add(bits, 0x7FFF), f.and_(high, 1)), 16)
    return _stored(f, f.select(f.isnan(x), f.or_(high, QUIET_BF16), rounded), bf16)


def widen_f16(f: Arithmetic, x: Val) -> Val:
    bits = _bits(f, x)
    magnitude = f.and_(bits, MAGNITUDE_F16)
    shifted = f.shl(magnitude, SHIFT)
    finite = f.bitcast(f.mul(f.bitcast(shifted, f32), REBIAS), i32)
    special = f.or_(shifted, f.select(f.gt(magnitude, INFINITY_F16), f.const(INFINITY_F32 | QUIET_F32, i32),
                                      INFINITY_F32))
    sign = f.shl(f.and_(bits, SIGN_F16), 16)
    return f.bitcast(f.or_(f.select(f.ge(magnitude, INFINITY_F16), special, finite), sign), f32)


def narrow_f16(f: Arithmetic, x: Val) -> Val:
    bits = f.bitcast(x, i32)
    magnitude = f.and_(bits, MAGNITUDE_F32)
    odd = f.and_(f.lshr(magnitude, SHIFT), 1)
    normal = f.lshr(f.add(f.add(magnitude, ((15 - 127) << 23) + 0xFFF), odd), SHIFT)
    small = f.sub(f.bitcast(f.add(f.bitcast(magnitude, f32), LAST_BIT), i32), LAST_BIT_BITS)
    finite = f.select(f.lt(magnitude, NORMAL_F16), small, normal)
    payload = f.and_(f.lshr(magnitude, SHIFT), MAGNITUDE_F16 ^ INFINITY_F16)
    special = f.select(f.gt(magnitude, INFINITY_F32), f.or_(payload, QUIET_F16), INFINITY_F16)
    result = f.select(f.ge(magnitude, BEYOND_F16), special, finite)
    return _stored(f, f.or_(result, f.and_(f.lshr(bits, 16), SIGN_F16)), f16)


def _bits(f: Arithmetic, x: Val) -> Val:
    """The 16 bits in the low half of 32."""
    return f.cast(f.bitcast(x, u16), i32)


def _stored(f: Arithmetic, bits: Val, dtype: DType) -> Val:
    return f.bitcast(f.cast(bits, u16), dtype)


# operation and the type that is only stored -> the conversion
CONVERSIONS: dict[tuple[str, DType], Callable[[Arithmetic, Val], Val]] = {
    ("widen", bf16): widen_bf16, ("narrow", bf16): narrow_bf16, ("widen", f16): widen_f16, ("narrow", f16): narrow_f16}
