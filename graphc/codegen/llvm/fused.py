"""a · b + c of f32, rounded once, for targets that have no instruction for it: LLVM would call C's fmaf for each lane.

The product is exact in f64. Their sum is not: it is rounded to odd there, so that rounding it to f32 gives what one
rounding gives: S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums" (2008). Its error is that of
D. Knuth's two-sum.
"""
from __future__ import annotations

from graphc.codegen.loops.arithmetic import Arithmetic
from graphc.codegen.loops.loop_ir import Val
from graphc.ir.types import f32, f64, i64


def fma(f: Arithmetic, a: Val, b: Val, c: Val) -> Val:
    product, addend = f.mul(f.cast(a, f64), f.cast(b, f64)), f.cast(c, f64)
    total = f.add(product, addend)
    other = f.sub(total, product)
    error = f.add(f.sub(product, f.sub(total, other)), f.sub(addend, other))
    above, bits = f.gt(error, 0.0), f.bitcast(total, i64)
    inexact = f.or_(above, f.lt(error, 0.0))            # neither for a NaN, and the error of infinity
    even = f.eq(f.and_(bits, 1), 0)
    step = f.select(f.eq(f.cast(above, i64), f.cast(f.gt(total, 0.0), i64)), f.const(1, i64, a.lanes), -1)
    odd = f.select(f.and_(inexact, even), f.add(bits, step), bits)
    return f.cast(f.bitcast(odd, f64), f32)
