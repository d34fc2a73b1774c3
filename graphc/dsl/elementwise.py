"""Elementwise functions. All broadcast as numpy does; a Python number takes the dtype of the array beside it."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, common_dtype, divide, emit, is_weak, power
from graphc.dsl.context import current_trace
from graphc.dsl.form import formed
from graphc.dsl.literal import as_dtype, numbers
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.ir.types import DType, bool_, dtype_of, f32, i64

Operand = Array | float | int | bool


@formed
def add(x: Operand, y: Operand) -> Array:
    """x + y."""
    return emit("add", x, y)


@formed
def sub(x: Operand, y: Operand) -> Array:
    """x - y."""
    return emit("sub", x, y)


@formed
def mul(x: Operand, y: Operand) -> Array:
    """x * y."""
    return emit("mul", x, y)


@formed
def div(x: Operand, y: Operand) -> Array:
    """x / y; of two integer arrays f32 (numpy: f64)."""
    return divide(x, y)


@formed
def floordiv(x: Operand, y: Operand) -> Array:
    """x // y, rounded towards minus infinity, as in numpy. Integer division by zero gives 0."""
    return emit("floordiv", x, y)


@formed
def mod(x: Operand, y: Operand) -> Array:
    """x % y with the sign of y, as in numpy (torch.remainder)."""
    return emit("mod", x, y)


@formed
def pow(x: Operand, y: Operand) -> Array:
    """x ** y."""
    return power(x, y)


@formed
def minimum(x: Operand, y: Operand) -> Array:
    """The smaller of each pair; NaN if either is NaN, as in numpy."""
    return emit("minimum", x, y)


@formed
def maximum(x: Operand, y: Operand) -> Array:
    """The larger of each pair; NaN if either is NaN, as in numpy."""
    return emit("maximum", x, y)


@formed
def neg(x: Operand) -> Array:
    """-x."""
    return emit("neg", x)


@formed
def abs(x: Operand) -> Array:
    """|x|; gradient 0 at 0."""
    return emit("abs", x)


@formed
def sign(x: Operand) -> Array:
    """-1, 0 or 1; gradient 0."""
    return emit("sign", x)


@formed
def square(x: Operand) -> Array:
    """x * x."""
    return emit("mul", x, x)


@formed
def floor(x: Operand) -> Array:
    """The largest whole number not above x; gradient 0."""
    return emit("floor", x)


@formed
def ceil(x: Operand) -> Array:
    """The smallest whole number not below x; gradient 0."""
    return emit("ceil", x)


@formed
def round(x: Operand) -> Array:
    """To the nearest whole number, halves to even, as in numpy; gradient 0."""
    return emit("round", x)


@formed
def exp(x: Operand) -> Array:
    """e ** x."""
    return emit("exp", as_float(x))


@formed
def expm1(x: Operand) -> Array:
    """exp(x) - 1, exact near 0."""
    return emit("expm1", as_float(x))


@formed
def log(x: Operand) -> Array:
    """The natural logarithm; -inf at 0, NaN below."""
    return emit("log", as_float(x))


@formed
def log1p(x: Operand) -> Array:
    """log(1 + x), exact near 0."""
    return emit("log1p", as_float(x))


@formed
def sqrt(x: Operand) -> Array:
    """The square root; NaN below 0."""
    return emit("sqrt", as_float(x))


@formed
def rsqrt(x: Operand) -> Array:
    """1 / sqrt(x)."""
    return emit("rsqrt", as_float(x))


@formed
def sin(x: Operand) -> Array:
    """The sine of x in radians."""
    return emit("sin", as_float(x))


@formed
def cos(x: Operand) -> Array:
    """The cosine of x in radians."""
    return emit("cos", as_float(x))


@formed
def tanh(x: Operand) -> Array:
    """The hyperbolic tangent."""
    return emit("tanh", as_float(x))


@formed
def sigmoid(x: Operand) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return emit("sigmoid", as_float(x))


@formed
def erf(x: Operand) -> Array:
    """The error function."""
    return emit("erf", as_float(x))


@formed
def isnan(x: Operand) -> Array:
    """bool: whether each element is NaN."""
    return emit("isnan", x)


@formed
def isfinite(x: Operand) -> Array:
    """bool: whether each element is neither NaN nor infinite."""
    return emit("isfinite", x)


@formed
def less(x: Operand, y: Operand) -> Array:
    """x < y, bool."""
    return emit("lt", x, y)


@formed
def less_equal(x: Operand, y: Operand) -> Array:
    """x <= y, bool."""
    return emit("le", x, y)


@formed
def greater(x: Operand, y: Operand) -> Array:
    """x > y, bool."""
    return emit("gt", x, y)


@formed
def greater_equal(x: Operand, y: Operand) -> Array:
    """x >= y, bool."""
    return emit("ge", x, y)


@formed
def equal(x: Operand, y: Operand) -> Array:
    """x == y, bool; NaN equals nothing."""
    return emit("eq", x, y)


@formed
def not_equal(x: Operand, y: Operand) -> Array:
    """x != y, bool."""
    return emit("ne", x, y)


@formed
def logical_and(x: Operand, y: Operand) -> Array:
    """Whether both are true; numbers count as true when they are not 0."""
    return emit("bitand", _truth(x), _truth(y))


@formed
def logical_or(x: Operand, y: Operand) -> Array:
    """Whether one is true; numbers count as true when they are not 0."""
    return emit("bitor", _truth(x), _truth(y))


@formed
def logical_xor(x: Operand, y: Operand) -> Array:
    """Whether just one is true."""
    return emit("bitxor", _truth(x), _truth(y))


@formed
def logical_not(x: Operand) -> Array:
    """Whether it is false (numbers: 0)."""
    return emit("bitnot", _truth(x))


@formed
def bitwise_and(x: Operand, y: Operand) -> Array:
    """x & y of integers or bools."""
    return emit("bitand", x, y)


@formed
def bitwise_or(x: Operand, y: Operand) -> Array:
    """x | y of integers or bools."""
    return emit("bitor", x, y)


@formed
def bitwise_xor(x: Operand, y: Operand) -> Array:
    """x ^ y of integers or bools."""
    return emit("bitxor", x, y)


@formed
def bitwise_not(x: Operand) -> Array:
    """~x of integers or bools."""
    return emit("bitnot", x)


@formed
def left_shift(x: Operand, y: Operand) -> Array:
    """x << y of integers."""
    return emit("shift_left", x, y)


@formed
def right_shift(x: Operand, y: Operand) -> Array:
    """x >> y of integers; the sign is kept."""
    return emit("shift_right", x, y)


@formed
def where(condition: Operand, x: Operand, y: Operand) -> Array:
    """x where `condition` (bool) holds, else y; all three broadcast. The side not taken gets gradient 0, even if it
    or its slope is NaN or infinite: where(x > 0, sqrt(x), x) has gradient 1 at 0 and below. How far back it is
    followed: docs/numerics.md."""
    if isinstance(condition, Array) and condition.dtype != bool_:
        raise GraphError(f"the condition of where must be bool, got {condition.dtype}: compare first, for example x > "
                         "0")
    condition = as_array(condition, bool_)

    def made(dtype: DType) -> Array:
        return emit("where", condition, *(v.settled(dtype) if is_weak(v) else as_array(v, dtype) for v in (x, y)))
    dtype = common_dtype([v for v in (x, y) if not is_weak(v)])
    if dtype is not None:
        return made(dtype)
    # of two numbers a float decides
    kinds = {v.dtype if is_weak(v) else dtype_of(numbers(v, None)) for v in (x, y)}
    if not any(d.is_float for d in kinds):
        return made(i64 if len(kinds) > 1 else kinds.pop())
    result = made(f32)
    return Array(result.value, result.trace, made)


@formed
def clip(x: Operand, low: Operand | None = None, high: Operand | None = None) -> Array:
    """x limited to [low, high]; a bound may be None. Gradient 0 outside."""
    return as_array(x).clip(low, high)


@formed
def cast(x: Operand, dtype: object) -> Array:
    """x as another dtype: float to int truncates and saturates (NaN gives 0), anything to bool is `!= 0`."""
    return as_array(x).astype(as_dtype(dtype))


@formed
def bitcast(x: Operand, dtype: object) -> Array:
    """The bits of each element of x read as another dtype of the same width, as numpy's `x.view(dtype)`; without a
    gradient. A bool is the byte 0 or 1; a byte as bool is `!= 0`."""
    return emit("bitcast", x, dtype=as_dtype(dtype))


@formed
def stop_gradient(x: Operand) -> Array:
    """x itself, through which no gradient flows (torch's detach)."""
    return emit("stop_gradient", x)


@formed
def shard_sum(x: Operand) -> Array:
    """The sum of x over the shards of the batch of a training step (`shards=`), x itself anywhere else: with
    gc.shard_sum(gc.sum(x)) / gc.shard_sum(count) a mean is that of the whole batch. It stands outside of loops."""
    x, trace = as_float(x), current_trace()
    if trace.parent is not None and trace.root.shard is not None:
        raise GraphError("gc.shard_sum cannot stand inside scan, cond or while_loop: shards would wait for each other "
                         "in every round; take the sum outside")
    return emit("shard_sum", x)


@formed
def name(x: Array, text: str) -> Array:
    """x itself; its value is called `text` in the printed graph, and in `outputs=` of gc.compile and `wrt=` of
    gc.grad."""
    x = as_array(x)
    if not isinstance(text, str) or not text.isidentifier():
        raise GraphError(f"a name is an identifier such as h1, got {shown(text)}")
    if x.value.node is None:
        raise GraphError(f"{x.value.name!r} is an argument and has its name already")
    x.value.name = text
    return x


def _truth(x: Operand) -> Array:
    return as_array(x).astype(bool_)
