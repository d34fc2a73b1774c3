"""Running sums, products and extremes, and first-order linear recurrences along an axis."""
from __future__ import annotations

from typing import ClassVar

import numpy as np

from graphc.ir.graph import Value
from graphc.ir.op import ALL, Cost, Gradients, Op, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.shape import slice_axis
from graphc.ir.types import TensorType, i64, normalize_axis


class Cumulative(Op):
    """Base: y[i] combines x[0..i] along `axis` in the dtype of x; `reverse`: x[i..]; `exclusive`: without x[i] (then
    the first is the neutral element)."""
    axis: int
    reverse: bool = False
    exclusive: bool = False
    neutral: ClassVar[int] = 0
    accumulate: ClassVar[np.ufunc] = np.add

    def infer(self, x: TensorType) -> TensorType:
        normalize_axis(self.axis, x.rank)
        require(x.dtype.kind != "bool",
                f"{self.name} takes float or int arrays, got bool; convert it with .astype(i64)")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        x = np.flip(x, self.axis) if self.reverse else x
        with np.errstate(all="ignore"):
            y = self.accumulate.accumulate(x, self.axis, dtype=x.dtype)
        if self.exclusive:
            y = _shifted_array(y, self.axis, self.neutral)
        return np.flip(y, self.axis) if self.reverse else y


class CumSum(Cumulative):
    """Running sum along `axis`, left to right."""
    name: ClassVar[str] = "cumsum"
    linear_in = (ALL,)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.cumsum(gs[0], axis=self.axis, reverse=not self.reverse, exclusive=self.exclusive),)


class CumProd(Cumulative):
    """Running product along `axis`, left to right. The gradient is exact where elements are zero.

    dx[i] = (product of x[0..i-1]) * S[i], where S[i] = g[i] + x[i+1] S[i+1] sums g[k] times the product of x[i+1..k].
    """
    name: ClassVar[str] = "cumprod"
    neutral: ClassVar[int] = 1
    accumulate: ClassVar[np.ufunc] = np.multiply

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, g = ins[0], only_gradient(gs)
        if self.exclusive:
            g = shifted(b, g, self.axis, back=not self.reverse)
        before = b.cumprod(x, axis=self.axis, reverse=self.reverse, exclusive=True)
        after = b.linear_scan(shifted(b, x, self.axis, back=not self.reverse), g, axis=self.axis,
                              reverse=not self.reverse)
        return (b.mul(before, after),)


class RunningArgExtremum(Op):
    """i64: of each element, where along `axis` the largest (`least`: the smallest) one up to it stands; of equals the
    last, and from the first NaN on the last NaN, as torch.cummax says. No gradient."""
    name: ClassVar[str] = "running_arg_extremum"
    element_flops = 2
    axis: int
    least: bool = False

    def infer(self, x: TensorType) -> TensorType:
        normalize_axis(self.axis, x.rank)
        require(x.dtype.kind != "bool", "a running extreme is one of float or int arrays, got bool; convert it with "
                                        ".astype(i32)")
        return x.with_dtype(i64)

    def reference(self, x: np.ndarray) -> np.ndarray:
        x = np.moveaxis(x, self.axis, 0)
        best, places, last = x[:1], np.zeros(x.shape, np.int64), np.zeros(x.shape[1:], np.int64)
        for i, each in enumerate(x):
            with np.errstate(invalid="ignore"):
                beats = each <= best[0] if self.least else each >= best[0]
            beats = np.isnan(each) | beats if x.dtype.kind == "f" else beats
            best, last = np.where(beats, each, best), np.where(beats, i, last)
            places[i] = last
        return np.moveaxis(places, 0, self.axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)


class LinearScan(Op):
    """y[i] = a[i] * y[i-1] + x[i] along `axis`, y before the first being 0 (a[0] has no effect); `reverse`: y[i] = a[i]
    * y[i+1] + x[i]; `exclusive`: what each step begins with, y[i-1] (then the first is 0).

    The recurrence of moving averages and diagonal state-space models; its gradient is the same recurrence in the other
    direction.
    """
    name: ClassVar[str] = "linear_scan"
    linear_in = ((1,),)
    element_flops = 2
    axis: int
    reverse: bool = False
    exclusive: bool = False

    def infer(self, a: TensorType, x: TensorType) -> TensorType:
        normalize_axis(self.axis, x.rank)
        require(a == x and x.dtype.is_float, f"linear_scan takes two float arrays of one type, got {a} and {x}")
        return x

    def reference(self, a: np.ndarray, x: np.ndarray) -> np.ndarray:
        a, x = np.moveaxis(a, self.axis, 0), np.moveaxis(x, self.axis, 0)
        y, last = np.empty_like(x), np.zeros(x.shape[1:], x.dtype)
        with np.errstate(all="ignore"):
            for i in reversed(range(len(x))) if self.reverse else range(len(x)):
                y[i], last = last, a[i] * last + x[i] if i != self._first(len(x)) else x[i]
                y[i] = y[i] if self.exclusive else last
        return np.moveaxis(y, 0, self.axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        """With D[i] the gradient of the y[i] of the recurrence, which is passed on as a[i] D[i] to the step before:
        those form a recurrence too, and each gradient is elementwise in what the steps begin with."""
        (a, x), g = ins, only_gradient(gs)
        before = outs[0] if self.exclusive else b.apply(self.replace(exclusive=True), (a, x))[0]
        back = LinearScan(self.axis, not self.reverse, True)
        if self.exclusive:                      # g[i] is given to y[i-1]
            dx, = b.apply(back, (a, g))
        else:
            dx = b.add(g, b.apply(back, (a, b.mul(a, g)))[0])
        return b.mul(dx, before), dx

    def cost(self, a: TensorType, x: TensorType) -> Cost:
        return Cost(2 * x.size, 3 * x.nbytes)

    def _first(self, n: int) -> int:
        return n - 1 if self.reverse else 0


def shifted(b: OpBuilder, x: Value, axis: int, back: bool) -> Value:
    """x moved by one along `axis`, a zero entering: y[i] = x[i+1] if `back`, else x[i-1]."""
    axis = normalize_axis(axis, x.type.rank)
    n = x.type.shape[axis]
    if n == 0:
        return x
    kept = slice_axis(b, x, axis, 1, n) if back else slice_axis(b, x, axis, 0, n - 1)
    zeros = (0,) * x.type.rank
    one = zeros[:axis] + (1,) + zeros[axis + 1:]
    return b.pad(kept, low=zeros if back else one, high=one if back else zeros, value=0)


def _shifted_array(y: np.ndarray, axis: int, first: int) -> np.ndarray:
    moved = np.moveaxis(y, axis, 0)
    result = np.full_like(moved, first)
    result[1:] = moved[:-1]
    return np.moveaxis(result, 0, axis)


OPS = (CumSum, CumProd, RunningArgExtremum, LinearScan)
