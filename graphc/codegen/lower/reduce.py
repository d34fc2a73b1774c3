"""Reductions as accumulators: how one starts, takes an element, merges with another, and folds its lanes."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import Val
from graphc.errors import InternalError
from graphc.ir.graph import Node
from graphc.ir.ops import reduce
from graphc.ir.types import DType, bool_, i64
from graphc.records import dataclass

Accumulator = tuple[Val, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Reducer:
    """Code of one reduction. An accumulator is a tuple of values of `dtypes(element type, counter type)`.

    `step(f, acc, value, number)`: `number` is the element's number along the axis (for argmax), as a value of the
    counter type.
    """
    dtypes: Callable[[DType, DType], tuple[DType, ...]]
    start: Callable[[DType], tuple[float | int | bool, ...]]
    step: Callable[[LoopFunction, Accumulator, Val, Val | None], Accumulator]
    merge: Callable[[LoopFunction, Accumulator, Accumulator], Accumulator]
    fold: Callable[[LoopFunction, Accumulator], Accumulator]
    finish: Callable[[LoopFunction, Accumulator], Val]
    counts: bool = False


def reducer(node: Node) -> Reducer:
    found = REDUCERS.get(type(node.op))
    if found is None:
        raise InternalError(f"no reduction code for operator {node.op.name}", "lower")
    return found(node.inputs[0].type.dtype)


def regroup(flat: Sequence[T], nodes: Sequence[Node]) -> list[tuple[T, ...]]:
    """A flat sequence of accumulators, or of where they are kept, as one tuple per reduction."""
    result: list[tuple[T, ...]] = []
    at = 0
    for node in nodes:
        width = len(reducer(node).start(node.inputs[0].type.dtype))
        result.append(tuple(flat[at:at + width]))
        at += width
    return result


def merged(f: LoopFunction, nodes: Sequence[Node], a: Sequence[Val], b: Sequence[Val]) -> list[Val]:
    """Two flat sequences of accumulators of the same reductions, merged."""
    pairs = zip(nodes, regroup(a, nodes), regroup(b, nodes))
    return [v for node, x, y in pairs for v in reducer(node).merge(f, x, y)]


def _plain(method: str, kind: str, start: Callable[[DType], float | int | bool]) -> Reducer:
    """A reduction by one associative operation of the loop IR."""
    def combine(f: LoopFunction, a: Val, b: Val) -> Val:
        return getattr(f, method)(a, b)
    return Reducer(
        dtypes=lambda element, counter: (element,),
        start=lambda dtype: (start(dtype),),
        step=lambda f, acc, value, number: (combine(f, acc[0], value),),
        merge=lambda f, a, b: (combine(f, a[0], b[0]),),
        fold=lambda f, acc: (f.reduce(acc[0], kind),),
        finish=lambda f, acc: acc[0])


def _lowest(dtype: DType) -> float | int:
    return -np.inf if dtype.is_float else dtype.range[0]


def _highest(dtype: DType) -> float | int:
    return np.inf if dtype.is_float else dtype.range[1]


def _arg(beats: str, extreme: str, start: Callable[[DType], float | int]) -> Reducer:
    """(best value, its number): the first of equals, the first NaN before all."""
    def better(f: LoopFunction, value: Val, best: Val) -> Val:
        wins = getattr(f, beats)(value, best)
        return wins if not value.dtype.is_float else f.or_(wins, f.and_(f.isnan(value), f.not_(f.isnan(best))))

    def step(f: LoopFunction, acc: Accumulator, value: Val, number: Val | None) -> Accumulator:
        if number is None:
            raise InternalError("the position of an extreme element needs the elements' numbers", "lower")
        take = better(f, value, acc[0])
        return f.select(take, value, acc[0]), f.select(take, number, acc[1])

    def merge(f: LoopFunction, a: Accumulator, b: Accumulator) -> Accumulator:
        take = f.or_(better(f, b[0], a[0]), f.and_(_same(f, a[0], b[0]), f.lt(b[1], a[1])))
        return f.select(take, b[0], a[0]), f.select(take, b[1], a[1])

    def fold(f: LoopFunction, acc: Accumulator) -> Accumulator:
        best = f.reduce(acc[0], extreme)
        last = f.const(acc[1].dtype.range[1], acc[1].dtype)
        return best, f.reduce(f.select(_same(f, acc[0], best), acc[1], last), "min")
    return Reducer(lambda element, counter: (element, counter), lambda dtype: (start(dtype), 0), step, merge, fold,
                   lambda f, acc: f.cast(acc[1], i64), counts=True)


def _same(f: LoopFunction, a: Val, b: Val) -> Val:
    equal = f.eq(a, b)
    return equal if not a.dtype.is_float else f.or_(equal, f.and_(f.isnan(a), f.isnan(b)))


SUM = _plain("add", "add", lambda dtype: 0)
PROD = _plain("mul", "mul", lambda dtype: 1)
MAX = _plain("max", "max", _lowest)
MIN = _plain("min", "min", _highest)
ANY = _plain("or_", "or", lambda dtype: False)
ALL = _plain("and_", "and", lambda dtype: True)

REDUCERS: dict[type, Callable[[DType], Reducer]] = {
    reduce.Sum: lambda dtype: SUM, reduce.Prod: lambda dtype: PROD,
    reduce.Max: lambda dtype: ANY if dtype == bool_ else MAX, reduce.Min: lambda dtype: ALL if dtype == bool_ else MIN,
    reduce.ArgMax: lambda dtype: _arg("gt", "max", _lowest), reduce.ArgMin: lambda dtype: _arg("lt", "min", _highest),
}
