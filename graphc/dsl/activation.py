"""Activation functions of float arrays, elementwise unless they say so. Names and options as in torch.nn.functional;
formulas are torch's, except that a gradient at a bound of `clip` goes to the array."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, emit
from graphc.dsl.elementwise import Operand, abs, clip, expm1, sigmoid, tanh, where
from graphc.dsl.form import formed
from graphc.dsl.norm import softmax
from graphc.dsl.shape import split
from graphc.errors import GraphError
from graphc.ir.convert import choice, real
from graphc.ir.types import normalize_axis

# fixed point of mean 0 and variance 1 (Klambauer et al. 2017)
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@formed
def relu(x: Array) -> Array:
    """max(x, 0); gradient 0 at 0, as in torch."""
    return emit("relu", as_array(x))


@formed
def relu6(x: Array) -> Array:
    """x limited to [0, 6]."""
    return clip(as_float(x), 0.0, 6.0)


@formed
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """x where x > 0, else slope * x."""
    return emit("leaky_relu", as_float(x), slope=real(slope, "leaky_relu: the slope"))


@formed
def prelu(x: Array, weight: Operand) -> Array:
    """x where x > 0, else weight * x; weight is a number, one element, or one for each channel: the size of axis 1 of
    x (of x [C]: axis 0)."""
    x = as_float(x)
    weight = as_array(weight, x.dtype)
    if weight.ndim > 1 or weight.ndim and weight.shape[0] != 1 and weight.shape != x.shape[:2][-1:]:
        raise GraphError(f"prelu: weight has one element, or one for each channel of axis 1, got {weight.type} for "
                         f"{x.type}")
    weight = weight.reshape((-1, *(1,) * (x.ndim - 2))) if weight.ndim and x.ndim > 1 else weight
    return where(x > 0, x, weight.reshape(()) * x if x.ndim == 0 else weight * x)


@formed
def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return emit("elu", as_float(x), alpha=real(alpha, "elu: alpha"))


@formed
def celu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha * (exp(x / alpha) - 1): `elu` whose slope has no step (Barron 2017)."""
    x, alpha = as_float(x), real(alpha, "celu: alpha")
    if not alpha:
        raise GraphError("celu: alpha cannot be 0")
    return where(x > 0, x, expm1(x / alpha) * alpha)


@formed
def selu(x: Array) -> Array:
    """1.0507 * elu(x, 1.6733), which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""
    return elu(x, SELU_ALPHA) * SELU_SCALE


@formed
def gelu(x: Array, approximate: str = "none") -> Array:
    """x times the normal distribution function of x. approximate: "none" (exact, with erf) or "tanh", as in torch."""
    return emit("gelu", as_float(x), approximate=choice(approximate, "gelu: approximate", ("none", "tanh")))


@formed
def silu(x: Array) -> Array:
    """x * sigmoid(x), also called swish."""
    return emit("silu", as_float(x))


@formed
def mish(x: Array) -> Array:
    """x * tanh(softplus(x)) (Misra 2019)."""
    x = as_float(x)
    return x * tanh(softplus(x))


@formed
def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + exp(beta x)) / beta, without overflow."""
    x, beta = as_float(x), real(beta, "softplus: beta")
    return emit("softplus", x) if beta == 1 else emit("softplus", x * beta) / beta


@formed
def logsigmoid(x: Array) -> Array:
    """log(sigmoid(x)), without overflow."""
    return -softplus(-as_float(x))


@formed
def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    x = as_float(x)
    return x / (abs(x) + 1)


@formed
def tanhshrink(x: Array) -> Array:
    """x - tanh(x)."""
    x = as_float(x)
    return x - tanh(x)


@formed
def softshrink(x: Array, lambd: float = 0.5) -> Array:
    """x moved towards 0 by `lambd`, 0 where it is not further away."""
    x, lambd = as_float(x), _width(lambd, "softshrink")
    return x - clip(x, -lambd, lambd)


@formed
def hardshrink(x: Array, lambd: float = 0.5) -> Array:
    """x, 0 where |x| <= lambd."""
    x = as_float(x)
    return where(abs(x) <= _width(lambd, "hardshrink"), 0.0, x)


@formed
def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x limited to [min_val, max_val]."""
    low, high = real(min_val, "hardtanh: min_val"), real(max_val, "hardtanh: max_val")
    if not low < high:
        raise GraphError(f"hardtanh: min_val is below max_val, got {low} and {high}")
    return clip(as_float(x), low, high)


@formed
def hardsigmoid(x: Array) -> Array:
    """x / 6 + 1/2, limited to [0, 1]."""
    return relu6(as_float(x) + 3) / 6


@formed
def hardswish(x: Array) -> Array:
    """x * hardsigmoid(x) (Howard et al. 2019)."""
    x = as_float(x)
    return x * hardsigmoid(x)


@formed
def threshold(x: Array, threshold: float, value: float) -> Array:
    """x where x > threshold, else `value`."""
    x = as_float(x)
    return where(x <= real(threshold, "threshold: the threshold"), real(value, "threshold: value"), x)


@formed
def glu(x: Array, axis: int = -1) -> Array:
    """a * sigmoid(b) of the two halves of x along `axis` (Dauphin et al. 2017)."""
    x = as_float(x)
    if not x.ndim or x.shape[normalize_axis(axis, x.ndim)] % 2:
        raise GraphError(f"glu takes an array with an even number along axis {axis}, got {x.type}")
    a, b = split(x, 2, axis)
    return a * sigmoid(b)


@formed
def softmin(x: Array, axis: int = -1) -> Array:
    """softmax(-x) along `axis`."""
    return softmax(-as_float(x), axis)


def _width(value: float, name: str) -> float:
    """Of what becomes 0."""
    width = real(value, f"{name}: lambd")
    if not width >= 0:
        raise GraphError(f"{name}: lambd is a number >= 0, got {width}")
    return width
