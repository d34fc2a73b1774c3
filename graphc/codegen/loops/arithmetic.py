"""The part of the loop builder that makes values: every operation of the loop IR as a method."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.loop_ir import Body, Compute, Operand, Val
from graphc.codegen.loops.ops import BITCASTS, REDUCTIONS, result_dtype
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.ir.ops.packed import SUMS
from graphc.ir.types import BY_NAME, PACKED_OF, DType, bf16, bf16x2, bool_, f32, i32, i64, u8, u16, u32
from graphc.schedule.target import LOOKUP_NUMBERS

ROUNDER = 1.5 * 2.0 ** 23           # x + ROUNDER rounds x to an integer, for |x| < 2^22
HALF_BITS = 16                      # of an integer in the low bits of such a sum


class Arithmetic:
    """Operations on values. Operands are Vals or Python numbers, at least one Val; scalars are splatted to match
    vectors.

    All float operations round once, as IEEE 754 says; nothing is reassociated or contracted.
    """

    block: Body
    _values: int
    has_scaling = False             # whether `scale` and `fraction` may be used: Target.has_scaling

    # ---- values out of nothing
    def const(self, value: int | float | bool, dtype: DType, lanes: int = 1) -> Val:
        """The constant in every lane, rounded to the type; integers wrap."""
        dtype = BY_NAME[dtype.name]
        if dtype.is_int or dtype.is_packed:
            return Val(self, dtype, lanes, -1, _wrapped(int(value), u32 if dtype.is_packed else dtype))
        return Val(self, dtype, lanes, -1, float(dtype.np.type(value)) if dtype.is_float else bool(value))

    def iota(self, lanes: int, dtype: DType = i64) -> Val:
        """0, 1, 2, … in the lanes."""
        return self._emit("iota", BY_NAME[dtype.name], lanes, ())

    def value(self, ix: Ix | Dim) -> Val:
        """An index as an i64 scalar."""
        ix = as_ix(ix)
        if ix.is_const and isinstance(ix.const, int):
            return self.const(ix.const, i64)
        return self._emit("value", i64, 1, (), ix)

    def splat(self, scalar: Val, lanes: int) -> Val:
        """The scalar in every lane."""
        if scalar.lanes == lanes:
            return scalar
        if scalar.lanes != 1:
            raise InternalError(f"splat takes a scalar, got {scalar.type_text}", "loops")
        if scalar.const is not None:
            return Val(self, scalar.dtype, lanes, -1, scalar.const)
        return self._emit("splat", scalar.dtype, lanes, (scalar,))

    def tail_mask(self, count: Ix | Dim, lanes: int) -> Val:
        """Bools: the first `count` lanes are active (all if count >= lanes, none if count <= 0)."""
        return self._emit("tail_mask", bool_, lanes, (), as_ix(count))

    # ---- arithmetic on floats and integers
    def add(self, a: Operand, b: Operand) -> Val:
        return self._regular("add", a, b)

    def sub(self, a: Operand, b: Operand) -> Val:
        return self._regular("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Val:
        return self._regular("mul", a, b)

    def div(self, a: Operand, b: Operand) -> Val:
        """a / b; of integers: rounded down as in Python, 0 when b is 0."""
        return self._regular("div", a, b)

    def rem(self, a: Operand, b: Operand) -> Val:
        """Python's a % b (sign of b); of integers 0 when b is 0."""
        return self._regular("rem", a, b)

    def min(self, a: Operand, b: Operand) -> Val:
        """np.minimum: NaN if either is NaN."""
        return self._regular("min", a, b)

    def max(self, a: Operand, b: Operand) -> Val:
        """np.maximum: NaN if either is NaN."""
        return self._regular("max", a, b)

    def neg(self, a: Val) -> Val:
        return self._regular("neg", a)

    def abs(self, a: Val) -> Val:
        return self._regular("abs", a)

    # ---- floats
    def fma(self, a: Operand, b: Operand, c: Operand) -> Val:
        """a * b + c, rounded once."""
        return self._regular("fma", a, b, c)

    def dot(self, a: Val, b: Val, c: Val) -> Val:
        """c plus the products of the numbers that are packed in a and b: of pairs of bf16, the second product first,
        each sum rounded once to f32, where instructions take subnormal numbers for 0; of integers in i32, which wraps.
        """
        if SUMS.get((a.dtype, b.dtype)) is not c.dtype or not a.lanes == b.lanes == c.lanes:
            raise InternalError(f"dot of ({a.type_text}, {b.type_text}, {c.type_text})", "loops")
        return self._emit("dot", c.dtype, c.lanes, (a, b, c))

    def pair(self, x: Val, y: Val) -> Val:
        """Numbers of bf16 side by side as elements, those of x in the lowest bits."""
        if x.lanes > 1:
            return self.pairs(self.shuffle(x, y, [i // 2 + i % 2 * x.lanes for i in range(2 * x.lanes)]))
        low, high = (self.cast(self.bitcast(v, u16), u32) for v in (x, y))
        return self.bitcast(self.or_(low, self.shl(high, 16)), bf16x2)

    def four(self, xs: Sequence[Val]) -> Val:
        """Bytes side by side as elements, those of the first in the lowest bits; missing ones are 0."""
        packed = PACKED_OF[xs[0].dtype]
        first, *others = [self.cast(self.cast(x, u8), u32) for x in xs]
        for i, x in enumerate(others, 1):
            first = self.or_(first, self.shl(x, 8 * i))
        return self.bitcast(first, packed)

    def rounded_pair(self, x: Val, y: Val) -> Val:
        """The same of numbers of f32, which are rounded; together, for instructions that round two vectors at once."""
        if x.lanes == 1:
            return self.pair(self.cast(x, bf16), self.cast(y, bf16))
        both = self.cast(self.shuffle(x, y, range(2 * x.lanes)), bf16)
        return self.pairs(self.shuffle(both, both, [i // 2 + i % 2 * x.lanes for i in range(2 * x.lanes)]))

    def pairs(self, a: Val) -> Val:
        """Each two neighbouring lanes of bf16 as one element, the first in its lowest bits."""
        if a.dtype is not bf16 or a.lanes % 2:
            raise InternalError(f"pairs of {a.type_text}", "loops")
        return self._emit("words", bf16x2, a.lanes // 2, (a,))

    def scale(self, a: Operand, n: Operand) -> Val:
        """a · 2^⌊n⌋, for infinite n too, rounded once. Of f32, where the target has_scaling."""
        return self._regular("scale", a, n)

    def fraction(self, a: Val) -> Val:
        """a − ⌊a⌋; 0 for infinities. Of f32, where the target has_scaling."""
        return self._regular("fraction", a)

    def sqrt(self, a: Val) -> Val:
        return self._regular("sqrt", a)

    def floor(self, a: Val) -> Val:
        return self._regular("floor", a)

    def ceil(self, a: Val) -> Val:
        return self._regular("ceil", a)

    def round(self, a: Val) -> Val:
        """To the nearest integer, halves to even."""
        return self._regular("round", a)

    def trunc(self, a: Val) -> Val:
        return self._regular("trunc", a)

    def copysign(self, magnitude: Operand, sign: Operand) -> Val:
        return self._regular("copysign", magnitude, sign)

    def isnan(self, a: Val) -> Val:
        return self._regular("isnan", a)

    def isfinite(self, a: Val) -> Val:
        return self._regular("isfinite", a)

    # ---- mathematical functions: accuracy in `vecmath`
    def exp(self, a: Val) -> Val:
        return self._regular("exp", a)

    def exp2(self, a: Val) -> Val:
        return self._regular("exp2", a)

    def expm1(self, a: Val) -> Val:
        return self._regular("expm1", a)

    def log(self, a: Val) -> Val:
        return self._regular("log", a)

    def log1p(self, a: Val) -> Val:
        return self._regular("log1p", a)

    def sin(self, a: Val) -> Val:
        return self._regular("sin", a)

    def cos(self, a: Val) -> Val:
        return self._regular("cos", a)

    def tanh(self, a: Val) -> Val:
        return self._regular("tanh", a)

    def sigmoid(self, a: Val) -> Val:
        """1 / (1 + exp(-a))"""
        return self._regular("sigmoid", a)

    def erf(self, a: Val) -> Val:
        return self._regular("erf", a)

    def rsqrt(self, a: Val) -> Val:
        """1 / sqrt(a), both rounded exactly."""
        return self._regular("rsqrt", a)

    def pow(self, a: Operand, b: Operand) -> Val:
        return self._regular("pow", a, b)

    def special(self, function: str, a: Val) -> Val:
        """One of `ops.SPECIAL`: lgamma, erfinv, …"""
        return self._regular(function, a)

    def repair(self, bad: Val, result: Val, function: str, *args: Val) -> Val:
        """`result`, but lanes where `bad` holds are libm's `function` of `args`; costs one test when no lane is bad."""
        return self._emit("repair", result.dtype, result.lanes, (bad, result, *args), function)

    def libm(self, function: str, *args: Val) -> Val:
        """libm's `function` of each lane, by scalar calls."""
        return self._emit("libm", args[0].dtype, args[0].lanes, args, function)

    # ---- bits
    def and_(self, a: Operand, b: Operand) -> Val:
        return self._regular("and", a, b)

    def or_(self, a: Operand, b: Operand) -> Val:
        return self._regular("or", a, b)

    def xor(self, a: Operand, b: Operand) -> Val:
        return self._regular("xor", a, b)

    def not_(self, a: Val) -> Val:
        return self._regular("not", a)

    def shl(self, a: Operand, b: Operand) -> Val:
        """a << b; b must be in [0, width)."""
        return self._regular("shl", a, b)

    def lshr(self, a: Operand, b: Operand) -> Val:
        """a >> b, zeros shifted in; b must be in [0, width)."""
        return self._regular("lshr", a, b)

    def ashr(self, a: Operand, b: Operand) -> Val:
        """a >> b of signed integers, the sign shifted in; b must be in [0, width)."""
        return self._regular("ashr", a, b)

    def mulhi_u(self, a: Operand, b: Operand) -> Val:
        """The high half of the unsigned product."""
        return self._regular("mulhi_u", a, b)

    # ---- comparisons (any comparison with NaN but ne is false)
    def lt(self, a: Operand, b: Operand) -> Val:
        return self._regular("lt", a, b)

    def le(self, a: Operand, b: Operand) -> Val:
        return self._regular("le", a, b)

    def gt(self, a: Operand, b: Operand) -> Val:
        return self._regular("gt", a, b)

    def ge(self, a: Operand, b: Operand) -> Val:
        return self._regular("ge", a, b)

    def eq(self, a: Operand, b: Operand) -> Val:
        return self._regular("eq", a, b)

    def ne(self, a: Operand, b: Operand) -> Val:
        return self._regular("ne", a, b)

    def select(self, condition: Val, a: Operand, b: Operand) -> Val:
        """a where the condition holds, else b."""
        a, b = self._match((a, b))
        lanes = max(condition.lanes, a.lanes)
        a, b = self.splat(a, lanes), self.splat(b, lanes)
        condition = self.splat(condition, lanes)
        if condition.dtype is not bool_ or a.dtype is not b.dtype:
            raise InternalError(f"select does not take ({condition.type_text}, {a.type_text}, {b.type_text})", "loops")
        return self._emit("select", a.dtype, lanes, (condition, a, b))

    # ---- conversions
    def cast(self, a: Val, dtype: DType) -> Val:
        """The value as another type. float to int truncates and saturates, NaN gives 0; integers wrap; x to bool is
        x != 0. f16 and bf16 are converted by way of f32."""
        dtype = BY_NAME[dtype.name]
        if a.dtype is dtype:
            return a
        if a.dtype.is_storage:
            return self.cast(self._emit("widen", f32, a.lanes, (a,)), dtype)
        if dtype.is_storage:
            return self._emit("narrow", dtype, a.lanes, (self.cast(a, f32),))
        if a.const is not None and dtype.is_float:
            return self.const(a.const, dtype, a.lanes)
        if a.dtype is f32 and dtype.is_int and dtype.bits <= HALF_BITS and (x := self._rounded_last(a)) is not None:
            return self._nearest(x, dtype)
        return self._emit("cast", dtype, a.lanes, (a,))

    def _rounded_last(self, a: Val) -> Val | None:
        """What `a` is, rounded, where that was the last operation."""
        last = self.block[-1] if self.block else None
        return last.args[0] if isinstance(last, Compute) and last.dst is a and last.op == "round" else None

    def _nearest(self, x: Val, dtype: DType) -> Val:
        """cast(round(x)): of what is clamped first, the sum with ROUNDER is rounded to an integer, in its low bits."""
        low, high = dtype.range
        x = self.select(self.eq(x, x), x, 0.0) if low else x
        for inside, limit in ((self.gt, float(low)), (self.lt, float(high))):
            x = self.select(inside(x, limit), x, limit)         # NaN gives the lower limit, 0 of unsigned integers
        return self.cast(self.bitcast(self.add(x, ROUNDER), i32), dtype)

    def bitcast(self, a: Val, dtype: DType) -> Val:
        """The same bits as another type of that size."""
        if (a.dtype, BY_NAME[dtype.name]) not in BITCASTS:
            raise InternalError(f"bitcast of {a.type_text} to {dtype}", "loops")
        return self._emit("bitcast", BY_NAME[dtype.name], a.lanes, (a,))

    def words(self, a: Val) -> Val:
        """Each four neighbouring lanes of bytes, u8, as the bits of one i32, the first in its lowest bits."""
        if a.dtype is not u8 or a.lanes % i32.itemsize:
            raise InternalError(f"words of {a.type_text}", "loops")
        return self._emit("words", i32, a.lanes // i32.itemsize, (a,))

    def lookup(self, table: Sequence[float], index: Val) -> Val:
        """table[index mod its length] in each lane, f32. Of LOOKUP_NUMBERS numbers, or of as many as the index, i32,
        has lanes, where the target has_lookup."""
        if index.dtype is not i32 or len(table) not in (LOOKUP_NUMBERS, index.lanes):
            raise InternalError(f"lookup of {index.type_text} among {len(table)} numbers", "loops")
        return self._emit("lookup", f32, index.lanes, (index,), tuple(table))

    # ---- lanes
    def shuffle(self, a: Val, b: Val | None, indices: Sequence[int]) -> Val:
        """Lane k is lane indices[k] of a followed by b (b None: a alone)."""
        b = a if b is None else b
        if a.dtype is not b.dtype or a.lanes != b.lanes or not all(0 <= i < 2 * a.lanes for i in indices):
            raise InternalError(f"shuffle of ({a.type_text}, {b.type_text}) by {list(indices)}", "loops")
        return self._emit("shuffle", a.dtype, len(indices), (a, b), tuple(indices))

    def extract(self, a: Val, lane: int) -> Val:
        """One lane as a scalar."""
        self._check_lane("extract", a, lane)
        return self._emit("extract", a.dtype, 1, (a,), lane)

    def insert(self, a: Val, lane: int, scalar: Operand) -> Val:
        """`a` with one lane replaced."""
        self._check_lane("insert", a, lane)
        scalar = scalar if isinstance(scalar, Val) else self.const(scalar, a.dtype)
        return self._emit("insert", a.dtype, a.lanes, (a, scalar), lane)

    def reduce(self, a: Val, kind: str) -> Val:
        """All lanes combined to a scalar as a halving tree: lane k with lane k + lanes / 2. kind: add mul min max and
        or."""
        if kind not in REDUCTIONS or not REDUCTIONS[kind](a.dtype) or a.lanes & (a.lanes - 1):
            raise InternalError(f"reduce {kind} does not take {a.type_text}", "loops")
        return a if a.lanes == 1 else self._emit("reduce", a.dtype, 1, (a,), kind)

    # ---- helpers
    def _regular(self, op: str, *operands: Operand) -> Val:
        args = self._match(operands)
        return self._emit(op, result_dtype(op, args), args[0].lanes, args)

    def _match(self, operands: tuple[Operand, ...]) -> tuple[Val, ...]:
        """Numbers become constants of the type of the Vals; scalars are splatted."""
        vals = [o for o in operands if isinstance(o, Val)]
        if not vals:
            raise InternalError(f"operands {operands} hold no Val; use f.const", "loops")
        dtype, lanes = vals[0].dtype, max([v.lanes for v in vals])
        return tuple([self._splat_to(o, dtype, lanes) for o in operands])

    def _splat_to(self, operand: Operand, dtype: DType, lanes: int) -> Val:
        if not isinstance(operand, Val):
            return self.const(operand, dtype, lanes)
        return operand if operand.lanes == lanes else self.splat(operand, lanes)

    def _check_lane(self, op: str, a: Val, lane: int) -> None:
        if not 0 <= lane < a.lanes or a.lanes == 1:
            raise InternalError(f"{op} of lane {lane} of {a.type_text}", "loops")

    def _emit(self, op: str, dtype: DType, lanes: int, args: tuple[Val, ...], attr: Any = None) -> Val:
        dst = Val(self, dtype, lanes, self._values)
        self._values += 1
        self.block.append(Compute(op, dst, args, attr))
        return dst


def _wrapped(value: int, dtype: DType) -> int:
    lowest, _ = dtype.range
    return int((value - lowest) % (1 << dtype.bits) + lowest)
