"""Pooling over two-dimensional windows, and the operators that its gradients need."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.image import ImageRoles
from graphc.ir.op import ALL, Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.ops.conv import Pair, offsets, window_extents
from graphc.ir.types import Dim, Sizes, TensorType, shape_text, static_shape


class Pooling(Op):
    """Windows of `kernel` elements, `stride` apart; `padding` is ((top, bottom), (left, right)), each at most half the
    kernel."""
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))

    @property
    def steps(self) -> Pair:
        """Distance between neighbours inside a window."""
        return 1, 1

    def output_shape(self, x: tuple[Dim, ...]) -> tuple[Dim, ...]:
        require(len(x) == 4, f"{self.name} takes an image [N, C, H, W], got {shape_text(x)}")
        require(min(*self.kernel, *self.stride, *self.steps) >= 1,
                f"{self.name}: kernel, stride and dilation must be at least 1")
        for k, pair in zip(self.kernel, self.padding):
            require(0 <= min(pair) and max(pair) <= k // 2,
                    f"{self.name}: padding {pair} must be between 0 and half the kernel, {k // 2}")
        return (*x[:2], *window_extents(x[2:], self.kernel, self.stride, self.padding, self.steps, self.name))

    def pooling_cost(self, x: TensorType, *others: TensorType) -> Cost:
        out = x.with_shape(self.output_shape(x.shape))
        return Cost(out.size * self.kernel[0] * self.kernel[1], x.nbytes + out.nbytes + sum(t.nbytes for t in others))

    def padded(self, x: np.ndarray, value: float) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, 0), *self.padding), constant_values=value)

    def covers_once(self, size: tuple[int, ...]) -> bool:
        """Whether every element of an image [.., H, W] of this size belongs to one window."""
        return (self.kernel == self.stride and self.steps == (1, 1) and not any(map(any, self.padding))
                and all(n % k == 0 for n, k in zip(size, self.kernel)))

    def regions(self, out: Sizes) -> list[tuple[slice, slice]]:
        """For each position in the window, the part of the padded image that it meets."""
        return [region for _, region in offsets(self.kernel, out[2:], self.stride, self.steps)]

    def scattered(self, shape: Sizes, out: Sizes, terms: Iterable[np.ndarray]) -> np.ndarray:
        """The image whose element is the sum of what each window position sends to it."""
        (top, bottom), (left, right) = self.padding
        n, c, h, w = shape
        total: np.ndarray | None = None
        for region, term in zip(self.regions(out), terms):
            if total is None:
                total = np.zeros((n, c, h + top + bottom, w + left + right), term.dtype)
            total[(..., *region)] += term
        if total is None:
            raise InternalError(f"{self.name} has no window")
        return total[..., top:top + h, left:left + w]


class MaxPooling(Pooling):
    """Base of max pooling and of the two operators that move values along its choice: the first maximum of a window,
    row by row; NaN wins."""
    dilation: Pair = (1, 1)

    @property
    def steps(self) -> Pair:
        return self.dilation

    @property
    def shared(self) -> dict[str, object]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def choice(self, x: np.ndarray) -> np.ndarray:
        """The number of the chosen position in each window; never one in the padding."""
        regions = self.regions(static_shape(self.output_shape(x.shape)))
        values = np.stack([self.padded(x, lowest(x.dtype))[(..., *r)] for r in regions])
        inside = np.stack([self.padded(np.ones_like(x, bool), False)[(..., *r)] for r in regions])
        first = np.argmax(values, axis=0)
        real = np.take_along_axis(inside, first[None], 0)[0]
        return np.where(real, first, np.argmax(inside, axis=0))

    def picked(self, choice: np.ndarray, source: np.ndarray, outside: float = 0) -> np.ndarray:
        regions = self.regions(choice.shape)
        return np.take_along_axis(np.stack([self.padded(source, outside)[(..., *r)] for r in regions]),
                                  choice[None], 0)[0]


class MaxPool2d(MaxPooling):
    """The maximum of each window of x [N, C, H, W]; padding never wins."""
    name: ClassVar[str] = "max_pool2d"
    images = ImageRoles((0,), True)

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind != "bool", "max_pool2d takes numbers, not bool")
        return x.with_shape(self.output_shape(x.shape))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.picked(self.choice(x), x, lowest(x.dtype))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.max_pool2d_grad(ins[0], gs[0], **self.shared),)

    def cost(self, x: TensorType) -> Cost:
        return self.pooling_cost(x)


class MaxPool2dGrad(MaxPooling):
    """(x, dy) -> dx: every dy goes to the element that max_pool2d chose in its window of x."""
    name: ClassVar[str] = "max_pool2d_grad"
    images = ImageRoles((0, 1), True)
    linear_in = ((1,),)

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        expected = self.output_shape(x.shape)
        require("bool" not in (x.dtype.kind, dy.dtype.kind),
                f"max_pool2d_grad takes numbers, not {x.dtype} and {dy.dtype}")
        require(dy.shape == expected,
                f"max_pool2d_grad: the gradient of the output is {shape_text(dy.shape)}, it must be "
                f"{shape_text(expected)}")
        return dy.with_shape(x.shape)

    def reference(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        choice = self.choice(x)
        zero = dy.dtype.type(0)
        return self.scattered(x.shape, dy.shape,
                              (np.where(choice == i, dy, zero) for i in range(self.kernel[0] * self.kernel[1])))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return None, b.max_pool2d_pick(ins[0], gs[0], **self.shared)

    def cost(self, x: TensorType, dy: TensorType) -> Cost:
        return self.pooling_cost(x, x)


class MaxPool2dPick(MaxPooling):
    """(x, v) -> the elements of v, shaped as x, where max_pool2d chose in x: the transpose of max_pool2d_grad."""
    name: ClassVar[str] = "max_pool2d_pick"
    images = ImageRoles((0, 1), True)
    linear_in = ((1,),)

    def infer(self, x: TensorType, v: TensorType) -> TensorType:
        require(x.dtype.kind != "bool", "max_pool2d_pick chooses among numbers, not bool")
        require(x.shape == v.shape,
                f"max_pool2d_pick of {shape_text(x.shape)} and {shape_text(v.shape)}: the shapes must agree")
        return v.with_shape(self.output_shape(x.shape))

    def reference(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        return self.picked(self.choice(x), v)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return None, b.max_pool2d_grad(ins[0], gs[0], **self.shared)

    def cost(self, x: TensorType, v: TensorType) -> Cost:
        return self.pooling_cost(x, v)


class AvgPooling(Pooling):
    """Base of average pooling and its transpose; `count_include_pad`: divide by the kernel's size, else by the elements
    inside the image."""
    count_include_pad: bool = True

    @property
    def shared(self) -> dict[str, object]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding,
                "count_include_pad": self.count_include_pad}

    def counts(self, shape: Sizes, out: Sizes, dtype: np.dtype) -> np.ndarray:
        if self.count_include_pad:
            return np.full(out[2:], self.kernel[0] * self.kernel[1], dtype)
        inside = self.padded(np.ones((1, 1, *shape[2:]), dtype), 0)
        return _total(inside, self.regions(out))[0, 0]


class AvgPool2d(AvgPooling):
    """The mean of each window of x [N, C, H, W]."""
    name: ClassVar[str] = "avg_pool2d"
    images = ImageRoles((0,), True)
    linear_in = (ALL,)

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float, f"avg_pool2d takes floats, got {x.dtype}")
        return x.with_shape(self.output_shape(x.shape))

    def reference(self, x: np.ndarray) -> np.ndarray:
        out = static_shape(self.output_shape(x.shape))
        return _total(self.padded(x, 0), self.regions(out)) / self.counts(x.shape, out, x.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.avg_pool2d_grad(gs[0], x_shape=ins[0].type.shape, **self.shared),)

    def cost(self, x: TensorType) -> Cost:
        return self.pooling_cost(x)


class AvgPool2dGrad(AvgPooling):
    """dy -> dx of shape `x_shape`: every dy is shared out equally over its window."""
    name: ClassVar[str] = "avg_pool2d_grad"
    images = ImageRoles((0,), True)
    linear_in = (ALL,)
    x_shape: tuple[Dim, ...] = ()

    def infer(self, dy: TensorType) -> TensorType:
        expected = self.output_shape(self.x_shape)
        require(dy.dtype.is_float, f"avg_pool2d_grad takes floats, got {dy.dtype}")
        require(dy.shape == expected,
                f"avg_pool2d_grad: the gradient of the output is {shape_text(dy.shape)}, it must be "
                f"{shape_text(expected)}")
        return dy.with_shape(self.x_shape)

    def reference(self, dy: np.ndarray) -> np.ndarray:
        shape = static_shape(self.x_shape)
        share = dy / self.counts(shape, dy.shape, dy.dtype)
        return self.scattered(shape, dy.shape, [share] * (self.kernel[0] * self.kernel[1]))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.avg_pool2d(gs[0], **self.shared),)

    def cost(self, dy: TensorType) -> Cost:
        return self.pooling_cost(dy.with_shape(self.x_shape))


def _total(padded: np.ndarray, regions: Sequence[tuple[slice, slice]]) -> np.ndarray:
    """The sum of what each window position meets."""
    return reduce(np.add, (padded[(..., *r)] for r in regions), np.zeros((), padded.dtype))


def lowest(dtype: np.dtype) -> float:
    """What every number of the dtype wins against."""
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


OPS = (MaxPool2d, MaxPool2dGrad, MaxPool2dPick, AvgPool2d, AvgPool2dGrad)
