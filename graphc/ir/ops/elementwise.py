"""Elementwise operators, as rows of a table. Operands broadcast as in numpy; dtypes must agree (`cast` converts)."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from graphc.errors import GraphError
from graphc.ir import special
from graphc.ir.graph import Value
from graphc.ir.op import ALL, Cost, Gradients, Op, OpBuilder, Operands, Values
from graphc.ir.ops.constant import number
from graphc.ir.types import DType, TensorType, bool_, broadcast_shapes, common, dtype_of
from graphc.records import dataclass

FLOAT, NUMBER, INTEGER, BITS, ANY = (("float",), ("float", "int"), ("int",), ("int", "bool"), ("float", "int", "bool"))


@dataclass(frozen=True)
class Row:
    """One elementwise function. `vjp(b, g, y, *xs)` returns one gradient per operand (None: zero)."""
    name: str
    arity: int
    kinds: tuple[str, ...]
    reference: Callable[..., np.ndarray]
    # None: gradient zero everywhere (the explicit list of piecewise constant functions)
    vjp: Callable[..., Gradients] | None = None
    result: DType | None = None     # None: the dtype of the operands
    flops: int = 1
    linear_in: tuple[Operands, ...] = ()
    is_commutative: bool = False


class Elementwise(Op):
    """y[i] = fn(x1[i], x2[i], …) with numpy broadcasting; what each fn computes is said above `ROWS`.

    There is one object for each function: `node.op is MUL`.
    """
    fn: str
    is_elementwise = True
    _MADE: ClassVar[dict[str, Elementwise]] = {}

    def __new__(cls, fn: str) -> Elementwise:
        return cls._MADE.setdefault(fn, super().__new__(cls))

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Elementwise, (self.fn,)

    __eq__, __hash__ = object.__eq__, object.__hash__

    @property
    def opcode(self) -> Elementwise:
        return self

    @property
    def name(self) -> str:
        return self.fn

    @property
    def row(self) -> Row:
        return ROWS[self.fn]

    @property
    def attributes(self) -> dict[str, object]:
        return {}                   # the name says it all

    @property
    def linear_in(self) -> tuple[Operands, ...]:
        return self.row.linear_in

    @property
    def is_commutative(self) -> bool:
        return self.row.is_commutative

    @property
    def element_flops(self) -> int:
        return self.row.flops

    def infer(self, *ins: TensorType) -> TensorType:
        row = self.row
        if len(ins) != row.arity:
            raise GraphError(f"{self.fn} takes {row.arity} operand{'s' * (row.arity > 1)}, got {len(ins)}")
        data = ins[1:] if self is WHERE else ins
        dtype = data[0].dtype
        for t in data:
            if t.dtype is not dtype:
                wanted = common([t.dtype for t in data])
                raise GraphError(f"{self.fn} of {' and '.join(str(t.dtype) for t in data)}: convert one side, for "
                                 f"example with .astype({wanted})")
        if dtype.kind not in row.kinds:
            raise GraphError(f"{self.fn} takes {' or '.join(row.kinds)} arrays, got {dtype}" + _hint(row, dtype))
        if self is WHERE and ins[0].dtype != bool_:
            raise GraphError(f"the condition of where must be bool, got {ins[0].dtype}; compare it, for example x != 0")
        shape, result = broadcast_shapes(*[t.shape for t in ins]), row.result or dtype
        return data[0] if data[0].shape is shape and dtype is result else TensorType(result, shape)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(self.row.reference(*arrays), self.row.result.np if self.row.result else arrays[-1].dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        if self.row.vjp is None:
            return (None,) * len(ins)
        return self.row.vjp(b, gs[0], outs[0], *ins)

    def cost(self, *ins: TensorType) -> Cost:
        out = self.infer(*ins)
        return Cost(out.size * self.row.flops, out.nbytes + sum(t.nbytes for t in ins))


class Cast(Op):
    """The array with another dtype: float to int truncates and saturates (NaN gives 0), anything to bool is `!= 0`.

    numpy leaves float to int undefined outside the range; integers wrap in both. f16 and bf16 are converted by way of
    f32, to which they round to nearest even.
    """
    name: ClassVar[str] = "cast"
    is_elementwise = True
    dtype: DType

    def infer(self, x: TensorType) -> TensorType:
        return x.with_dtype(self.dtype)

    def reference(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            if dtype_of(x).is_storage or self.dtype.is_storage:
                x = x.astype(np.float32)
            if dtype_of(x).is_float and self.dtype.is_int:
                return _saturating(x, self.dtype)
            return x.astype(self.dtype.np)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        source = ins[0].type.dtype
        return (b.cast(gs[0], dtype=source) if source.is_float and self.dtype.is_float else None,)


class BitCast(Op):
    """The bits of each element read as another type of the same width. A bool is the byte 0 or 1; a byte as bool is
    `!= 0`."""
    name: ClassVar[str] = "bitcast"
    is_elementwise = True
    dtype: DType

    def infer(self, x: TensorType) -> TensorType:
        if x.dtype.itemsize != self.dtype.itemsize:
            raise GraphError(f"bitcast keeps the width: {x.dtype} has {8 * x.dtype.itemsize} bits, {self.dtype} "
                             f"{8 * self.dtype.itemsize}")
        return x.with_dtype(self.dtype)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x != 0 if self.dtype is bool_ else np.ascontiguousarray(x).view(self.dtype.np).reshape(x.shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)


class StopGradient(Op):
    """The array itself; no gradient flows through. `refused`: to ask for one is an error that says this."""
    name: ClassVar[str] = "stop_gradient"
    is_elementwise = True
    linear_in = (ALL,)
    refused: str = ""

    def infer(self, x: TensorType) -> TensorType:
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        if self.refused:
            raise GraphError(self.refused)
        return (None,)


class ShardSum(Op):
    """The sum of an array over the shards of a batch, which a training step cuts; the array itself of a batch that is
    whole. The gradient towards one shard is the sum of those of all shards.

    Compiled alone it is the array itself: a step with shards is compiled in parts, between which the sums are taken.
    """
    name: ClassVar[str] = "shard_sum"
    is_elementwise = True
    linear_in = (ALL,)

    def infer(self, x: TensorType) -> TensorType:
        if not x.dtype.is_float:
            raise GraphError(f"shard_sum takes floats, got {x}")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.shard_sum(gs[0]),)


def _hint(row: Row, dtype: DType) -> str:
    return "; convert it with .astype(f32)" if row.kinds == FLOAT and dtype.kind == "int" else ""


def _saturating(x: np.ndarray, dtype: DType) -> np.ndarray:
    low, high = dtype.range
    with np.errstate(all="ignore"):
        wild = ~np.isfinite(x) | (x >= float(high)) | (x <= float(low))
        inside = np.where(wild, 0, x).astype(dtype.np)
        return np.where(x >= float(high), high, np.where(x <= float(low), low, inside)).astype(dtype.np)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _pow_vjp(b: OpBuilder, g: Value, y: Value, x: Value, e: Value) -> Gradients:
    """d/dx = e x^(e-1), 0 where e = 0; d/de = y log x, 0 where x = 0 <= e (PyTorch's choices, without 0 * inf on the
    way).
    """
    zero, one = number(b, 0, x), number(b, 1, x)
    lower = b.where(b.eq(e, 0), zero, b.sub(e, one))
    base = b.where(b.bitand(b.eq(x, 0), b.ge(e, 0)), one, x)
    return b.mul(g, b.mul(e, b.pow(x, lower))), b.mul(g, b.mul(y, b.log(base)))


def _i1_vjp(b: OpBuilder, g: Value, y: Value, x: Value) -> Gradients:
    """i0(x) - i1(x) / x; 1/2 at 0."""
    slope = b.where(b.eq(x, 0), number(b, 0.5, x), b.sub(b.i0(x), b.div(y, x)))
    return (b.mul(g, slope),)


def _extremum_vjp(loses: str) -> Callable[..., Gradients]:
    """Gradient of maximum (an operand loses where it is `lt` the other) or minimum (`gt`): to the winner; half to each
    of equals.
    """
    def vjp(b: OpBuilder, g: Value, y: Value, x1: Value, x2: Value) -> Gradients:
        tie, half, zero = b.eq(x1, x2), b.mul(g, 0.5), number(b, 0, g)

        def share(mine: Value, other: Value) -> Value:
            return b.where(getattr(b, loses)(mine, other), zero, b.where(tie, half, g))
        return share(x1, x2), share(x2, x1)
    return vjp


def _where_vjp(b: OpBuilder, g: Value, y: Value, cond: Value, x1: Value, x2: Value) -> Gradients:
    zero = number(b, 0, g)
    return None, b.where(cond, g, zero), b.where(cond, zero, g)


TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)

# Integers wrap around. floordiv and mod round to minus infinity as in Python (mod has the sign of the divisor); an
# integer divided
# by zero gives 0 in both, the smallest integer divided by -1 itself. minimum and maximum give NaN if an operand is.
# round is half to
# even. A shift by a negative number, or by the number of bits or more, gives 0 (left) or the sign (right); shift_right
# is arithmetic.
# sign(NaN) is NaN. bitnot of bool is logical not.
ROWS: dict[str, Row] = {row.name: row for row in (
    Row("add", 2, NUMBER, np.add, lambda b, g, y, x1, x2: (g, g), linear_in=(ALL,), is_commutative=True),
    Row("sub", 2, NUMBER, np.subtract, lambda b, g, y, x1, x2: (g, b.neg(g)), linear_in=(ALL,)),
    Row("mul", 2, NUMBER, np.multiply, lambda b, g, y, x1, x2: (b.mul(g, x2), b.mul(g, x1)),
        linear_in=((0,), (1,)), is_commutative=True),
    Row("div", 2, FLOAT, np.divide, lambda b, g, y, x1, x2: (b.div(g, x2), b.neg(b.div(b.mul(g, y), x2))),
        linear_in=((0,),)),
    Row("floordiv", 2, NUMBER, np.floor_divide),
    Row("mod", 2, NUMBER, np.mod, lambda b, g, y, x1, x2: (g, b.neg(b.mul(g, b.floordiv(x1, x2)))), flops=4),
    Row("pow", 2, FLOAT, np.power, _pow_vjp, flops=20),
    Row("minimum", 2, NUMBER, np.minimum, _extremum_vjp("gt"), is_commutative=True),
    Row("maximum", 2, NUMBER, np.maximum, _extremum_vjp("lt"), is_commutative=True),

    Row("copy", 1, (*ANY, "packed"), lambda x: x, lambda b, g, y, x: (g,), linear_in=(ALL,)),
    Row("neg", 1, NUMBER, np.negative, lambda b, g, y, x: (b.neg(g),), linear_in=(ALL,)),
    Row("abs", 1, NUMBER, np.abs, lambda b, g, y, x: (b.mul(g, b.sign(x)),)),
    Row("sign", 1, NUMBER, np.sign),
    Row("floor", 1, FLOAT, np.floor),
    Row("ceil", 1, FLOAT, np.ceil),
    Row("round", 1, FLOAT, np.rint),
    Row("exp", 1, FLOAT, np.exp, lambda b, g, y, x: (b.mul(g, y),), flops=8),
    Row("expm1", 1, FLOAT, np.expm1, lambda b, g, y, x: (b.mul(g, b.add(y, 1)),), flops=12),
    Row("log", 1, FLOAT, np.log, lambda b, g, y, x: (b.div(g, x),), flops=10),
    Row("log1p", 1, FLOAT, np.log1p, lambda b, g, y, x: (b.div(g, b.add(x, 1)),), flops=14),
    Row("sqrt", 1, FLOAT, np.sqrt, lambda b, g, y, x: (b.div(b.mul(g, 0.5), y),), flops=2),
    Row("rsqrt", 1, FLOAT, lambda x: 1 / np.sqrt(x), lambda b, g, y, x: (b.mul(b.mul(g, -0.5), b.mul(y, b.mul(y, y))),),
        flops=3),
    Row("sin", 1, FLOAT, np.sin, lambda b, g, y, x: (b.mul(g, b.cos(x)),), flops=12),
    Row("cos", 1, FLOAT, np.cos, lambda b, g, y, x: (b.neg(b.mul(g, b.sin(x))),), flops=12),
    Row("tanh", 1, FLOAT, np.tanh, lambda b, g, y, x: (b.mul(g, b.sub(1, b.mul(y, y))),), flops=12),
    Row("sigmoid", 1, FLOAT, _sigmoid, lambda b, g, y, x: (b.mul(g, b.mul(y, b.sub(1, y))),), flops=10),
    Row("erf", 1, FLOAT, special.erf,
        lambda b, g, y, x: (b.mul(g, b.mul(TWO_OVER_SQRT_PI, b.exp(b.neg(b.mul(x, x))))),), flops=16),
    Row("erfc", 1, FLOAT, special.erfc,
        lambda b, g, y, x: (b.mul(g, b.mul(-TWO_OVER_SQRT_PI, b.exp(b.neg(b.mul(x, x))))),), flops=40),
    Row("erfinv", 1, FLOAT, special.erfinv,
        lambda b, g, y, x: (b.mul(g, b.mul(1 / TWO_OVER_SQRT_PI, b.exp(b.mul(y, y)))),), flops=100),
    Row("lgamma", 1, FLOAT, special.lgamma, lambda b, g, y, x: (b.mul(g, b.digamma(x)),), flops=100),
    Row("digamma", 1, FLOAT, special.digamma, lambda b, g, y, x: (b.mul(g, b.polygamma(x, n=1)),), flops=120),
    Row("i0", 1, FLOAT, special.i0, lambda b, g, y, x: (b.mul(g, b.i1(x)),), flops=100),
    Row("i1", 1, FLOAT, special.i1, _i1_vjp, flops=100),
    Row("exp2", 1, FLOAT, np.exp2, lambda b, g, y, x: (b.mul(g, b.mul(y, math.log(2))),), flops=10),
    Row("log2", 1, FLOAT, np.log2, lambda b, g, y, x: (b.div(g, b.mul(x, math.log(2))),), flops=24),
    Row("log10", 1, FLOAT, np.log10, lambda b, g, y, x: (b.div(g, b.mul(x, math.log(10))),), flops=24),
    Row("cbrt", 1, FLOAT, np.cbrt, lambda b, g, y, x: (b.div(g, b.mul(3, b.mul(y, y))),), flops=40),

    Row("lt", 2, ANY, np.less, result=bool_),
    Row("le", 2, ANY, np.less_equal, result=bool_),
    Row("gt", 2, ANY, np.greater, result=bool_),
    Row("ge", 2, ANY, np.greater_equal, result=bool_),
    Row("eq", 2, ANY, np.equal, result=bool_, is_commutative=True),
    Row("ne", 2, ANY, np.not_equal, result=bool_, is_commutative=True),
    Row("isnan", 1, FLOAT, np.isnan, result=bool_),
    Row("isfinite", 1, FLOAT, np.isfinite, result=bool_),

    Row("bitand", 2, BITS, np.bitwise_and, is_commutative=True),
    Row("bitor", 2, BITS, np.bitwise_or, is_commutative=True),
    Row("bitxor", 2, BITS, np.bitwise_xor, is_commutative=True),
    Row("bitnot", 1, BITS, np.bitwise_not),
    Row("shift_left", 2, INTEGER, np.left_shift),
    Row("shift_right", 2, INTEGER, np.right_shift),
    Row("where", 3, ANY, np.where, _where_vjp, linear_in=((1, 2),)),
)}

# The functions that passes know by name.
ADD, SUB, MUL, DIV, POW, MINIMUM, MAXIMUM = map(Elementwise, ("add", "sub", "mul", "div", "pow", "minimum", "maximum"))
COPY, NEG, EXP, SIGMOID, BITNOT, WHERE, ROUND = map(
    Elementwise, ("copy", "neg", "exp", "sigmoid", "bitnot", "where", "round"))
LT, LE, GT, GE = map(Elementwise, ("lt", "le", "gt", "ge"))

OPS = {name: (lambda op=Elementwise(name): op) for name in ROWS}
CLASSES = (Elementwise, Cast, BitCast, StopGradient, ShardSum)
