"""Sizes divided as files do it: integers to zero, and in floats on the way to another size, as in ceil(n / 2.0).

A `SizeFraction` is exact. What floats would round on the way (n / 3.0 * 3.0) is refused, and computed when it runs.
"""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import gcd
from typing import Any

from graphc.errors import GraphError
from graphc.ir.dims import Dim, Poly, ceil_div, content, exact_quotient, largest, lower, smallest
from graphc.ir.no_number import NoNumber, unknown
from graphc.records import dataclass

MOST_PARTS_OF_ONE = 1 << 10         # a float beside a size is a number of such parts


@dataclass(frozen=True)
class SizeFraction(NoNumber):
    """size / divisor, where that is no size: a float that is not known while importing, or beside one that is not."""
    size: Dim
    divisor: int

    def __add__(self, other: Any) -> Any:
        a, b = _held(self), _held(other)
        return _fraction(a.size * b.divisor + b.size * a.divisor, a.divisor * b.divisor)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        a, b = _held(self), _held(other)
        return _fraction(a.size * b.size, a.divisor * b.divisor)

    __rmul__ = __mul__

    def __neg__(self) -> Any:
        return _fraction(-self.size, self.divisor)

    def __sub__(self, other: Any) -> Any:
        return self + -1 * other

    def __rsub__(self, other: Any) -> Any:
        return -1 * self + other

    def __floor__(self) -> Dim:         # type: ignore[override]
        return self.size // self.divisor

    def __ceil__(self) -> Dim:          # type: ignore[override]
        return ceil_div(self.size, self.divisor)

    def __round__(self) -> Dim:         # type: ignore[override]
        """Halves go to the even one, which no polynomial says."""
        if self.divisor % 2 == 0:
            raise unknown(f"{self} rounded")
        return (2 * self.size + self.divisor) // (2 * self.divisor)

    def __lt__(self, other: object) -> bool:
        raise unknown(f"{self} beside {other}")

    __le__ = __gt__ = __ge__ = __lt__

    def __str__(self) -> str:
        return f"({self.size})/{self.divisor}"


def _fraction(size: Dim, divisor: int) -> Any:
    common = gcd(content(size), divisor)
    part = size // common
    return part if common == divisor else SizeFraction(part, divisor // common)


def _held(value: Any) -> SizeFraction:
    """What floats hold without rounding, as size and divisor."""
    made = value if isinstance(value, SizeFraction) else SizeFraction(value, 1)
    if made.divisor & (made.divisor - 1) or not isinstance(made.size, int | Poly):
        raise unknown(f"{made} in further arithmetic of floats")
    return made


def exact(value: Any) -> Any:
    """A number beside sizes without rounding: an int, a size or a SizeFraction; GraphError for one that is none."""
    if not isinstance(value, float):
        return value
    try:
        found = Fraction(value)
    except (ValueError, OverflowError):
        raise GraphError(f"{value} beside a size") from None
    if found.denominator > MOST_PARTS_OF_ONE:
        raise GraphError(f"{value} beside a size")
    return _fraction(found.numerator, found.denominator)


def stored(value: Any) -> Any:
    """What `exact` takes: numbers without names as floats again."""
    return value.size / value.divisor if isinstance(value, SizeFraction) and isinstance(value.size, int) else value


def numerator(value: Any) -> Any:
    """What is 0 where the value is."""
    return value.size if isinstance(value, SizeFraction) else value


def quotient(a: Any, b: Any) -> Any:
    """a / b of floats."""
    over, under = _held(a), _held(b)
    if not isinstance(under.size, int) or not under.size:
        raise unknown(f"{a} / {b}")
    sign = 1 if under.size > 0 else -1
    return _fraction(over.size * under.divisor * sign, over.divisor * abs(under.size))


def truncated(not_negative: Callable[[Dim], Dim]) -> Callable[[Dim, Dim], Dim]:
    """a / b of integers, rounded to zero. `not_negative`: takes a size to be none that is below 0."""
    def to_zero(a: Dim, b: Dim) -> Dim:
        found = exact_quotient(a, b)
        if found is not None:
            return found
        if not isinstance(b, int) or not b:
            raise unknown(f"{a} / {b}")
        a, b = (-a, -b) if b < 0 else (a, b)
        return -(-a // b) if lower(-a) >= 0 else not_negative(a) // b
    return to_zero


def rest(not_negative: Callable[[Dim], Dim]) -> Callable[[Dim, Dim], Dim]:
    """a - b * floor(a / b) of integers. A number is taken to be nearer to 0 than a size by which it is divided."""
    def remainder(a: Dim, b: Dim) -> Dim:
        if isinstance(a, int) and isinstance(b, Poly):
            return not_negative(b - a - 1) * 0 + a if a >= 0 else not_negative(b + a)
        if not isinstance(b, int) or b <= 0:
            raise unknown(f"{a} % {b}")
        return a - (a // b) * b
    return remainder


def greatest(a: Dim, b: Dim) -> Dim:
    """The greater; GraphError where that may be below 0, which no part of a polynomial is."""
    _not_below(max, a, b)
    return largest(a, b)


def least(a: Dim, b: Dim) -> Dim:
    """The less; errors as of `greatest`."""
    _not_below(min, a, b)
    return smallest(a, b)


def _not_below(one_of: Callable[[int, int], int], a: Dim, b: Dim) -> None:
    if not (isinstance(a, int) and isinstance(b, int)) and one_of(lower(a), lower(b)) < 0:
        raise unknown(f"{one_of.__name__}({a}, {b})")


def of_sizes(function: Callable[[Dim, Dim], Any]) -> Callable[[Any, Any], Any]:
    """A function of integers and sizes; GraphError for fractions of sizes."""
    def checked(a: Any, b: Any) -> Any:
        if isinstance(a, SizeFraction) or isinstance(b, SizeFraction):
            raise unknown(f"{a} beside {b}")
        return function(a, b)
    return checked


def rounded(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`floor`, `ceil` or `round` of what may be whole."""
    return lambda value: function(value) if isinstance(value, float | SizeFraction) else value
