"""Powers of 2 of scores, which are in units of ln 2: cheaper than powers of e."""
from __future__ import annotations

from collections.abc import Sequence
from math import factorial, log

from graphc.codegen.llvm.vector_math import EXP2, EXP2_UP, ROUNDER64
from graphc.codegen.loops.arithmetic import ROUNDER
from graphc.codegen.loops.builder import LoopFunction, Val
from graphc.ir.types import f32, f64, i32, i64
from graphc.schedule.target import Target

LN2 = log(2)
NORMAL = 17                         # powers so far above 2^-bias are normal, and so are most products with them
EXP2_F64 = tuple(LN2 ** n / factorial(n) for n in range(1, 14))         # Taylor: |r| <= 1/2, rest below 5e-18
# bits as integers, their mantissa, the number that rounds, exponent of 1, coefficients of (2^r - 1) / r
FORMATS = {f32: (i32, 23, ROUNDER, 127, EXP2), f64: (i64, 52, ROUNDER64, 1023, EXP2_F64)}


def exp2(f: LoopFunction, target: Target, xs: Sequence[Val]) -> list[Val]:
    """2^x of each, for x that is hardly above 0, which spares the care for overflow; 0 below 2^-110 (f64:
    2^-1006), since each operation with a subnormal number, or one that gives it, takes x86 a hundred cycles.

    All take each step together: an instruction then seldom waits for the one before it, and no queue of the core fills
    with waiting ones.
    """
    dtype = xs[0].dtype
    bits, mantissa, rounder, bias, coefficients = FORMATS[dtype]
    if target.has_scaling and dtype is f32:
        powers = _powers(f, [f.fraction(x) for x in xs], EXP2_UP)
        return [f.select(f.lt(x, NORMAL - bias), 0.0, f.scale(y, x)) for x, y in zip(xs, powers)]
    # the rounded number then ends in the bits of its exponent, which are 0 for -bias
    low, rounder = f.const(-bias, dtype, xs[0].lanes), rounder + bias
    xs = [f.select(f.lt(x, NORMAL - bias), low, x) for x in xs]
    shifted = [f.add(x, rounder) for x in xs]
    rests = [f.sub(x, f.sub(s, rounder)) for x, s in zip(xs, shifted)]
    return [f.mul(y, f.bitcast(f.shl(f.bitcast(s, bits), mantissa), dtype))
            for y, s in zip(_powers(f, rests, coefficients), shifted)]


def _powers(f: LoopFunction, rests: Sequence[Val], coefficients: Sequence[float]) -> list[Val]:
    """2^r of each, by Horner's rule."""
    totals = [f.const(coefficients[-1], r.dtype, r.lanes) for r in rests]
    for c in (*coefficients[-2::-1], 1.0):
        totals = [f.fma(total, r, c) for total, r in zip(totals, rests)]
    return totals
