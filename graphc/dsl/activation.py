"""Activation functions of float arrays, elementwise."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, emit
from graphc.dsl.form import formed
from graphc.ir.convert import choice, real


@formed
def relu(x: Array) -> Array:
    """max(x, 0); gradient 0 at 0, as in torch."""
    return emit("relu", as_array(x))


@formed
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """x where x > 0, else slope * x."""
    return emit("leaky_relu", as_float(x), slope=real(slope, "leaky_relu: the slope"))


@formed
def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return emit("elu", as_float(x), alpha=real(alpha, "elu: alpha"))


@formed
def gelu(x: Array, approximate: str = "none") -> Array:
    """x times the normal distribution function of x. approximate: "none" (exact, with erf) or "tanh", as in torch."""
    return emit("gelu", as_float(x), approximate=choice(approximate, "gelu: approximate", ("none", "tanh")))


@formed
def silu(x: Array) -> Array:
    """x * sigmoid(x), also called swish."""
    return emit("silu", as_float(x))


@formed
def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + exp(beta x)) / beta, without overflow."""
    x, beta = as_float(x), real(beta, "softplus: beta")
    return emit("softplus", x) if beta == 1 else emit("softplus", x * beta) / beta
