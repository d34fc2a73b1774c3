"""Numbers that exist only when the graph runs, and are written as Python's numbers are."""
from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from graphc.contained import contained
from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.context import user_loc
from graphc.dsl.function import finish
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.convert import is_number, real
from graphc.ir.interp import evaluate
from graphc.ir.types import f64


Rate = TypeVar("Rate")


class LiveNumber(Array):
    """An f64 scalar that takes the dtype of the array beside it, as a Python number does. With numbers and its like it
    gives another in f64: `1 - beta` is rounded to f32 once, not twice.

    It counts as true: a formula that leaves a term out where a number is 0 keeps the term, since the number may change.
    """
    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def __add__(self, other: object) -> Array: return _joined("add", self, other)
    def __radd__(self, other: object) -> Array: return _joined("add", other, self)
    def __sub__(self, other: object) -> Array: return _joined("sub", self, other)
    def __rsub__(self, other: object) -> Array: return _joined("sub", other, self)
    def __mul__(self, other: object) -> Array: return _joined("mul", self, other)
    def __rmul__(self, other: object) -> Array: return _joined("mul", other, self)
    def __truediv__(self, other: object) -> Array: return _joined("div", self, other)
    def __rtruediv__(self, other: object) -> Array: return _joined("div", other, self)
    def __pow__(self, other: object) -> Array: return _joined("pow", self, other)
    def __rpow__(self, other: object) -> Array: return _joined("pow", other, self)
    def __neg__(self) -> Array: return _joined("sub", 0.0, self)


def live_number(scalar: Array) -> LiveNumber:
    """An f64 scalar array as a number."""
    strong = Array(scalar.value, scalar.trace)
    return LiveNumber(scalar.value, scalar.trace, strong.astype)


def _joined(name: str, a: object, b: object) -> Array:
    if all(is_number(x) or isinstance(x, LiveNumber) for x in (a, b)):
        return live_number(emit(name, *(as_array(x, f64).settled(f64) for x in (a, b))))
    return emit(name, a, b)


@contained
def value_at(function: Callable[..., object], number: object) -> float:
    """What a function of a scalar array, such as a schedule, gives for a number, computed by the oracle."""
    with Trace("schedule") as trace:
        result = as_array(function(trace.input("step", f64[()])), f64)
        if result.shape:
            raise GraphError(f"a schedule gives one number, got {result.type}", user_loc())
        traced = finish(trace, result, user_loc())
    return float(evaluate(traced.graph, [np.array(real(number, "the number of updates"))])[0])


def readable(function: Callable[[Array], Rate]) -> Callable[[Array | float], Rate | float]:
    """A schedule that can also be asked with a number, outside of a graph: `optim.cosine(1e-3, 100)(10)`."""
    def rate(step: Array | float) -> Rate | float:
        return function(step) if isinstance(step, Array) else value_at(function, step)
    return rate
