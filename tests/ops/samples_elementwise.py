"""Samples of elementwise operators and activations, each with a scalar Python function as second opinion."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import mpmath as mp
import numpy as np
from op_sample import CORE, FLOATS, Sample, each, floats, ints, special, values

from graphc.ir.op import Op
from graphc.ir.ops.activation import Clip, Elu, Gelu, LeakyRelu, Relu, Silu, Softplus
from graphc.ir.ops.elementwise import ROWS, BitCast, Cast, Elementwise, ShardSum, StopGradient
from graphc.ir.ops.special import LogAddExp, Polygamma, Sinc, XLogY
from graphc.ir.ops.trig import Acos, Acosh, Asin, Asinh, Atan, Atan2, Atanh, Cosh, Sinh, Tan
from graphc.ir.types import bool_, f32, f64, i32, i64

UNARY_SHAPES = {f32: ((), (1,), (3,), (7,), (8,), (17,), (33,), (100,), (0,), (2, 0, 3), (5, 7)), f64: ((3,), (7,), (33,), (3, 5)),
                i32: ((8,), (33,)), i64: ((7,), (17,)), bool_: ((3,), (33,))}
BINARY_SHAPES = {f32: (((17,), (17,)), ((), (5,)), ((3, 1), (1, 5)), ((4, 33), (33,)), ((2, 1, 4), (3, 1)), ((0, 3), (3,)), ((1,), (0,)), ((100,), (1,))),
                 f64: (((7,), (7,)), ((3, 1), (1, 5)), ((2, 3), ())), i32: (((33,), (33,)), ((3, 1), (1, 5))), i64: (((7,), (7,)), ((), (8,))),
                 bool_: (((33,), (33,)), ((3, 1), (1, 5)))}

# Where gradients are smooth: (low, high) of each operand.
RANGES = {"log": ((0.2, 3),), "sqrt": ((0.2, 3),), "rsqrt": ((0.2, 3),), "log1p": ((-0.8, 3),), "div": ((-2, 2), (0.5, 2)),
          "pow": ((0.2, 3), (-2, 2)), "floordiv": ((-5, 5), (0.7, 2)), "mod": ((-5, 5), (0.7, 2)), "lgamma": ((0.3, 4),), "digamma": ((0.3, 4),), "erfinv": ((-0.9, 0.9),), "log2": ((0.2, 3),),
          "log10": ((0.2, 3),), "cbrt": ((0.2, 3),)}


def unless(error: type[Exception], fallback: Callable, fn: Callable) -> Callable:
    def guarded(*xs):
        try:
            return fn(*xs)
        except error:
            return fallback(*xs)
    return guarded


def extremum(fn: Callable) -> Callable:
    return lambda x, y: x + y if x != x or y != y else fn(x, y)


def shift(left: bool, bits: int) -> Callable:
    def fn(x, n):
        if 0 <= n < bits:
            return x << n if left else x >> n
        return 0 if left or x >= 0 else -1
    return fn


def divided(x, y):
    return x / y if y else math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1, y)


def power(x, y):
    with np.errstate(all="ignore"):
        return np.float64(x) ** np.float64(y)


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(max(x, -1e4)) if x == x else x


def by_mpmath(fn: Callable, at_inf: float, at_minus_inf: float, **poles) -> Callable:
    """A function of mpmath as one of floats; `poles`: of what is no number, by repr."""
    def run(x):
        known = {"nan": math.nan, "inf": at_inf, "-inf": at_minus_inf, **poles}.get(repr(float(x)))
        if known is not None:
            return known
        try:
            with mp.workdps(40):
                return float(mp.re(fn(mp.mpf(x))))
        except OverflowError:
            return math.inf if x > 0 else at_minus_inf
    return run


def whole(x):
    return math.isfinite(x) and x == math.floor(x)


def log_gamma(x):
    return inf if whole(x) and x <= 0 else by_mpmath(lambda v: mp.log(abs(mp.gamma(v))), inf, inf)(x)


def digamma(x):
    if x < 0 and whole(x):
        return math.nan
    return math.copysign(math.inf, -x) if x == 0 else by_mpmath(mp.digamma, math.inf, math.nan)(x)


nan, inf = math.nan, math.inf
to_inf = lambda *xs: inf                                                    # noqa: E731
SCALAR: dict[str, Callable] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": divided,
    "pow": power, "minimum": extremum(min), "maximum": extremum(max),
    "floordiv": unless(ZeroDivisionError, lambda x, y: 0 if isinstance(x, int) else divided(x, y), lambda x, y: x // y),
    "mod": unless(ZeroDivisionError, lambda x, y: 0 if isinstance(x, int) else nan, lambda x, y: x % y),
    "copy": lambda x: x, "neg": lambda x: -x, "abs": abs, "sign": lambda x: (x > 0) - (x < 0) if x == x else x,
    "floor": lambda x: float(math.floor(x)) if math.isfinite(x) else x, "ceil": lambda x: float(math.ceil(x)) if math.isfinite(x) else x,
    "round": lambda x: float(round(x)) if math.isfinite(x) else x,
    "exp": unless(OverflowError, to_inf, math.exp), "expm1": unless(OverflowError, to_inf, math.expm1),
    "log": lambda x: math.log(x) if x > 0 else -inf if x == 0 else nan, "log1p": lambda x: math.log1p(x) if x > -1 else -inf if x == -1 else nan,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else nan, "rsqrt": lambda x: divided(1, math.copysign(math.sqrt(abs(x)), x)) if x >= 0 else nan,
    "sin": lambda x: math.sin(x) if math.isfinite(x) else nan, "cos": lambda x: math.cos(x) if math.isfinite(x) else nan,
    "tanh": math.tanh, "sigmoid": sigmoid, "erf": math.erf, "erfc": math.erfc, "lgamma": log_gamma, "digamma": digamma,
    "erfinv": lambda x: nan if not abs(x) <= 1 else by_mpmath(mp.erfinv, nan, nan, **{"1.0": inf, "-1.0": -inf, "-0.0": -0.0})(x),
    "i0": by_mpmath(lambda x: mp.besseli(0, x), inf, inf), "i1": by_mpmath(lambda x: mp.besseli(1, x), inf, -inf, **{"-0.0": -0.0}),
    "exp2": unless(OverflowError, to_inf, lambda x: 2.0 ** x), "log2": lambda x: math.log2(x) if x > 0 else -inf if x == 0 else nan,
    "log10": lambda x: math.log10(x) if x > 0 else -inf if x == 0 else nan, "cbrt": math.cbrt,
    "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "gt": lambda x, y: x > y, "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y, "ne": lambda x, y: x != y, "isnan": lambda x: x != x, "isfinite": math.isfinite,
    "bitand": lambda x, y: x & y, "bitor": lambda x, y: x | y, "bitxor": lambda x, y: x ^ y,
    "bitnot": lambda x: not x if isinstance(x, bool) else ~x,
    "where": lambda c, x, y: x if c else y,
    "relu": lambda x: x if x > 0 or x != x else 0, "leaky_relu": lambda x: x if x > 0 else 0.125 * x,
    "elu": lambda x: x if x > 0 else 1.5 * math.expm1(x), "silu": lambda x: x * sigmoid(x),
    "softplus": lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))) if x == x else x,
}


def by_scalars(fn: Callable) -> Callable:
    """The elementwise function that calls `fn` on Python numbers, integers wrapped to the dtype."""
    def run(*arrays):
        wide = np.broadcast_arrays(*arrays)
        flat = [fn(*xs) for xs in zip(*(a.ravel().tolist() for a in wide))]
        if wide[-1].dtype.kind == "i" and not any(isinstance(v, bool) for v in flat):
            bits = wide[-1].dtype.itemsize * 8
            flat = [(v + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1) for v in flat]
        return np.array(flat).reshape(wide[0].shape)
    return run


def expectation(fn: str, dtype) -> Callable | None:
    if fn.startswith("shift"):
        return by_scalars(shift(fn == "shift_left", dtype.itemsize * 8))
    return by_scalars(SCALAR[fn])


def operand(fn: str, index: int, shape, dtype, seed) -> np.ndarray:
    if dtype.is_float and fn in RANGES:
        return floats(shape, dtype, *RANGES[fn][index], seed=(fn, seed))
    if fn.startswith("shift") and index == 1:
        return ints(shape, dtype, -3, dtype.itemsize * 8 + 3, seed=fn)
    return values(shape, dtype, seed=(fn, seed))


def row_samples(fn: str) -> Iterator[Sample]:
    row, op = ROWS[fn], Elementwise(fn)
    shapes = UNARY_SHAPES if row.arity == 1 else BINARY_SHAPES
    for dtype in (d for d in CORE if d.kind in row.kinds):
        expect = expectation(fn, dtype)
        smooth = row.vjp is not None or row.result is None
        for shape in shapes[dtype]:
            operands = (shape,) if row.arity == 1 else shape
            arrays = [operand(fn, i, s, dtype, i) for i, s in enumerate(operands)]
            if fn == "where":
                arrays.insert(0, values(operands[-1], bool_, seed="condition"))
            yield Sample(op, tuple(arrays), smooth=smooth, expect=expect, scaled=False)
        if dtype != bool_:
            yield special_sample(op, row.arity, dtype, expect)


def special_sample(op: Op, arity: int, dtype, expect) -> Sample:
    x = special(dtype)
    arrays = (x,) if arity == 1 else (x[:, None], x) if arity == 2 else (np.arange(len(x)) % 2 == 0, x[:, None], x)
    return Sample(op, arrays, "special", smooth=False, expect=expect, scaled=False)


def cast_samples() -> Iterator[Sample]:
    for source in CORE:
        for target in CORE:
            yield Sample(Cast(target), (values((17,), source),), f"to-{target}")
        if source != bool_:
            yield from (Sample(Cast(target), (special(source),), f"special-to-{target}", smooth=False) for target in CORE)


def bitcast_samples() -> Iterator[Sample]:
    for source, target in ((f32, i32), (i32, f32), (f64, i64), (i64, f64)):
        for x in (values((3, 11), source), special(source)):
            yield Sample(BitCast(target), (x,), f"to-{target}", smooth=False, scaled=False, expect=lambda x, target=target: x.view(target.np))


def activation_samples() -> Iterator[Sample]:
    shapes = tuple((s,) for s in UNARY_SHAPES[f32])
    for op in (Relu(), LeakyRelu(0.125), Elu(1.5), Gelu(), Gelu("tanh"), Silu(), Softplus(), Clip(-1.0, 0.5), Clip(0.25, None), Clip(None, 0.75), Clip(None, None)):
        tag = "-".join(map(str, vars(op).values()))
        scalar = SCALAR.get(op.name)
        expect = scalar and by_scalars(scalar)
        yield from each(op, shapes, tag=tag, expect=expect)
        yield from (Sample(op, (special(d),), f"special-{tag}", smooth=False, expect=by_gap(scalar)) for d in FLOATS)
    yield from each(Relu(), (((33,),),), (i32, i64), tag="int")
    yield from each(Clip(-3, 7), (((33,),),), (i32, i64), tag="int")


def by_gap(scalar):
    """Special values of activations: the scalar function where it is defined there."""
    return None if scalar is None else by_scalars(unless(ValueError, lambda x: nan, unless(OverflowError, to_inf, scalar)))


# Where a function overflows a little earlier than numpy's, or is at the mercy of the reduction of huge angles (of |x|).
NEAR_LIMITS = {"tan": lambda a: a > 1e4, **dict.fromkeys(("sinh", "cosh"), lambda a: (a > 88.5) & (a < 90) | (a > 709) & (a < 711)),
               **dict.fromkeys(("asinh", "acosh"), lambda a: a == np.finfo(a.dtype).max)}
TRIG = ((Tan(), -1.4, 1.4), (Sinh(), -3, 3), (Cosh(), -3, 3), (Asin(), -0.9, 0.9), (Acos(), -0.9, 0.9), (Atan(), -4, 4), (Asinh(), -4, 4), (Acosh(), 1.1, 4), (Atanh(), -0.9, 0.9))


def trig_samples() -> Iterator[Sample]:
    for op, low, high in TRIG:
        for dtype in FLOATS:
            numpy = getattr(np, op.name)
            yield from (Sample(op, (floats(s, dtype, low, high),), expect=numpy) for s in ((), (3,), (8,), (33,), (100,), (0,), (5, 7)))
            x = special(dtype)
            yield Sample(op, (x[~NEAR_LIMITS.get(op.name, np.isneginf)(np.abs(x))],), "special", smooth=False, scaled=False)
    yield from each(Atan2(), BINARY_SHAPES[f32], expect=np.atan2)
    yield from (Sample(Atan2(), (special(d)[:, None], special(d)), "special", smooth=False, scaled=False) for d in FLOATS)


def special_samples() -> Iterator[Sample]:
    """Of the special functions that are composites."""
    shapes = ((), (3,), (33,), (0,), (5, 7))
    for dtype in FLOATS:
        for n in (1, 2, 5):
            yield from (Sample(Polygamma(n), (floats(s, dtype, 0.4, 5),), f"n{n}", expect=derivative_of_digamma(n)) for s in shapes)
            yield Sample(Polygamma(n), (floats((33,), dtype, -2.9, -2.1),), f"n{n}-below", smooth=False, tolerance=256)
        yield from (Sample(Sinc(), (floats(s, dtype, -3, 3),), expect=np.sinc) for s in shapes)
        yield Sample(Sinc(), (special(dtype),), "special", smooth=False, scaled=False)
    yield from each(LogAddExp(), BINARY_SHAPES[f32], expect=np.logaddexp)
    yield from (Sample(LogAddExp(), (special(d)[:, None], special(d)), "special", smooth=False) for d in FLOATS)
    for dtype in FLOATS:
        for i, (a, b) in enumerate(BINARY_SHAPES[f32]):
            yield Sample(XLogY(), (values(a, dtype), floats(b, dtype, 0.3, 3)), f"{i}", expect=lambda x, y: x * np.log(y))
        yield Sample(XLogY(), (special(dtype)[:, None], special(dtype)), "special", smooth=False, scaled=False)


def derivative_of_digamma(n: int) -> Callable:
    return lambda x: np.array([float(mp.polygamma(n, v)) for v in x.ravel().tolist()]).reshape(x.shape)


SAMPLES = (*special_samples(), *(s for fn in ROWS for s in row_samples(fn)), *cast_samples(), *bitcast_samples(), *activation_samples(), *trig_samples(),
           *each(StopGradient(), (((5,),),), CORE, smooth=False), *each(ShardSum(), (((5,),), ((2, 3),))))
