"""Elementwise operators."""
from __future__ import annotations

from collections.abc import Callable
from math import inf, pi
from typing import Any

import graphc as gc
from graphc.doors.torch.rules.promotion import as_type, filled, floating, of_common, of_floats, promoted, result_type
from graphc.ir.types import DType, bool_, f64, i16, i32, i64

Array = gc.Array
Rule = Callable[..., Any]


def _kept(function: Callable[[Array], Array]) -> Rule:
    """A rule of floats alone, under which integers stay as they are."""
    return lambda x: function(x) if x.dtype.is_float else x


def _added(x: Any, y: Any, *, alpha: Any = 1) -> Array:
    x, y = promoted(x, y)
    if x.dtype is bool_:
        return gc.logical_or(x, y)
    return x + y if alpha == 1 else x + y * as_type(alpha, y.dtype)


def _subtracted(x: Any, y: Any, *, alpha: Any = 1) -> Array:
    x, y = promoted(x, y)
    return x - y if alpha == 1 else x - y * as_type(alpha, y.dtype)


def _multiplied(x: Any, y: Any) -> Array:
    x, y = promoted(x, y)
    return gc.logical_and(x, y) if x.dtype is bool_ else x * y


def _divided(x: Any, y: Any, *, rounding_mode: str | None = None) -> Array:
    if rounding_mode is None:
        x, y = floating(x, y)
        return x / y
    x, y = promoted(x, y)
    if rounding_mode == "floor":
        return gc.floordiv(x, y)
    return gc.trunc(x / y) if x.dtype.is_float else gc.floordiv(x - gc.fmod(x, y), y)


def _power(x: Any, y: Any) -> Array:
    if isinstance(x, Array) and isinstance(y, int | float) and not isinstance(y, bool):
        x, _ = promoted(x, y)
        if y in _POWERS and x.dtype.is_float:
            return _POWERS[y](x)
        if not x.dtype.is_float and isinstance(y, int) and 0 <= y <= 8:
            return _whole_power(x, y)
        return x ** as_type(y, x.dtype)
    x, y = promoted(x, y)
    return x ** y


def _whole_power(x: Array, y: int) -> Array:
    """x^y of integers, by products, which wrap round as PyTorch's do."""
    result = gc.ones_like(x)
    for _ in range(y):
        result = result * x
    return result


# what has a shorter form, with the same values
_POWERS: dict[float, Callable[[Array], Array]] = {
    0: gc.ones_like, 1: lambda x: x, 2: lambda x: x * x, 3: lambda x: x * x * x, 0.5: gc.sqrt, -0.5: gc.rsqrt,
    -1: lambda x: 1 / x, -2: lambda x: 1 / (x * x)}


def _where(condition: Array, x: Any, y: Any) -> Array:
    x, y = promoted(x, y)
    return gc.where(condition.astype(bool_), x, y)


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    """minimum(maximum(x, low), high); at a bound the gradient goes to x."""
    dtype = result_type([x, low, high])
    bounds = [None if bound is None else bound if isinstance(bound, int | float) else as_type(bound, dtype)
              for bound in (low, high)]
    return gc.clip(x.astype(dtype), *bounds)


def _limited(x: Array, low: Any = -1, high: Any = 1) -> Array:
    """hardtanh. At a bound its gradient is 0, not that of `clip`."""
    if not x.dtype.is_float:
        return gc.clip(x, low, high)
    return gc.where(x <= low, as_type(low, x.dtype), gc.where(x >= high, as_type(high, x.dtype), x))


def _hard_sigmoid(x: Array) -> Array:
    return _limited(x + 3, 0, 6) / 6


def _compared(function: Callable[[Array, Array], Array]) -> Rule:
    return lambda x, y: function(*promoted(x, y))


def _logical(function: Callable[[Array, Array], Array]) -> Rule:
    return lambda x, y: function(_truth(x), _truth(y))


def _truth(x: Array) -> Array:
    return x.astype(bool_)


def _round(x: Array, *, decimals: int = 0) -> Array:
    if not x.dtype.is_float:
        return x
    scale = 10.0 ** abs(decimals)
    return gc.round(x) if not decimals else gc.round(x * scale) / scale if decimals > 0 else gc.round(x / scale) * scale


def _copysign(x: Any, y: Any) -> Array:
    x, y = floating(x, y)
    magnitude = gc.abs(x)
    negative = gc.logical_or(y < 0, gc.logical_and(gc.equal(y, 0), 1 / y < 0))      # -0 too
    return gc.where(negative, -magnitude, magnitude)


_WORDS = {16: i16, 32: i32, 64: i64}


def _nextafter(x: Any, y: Any) -> Array:
    """The number beside x on the side of y, with the gradient of x where it is another number."""
    x, y = promoted(x, y)
    shape = (x + y).shape
    return gc.custom_vjp(_beside, lambda given, found, g: (gc.where(gc.equal(*given), as_type(0, g.dtype), g), None))(
        gc.broadcast_to(x, shape), gc.broadcast_to(y, shape))


def _beside(x: Array, y: Array) -> Array:
    """The bits of floats of one sign are in the order of their sizes."""
    word = _WORDS[x.dtype.bits]
    bits, one = gc.bitcast(x, word), as_type(1, word)
    outwards = gc.equal(y > x, x > 0)
    beside = gc.where(outwards, bits + one, bits - one)
    least = gc.where(y > 0, one, as_type(word.range[0] + 1, word))          # of 0, whose sign says nothing
    found = gc.bitcast(gc.where(gc.equal(x, 0), least, beside), x.dtype)
    unknown = gc.logical_or(gc.isnan(x), gc.isnan(y))
    return gc.where(unknown, x + y, gc.where(gc.equal(x, y), y, found))


def _softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    large = x * beta > threshold
    return gc.where(large, x, gc.softplus(gc.where(large, as_type(threshold, x.dtype), x * beta)) / beta)


def _elu(x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    inside = x if input_scale == 1 else x * input_scale
    y = gc.where(x > 0, x, gc.expm1(gc.where(x > 0, as_type(0, x.dtype), inside)) * alpha) if input_scale != 1 else (
        gc.elu(x, alpha))
    return y if scale == 1 else y * scale


def _prelu(x: Array, weight: Array) -> Array:
    if weight.ndim == 1 and x.ndim > 1 and weight.shape[0] != 1:
        weight = weight.reshape(-1, *(1,) * (x.ndim - 2))
    return gc.where(x > 0, x, x * weight)


def _threshold(x: Array, threshold: float, value: float) -> Array:
    return gc.where(x <= threshold, as_type(value, x.dtype), x)         # NaN stays


def _logit(x: Array, eps: float | None = None) -> Array:
    x, = floating(x)
    x = x if eps is None else gc.clip(x, eps, 1 - eps)
    return gc.log(x) - gc.log1p(-x)


def _sign(x: Array) -> Array:
    if x.dtype is bool_:
        return x
    return gc.where(gc.isnan(x), as_type(0, x.dtype), gc.sign(x)) if x.dtype.is_float else gc.sign(x)


def _signbit(x: Array) -> Array:
    if not x.dtype.is_float:
        return x < 0 if x.dtype.is_int and x.dtype.is_signed else gc.zeros(x.shape, bool_)
    return gc.logical_or(x < 0, gc.logical_and(gc.equal(x, 0), 1 / x < 0))


def _heaviside(x: Array, at_zero: Array) -> Array:
    """0 of NaN."""
    return gc.where(x == 0, at_zero, (x > 0).astype(x.dtype))


def _not_nan(wins: Callable[[Array, Array], Array]) -> Rule:
    """fmax and fmin: of a NaN and a number the number; of equals the first, which has the whole gradient."""
    def rule(x: Any, y: Any) -> Array:
        x, y = promoted(x, y)
        first = wins(x, y)
        return gc.where(gc.logical_or(first, gc.isnan(y)) if y.dtype.is_float else first, x, y)
    return rule


def _cast(x: Any, *args: Any, dtype: DType | None = None, **_: Any) -> Array:
    wanted = dtype or next((a for a in args if isinstance(a, DType)), None)
    other = next((a for a in args if isinstance(a, Array)), None)
    wanted = other.dtype if wanted is None and other is not None else wanted
    return x if wanted is None else _wrapped(x, wanted) if x.dtype.is_float else x.astype(wanted)


def _wrapped(x: Array, dtype: DType) -> Array:
    """Floats in another type. In integers of few bits they wrap round, by way of longer ones, as PyTorch's do."""
    if not dtype.is_int or dtype.bits > 16:
        return x.astype(dtype)
    if x.dtype is f64:
        return x.astype(i64).astype(dtype)
    return gc.where(gc.abs(x) < 2.0 ** 31, x, as_type(0, x.dtype)).astype(i32).astype(dtype)


def _bits(function: Callable[[Array, Array], Array], of_bools: Callable[[Array, Array], Array]) -> Rule:
    def rule(x: Any, y: Any) -> Array:
        x, y = promoted(x, y)
        return of_bools(x, y) if x.dtype is bool_ else function(x, y)
    return rule


def _addcmul(x: Array, first: Array, second: Array, *, value: Any = 1) -> Array:
    x, first, second = promoted(x, first, second)
    product = first * second
    return x + (product if value == 1 else product * as_type(value, x.dtype))


def _addcdiv(x: Array, first: Array, second: Array, *, value: Any = 1) -> Array:
    x, first, second = floating(x, first, second)
    quotient = first / second
    return x + (quotient if value == 1 else quotient * as_type(value, x.dtype))


def _lerp(x: Array, end: Array, weight: Any) -> Array:
    x, end, weight = promoted(x, end, weight)
    return x + weight * (end - x)


def _nan_to_num(x: Array, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Array:
    return gc.nan_to_num(x, 0.0 if nan is None else nan, posinf, neginf) if x.dtype.is_float else x


def _xlog1py(x: Array, y: Array) -> Array:
    zero = gc.logical_and(gc.equal(x, 0), gc.logical_not(gc.isnan(y)))
    return gc.where(zero, 0 * gc.where(zero, 0.0, y), x * gc.log1p(gc.where(zero, 1.0, y)))


def _isin(x: Array, tests: Any, *, assume_unique: bool = False, invert: bool = False) -> Array:
    x, tests = promoted(x, tests)
    found = gc.any(gc.equal(gc.expand_dims(x, x.ndim), tests.flatten()), axis=-1)
    return gc.logical_not(found) if invert else found


def _mvlgamma(x: Array, p: int) -> Array:
    x, = floating(x)
    return sum((gc.lgamma(x - j / 2) for j in range(p)), gc.full((), p * (p - 1) / 4 * 1.1447298858494002, x.dtype))


def _angle(x: Array) -> Array:
    """Of a real number: pi of a negative one, else 0."""
    x, = floating(x)
    return gc.where(gc.isnan(x), x, gc.where(x < 0, as_type(pi, x.dtype), as_type(0, x.dtype)))


_FLOATS = {
    "acos": gc.acos, "acosh": gc.acosh, "asin": gc.asin, "asinh": gc.asinh, "atan": gc.atan, "atanh": gc.atanh,
    "cos": gc.cos, "cosh": gc.cosh, "digamma": gc.digamma, "erf": gc.erf, "erfc": gc.erfc, "erfinv": gc.erfinv,
    "exp": gc.exp, "exp2": gc.exp2, "expm1": gc.expm1, "i0": gc.i0, "lgamma": gc.lgamma, "log": gc.log,
    "log10": gc.log10, "log1p": gc.log1p, "log2": gc.log2, "reciprocal": gc.reciprocal, "rsqrt": gc.rsqrt,
    "sigmoid": gc.sigmoid, "sin": gc.sin, "sinc": gc.sinc, "sinh": gc.sinh, "sqrt": gc.sqrt, "tan": gc.tan,
    "tanh": gc.tanh, "log_sigmoid": gc.logsigmoid,
    "special_ndtri": lambda x: gc.erfinv(2 * x - 1) * 2 ** 0.5, "deg2rad": lambda x: x * (pi / 180),
    "rad2deg": lambda x: x * (180 / pi), "special_entr": lambda x: gc.where(
        x > 0, -x * gc.log(gc.where(x > 0, x, 1.0)), gc.where(x < 0, -inf, 0.0 * x))}

RULES: dict[str, Rule] = {
    **{f"{name}.default": of_floats(function) for name, function in _FLOATS.items()},
    **{f"{name}.default": _kept(function) for name, function in {
        "floor": gc.floor, "ceil": gc.ceil, "trunc": gc.trunc, "fix": gc.trunc}.items()},
    "abs.default": lambda x: x if x.dtype is bool_ else gc.abs(x), "neg.default": lambda x: -x,
    "positive.default": lambda x: x, "sign.default": _sign, "sgn.default": _sign, "signbit.default": _signbit,
    "frac.default": lambda x: x - gc.trunc(x), "square.default": lambda x: x * x,
    "round.default": _round, "round.decimals": _round,
    "relu.default": gc.relu, "relu6.default": lambda x: _limited(x, 0, 6), "gelu.default": gc.gelu,
    "silu.default": gc.silu, "mish.default": gc.mish, "hardswish.default": lambda x: x * _hard_sigmoid(x),
    "hardsigmoid.default": _hard_sigmoid, "hardtanh.default": _limited,
    "leaky_relu.default": lambda x, slope=0.01: gc.leaky_relu(x, slope), "elu.default": _elu,
    "celu.default": lambda x, alpha=1.0: gc.celu(x, alpha),
    "selu.default": gc.selu, "softplus.default": _softplus, "threshold.default": _threshold,
    "prelu.default": _prelu, "_prelu_kernel.default": lambda x, w: gc.where(x > 0, x, x * w),
    "hardshrink.default": lambda x, lambd=0.5: gc.hardshrink(x, lambd) if lambd >= 0 else x,
    "softshrink.default": lambda x, lambd=0.5: gc.softshrink(x, lambd),
    "glu.default": lambda x, dim=-1: gc.glu(x, dim), "logit.default": _logit, "special_logit.default": _logit,
    "log_sigmoid_forward.default": lambda x: (gc.logsigmoid(x), gc.exp(-gc.abs(x))),
    "add.Tensor": _added, "add.Scalar": lambda x, y, alpha=1: _added(x, y, alpha=alpha),
    "sub.Tensor": _subtracted, "sub.Scalar": lambda x, y, alpha=1: _subtracted(x, y, alpha=alpha),
    "rsub.Tensor": lambda x, y, alpha=1: _subtracted(y, x, alpha=alpha),
    "rsub.Scalar": lambda x, y, alpha=1: _subtracted(y, x, alpha=alpha),
    "mul.Tensor": _multiplied, "mul.Scalar": _multiplied,
    "div.Tensor": _divided, "div.Scalar": _divided, "div.Tensor_mode": _divided, "div.Scalar_mode": _divided,
    "true_divide.Tensor": _divided,
    "floor_divide.default": lambda x, y: _divided(x, y, rounding_mode="floor"),
    "floor_divide.Scalar": lambda x, y: _divided(x, y, rounding_mode="floor"),
    "pow.Tensor_Scalar": _power, "pow.Tensor_Tensor": _power, "pow.Scalar": _power,
    **{f"remainder.{form}": of_common(gc.mod) for form in ("Tensor", "Scalar", "Scalar_Tensor")},
    **{f"fmod.{form}": of_common(gc.fmod) for form in ("Tensor", "Scalar")},
    "maximum.default": of_common(gc.maximum), "minimum.default": of_common(gc.minimum),
    "fmax.default": _not_nan(gc.greater_equal), "fmin.default": _not_nan(gc.less_equal),
    "atan2.default": of_floats(gc.atan2),
    "atan2.out": lambda y, x, *, out: gc.atan2(*floating(y, x)), "hypot.default": of_floats(gc.hypot),
    "logaddexp.default": of_floats(gc.logaddexp), "copysign.Tensor": _copysign, "copysign.Scalar": _copysign,
    "nextafter.default": _nextafter,
    "logaddexp2.default": of_floats(lambda x, y: gc.logaddexp(x * 0.6931471805599453, y * 0.6931471805599453)
                                    / 0.6931471805599453),
    **{f"xlogy.{form}": of_floats(gc.xlogy) for form in ("Tensor", "Scalar_Self", "Scalar_Other")},
    **{f"special_xlog1py.{form}": of_floats(_xlog1py) for form in ("default", "self_scalar", "other_scalar")},
    "heaviside.default": of_common(_heaviside), "polygamma.default": lambda n, x: gc.digamma(*floating(x)) if n == 0
    else gc.polygamma(n, *floating(x)), "mvlgamma.default": _mvlgamma,
    "ldexp.Tensor": lambda x, y: _multiplied(*floating(x, gc.exp2(*floating(y)))),
    "addcmul.default": _addcmul, "addcdiv.default": _addcdiv, "lerp.Scalar": _lerp, "lerp.Tensor": _lerp,
    **{f"{name}.{form}": _compared(function) for form in ("Tensor", "Scalar") for name, function in {
        "eq": gc.equal, "ne": gc.not_equal, "lt": gc.less, "le": gc.less_equal, "gt": gc.greater,
        "ge": gc.greater_equal}.items()},
    "logical_and.default": _logical(gc.logical_and), "logical_or.default": _logical(gc.logical_or),
    "logical_xor.default": _logical(gc.logical_xor), "logical_not.default": lambda x: gc.logical_not(_truth(x)),
    **{f"bitwise_{name}.{form}": _bits(*functions) for form in ("Tensor", "Scalar", "Scalar_Tensor")
       for name, functions in {"and": (gc.bitwise_and, gc.logical_and), "or": (gc.bitwise_or, gc.logical_or),
                               "xor": (gc.bitwise_xor, gc.logical_xor)}.items()},
    "bitwise_not.default": lambda x: gc.logical_not(x) if x.dtype is bool_ else gc.bitwise_not(x),
    **{name: of_common(function) for side, function in {"left": gc.left_shift, "right": gc.right_shift}.items()
       for name in (*(f"bitwise_{side}_shift.{form}" for form in ("Tensor", "Tensor_Scalar", "Scalar_Tensor")),
                    *(f"__{side[0]}shift__.{form}" for form in ("Tensor", "Scalar")))},
    "prims.fma.default": lambda x, y, z: x * y + z,
    "isnan.default": lambda x: gc.isnan(*floating(x)), "isinf.default": lambda x: gc.isinf(*floating(x)),
    "isfinite.default": lambda x: gc.isfinite(*floating(x)),
    "isposinf.default": lambda x: gc.equal(*floating(x, inf)),
    "isneginf.default": lambda x: gc.equal(*floating(x, -inf)),
    "angle.default": _angle, "isin.Tensor_Tensor": _isin, "isin.Tensor_Scalar": _isin,
    "nan_to_num.default": _nan_to_num,
    **{f"where.{form}": _where for form in ("self", "ScalarOther", "ScalarSelf", "Scalar")},
    "clamp.default": _clamp, "clamp.Tensor": _clamp, "clamp_min.default": _clamp, "clamp_min.Tensor": _clamp,
    "clamp_max.default": lambda x, high: _clamp(x, None, high),
    "clamp_max.Tensor": lambda x, high: _clamp(x, None, high),
    "_to_copy.default": _cast, "to.dtype": _cast, "to.dtype_layout": _cast, "to.device": _cast, "to.other": _cast,
    "_conj.default": lambda x: x, "conj.default": lambda x: x, "resolve_conj.default": lambda x: x,
    "resolve_neg.default": lambda x: x, "_conj_physical.default": lambda x: x, "real.default": lambda x: x,
    "prims.convert_element_type.default": _cast,
    **{name: (lambda x, *_, **__: x) for name in (
        "clone.default", "alias.default", "alias_copy.default", "contiguous.default", "lift_fresh_copy.default",
        "lift_fresh.default", "prims.view_of.default", "lift.default")},
    **{f"{name}.default": gc.stop_gradient for name in ("detach", "detach_copy", "detach_")},
    "fill.Scalar": lambda x, value: filled(x.shape, value, x.dtype),
    "fill.Tensor": lambda x, value: gc.broadcast_to(value.astype(x.dtype), x.shape),
    "copy.default": lambda x, y, *_: gc.broadcast_to(y.astype(x.dtype), x.shape),
}
