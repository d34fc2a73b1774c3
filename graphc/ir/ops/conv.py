"""Convolution (correlation, as torch.nn.Conv2d) over one, two or three spatial axes, and its two gradients, each of
which differentiates into the others."""
from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar, NamedTuple

import numpy as np

from graphc.errors import InternalError
from graphc.ir import contraction
from graphc.ir.contraction import Contraction
from graphc.ir.dims import Dim, Dims, Sizes, static_dim, static_shape
from graphc.ir.graph import Node, Value
from graphc.ir.image import FIRST_SPATIAL_AXIS, ImageRoles, kernel_text, spatial_axes
from graphc.ir.op import Composite, Cost, Gradients, OpBuilder, Values, as_tuple, only_gradient, require
from graphc.ir.ops.contract import as_types, product_of, sum_dtype, widened
from graphc.ir.ops.sliding import Pads, Sliding, Steps, Where, cropped, offsets, padded, window_extents
from graphc.ir.types import DType, TensorType, shape_text

LETTERS = "xyz"                     # of spatial axes, in the references' equations


class ConvParts(NamedTuple):
    """Image, kernels and result of a convolution; or gradients, in their shapes."""
    x: Value
    w: Value
    y: Value


class ConvOp(Sliding):
    """Attributes shared by a convolution and its gradients; `padding` is (before, after) for each spatial axis.

    x [N, C, *size], w [F, C / groups, *kernel], y [N, F, *out] with out = (size + padding - dilation * (kernel - 1) -
    1) // stride + 1. `dtype`: of the sums and the result, where it is not that of the operands, which then may have two
    types.
    """
    stride: Steps = (1,)
    padding: Pads = ((0, 0),)
    dilation: Steps = (1,)
    groups: int = 1
    dtype: DType | None = None
    is_contraction = takes_epilogue = True
    linear_in = ((0,), (1,))
    images: ClassVar[ImageRoles]
    # where x, w and y, or their gradients, stand among the operands and the result
    roles: ClassVar[tuple[int, int, int]]

    def in_one_type(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The result by numpy, of operands of its own type."""
        raise InternalError(f"{self.name} has no reference")

    def reference(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return product_of(self.in_one_type, self.dtype, left, right)

    def parts(self, node: Node) -> ConvParts:
        """The operands and the result of a node of this operator, by what they are."""
        values = (*node.inputs, *node.outputs)
        return ConvParts(*(values[i] for i in self.roles))

    def output_shape(self, x: Dims, w: Dims) -> Dims:
        """Shape of y; GraphError where x and w do not fit."""
        conv, groups = f"conv{self.axes}d", self.groups
        require(len(x) == self.axes + FIRST_SPATIAL_AXIS,
                f"{conv} takes an image {self.shape_text}, got {shape_text(x)}")
        require(len(w) == len(x),
                f"{conv} takes a kernel {kernel_text(self.axes, 'F', 'C / groups')}, got {shape_text(w)}")
        require(min(*self.stride, *self.dilation, groups) >= 1,
                f"{conv}: stride, dilation and groups must be at least 1")
        require(all(p >= 0 for pair in self.padding for p in pair),
                f"{conv}: padding must not be negative, got {self.padding}")
        require(x[1] == w[1] * groups, f"{conv}: the image has {x[1]} channels, the kernel {shape_text(w)} with "
                                       f"groups={groups} takes {w[1] * groups}")
        require(w[0] % groups == 0, f"{conv}: {w[0]} features cannot be divided into {groups} groups")
        return (x[0], w[0], *window_extents(x[2:], w[2:], self.stride, self.padding, self.dilation, conv))

    def flops(self, x: Dims, w: Dims) -> Dim:
        return 2 * prod((*self.output_shape(x, w), *w[1:]))

    def _cost(self, flops: Dim, left: TensorType, right: TensorType) -> Cost:
        """Of so many operations on elements, which may have several numbers each."""
        result, = as_tuple(self.infer(left, right))
        return Cost(flops * left.dtype.numbers, left.nbytes + right.nbytes + result.nbytes)

    def visits(self, w: Sizes, y: Sizes) -> Iterator[tuple[Where, Where]]:
        """Every kernel position with the region of the padded image that it meets."""
        return offsets(w[FIRST_SPATIAL_AXIS:], y[FIRST_SPATIAL_AXIS:], self.stride, self.dilation)

    def grouped_image(self, x: np.ndarray) -> np.ndarray:
        """The padded image, its channels divided into groups."""
        around = padded(x, self.padding)
        return around.reshape(_split(around.shape, self.groups, 1))

    def windows(self, x: Dims, w: Dims) -> tuple[contraction.Window, ...]:
        """How the convolution walks each spatial axis."""
        along = zip(spatial_axes(len(x)), self.stride, self.dilation, self.padding, strict=True)
        return tuple(contraction.Window(x[axis], static_dim(w[axis]), stride, dilation, pad)
                     for axis, stride, dilation, pad in along)


class Conv(ConvOp):
    """y[n, f, i…] = sum over c, k… of x[n, c, i * stride + k * dilation - pad, …] * w[f, c, k…], zeros outside the
    image."""
    name: ClassVar[str] = "conv{}d"
    images = ImageRoles((0,), True)
    roles = (0, 1, 2)

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        return TensorType(_sum_dtype(self, x, w), self.output_shape(x.shape, w.shape))

    def in_one_type(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        shape = static_shape(self.output_shape(x.shape, w.shape))
        y = np.zeros(_split(shape, self.groups, 1), x.dtype)
        xg, wg = self.grouped_image(x), w.reshape(_split(w.shape, self.groups, 0))
        for at, region in self.visits(w.shape, shape):
            y += np.einsum("ngc...,gfc->ngf...", xg[region], wg[at], optimize=True)
        return y.reshape(shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, w = widened(b, self.dtype, ins)
        to_image = self.like(ConvInputGrad, x_shape=x.type.shape, dtype=None)
        to_kernels = self.like(ConvWeightGrad, w_shape=w.type.shape, dtype=None)
        g = only_gradient(gs)
        return as_types(b, ins, b.apply(to_image, (w, g))[0], b.apply(to_kernels, (x, g))[0])

    def cost(self, x: TensorType, w: TensorType) -> Cost:
        return self._cost(self.flops(x.shape, w.shape), x, w)

    def contraction(self, x: TensorType, w: TensorType) -> Contraction:
        n, c, f = x.shape[0], static_dim(x.shape[1]), static_dim(w.shape[0])
        return contraction.conv(n, c, f, self.windows(x.shape, w.shape), self.groups)


class ConvInputGrad(ConvOp):
    """dx from (w, dy): the transpose of the convolution in x, which has shape `x_shape`."""
    name: ClassVar[str] = "conv{}d_input_grad"
    images = ImageRoles((1,), True)
    roles = (2, 0, 1)
    x_shape: tuple[Dim, ...] = ()

    def infer(self, w: TensorType, dy: TensorType) -> TensorType:
        dtype = _sum_dtype(self, w, dy)
        _check_output(self.name, self.output_shape(self.x_shape, w.shape), dy)
        return TensorType(dtype, self.x_shape)

    def in_one_type(self, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
        n, c, *size = static_shape(self.x_shape)
        around = [s + sum(pair) for s, pair in zip(size, self.padding)]
        image = np.zeros((n, self.groups, c // self.groups, *around), dy.dtype)
        wg, dyg = w.reshape(_split(w.shape, self.groups, 0)), dy.reshape(_split(dy.shape, self.groups, 1))
        for at, region in self.visits(w.shape, dy.shape):
            image[region] += np.einsum("ngf...,gfc->ngc...", dyg, wg[at], optimize=True)
        return cropped(image, self.padding, tuple(size)).reshape(n, c, *size)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        w, dy = widened(b, self.dtype, ins)
        to_kernels = self.like(ConvWeightGrad, w_shape=w.type.shape, dtype=None)
        g = only_gradient(gs)
        return as_types(b, ins, b.apply(to_kernels, (g, dy))[0], b.apply(self.like(Conv, dtype=None), (g, w))[0])

    def cost(self, w: TensorType, dy: TensorType) -> Cost:
        return self._cost(self.flops(self.x_shape, w.shape), w, dy)

    def contraction(self, w: TensorType, dy: TensorType) -> Contraction:
        n, c, f = self.x_shape[0], static_dim(self.x_shape[1]), static_dim(w.shape[0])
        return contraction.conv_input_gradient(n, c, f, self.windows(self.x_shape, w.shape), self.groups).swapped


class ConvWeightGrad(ConvOp):
    """dw from (x, dy): the transpose of the convolution in w, which has shape `w_shape`."""
    name: ClassVar[str] = "conv{}d_weight_grad"
    images = ImageRoles((0, 1), False)
    roles = (0, 2, 1)
    w_shape: tuple[Dim, ...] = ()

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        dtype = _sum_dtype(self, x, dy)
        _check_output(self.name, self.output_shape(x.shape, self.w_shape), dy)
        return TensorType(dtype, self.w_shape)

    def in_one_type(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        xg, dyg = self.grouped_image(x), dy.reshape(_split(dy.shape, self.groups, 1))
        w_shape = static_shape(self.w_shape)
        dw, axes = np.zeros(_split(w_shape, self.groups, 0), x.dtype), LETTERS[:self.axes]
        for at, region in self.visits(w_shape, dy.shape):
            dw[at] = np.einsum(f"ngf{axes},ngc{axes}->gfc", dyg, xg[region], optimize=True)
        return dw.reshape(w_shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, dy = widened(b, self.dtype, ins)
        to_image = self.like(ConvInputGrad, x_shape=x.type.shape, dtype=None)
        g = only_gradient(gs)
        return as_types(b, ins, b.apply(to_image, (g, dy))[0], b.apply(self.like(Conv, dtype=None), (x, g))[0])

    def cost(self, x: TensorType, dy: TensorType) -> Cost:
        return self._cost(self.flops(x.shape, self.w_shape), x, dy)

    def contraction(self, x: TensorType, dy: TensorType) -> Contraction:
        n, c, f = x.shape[0], static_dim(x.shape[1]), static_dim(self.w_shape[0])
        return contraction.conv_weight_gradient(n, c, f, self.windows(x.shape, self.w_shape), self.groups).swapped


class ConvTranspose(Sliding, Composite):
    """torch.nn.ConvTranspose2d: x [N, C, *size], w [C, F / groups, *kernel] -> [N, F, *out]; out = (size - 1) * stride
    - padding + dilation * (kernel - 1) + output_padding + 1. An output_padding is smaller than the stride or the
    dilation."""
    name: ClassVar[str] = "conv_transpose{}d"
    images = ImageRoles((0,), True)
    linear_in = ((0,), (1,))
    stride: Steps = (1,)
    padding: Pads = ((0, 0),)
    output_padding: Steps = (0,)
    dilation: Steps = (1,)
    groups: int = 1

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        _check_dtypes(self.name, x, w)
        require(x.rank == self.axes + FIRST_SPATIAL_AXIS,
                f"{self.name} takes an image {self.shape_text}, got {shape_text(x.shape)}")
        require(w.rank == x.rank, f"{self.name} takes a kernel {kernel_text(self.axes, 'C', 'F / groups')}, got "
                                  f"{shape_text(w.shape)}")
        require(x.shape[1] == w.shape[0],
                f"{self.name}: the image has {x.shape[1]} channels, the kernel takes {w.shape[0]}")
        for p, s, d in zip(self.output_padding, self.stride, self.dilation):
            require(0 <= p < max(s, d),
                    f"{self.name}: output_padding {p} must be smaller than stride {s} or dilation {d}")
        self._gradient(x.shape, w.shape).infer(w, x)
        return x.with_shape(self._output_shape(x.shape, w.shape, self.padding, self.output_padding))

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.pad(self._gradient(x.shape, w.shape).reference(w, x), [(0, n) for n in self._beyond])

    def decompose(self, b: OpBuilder, x: Value, w: Value) -> Value:
        y = b.apply(self._gradient(x.type.shape, w.type.shape), (w, x))[0]
        return b.pad(y, low=(0,) * len(self._beyond), high=self._beyond, value=0) if any(self._beyond) else y

    def cost(self, x: TensorType, w: TensorType) -> Cost:
        return self._gradient(x.shape, w.shape).cost(w, x)

    def _output_shape(self, x: Dims, w: Dims, padding: Pads, more: Steps) -> Dims:
        return (x[0], w[1] * self.groups, *(
            (n - 1) * step - sum(pad) + d * (k - 1) + m + 1
            for n, k, step, pad, d, m in zip(x[2:], w[2:], self.stride, padding, self.dilation, more)))

    def _gradient(self, x: Dims, w: Dims) -> ConvInputGrad:
        """The convolution's gradient that makes all of the result but zeros at its ends."""
        padding, more, _ = (tuple(along) for along in zip(*self._split_padding))
        return ConvInputGrad.at(self.axes)(self.stride, padding, self.dilation, self.groups,
                                           x_shape=self._output_shape(x, w, padding, more))

    @property
    def _beyond(self) -> tuple[int, ...]:
        """How many zeros follow along each axis."""
        return (0, 0, *(zeros for _, _, zeros in self._split_padding))

    @property
    def _split_padding(self) -> list[tuple[tuple[int, int], int, int]]:
        return [_less_cropped(*axis) for axis in zip(self.padding, self.output_padding, self.stride)]


def _less_cropped(padding: tuple[int, int], more: int, stride: int) -> tuple[tuple[int, int], int, int]:
    """An output padding as a smaller padding, an output padding below the stride, which a convolution's gradient can
    have, and zeros after it.

    One that is below the stride stays as it is.
    """
    if more < stride:
        return padding, more, 0
    less = min(more, padding[1])
    rest = more - less
    return (padding[0], padding[1] - less), min(rest, stride - 1), max(rest - (stride - 1), 0)


def _split(shape: Sizes, groups: int, at: int) -> Sizes:
    return (*shape[:at], groups, shape[at] // groups, *shape[at + 1:])


def _sum_dtype(op: ConvOp, left: TensorType, right: TensorType) -> DType:
    """The type of the sums of these operands; GraphError for operands that have no product."""
    if op.dtype is None:
        _check_dtypes(op.name, left, right)
        return left.dtype
    return sum_dtype(op.name, op.dtype, left, right)


def _check_dtypes(name: str, x: TensorType, w: TensorType) -> None:
    require(x.dtype == w.dtype, f"{name} of {x.dtype} and {w.dtype}: convert one side, for example w.astype({x.dtype})")
    require(x.dtype.kind != "bool", f"{name} takes numbers, not bool")


def _check_output(name: str, expected: Dims, dy: TensorType) -> None:
    require(dy.shape == expected,
            f"{name}: the gradient of the output is {shape_text(dy.shape)}, the convolution makes "
            f"{shape_text(expected)}")


OPS = (*Conv.every(), *ConvInputGrad.every(), *ConvWeightGrad.every(), *ConvTranspose.every())
