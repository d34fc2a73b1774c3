"""Two-dimensional convolution (correlation, as torch.nn.Conv2d) and its two gradients, each of which differentiates
into the others."""
from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np

from graphc.ir import contraction
from graphc.ir.contraction import Contraction
from graphc.ir.dims import allowed
from graphc.ir.graph import Node, Value
from graphc.ir.image import ImageRoles, spatial_axes
from graphc.ir.op import Composite, Cost, Gradients, Op, OpBuilder, Values, require
from graphc.ir.types import Dim, Dims, Sizes, TensorType, shape_text, static_dim, static_shape

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]         # ((top, bottom), (left, right))


class ConvParts(NamedTuple):
    """Image, kernels and result of a convolution; or gradients, in their shapes."""
    x: Value
    w: Value
    y: Value


class ConvOp(Op):
    """Attributes shared by a convolution and its gradients; `padding` is ((top, bottom), (left, right)).

    x [N, C, H, W], w [F, C / groups, KH, KW], y [N, F, OH, OW] with OH = (H + padding - dilation * (KH - 1) - 1) //
    stride + 1.
    """
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    is_contraction = takes_epilogue = True
    linear_in = ((0,), (1,))
    # where x, w and y, or their gradients, stand among the operands and the result
    roles: ClassVar[tuple[int, int, int]]

    def parts(self, node: Node) -> ConvParts:
        """The operands and the result of a node of this operator, by what they are."""
        values = (*node.inputs, *node.outputs)
        return ConvParts(*(values[i] for i in self.roles))

    @property
    def shared(self) -> dict[str, object]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def output_shape(self, x: tuple[Dim, ...], w: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """Shape of y; GraphError where x and w do not fit."""
        require(len(x) == 4, f"conv2d takes an image [N, C, H, W], got {shape_text(x)}")
        require(len(w) == 4, f"conv2d takes a kernel [F, C / groups, KH, KW], got {shape_text(w)}")
        require(min(*self.stride, *self.dilation, self.groups) >= 1,
                "conv2d: stride, dilation and groups must be at least 1")
        require(all(p >= 0 for pair in self.padding for p in pair),
                f"conv2d: padding must not be negative, got {self.padding}")
        require(x[1] == w[1] * self.groups, f"conv2d: the image has {x[1]} channels, the kernel {shape_text(w)} with "
                                            f"groups={self.groups} takes {w[1] * self.groups}")
        require(w[0] % self.groups == 0, f"conv2d: {w[0]} features cannot be divided into {self.groups} groups")
        return (x[0], w[0], *window_extents(x[2:], w[2:], self.stride, self.padding, self.dilation, "conv2d"))

    def flops(self, x: Dims, w: Dims) -> Dim:
        n, f, oh, ow = self.output_shape(x, w)
        return 2 * n * f * oh * ow * w[1] * w[2] * w[3]

    def windows(self, x: Dims, w: Dims) -> tuple[contraction.Window, ...]:
        """How the convolution walks each spatial axis."""
        along = zip(spatial_axes(len(x)), self.stride, self.dilation, self.padding, strict=True)
        return tuple(contraction.Window(x[axis], static_dim(w[axis]), stride, dilation, pad)
                     for axis, stride, dilation, pad in along)


class Conv2d(ConvOp):
    """y[n, f, i, j] = sum over c, p, q of x[n, c, i * stride + p * dilation - pad, …] * w[f, c, p, q], zeros outside
    the image."""
    name: ClassVar[str] = "conv2d"
    images = ImageRoles((0,), True)
    roles = (0, 1, 2)

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        _check_dtypes("conv2d", x, w)
        return x.with_shape(self.output_shape(x.shape, w.shape))

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        shape = static_shape(self.output_shape(x.shape, w.shape))
        y = np.zeros(_split(shape, self.groups, 1), x.dtype)
        wg = w.reshape(_split(w.shape, self.groups, 0))
        for offset, patch in self._patches(_padded(x, self.padding), shape, w.shape):
            y += np.einsum("ngchw,gfc->ngfhw", patch, wg[..., offset[0], offset[1]], optimize=True)
        return y.reshape(shape)

    def _patches(self, padded: np.ndarray, y_shape: Sizes, w_shape: Sizes) -> Iterator[tuple[Pair, np.ndarray]]:
        grouped = padded.reshape(_split(padded.shape, self.groups, 1))
        for offset, region in offsets(w_shape[2:], y_shape[2:], self.stride, self.dilation):
            yield offset, grouped[(..., *region)]

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, w = ins
        return (b.conv2d_input_grad(w, gs[0], x_shape=x.type.shape, **self.shared),
                b.conv2d_weight_grad(x, gs[0], w_shape=w.type.shape, **self.shared))

    def cost(self, x: TensorType, w: TensorType) -> Cost:
        return Cost(self.flops(x.shape, w.shape), x.nbytes + w.nbytes + self.infer(x, w).nbytes)

    def contraction(self, x: TensorType, w: TensorType) -> Contraction:
        n, (c, f) = x.shape[0], static_shape((x.shape[1], w.shape[0]))
        return contraction.conv(n, c, f, self.windows(x.shape, w.shape), self.groups)


class Conv2dInputGrad(ConvOp):
    """dx from (w, dy): the transpose of conv2d in x, which has shape `x_shape`."""
    name: ClassVar[str] = "conv2d_input_grad"
    images = ImageRoles((1,), True)
    roles = (2, 0, 1)
    x_shape: tuple[Dim, ...] = ()

    def infer(self, w: TensorType, dy: TensorType) -> TensorType:
        _check_dtypes(self.name, w, dy)
        _check_output(self.name, self.output_shape(self.x_shape, w.shape), dy)
        return w.with_shape(self.x_shape)

    def reference(self, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
        n, c, h, wd = static_shape(self.x_shape)
        padded = np.zeros((n, self.groups, c // self.groups, h + sum(self.padding[0]), wd + sum(self.padding[1])),
                          dy.dtype)
        wg, dyg = w.reshape(_split(w.shape, self.groups, 0)), dy.reshape(_split(dy.shape, self.groups, 1))
        for offset, region in offsets(w.shape[2:], dy.shape[2:], self.stride, self.dilation):
            padded[(..., *region)] += np.einsum("ngfhw,gfc->ngchw", dyg, wg[..., offset[0], offset[1]], optimize=True)
        return _cropped(padded, self.padding, h, wd).reshape(n, c, h, wd)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        w, dy = ins
        return b.conv2d_weight_grad(gs[0], dy, w_shape=w.type.shape, **self.shared), b.conv2d(gs[0], w, **self.shared)

    def cost(self, w: TensorType, dy: TensorType) -> Cost:
        return Cost(self.flops(self.x_shape, w.shape), w.nbytes + dy.nbytes + self.infer(w, dy).nbytes)

    def contraction(self, w: TensorType, dy: TensorType) -> Contraction:
        n, (c, f) = self.x_shape[0], static_shape((self.x_shape[1], w.shape[0]))
        return contraction.conv_input_gradient(n, c, f, self.windows(self.x_shape, w.shape), self.groups).swapped


class Conv2dWeightGrad(ConvOp):
    """dw from (x, dy): the transpose of conv2d in w, which has shape `w_shape`."""
    name: ClassVar[str] = "conv2d_weight_grad"
    images = ImageRoles((0, 1), False)
    roles = (0, 2, 1)
    w_shape: tuple[Dim, ...] = ()

    def infer(self, x: TensorType, dy: TensorType) -> TensorType:
        _check_dtypes(self.name, x, dy)
        _check_output(self.name, self.output_shape(x.shape, self.w_shape), dy)
        return x.with_shape(self.w_shape)

    def reference(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        padded = _padded(x, self.padding)
        xg, dyg = padded.reshape(_split(padded.shape, self.groups, 1)), dy.reshape(_split(dy.shape, self.groups, 1))
        w_shape = static_shape(self.w_shape)
        dw = np.zeros(_split(w_shape, self.groups, 0), x.dtype)
        for offset, region in offsets(w_shape[2:], dy.shape[2:], self.stride, self.dilation):
            dw[..., offset[0], offset[1]] = np.einsum("ngfhw,ngchw->gfc", dyg, xg[(..., *region)], optimize=True)
        return dw.reshape(w_shape)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        x, dy = ins
        return b.conv2d_input_grad(gs[0], dy, x_shape=x.type.shape, **self.shared), b.conv2d(x, gs[0], **self.shared)

    def cost(self, x: TensorType, dy: TensorType) -> Cost:
        return Cost(self.flops(x.shape, self.w_shape), x.nbytes + dy.nbytes + self.infer(x, dy).nbytes)

    def contraction(self, x: TensorType, dy: TensorType) -> Contraction:
        n, (c, f) = x.shape[0], static_shape((x.shape[1], self.w_shape[0]))
        return contraction.conv_weight_gradient(n, c, f, self.windows(x.shape, self.w_shape), self.groups).swapped


class ConvTranspose2d(Composite):
    """torch.nn.ConvTranspose2d: x [N, C, H, W], w [C, F / groups, KH, KW] -> [N, F, OH, OW];
    OH = (H - 1) * stride - padding + dilation * (KH - 1) + output_padding + 1. An output_padding is smaller than the
    stride or the dilation."""
    name: ClassVar[str] = "conv_transpose2d"
    images = ImageRoles((0,), True)
    linear_in = ((0,), (1,))
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    output_padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        _check_dtypes(self.name, x, w)
        require(x.rank == 4, f"{self.name} takes an image [N, C, H, W], got {shape_text(x.shape)}")
        require(w.rank == 4, f"{self.name} takes a kernel [C, F / groups, KH, KW], got {shape_text(w.shape)}")
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
        return b.pad(y, low=(0,) * 4, high=self._beyond, value=0) if any(self._beyond) else y

    def cost(self, x: TensorType, w: TensorType) -> Cost:
        return self._gradient(x.shape, w.shape).cost(w, x)

    def _output_shape(self, x: Dims, w: Dims, padding: Pads, more: Pair) -> tuple[Dim, ...]:
        return (x[0], w[1] * self.groups, *(
            (x[2 + i] - 1) * self.stride[i] - sum(padding[i]) + self.dilation[i] * (w[2 + i] - 1) + more[i] + 1
            for i in range(2)))

    def _gradient(self, x: Dims, w: Dims) -> Conv2dInputGrad:
        """The convolution's gradient that makes all of the result but rows and columns of zeros at its end."""
        (top, down, _), (left, across, _) = self._split_padding
        padding, more = (top, left), (down, across)
        return Conv2dInputGrad(self.stride, padding, self.dilation, self.groups,
                               self._output_shape(x, w, padding, more))

    @property
    def _beyond(self) -> tuple[int, ...]:
        """How many zeros follow along each axis."""
        return (0, 0, *(zeros for _, _, zeros in self._split_padding))

    @property
    def _split_padding(self) -> list[tuple[Pair, int, int]]:
        return [_less_cropped(*axis) for axis in zip(self.padding, self.output_padding, self.stride)]


def _less_cropped(padding: Pair, more: int, stride: int) -> tuple[Pair, int, int]:
    """An output padding as a smaller padding, an output padding below the stride, which a convolution's gradient can
    have, and zeros after it.

    One that is below the stride stays as it is.
    """
    if more < stride:
        return padding, more, 0
    less = min(more, padding[1])
    rest = more - less
    return (padding[0], padding[1] - less), min(rest, stride - 1), max(rest - (stride - 1), 0)


def window_extents(size: Dims, kernel: Dims, stride: Pair, padding: Pads, dilation: Pair, name: str) -> tuple[Dim, ...]:
    """Number of window positions along each spatial axis; GraphError where the kernel is larger than the padded
    image."""
    result = []
    for s, k, st, pad, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = s + sum(pad) - d * (k - 1) - 1
        require(allowed(room), f"{name}: the kernel covers {d * (k - 1) + 1} elements, the image with padding has only "
                               f"{s + sum(pad)}")
        result.append(room // st + 1 if st != 1 else room + 1)
    return tuple(result)


def offsets(kernel: Sizes, out: Sizes, stride: Pair, dilation: Pair) -> Iterator[tuple[Pair, tuple[slice, slice]]]:
    """Every kernel position with the region of the padded image that it meets, one element per window."""
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            starts = p * dilation[0], q * dilation[1]
            down, across = (slice(s, s + (o - 1) * st + 1, st) for s, o, st in zip(starts, out, stride))
            yield (p, q), (down, across)


def _padded(x: np.ndarray, padding: Pads) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _cropped(x: np.ndarray, padding: Pads, h: int, w: int) -> np.ndarray:
    return x[..., padding[0][0]:padding[0][0] + h, padding[1][0]:padding[1][0] + w]


def _split(shape: Sizes, groups: int, at: int) -> Sizes:
    return (*shape[:at], groups, shape[at] // groups, *shape[at + 1:])


def _check_dtypes(name: str, x: TensorType, w: TensorType) -> None:
    require(x.dtype == w.dtype, f"{name} of {x.dtype} and {w.dtype}: convert one side, for example w.astype({x.dtype})")
    require(x.dtype.kind != "bool", f"{name} takes numbers, not bool")


def _check_output(name: str, expected: Dims, dy: TensorType) -> None:
    require(dy.shape == expected,
            f"{name}: the gradient of the output is {shape_text(dy.shape)}, the convolution makes "
            f"{shape_text(expected)}")


OPS = (Conv2d, Conv2dInputGrad, Conv2dWeightGrad, ConvTranspose2d)
