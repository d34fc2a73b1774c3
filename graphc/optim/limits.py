"""Which numbers options of optimizers and schedules may be: with others the parameters would become NaN, or walk
uphill, without a word."""
from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

import numpy as np

from graphc.dsl.context import user_loc
from graphc.errors import GraphError
from graphc.ir.convert import shown
from graphc.records import dataclass


@dataclass(frozen=True)
class Limit:
    """low <= number <= high, or < where the end is left out; `text` says so. Infinity is none of them unless `endless`.
    """
    text: str
    low: float = -inf
    high: float = inf
    without_low: bool = False
    without_high: bool = False
    endless: bool = False

    def has(self, number: float) -> bool:
        """NaN is in none."""
        return (self.low <= number <= self.high and (isfinite(number) or self.endless)
                and not (self.without_low and number == self.low or self.without_high and number == self.high))


FINITE = Limit("a finite number")
FROM_0 = Limit("a finite number >= 0", 0.0)
ABOVE_0 = Limit("a finite number above 0", 0.0, without_low=True)
TO_0 = Limit("a finite number <= 0", high=0.0)
SHARE = Limit("a number in [0, 1]", 0.0, 1.0)
DECAY = Limit("a number in [0, 1)", 0.0, 1.0, without_high=True)
BELOW_1 = Limit("a number in (0, 1)", 0.0, 1.0, without_low=True, without_high=True)
FROM_1 = Limit("a finite number >= 1", 1.0)
BOUND = Limit("a number above 0, or left out for no limit", 0.0, without_low=True, endless=True)

Limits = Mapping[str, Limit | tuple[Limit, Limit]]      # by option; two for a pair of different ones


def check_numbers(what: str, values: Mapping[str, object], limits: Limits) -> None:
    """GraphError for the first of these options of `what` that is another number than its limit says; finite they are
    all. What is no number, such as a schedule or an array, has been looked at elsewhere."""
    for option, value in values.items():
        limit = limits.get(option, FINITE)
        numbers = value if isinstance(value, tuple) else (value,)
        each = limit if isinstance(limit, tuple) else (limit,) * len(numbers)
        for place, (number, one) in enumerate(zip(numbers, each)):
            if isinstance(number, (int, float, np.integer, np.floating)) and not one.has(_as_float(number)):
                name = f"{option}[{place}]" if isinstance(value, tuple) else option
                raise GraphError(f"{what}: {name} is {one.text}, got {shown(number)}", user_loc())


def _as_float(number: float | np.integer[Any] | np.floating[Any]) -> float:
    """Infinity for an integer that is larger than floats are."""
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf
