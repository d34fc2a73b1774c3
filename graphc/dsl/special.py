"""Special functions, under the names that torch.special and numpy have. Integers become f32.

Errors are in docs/numerics.md; what is not said here is as in scipy.special."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, as_float, common_dtype, emit
from graphc.dsl.elementwise import Operand
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import integer


@formed
def erfc(x: Operand) -> Array:
    """1 - erf(x), without cancellation for large x."""
    return emit("erfc", as_float(x))


@formed
def erfinv(x: Operand) -> Array:
    """The number whose erf is x; infinite at -1 and 1, NaN outside."""
    return emit("erfinv", as_float(x))


@formed
def lgamma(x: Operand) -> Array:
    """log |gamma(x)|; infinite at 0, -1, -2, …"""
    return emit("lgamma", as_float(x))


@formed
def digamma(x: Operand) -> Array:
    """The slope of lgamma; NaN at -1, -2, …"""
    return emit("digamma", as_float(x))


@formed
def polygamma(n: int, x: Operand) -> Array:
    """The derivative number n of digamma, 0 <= n <= 20: digamma itself, trigamma, …; n stands first, as in scipy and
    torch."""
    n = integer(n, "n", 0)
    if n > 20:
        raise GraphError(f"n is at most 20, got {n}")
    return digamma(x) if n == 0 else emit("polygamma", as_float(x), n=n)


@formed
def i0(x: Operand) -> Array:
    """The modified Bessel function of the first kind, of order 0."""
    return emit("i0", as_float(x))


@formed
def i1(x: Operand) -> Array:
    """The modified Bessel function of the first kind, of order 1."""
    return emit("i1", as_float(x))


@formed
def sinc(x: Operand) -> Array:
    """sin(pi x) / (pi x), 1 at 0, as in numpy."""
    return emit("sinc", as_float(x))


@formed
def exp2(x: Operand) -> Array:
    """2 ** x."""
    return emit("exp2", as_float(x))


@formed
def log2(x: Operand) -> Array:
    """The logarithm to base 2; exact at powers of two."""
    return emit("log2", as_float(x))


@formed
def log10(x: Operand) -> Array:
    """The logarithm to base 10."""
    return emit("log10", as_float(x))


@formed
def cbrt(x: Operand) -> Array:
    """The number whose cube is x, of its sign."""
    return emit("cbrt", as_float(x))


@formed
def logaddexp(x: Operand, y: Operand) -> Array:
    """log(exp(x) + exp(y)) without overflow."""
    return _pair("logaddexp", x, y)


@formed
def xlogy(x: Operand, y: Operand) -> Array:
    """x * log(y), and 0 where x is 0 unless y is NaN. Where x is 0 and y is not above 0 both gradients are 0."""
    return _pair("xlogy", x, y)


def _pair(name: str, x: Operand, y: Operand) -> Array:
    dtype = common_dtype((x, y))
    return emit(name, as_float(as_array(x, dtype)), as_float(as_array(y, dtype)))
