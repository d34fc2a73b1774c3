"""Pooling over windows of one, two or three spatial axes, and the operators that its gradients need."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from math import prod
from typing import ClassVar

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import Dim, Dims, Sizes, static_shape
from graphc.ir.image import FIRST_SPATIAL_AXIS, ImageRoles
from graphc.ir.op import ALL, Cost, Gradients, OpBuilder, Values, only_gradient, require
from graphc.ir.ops.sliding import Pads, Sliding, Steps, Where, cropped, offsets, padded, window_extents
from graphc.ir.types import TensorType, shape_text


class Pooling(Sliding):
    """Windows of `kernel` elements that lie `dilation` apart; windows lie `stride` apart. `padding` is (before, after)
    for each spatial axis, less than what a window covers.

    ceil_mode: a last window may reach beyond the padding, if it begins in the image or in the padding before it.
    """
    kernel: Steps
    stride: Steps
    padding: Pads = ((0, 0),)
    dilation: Steps = (1,)
    ceil_mode: bool = False

    @property
    def spans(self) -> Steps:
        """How many elements a window covers along each axis, those that it skips included."""
        return tuple([d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)])

    def output_shape(self, x: Dims) -> Dims:
        require(len(x) == self.axes + FIRST_SPATIAL_AXIS,
                f"{self.name} takes an image {self.shape_text}, got {shape_text(x)}")
        require(min(*self.kernel, *self.stride, *self.dilation) >= 1,
                f"{self.name}: kernel, stride and dilation must be at least 1")
        for span, pair, d, n in zip(self.spans, self.padding, self.dilation, x[FIRST_SPATIAL_AXIS:]):
            require(0 <= min(pair) and max(pair) < span,
                    f"{self.name}: padding {pair} must be less than what the kernel covers, {span}: "
                    "a window would have no element of the image")
            require(not any(pair) or not isinstance(n, int) or n >= d or n == 0,
                    f"{self.name}: with padding {pair}, windows of dilation {d} step over an image of {n}")
        return (*x[:2], *window_extents(x[2:], self.kernel, self.stride, self.padding, self.dilation, self.name,
                                        self.ceil_mode))

    def pooling_cost(self, x: TensorType, *others: TensorType) -> Cost:
        out = x.with_shape(self.output_shape(x.shape))
        return Cost(out.size * prod(self.kernel), x.nbytes + out.nbytes + sum(t.nbytes for t in others))

    def frame(self, size: Sizes, out: Sizes) -> Pads:
        """How far windows reach outside of an image: its padding, and more where `ceil_mode` has a window for it."""
        ends = [(o - 1) * step + span - low - n
                for o, step, span, (low, _), n in zip(out, self.stride, self.spans, self.padding, size)]
        return tuple([(low, max(high, end)) for (low, high), end in zip(self.padding, ends)])

    def reaches_outside(self, size: Dims, out: Dims) -> bool:
        """Whether some window has a position outside of the image."""
        return any(low > 0 or (o - 1) * step + span - low > n
                   for o, step, span, (low, _), n in zip(out, self.stride, self.spans, self.padding, size))

    def framed(self, x: np.ndarray, value: float) -> np.ndarray:
        """The image with `value` wherever else windows reach."""
        out = static_shape(self.output_shape(x.shape))
        return padded(x, self.frame(x.shape[FIRST_SPATIAL_AXIS:], out[FIRST_SPATIAL_AXIS:]), value)

    def covers_once(self, size: Sequence[Dim]) -> bool:
        """Whether every element of an image of this size belongs to one window."""
        return (self.kernel == self.stride == self.spans and not any(map(any, self.padding))
                and all(n % k == 0 for n, k in zip(size, self.kernel)))

    def regions(self, out: Sizes) -> list[Where]:
        """For each position in the window, the part of the framed image that it meets."""
        return [region for _, region in offsets(self.kernel, out[FIRST_SPATIAL_AXIS:], self.stride, self.dilation)]

    def scattered(self, shape: Sizes, out: Sizes, terms: Iterable[np.ndarray]) -> np.ndarray:
        """The image whose element is the sum of what each window position sends to it."""
        size = shape[FIRST_SPATIAL_AXIS:]
        frame = self.frame(size, out[FIRST_SPATIAL_AXIS:])
        total: np.ndarray | None = None
        for region, term in zip(self.regions(out), terms):
            if total is None:
                total = np.zeros((*shape[:2], *(n + sum(pair) for n, pair in zip(size, frame))), term.dtype)
            total[region] += term
        if total is None:
            raise InternalError(f"{self.name} has no window")
        return cropped(total, frame, size)


class MaxPooling(Pooling):
    """Base of max pooling and of the two operators that move values along its choice: the first maximum of a window,
    row by row; NaN wins."""

    def choice(self, x: np.ndarray) -> np.ndarray:
        """The number of the chosen position in each window; never one outside of the image."""
        regions = self.regions(static_shape(self.output_shape(x.shape)))
        values, real = self.framed(x, lowest(x.dtype)), self.framed(np.ones_like(x, bool), False)
        seen, inside = (np.stack([a[r] for r in regions]) for a in (values, real))
        first = np.argmax(seen, axis=0)
        return np.where(np.take_along_axis(inside, first[None], 0)[0], first, np.argmax(inside, axis=0))

    def picked(self, choice: np.ndarray, source: np.ndarray, outside: float = 0) -> np.ndarray:
        around = self.framed(source, outside)
        return np.take_along_axis(np.stack([around[r] for r in self.regions(choice.shape)]), choice[None], 0)[0]


class MaxPool(MaxPooling):
    """The maximum of each window of x [N, C, *size]; padding never wins."""
    name: ClassVar[str] = "max_pool{}d"
    images = ImageRoles((0,), True)

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.kind != "bool", f"{self.name} takes numbers, not bool")
        return x.with_shape(self.output_shape(x.shape))

    def reference(self, x: np.ndarray) -> np.ndarray:
        return self.picked(self.choice(x), x, lowest(x.dtype))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (b.apply(self.like(MaxPoolGrad), (ins[0], only_gradient(gs)))[0],)

    def cost(self, x: TensorType) -> Cost:
        return self.pooling_cost(x)


class MaxPoolGrad(MaxPooling):
    """(x, dy) -> dx: every dy goes to the element that max pooling chose in its window of x."""
    name: ClassVar[str] = "max_pool{}d_grad"
    images = ImageRoles((0, 1), True)
    linear_in = ((1,),)

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        expected = self.output_shape(x.shape)
        require("bool" not in (x.dtype.kind, dy.dtype.kind),
                f"{self.name} takes numbers, not {x.dtype} and {dy.dtype}")
        require(dy.shape == expected,
                f"{self.name}: the gradient of the output is {shape_text(dy.shape)}, it must be "
                f"{shape_text(expected)}")
        return dy.with_shape(x.shape)

    def reference(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        choice = self.choice(x)
        zero = dy.dtype.type(0)
        return self.scattered(x.shape, dy.shape,
                              (np.where(choice == i, dy, zero) for i in range(prod(self.kernel))))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return None, b.apply(self.like(MaxPoolPick), (ins[0], only_gradient(gs)))[0]

    def cost(self, x: TensorType, dy: TensorType) -> Cost:
        return self.pooling_cost(x, x)


class MaxPoolPick(MaxPooling):
    """(x, v) -> the elements of v, shaped as x, where max pooling chose in x: the transpose of its gradient."""
    name: ClassVar[str] = "max_pool{}d_pick"
    images = ImageRoles((0, 1), True)
    linear_in = ((1,),)

    def infer(self, x: TensorType, v: TensorType) -> TensorType:
        require(x.dtype.kind != "bool", f"{self.name} chooses among numbers, not bool")
        require(x.shape == v.shape,
                f"{self.name} of {shape_text(x.shape)} and {shape_text(v.shape)}: the shapes must agree")
        return v.with_shape(self.output_shape(x.shape))

    def reference(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        return self.picked(self.choice(x), v)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return None, b.apply(self.like(MaxPoolGrad), (ins[0], only_gradient(gs)))[0]

    def cost(self, x: TensorType, v: TensorType) -> Cost:
        return self.pooling_cost(x, v)


class AvgPooling(Pooling):
    """Base of average pooling and its transpose; `count_include_pad`: a window is divided by its elements
    inside the padded image, else by those inside the image."""
    count_include_pad: bool = True

    def counts(self, shape: Sizes, dtype: np.dtype) -> np.ndarray:
        """By what the sum of each window is divided: its elements inside the image, or inside the padded image."""
        size, out = (s[FIRST_SPATIAL_AXIS:] for s in (shape, static_shape(self.output_shape(shape))))
        pads = self.padding if self.count_include_pad else ((0, 0),) * self.axes
        more = [(low - p, high - q) for (low, high), (p, q) in zip(self.frame(size, out), pads)]
        inside = padded(padded(np.ones((1, 1, *size), dtype), pads, 1), more)
        return _total(inside, self.regions((1, 1, *out)))[0, 0]


class AvgPool(AvgPooling):
    """The mean of each window of x [N, C, *size]."""
    name: ClassVar[str] = "avg_pool{}d"
    images = ImageRoles((0,), True)
    linear_in = (ALL,)

    def infer(self, x: TensorType) -> TensorType:
        require(x.dtype.is_float, f"{self.name} takes floats, got {x.dtype}")
        return x.with_shape(self.output_shape(x.shape))

    def reference(self, x: np.ndarray) -> np.ndarray:
        out = static_shape(self.output_shape(x.shape))
        return _total(self.framed(x, 0), self.regions(out)) / self.counts(x.shape, x.dtype)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        to_image = self.like(AvgPoolGrad, x_shape=ins[0].type.shape)
        return b.apply(to_image, (only_gradient(gs),))

    def cost(self, x: TensorType) -> Cost:
        return self.pooling_cost(x)


class AvgPoolGrad(AvgPooling):
    """dy -> dx of shape `x_shape`: every dy is shared out equally over its window."""
    name: ClassVar[str] = "avg_pool{}d_grad"
    images = ImageRoles((0,), True)
    linear_in = (ALL,)
    x_shape: tuple[Dim, ...] = ()

    def infer(self, dy: TensorType) -> TensorType:
        expected = self.output_shape(self.x_shape)
        require(dy.dtype.is_float, f"{self.name} takes floats, got {dy.dtype}")
        require(dy.shape == expected,
                f"{self.name}: the gradient of the output is {shape_text(dy.shape)}, it must be "
                f"{shape_text(expected)}")
        return dy.with_shape(self.x_shape)

    def reference(self, dy: np.ndarray) -> np.ndarray:
        shape = static_shape(self.x_shape)
        share = dy / self.counts(shape, dy.dtype)
        return self.scattered(shape, dy.shape, [share] * prod(self.kernel))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return b.apply(self.like(AvgPool), (only_gradient(gs),))

    def cost(self, dy: TensorType) -> Cost:
        return self.pooling_cost(dy.with_shape(self.x_shape))


def _total(padded: np.ndarray, regions: Sequence[Where]) -> np.ndarray:
    """The sum of what each window position meets."""
    return reduce(np.add, (padded[r] for r in regions), np.zeros((), padded.dtype))


def lowest(dtype: np.dtype) -> float:
    """What every number of the dtype wins against."""
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


OPS = (*MaxPool.every(), *MaxPoolGrad.every(), *MaxPoolPick.every(), *AvgPool.every(), *AvgPoolGrad.every())
