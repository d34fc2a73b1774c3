"""Elementwise operators as loop-IR arithmetic: one row each, on scalars and vectors alike."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.codegen.loops.ops import SPECIAL
from graphc.errors import InternalError
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.ops import elementwise
from graphc.ir.ops.packed import PackFour, PackPair
from graphc.ir.types import DType, bf16, bool_, f16, f32, f64, i32, i64, u16


def emit(f: LoopFunction, node: Node, args: list[Val]) -> Val:
    """The value of an elementwise node for these operands (scalars mix with vectors)."""
    rule = RULES.get(type(node.op))
    if rule is None:
        raise InternalError(f"no elementwise code for operator {node.op.name}", "lower")
    return rule(f, node.op, args)


def _row(f: LoopFunction, op: elementwise.Elementwise, args: list[Val]) -> Val:
    code = ROWS.get(op.fn)
    if code is None:
        raise InternalError(f"no elementwise code for operator {op.fn}", "lower")
    return code(f, *args)


def _sign(f: LoopFunction, x: Val) -> Val:
    zero, one = f.const(0, x.dtype), f.const(1, x.dtype)
    return f.select(f.gt(x, zero), one,
                    f.select(f.lt(x, zero), f.neg(one) if not x.dtype.is_float else f.const(-1, x.dtype), x))


def _floordiv(f: LoopFunction, a: Val, b: Val) -> Val:
    """Floats as numpy: (a - a mod b) / b, a whole number up to rounding, rounded to it; -1 or 0 when only b is
    infinite.
    """
    if not a.dtype.is_float:
        return f.div(a, b)
    ratio = f.div(f.sub(a, f.rem(a, b)), b)
    low = f.floor(ratio)
    whole = f.select(f.gt(f.sub(ratio, low), 0.5), f.add(low, 1.0), low)
    apart = f.or_(f.and_(f.lt(a, 0.0), f.gt(b, 0.0)), f.and_(f.gt(a, 0.0), f.lt(b, 0.0)))
    beyond = f.and_(f.isfinite(a), f.eq(f.abs(b), math.inf))
    whole = f.select(beyond, f.select(apart, f.const(-1, a.dtype), f.const(0, a.dtype)), whole)
    return f.select(f.eq(b, 0.0), f.div(a, b), whole)


def _shift_left(f: LoopFunction, a: Val, n: Val) -> Val:
    bits = 8 * a.dtype.itemsize
    outside = f.or_(f.lt(n, 0), f.ge(n, bits))
    return f.select(outside, f.const(0, a.dtype), f.shl(a, f.and_(n, bits - 1)))


def _shift_right(f: LoopFunction, a: Val, n: Val) -> Val:
    bits = 8 * a.dtype.itemsize
    outside = f.or_(f.lt(n, 0), f.ge(n, bits))
    if not a.dtype.is_signed:
        return f.select(outside, f.const(0, a.dtype), f.lshr(a, f.and_(n, bits - 1)))
    return f.ashr(a, f.select(outside, f.const(bits - 1, a.dtype), n))


def _ordered(name: str) -> Callable[..., Val]:
    """A comparison; bools are compared as 0 and 1."""
    def code(f: LoopFunction, a: Val, b: Val) -> Val:
        if a.dtype is bool_:
            a, b = f.cast(a, i32), f.cast(b, i32)
        return getattr(f, name)(a, b)
    return code


def _special(name: str) -> Callable[..., Val]:
    def code(f: LoopFunction, x: Val) -> Val:
        return f.special(name, x)
    return code


def _method(name: str) -> Callable[..., Val]:
    def code(f: LoopFunction, *args: Val) -> Val:
        return getattr(f, name)(*args)
    return code


# the integer that has a float's bits
WORDS: dict[DType, DType] = {f32: i32, f64: i64, f16: u16, bf16: u16}


def _bitcast(f: LoopFunction, op: elementwise.BitCast, args: list[Val]) -> Val:
    """By way of integers, which wrap around among those of one width."""
    x, to = args[0], op.dtype
    word = f.bitcast(x, WORDS[x.dtype]) if x.dtype.is_float else x
    return f.bitcast(f.cast(word, WORDS[to]), to) if to.is_float else f.cast(word, to)


ROWS: dict[str, Callable[..., Val]] = {
    **{name: _method(name) for name in ("add", "sub", "mul", "div", "pow", "neg", "abs", "floor", "ceil", "round",
                                        "exp", "exp2", "expm1", "log",
                                        "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "erf", "isnan",
                                        "isfinite")},
    **{name: _special(name) for name in SPECIAL},
    **{name: _ordered(name) for name in ("lt", "le", "gt", "ge")},
    "copy": lambda f, x: x, "eq": _method("eq"), "ne": _method("ne"), "mod": _method("rem"), "minimum": _method("min"),
    "maximum": _method("max"),
    "bitand": _method("and_"), "bitor": _method("or_"), "bitxor": _method("xor"), "bitnot": _method("not_"),
    "where": _method("select"), "sign": _sign, "floordiv": _floordiv, "shift_left": _shift_left,
    "shift_right": _shift_right,
}

# of the operator of its key, which the type of a table cannot say
RULES: dict[type[Op], Callable[[LoopFunction, Any, list[Val]], Val]] = {
    elementwise.Elementwise: _row,
    elementwise.Cast: lambda f, op, args: f.cast(args[0], op.dtype),
    elementwise.BitCast: _bitcast,
    elementwise.StopGradient: lambda f, op, args: args[0],
    elementwise.ShardSum: lambda f, op, args: args[0],
    PackPair: lambda f, op, args: f.pair(*args),
    PackFour: lambda f, op, args: f.four(args),
}
