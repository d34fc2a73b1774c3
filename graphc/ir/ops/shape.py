"""Operators that move elements: reshape, transpose, broadcast, slice, concat, pad, flip, dynamic slices."""
from __future__ import annotations

from functools import reduce
from operator import add
from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, Dims, Sizes, ceil_div, static_shape
from graphc.ir.graph import Value
from graphc.ir.op import (
    ALL, Arrays, Cost, Gradients, Op, OpBuilder, Operands, Values, as_tuple, holds, only_gradient, require)
from graphc.ir.ops.constant import full
from graphc.ir.size_proofs import allowed
from graphc.ir.types import TensorType, broadcast_shapes, normalize_axes, normalize_axis, shape_text


class Movement(Op):
    """Base: no arithmetic; reads its operands and writes its result once."""

    def cost(self, *ins: TensorType) -> Cost:
        out, = as_tuple(self.infer(*ins))
        return Cost(0, 2 * out.nbytes)


class Reshape(Movement):
    """The same elements in row-major order with another shape of equal size."""
    name: ClassVar[str] = "reshape"
    is_view = is_whole_view = True
    element_flops = 0
    linear_in = (ALL,)
    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        out = x.with_shape(self.shape)
        require(out.size == x.size, f"cannot reshape {shape_text(x.shape)} ({x.size} elements) to "
                                    f"{shape_text(self.shape)} ({out.size} elements)")
        return out

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(static_shape(self.shape))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.reshape(gs[0], shape=ins[0].type.shape),)


class Transpose(Movement):
    """Axis i of the result is axis perm[i] of x."""
    name: ClassVar[str] = "transpose"
    is_view = is_whole_view = True
    element_flops = 0
    linear_in = (ALL,)
    perm: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(sorted(self.perm) == list(range(x.rank)),
                f"transpose: {self.perm} is not a permutation of the {x.rank} axes of {x}")
        return x.with_shape(x.shape[p] for p in self.perm)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.perm)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        inverse = tuple(sorted(range(len(self.perm)), key=self.perm.__getitem__))
        return (b.transpose(gs[0], perm=inverse),)


class BroadcastTo(Movement):
    """x repeated to `shape` by numpy's rules."""
    name: ClassVar[str] = "broadcast_to"
    is_view = is_whole_view = is_elementwise = True
    element_flops = 0
    linear_in = (ALL,)
    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(broadcast_shapes(x.shape, self.shape) == self.shape,
                f"cannot broadcast {shape_text(x.shape)} to {shape_text(self.shape)}")
        return x.with_shape(self.shape)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, static_shape(self.shape))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (gs[0],)             # backward sums over what was broadcast


class Concat(Movement):
    """The operands one after another along `axis`; the other axes must agree."""
    name: ClassVar[str] = "concat"
    linear_in = (ALL,)
    axis: int

    def infer(self, *xs: TensorType) -> TensorType:
        require(len(xs) > 0, "concat takes at least one array")
        first, axis = xs[0], normalize_axis(self.axis, xs[0].rank)
        for x in xs[1:]:
            require(x.dtype == first.dtype,
                    f"concat of {first.dtype} and {x.dtype}: convert one, for example with .astype({first.dtype})")
            require(_without(x.shape, axis) == _without(first.shape, axis) and x.rank == first.rank,
                    f"concat along axis {axis}: {shape_text(first.shape)} and {shape_text(x.shape)} must agree on "
                    "every other axis")
        length = reduce(add, (x.shape[axis] for x in xs))
        return first.with_shape(_with(first.shape, axis, length))

    def reference(self, *xs: np.ndarray) -> np.ndarray:
        return np.concatenate(xs, axis=self.axis)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        axis, g, parts = normalize_axis(self.axis, ins[0].type.rank), only_gradient(gs), []
        start: Dim = 0
        for x in ins:
            stop = start + x.type.shape[axis]
            parts.append(slice_axis(b, g, axis, start, stop))
            start = stop
        return tuple(parts)


class Slice(Movement):
    """x[start[0]:stop[0]:step[0], …]: one triple per axis, 0 <= start <= stop <= size and step > 0 (numpy's negative
    numbers are the DSL's work)."""
    name: ClassVar[str] = "slice"
    is_view = True
    linear_in = (ALL,)
    start: tuple[Dim, ...]
    stop: tuple[Dim, ...]
    step: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        require(len(self.start) == len(self.stop) == len(self.step) == x.rank,
                f"slice of {x} needs {x.rank} starts, stops and steps")
        for axis, (low, high, step) in enumerate(zip(self.start, self.stop, self.step)):
            inside = _known_le(0, low) and _known_le(low, high) and _known_le(high, x.shape[axis])
            require(inside, f"slice {low}:{high} is not inside axis {axis} of {x}")
            require(step > 0, f"slice needs steps > 0, got {step}; use flip to reverse an axis")
        return x.with_shape(self.lengths)

    @property
    def lengths(self) -> tuple[Dim, ...]:
        """The shape of the result."""
        return tuple(ceil_div(high - low, step) for low, high, step in zip(self.start, self.stop, self.step))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x[tuple(map(slice, self.start, self.stop, self.step))]

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        g, sizes = only_gradient(gs), ins[0].type.shape
        for axis, step in enumerate(self.step):
            if step != 1:
                g = _spread_out(b, g, axis, step)
        high = tuple(size - low - n for size, low, n in zip(sizes, self.start, g.type.shape))
        return (b.pad(g, low=self.start, high=high, value=0) if g.type.shape != sizes else g,)


class Pad(Movement):
    """x with low[i] elements of `value` before and high[i] after it along axis i; none negative."""
    name: ClassVar[str] = "pad"
    low: tuple[Dim, ...]
    high: tuple[Dim, ...]
    value: int | float | bool = 0

    @property
    def linear_in(self) -> tuple[Operands, ...]:
        return () if self.value else (ALL,)

    def infer(self, x: TensorType) -> TensorType:
        require(len(self.low) == len(self.high) == x.rank,
                f"pad of {x} needs {x.rank} pairs, got {len(self.low)} and {len(self.high)}")
        require(all(_known_le(0, n) for n in self.low + self.high),
                f"pad by {self.low} and {self.high}: amounts must be >= 0; slice to remove elements")
        require(holds(x.dtype, self.value), f"pad of {x.dtype} with {self.value}, which is not a number of {x.dtype}")
        return x.with_shape(low + n + high for low, n, high in zip(self.low, x.shape, self.high))

    def cost(self, x: TensorType) -> Cost:
        return Cost(0, x.nbytes + self.infer(x).nbytes)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, tuple(zip(static_shape(self.low), static_shape(self.high))),
                      constant_values=x.dtype.type(self.value))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        stop = tuple(low + n for low, n in zip(self.low, ins[0].type.shape))
        return (b.slice(gs[0], start=self.low, stop=stop, step=(1,) * len(stop)),)


class Flip(Movement):
    """x with the order of elements along `axes` reversed."""
    name: ClassVar[str] = "flip"
    linear_in = (ALL,)
    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        normalize_axes(self.axes, x.rank)
        require(min(self.axes, default=0) >= 0, f"flip: axes {self.axes} must be counted from the front")
        return x

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.flip(x, self.axes)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.flip(gs[0], axes=self.axes),)


class DynamicSlice(Movement):
    """x[s0:s0+sizes[0], s1:s1+sizes[1], …], starts integer scalars, clamped to [0, axis size - sizes[i]] as in XLA."""
    name: ClassVar[str] = "dynamic_slice"
    linear_in = ((0,),)
    sizes: tuple[Dim, ...]

    def infer(self, x: TensorType, *starts: TensorType) -> TensorType:
        require(len(self.sizes) == x.rank, f"dynamic_slice of {x} needs {x.rank} sizes, got {len(self.sizes)}")
        require(all(map(_known_le, self.sizes, x.shape)),
                f"dynamic_slice: sizes {shape_text(self.sizes)} do not fit into {x}")
        _check_starts(self.name, x, starts)
        return x.with_shape(self.sizes)

    def reference(self, x: np.ndarray, *starts: np.ndarray) -> np.ndarray:
        return x[_clamped(x.shape, static_shape(self.sizes), starts)].copy()

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, *starts = ins
        return b.dynamic_update_slice(full(b, 0, x.type), gs[0], *starts), *(None for _ in starts)


class DynamicUpdateSlice(Movement):
    """x with `update` written at integer scalar starts, each clamped to [0, axis size - update size] as in XLA."""
    name: ClassVar[str] = "dynamic_update_slice"
    linear_in = ((0, 1),)

    def infer(self, x: TensorType, update: TensorType, *starts: TensorType) -> TensorType:
        require(update.dtype == x.dtype,
                f"dynamic_update_slice: {x.dtype} array and {update.dtype} update; convert one with .astype({x.dtype})")
        require(update.rank == x.rank, f"dynamic_update_slice: {update} must have as many axes as {x}")
        require(all(map(_known_le, update.shape, x.shape)), f"dynamic_update_slice: {update} does not fit into {x}")
        _check_starts(self.name, x, starts)
        return x

    def reference(self, x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> np.ndarray:
        result = x.copy()
        result[_clamped(x.shape, update.shape, starts)] = update
        return result

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, update, *starts = ins
        around = b.dynamic_update_slice(gs[0], full(b, 0, update.type), *starts)
        inside = b.dynamic_slice(gs[0], *starts, sizes=update.type.shape)
        return around, inside, *(None for _ in starts)


def slice_axis(b: OpBuilder, x: Value, axis: int, start: Dim, stop: Dim) -> Value:
    """x[start:stop] along one axis; x itself when that is all of it."""
    shape = x.type.shape
    if start == 0 and stop == shape[axis]:
        return x
    return b.slice(x, start=_with((0,) * len(shape), axis, start), stop=_with(shape, axis, stop),
                   step=(1,) * len(shape))


def _spread_out(b: OpBuilder, g: Value, axis: int, step: int) -> Value:
    """`g` with step - 1 zeros between its elements along `axis`."""
    shape, n = g.type.shape, g.type.shape[axis]
    if n == 0:
        return g
    columns = b.reshape(g, shape=shape[:axis + 1] + (1,) + shape[axis + 1:])
    zeros = (0,) * columns.type.rank
    padded = b.pad(columns, low=zeros, high=_with(zeros, axis + 1, step - 1), value=0)
    return slice_axis(b, b.reshape(padded, shape=_with(shape, axis, n * step)), axis, 0, n * step - (step - 1))


def _check_starts(name: str, x: TensorType, starts: tuple[TensorType, ...]) -> None:
    require(len(starts) == x.rank, f"{name} of {x} needs {x.rank} starts, got {len(starts)}")
    bad = next((t for t in starts if t.shape != () or not t.dtype.is_int), None)
    require(bad is None, f"{name}: starts are integer scalars, got {bad}")


def _clamped(shape: Sizes, sizes: Sizes, starts: Arrays) -> tuple[slice, ...]:
    firsts = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, shape, sizes)]
    return tuple(slice(first, first + size) for first, size in zip(firsts, sizes))


def _known_le(low: Dim, high: Dim) -> bool:
    """low <= high, or not known before the dimensions are bound."""
    return allowed(high - low)


def _with(shape: Dims, axis: int, value: Dim) -> Dims:
    return shape[:axis] + (value,) + shape[axis + 1:]


def _without(shape: Dims, axis: int) -> Dims:
    return shape[:axis] + shape[axis + 1:]


OPS = (Reshape, Transpose, BroadcastTo, Concat, Slice, Pad, Flip, DynamicSlice, DynamicUpdateSlice)
