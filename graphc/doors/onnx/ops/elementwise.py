"""Elementwise operators and activations."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import graphc as gc
from graphc.doors.onnx.call import Call, dtype_of_item
from graphc.doors.onnx.narrow import NARROW, Narrow, narrowed
from graphc.doors.onnx.rule import Operand, Unsupported, arrays
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.convert import choice
from graphc.ir.types import DType

SELU_ALPHA, SELU_SCALE = 1.67326319217681884765625, 1.05070102214813232421875       # the schema's defaults


def many(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """A function of two arrays as a rule of any number."""
    def rule(*xs: Array) -> Array:
        return reduce(function, xs)
    return rule


def div(x: Array, y: Array) -> Array:
    """Of integers rounded to zero."""
    if x.dtype.is_float:
        return x / y
    if not x.dtype.is_signed:
        return x // y
    rest = gc.fmod(x, y)
    return (x - rest) // y


def mod(x: Array, y: Array, *, fmod: int = 0) -> Array:
    return gc.fmod(x, y) if fmod else gc.mod(x, y)


def power(x: Array, y: Array) -> Array:
    """In the type of x; integers to the power of floats are computed in floats."""
    if x.dtype.is_float:
        return gc.pow(x, y.astype(x.dtype))
    if y.dtype.is_float:
        return gc.pow(x.astype(gc.f64), y.astype(gc.f64)).astype(x.dtype)
    return _whole_power(x, y.astype(x.dtype))


def _whole_power(x: Array, y: Array) -> Array:
    """Of integers, by squaring; what has more bits than the type wraps around."""
    y = gc.where(y > 63, y % 2 + 62, y)             # beyond that only 0, 1 and -1 have powers, which alternate
    result, square = gc.ones_like(x), x
    for bit in range(6):
        result = gc.where((gc.right_shift(y, bit) & 1) != 0, result * square, result)
        square = square * square
    return gc.where(y < 0, gc.where(x == 1, 1, gc.where(x == -1, 1 - 2 * (y & 1), 0)), result)


def clip(x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """Where min > max, max."""
    x = x if min is None else gc.where(x >= min, x, gc.maximum(x, min))
    return x if max is None else gc.where(x <= max, x, gc.minimum(x, max))


def clip_rule(x: Array, min: Operand = None, max: Operand = None, *, call: Call) -> Array:
    """With numbers of the file as bounds, which the operator `clip` has as attributes."""
    known = [None if isinstance(b, Array) or b is None else call.known(b, "clip") for b in (min, max)]
    if not any(isinstance(b, Array) for b in (min, max)) and not any(b and b.has_names for b in known):
        low, high = (None if b is None else b.item("clip") for b in known)
        return gc.clip(x, low, high)
    return clip(x, *(None if b is None else call.array(b) for b in (min, max)))


def celu(x: Array, *, alpha: float = 1.0) -> Array:
    return gc.celu(x, alpha)


def elu(x: Array, *, alpha: float = 1.0) -> Array:
    return gc.elu(x, alpha)


def selu(x: Array, *, alpha: float = SELU_ALPHA, gamma: float = SELU_SCALE) -> Array:
    return gc.elu(x, alpha) * gamma


def gelu(x: Array, *, approximate: str = "none") -> Array:
    return gc.gelu(x, approximate)


def hard_sigmoid(x: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return gc.clip(x * alpha + beta, 0.0, 1.0)


def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array:
    return gc.leaky_relu(x, alpha)


def prelu(x: Array, slope: Array) -> Array:
    return gc.where(x >= 0, x, x * slope)


def relu(x: Array) -> Array:
    return gc.relu(x) if x.dtype.is_float else gc.maximum(x, 0)


def shrink(x: Array, *, lambd: float = 0.5, bias: float = 0.0) -> Array:
    x, dtype = (x, x.dtype) if x.dtype.is_float else (x.astype(gc.f32), x.dtype)
    return gc.where(x < -lambd, x + bias, gc.where(x > lambd, x - bias, 0.0)).astype(dtype)


def swish(x: Array, *, alpha: float = 1.0) -> Array:
    return gc.silu(x) if alpha == 1 else x * gc.sigmoid(x * alpha)


def thresholded_relu(x: Array, *, alpha: float = 1.0) -> Array:
    return gc.where(x > alpha, x, 0.0)


def is_inf(x: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    found = gc.isinf(x)
    if detect_negative and detect_positive:
        return found
    return found & ((x > 0) if detect_positive else (x < 0) if detect_negative else (x != x))


def bit_shift(x: Array, y: Array, *, direction: str) -> Array:
    return gc.left_shift(x, y) if choice(direction, "direction", ("LEFT", "RIGHT")) == "LEFT" else gc.right_shift(x, y)


def where(condition: Array, x: Array, y: Array) -> Array:
    return gc.where(condition, x, y)


def converted(x: Array, dtype: DType) -> Array:
    """As ONNX converts: floats to unsigned and narrow integers by way of i64, so that they wrap around as in numpy."""
    if x.dtype.is_float and dtype.is_int and dtype.bits < (32 if dtype.is_signed else 64):
        return x.astype(gc.i64).astype(dtype)
    return x.astype(dtype)


def cast(x: Array, *, to: int, saturate: int = 1, round_mode: str = "up", call: Call) -> Any:
    if to in NARROW:
        return narrowed(x, NARROW[to], bool(saturate), round_mode)
    return converted(x, call.importer.dtype(to))


def cast_like(x: Array, target: Operand, *, saturate: int = 1, round_mode: str = "up") -> Any:
    if isinstance(target, Narrow):
        return narrowed(x, target.kind, bool(saturate), round_mode)
    return converted(x, dtype_of_item(target))


def bit_cast(x: Operand, *, to: int, call: Call) -> Any:
    """Of narrow integers, which wrap around, too; of what NaN a narrow float is, nothing is known."""
    kind = NARROW.get(to)
    if any(k is not None and k.is_float for k in (kind, x.kind if isinstance(x, Narrow) else None)):
        raise Unsupported("BitCast of floats of 8 bits and less")
    bits = int(x.kind.name[-1]) if isinstance(x, Narrow) else 0
    if bits != (int(kind.name[-1]) if kind else 0):
        raise GraphError("BitCast keeps the width")
    array = call.array(x)
    return gc.bitcast(array, call.importer.dtype(to)) if kind is None else narrowed(array, kind)


def mean(*xs: Array) -> Array:
    return reduce(gc.add, xs) / len(xs)


def identity(x: Operand) -> Any:
    return x



UNARY: Mapping[str, Callable[..., Array]] = {
    "Abs": gc.abs, "Acos": gc.acos, "Acosh": gc.acosh, "Asin": gc.asin, "Asinh": gc.asinh, "Atan": gc.atan,
    "Atanh": gc.atanh, "BitwiseNot": gc.bitwise_not, "Ceil": gc.ceil, "Cos": gc.cos, "Cosh": gc.cosh, "Erf": gc.erf,
    "Exp": gc.exp, "Floor": gc.floor, "HardSwish": gc.hardswish, "IsNaN": gc.isnan, "Log": gc.log, "Mish": gc.mish,
    "Neg": gc.neg, "Not": gc.logical_not, "Reciprocal": gc.reciprocal, "Round": gc.round, "Sigmoid": gc.sigmoid,
    "Sign": gc.sign, "Sin": gc.sin, "Sinh": gc.sinh, "Softplus": gc.softplus, "Softsign": gc.softsign, "Sqrt": gc.sqrt,
    "Tan": gc.tan, "Tanh": gc.tanh}

BINARY: Mapping[str, Callable[..., Array]] = {
    "Add": gc.add, "And": gc.logical_and, "BitwiseAnd": gc.bitwise_and, "BitwiseOr": gc.bitwise_or,
    "BitwiseXor": gc.bitwise_xor, "Equal": gc.equal, "Greater": gc.greater, "GreaterOrEqual": gc.greater_equal,
    "Less": gc.less, "LessOrEqual": gc.less_equal, "Mul": gc.mul, "Or": gc.logical_or, "Sub": gc.sub,
    "Xor": gc.logical_xor}

RULES: Mapping[str, Callable[..., Any]] = {
    **{op: arrays(f) for op, f in UNARY.items()}, **{op: arrays(f, 2) for op, f in BINARY.items()},
    "Max": many(gc.maximum), "Min": many(gc.minimum), "Sum": many(gc.add), "Mean": mean,
    "BitCast": bit_cast, "BitShift": bit_shift, "Cast": cast, "CastLike": cast_like, "Celu": celu, "Clip": clip_rule,
    "Div": div, "Elu": elu,
    "Gelu": gelu, "HardSigmoid": hard_sigmoid, "Identity": identity, "IsInf": is_inf, "LeakyRelu": leaky_relu,
    "Mod": mod, "PRelu": prelu, "Pow": power, "Relu": relu, "Selu": selu, "Shrink": shrink, "Swish": swish,
    "ThresholdedRelu": thresholded_relu, "Where": where}
