"""Operators that ONNX does not have, as others of graphc. A rule is given the node and its operands in the graph that
is built; None: this form has no such way."""
from __future__ import annotations

import math
from collections.abc import Callable

from graphc.doors.onnx_out import special
from graphc.doors.onnx_out.counterpart import counterpart
from graphc.doors.onnx_out.factorisations import FACTORISATIONS
from graphc.doors.onnx_out.philox import random_bits
from graphc.doors.onnx_out.windows import FALLBACKS
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.op import Opcode, OpBuilder, Values
from graphc.ir.ops.constant import number, splat
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.random import RandomBits
from graphc.ir.ops.scan_ops import RunningArgExtremum
from graphc.ir.types import BY_NAME, bool_, f64, i64

Rewrite = Callable[..., Value | Values | None]


def _expm1(b: OpBuilder, node: Node, x: Value) -> Value:
    """(u - 1) x / log u of u = exp x: what rounding did to u cancels (W. Kahan; N. Higham, "Accuracy and Stability of
    Numerical Algorithms", 1.14.1)."""
    u = b.exp(x)
    less, one = b.sub(u, 1), number(b, 1, x)
    usual = b.bitand(b.bitand(b.lt(u, math.inf), b.ne(less, 0)), b.ne(less, -1))
    quotient = b.mul(less, b.div(x, b.log(b.where(usual, u, b.mul(one, 2)))))
    return b.where(usual, quotient, b.where(b.eq(less, 0), x, less))


def _log1p(b: OpBuilder, node: Node, x: Value) -> Value:
    """log(u) x / (u - 1) of u = 1 + x (the same source)."""
    u = b.add(x, 1)
    less = b.sub(u, 1)
    usual = b.bitand(b.lt(u, math.inf), b.ne(less, 0))
    quotient = b.mul(b.log(u), b.div(x, b.where(usual, less, number(b, 1, x))))
    return b.where(usual, quotient, b.where(b.eq(less, 0), x, u))


def _exp2(b: OpBuilder, node: Node, x: Value) -> Value:
    return b.pow(number(b, 2, x), x)


def _logarithm(base: int) -> Rewrite:
    """In f64, so that powers of the base have whole logarithms in f32."""
    def rule(b: OpBuilder, node: Node, x: Value) -> Value:
        return b.cast(b.mul(b.log(b.cast(x, dtype=f64)), 1 / math.log(base)), dtype=x.type.dtype)
    return rule


def _cbrt(b: OpBuilder, node: Node, x: Value) -> Value:
    """The power 1/3 of |x| in f64, and one step of Newton's method."""
    wide = b.cast(x, dtype=f64)
    a = b.abs(wide)
    usual = b.bitand(b.gt(a, 0), b.lt(a, math.inf))
    a = b.where(usual, a, number(b, 1, a))
    root = b.pow(a, 1 / 3)
    square = b.mul(root, root)
    root = b.sub(root, b.div(b.sub(root, b.div(a, square)), 3))
    return b.where(usual, b.cast(b.mul(root, b.sign(wide)), dtype=x.type.dtype), x)


def _sigmoid(b: OpBuilder, node: Node, x: Value) -> Value:
    """Of f64, for which runtimes take one from the other, so that small results lose their digits."""
    return b.div(1, b.add(b.exp(b.neg(x)), 1))


def _isfinite(b: OpBuilder, node: Node, x: Value) -> Value:
    return b.lt(b.abs(x), math.inf)


def _where(b: OpBuilder, node: Node, chosen: Value, x: Value, y: Value) -> Value | None:
    """Of bools, for which runtimes have no kernel."""
    if x.type.dtype is not bool_:
        return None
    return b.bitor(b.bitand(chosen, x), b.bitand(b.bitnot(chosen), y))


def _neg(b: OpBuilder, node: Node, x: Value) -> Value | None:
    """Of unsigned integers, modulo their range."""
    return b.sub(number(b, 0, x), x)


def _floordiv(b: OpBuilder, node: Node, x: Value, y: Value) -> Value:
    return _float_quotient(b, x, y)[0] if x.type.dtype.is_float else _whole_quotient(b, x, y)[0]


def _mod(b: OpBuilder, node: Node, x: Value, y: Value) -> Value:
    return _float_quotient(b, x, y)[1] if x.type.dtype.is_float else _whole_quotient(b, x, y)[1]


def _float_quotient(b: OpBuilder, x: Value, y: Value) -> tuple[Value, Value]:
    """Python's: the rest has the sign of the divisor, and the quotient is what then is whole (CPython's float_divmod).
    """
    rest = counterpart(b, "Mod", x, y, fmod=1)
    other = b.bitand(b.ne(rest, 0), b.ne(b.lt(y, 0), b.lt(rest, 0)))
    quotient = b.div(b.sub(x, rest), y)
    zero = number(b, 0, x)
    quotient = b.where(other, b.sub(quotient, 1), quotient)
    low = b.floor(quotient)
    whole = b.where(b.gt(b.sub(quotient, low), 0.5), b.add(low, 1), low)
    whole = b.where(b.eq(y, 0), b.div(x, y), b.where(b.eq(quotient, 0), b.mul(zero, b.div(x, y)), whole))
    signed = b.where(b.eq(rest, 0), b.where(b.lt(y, 0), b.neg(zero), zero), b.where(other, b.add(rest, y), rest))
    return whole, b.where(b.isnan(rest), rest, signed)


def _whole_quotient(b: OpBuilder, x: Value, y: Value) -> tuple[Value, Value]:
    """Rounded down; 0 beside a divisor 0, and the smallest number divided by -1 is itself: both stop a processor."""
    known, one, zero = splat(y), number(b, 1, y), number(b, 0, y)
    signed = x.type.dtype.is_signed
    if known is not None and known > 0:
        safe = y
    else:
        safe = b.where(b.bitor(b.eq(y, 0), b.eq(y, -1)) if signed else b.eq(y, 0), one, y)
    quotient = counterpart(b, "Div", x, safe)
    rest = b.sub(x, b.mul(quotient, safe))
    if signed:
        down = b.bitand(b.ne(rest, 0), b.ne(b.lt(rest, 0), b.lt(safe, 0)))
        quotient, rest = b.where(down, b.sub(quotient, 1), quotient), b.where(down, b.add(rest, safe), rest)
    if safe is y:
        return quotient, rest
    if signed:
        quotient = b.where(b.eq(y, -1), b.neg(x), quotient)
    return b.where(b.eq(y, 0), zero, quotient), rest


def _shift(direction: str) -> Rewrite:
    """ONNX shifts unsigned numbers, by fewer bits than they have."""
    def rule(b: OpBuilder, node: Node, x: Value, n: Value) -> Value:
        dtype, known = x.type.dtype, splat(n)
        fits = known is not None and 0 <= known < dtype.bits
        inside = b.bitand(b.ge(n, 0), b.lt(n, dtype.bits)) if dtype.is_signed else b.lt(n, dtype.bits)
        below = b.lt(x, 0) if direction == "RIGHT" and dtype.is_signed else None
        n = n if fits else b.where(inside, n, number(b, 0 if below is None else dtype.bits - 1, n))
        moved = _moved(b, x if below is None else b.where(below, b.bitnot(x), x), n, direction)
        if below is not None:           # zeros come in for ones: of a negative number its complement is moved
            return b.where(below, b.bitnot(moved), moved)
        return moved if fits else b.where(inside, moved, number(b, 0, x))
    return rule


def _moved(b: OpBuilder, x: Value, n: Value, direction: str) -> Value:
    """The bits of x as those of an unsigned number, moved."""
    plain = BY_NAME[f"u{max(x.type.dtype.bits, 32)}"]
    bits = (b.cast(v, dtype=plain) for v in (x, n))
    return b.cast(counterpart(b, "BitShift", *bits, direction=direction), dtype=x.type.dtype)


def _running_extreme(b: OpBuilder, node: NodeOf[RunningArgExtremum], x: Value) -> Value:
    """Of each position the extreme of those up to it, then the last place where it stands: N² comparisons."""
    axis = node.op.axis % x.type.rank
    before, (size, *behind) = x.type.shape[:axis], x.type.shape[axis:]
    square = (*before, size, size, *behind)             # position, then those that it sees
    seen = b.broadcast_to(b.reshape(x, shape=(*before, 1, size, *behind)), shape=square)
    place = b.iota(shape=square, axis=axis + 1, dtype=i64)
    visible = b.le(place, b.iota(shape=square, axis=axis, dtype=i64))
    least, dtype = node.op.least, x.type.dtype
    last = (math.inf if least else -math.inf) if dtype.is_float else dtype.range[1 if least else 0]
    none = b.bitand(visible, b.isnan(seen)) if dtype.is_float else None     # runtimes differ in what beats NaN
    shown = b.where(visible if none is None else b.bitand(visible, b.bitnot(none)), seen, number(b, last, x))
    best = (b.min if least else b.max)(shown, axes=(axis + 1,), keepdims=True)
    found = b.eq(seen, b.broadcast_to(best, shape=square))
    if none is not None:
        found = b.where(b.broadcast_to(b.max(none, axes=(axis + 1,), keepdims=True), shape=square), none, found)
    return b.max(b.where(b.bitand(visible, found), place, number(b, 0, place)), axes=(axis + 1,))


def in_f64(formula: Callable[[OpBuilder, Value], Value]) -> Rewrite:
    """A formula of f64; of f32 it is rounded from there."""
    def rule(b: OpBuilder, node: Node, x: Value) -> Value:
        return b.cast(formula(b, b.cast(x, dtype=f64)), dtype=x.type.dtype)
    return rule


REWRITES: dict[Opcode, Rewrite] = {Elementwise(name): rule for name, rule in (
    ("expm1", _expm1), ("log1p", _log1p), ("exp2", _exp2), ("log2", _logarithm(2)), ("log10", _logarithm(10)),
    ("cbrt", _cbrt), ("sigmoid", _sigmoid), ("where", _where),
    ("isfinite", _isfinite), ("neg", _neg), ("floordiv", _floordiv), ("mod", _mod),
    ("shift_left", _shift("LEFT")), ("shift_right", _shift("RIGHT")))}
REWRITES |= {Elementwise(name): in_f64(formula) for name, formula in special.FORMULAS.items()}
REWRITES.update(FALLBACKS)
REWRITES.update(FACTORISATIONS)
REWRITES[RandomBits] = random_bits
REWRITES[RunningArgExtremum] = _running_extreme
