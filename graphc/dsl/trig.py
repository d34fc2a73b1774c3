"""Inverse, hyperbolic and remaining circular functions, under their names in the array API standard. Integers become
f32."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed


@formed
def tan(x: Operand) -> Array:
    """sin(x) / cos(x)."""
    return emit("tan", as_float(x))


@formed
def sinh(x: Operand) -> Array:
    """(exp(x) - exp(-x)) / 2, without cancellation."""
    return emit("sinh", as_float(x))


@formed
def cosh(x: Operand) -> Array:
    """(exp(x) + exp(-x)) / 2."""
    return emit("cosh", as_float(x))


@formed
def asin(x: Operand) -> Array:
    """The angle in -pi/2..pi/2 whose sine is x (numpy.arcsin); NaN outside -1..1."""
    return emit("asin", as_float(x))


@formed
def acos(x: Operand) -> Array:
    """The angle in 0..pi whose cosine is x (numpy.arccos); NaN outside -1..1."""
    return emit("acos", as_float(x))


@formed
def atan(x: Operand) -> Array:
    """The angle in -pi/2..pi/2 whose tangent is x (numpy.arctan)."""
    return emit("atan", as_float(x))


@formed
def atan2(y: Operand, x: Operand) -> Array:
    """The angle in -pi..pi of the point (x, y) (numpy.arctan2)."""
    dtype = common_dtype((y, x))
    return emit("atan2", as_float(as_array(y, dtype)), as_float(as_array(x, dtype)))


@formed
def asinh(x: Operand) -> Array:
    """The number whose sinh is x (numpy.arcsinh)."""
    return emit("asinh", as_float(x))


@formed
def acosh(x: Operand) -> Array:
    """The number >= 0 whose cosh is x (numpy.arccosh); NaN below 1."""
    return emit("acosh", as_float(x))


@formed
def atanh(x: Operand) -> Array:
    """The number whose tanh is x (numpy.arctanh); NaN outside -1..1."""
    return emit("atanh", as_float(x))
