"""Convolutions: cross-correlation as in torch, channels on axis 1."""
from __future__ import annotations

from math import prod
from typing import Any, cast

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.sliding import MODES, Padding, Size
from graphc.errors import GraphError
from graphc.ir.convert import choice, integer, integers, is_sequence
from graphc.nn.module import Module
from graphc.nn.parameter import fan_in_uniform


class Convolution(Module):
    """What the convolutions share. weight [channels, in / groups, kernel…] and bias [channels] start as torch's.

    As in torch, they are cross-correlations: y[i] = sum over k of w[k] x[i + k]. With `flip` the kernel is turned
    round, which makes them convolutions in the mathematical sense: y[i] = sum over k of w[k] x[i + K - 1 - k].
    """
    axes = 2

    def __init__(self, channels: int, kernel: Size, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1,
                 groups: int = 1, bias: bool = True, flip: bool = False) -> None:
        super().__init__()
        self.channels, self.groups = integer(channels, "channels", 1), integer(groups, "groups", 1)
        self.biased, self.flip = bias, flip
        self.kernel, self.stride, self.dilation = (per_axis(v, self.axes) for v in (kernel, stride, dilation))
        told = isinstance(padding, str) or is_sequence(padding)
        self.padding: Padding = padding if told else per_axis(cast(Size, padding), self.axes)

    def forward(self, x: Array) -> Array:
        inside = channels_of(x, self.axes, type(self).__name__)
        if inside % self.groups or self.channels % self.groups:
            raise GraphError(f"{inside} input and {self.channels} output channels do not divide into {self.groups} "
                             "groups")
        shape = self.weight_shape(inside)
        start = fan_in_uniform(prod(shape[1:]))
        weight = self.parameter("weight", shape, start, x.dtype)
        y = self.apply(x, gc.flip(weight, tuple(range(2, 2 + self.axes))) if self.flip else weight)
        if not self.biased:
            return y
        return y + self.parameter("bias", (self.channels,), start, x.dtype).reshape(self.channels, *(1,) * self.axes)

    def weight_shape(self, inside: int) -> tuple[int, ...]:
        raise NotImplementedError

    def apply(self, x: Array, weight: Array) -> Array:
        raise NotImplementedError


class Correlation(Convolution):
    """What Conv1d, Conv2d and Conv3d share. `padding`: int, one per axis, a pair (before, after) per axis, "same" or
    "valid"; `padding_mode`: what stands there, "zeros", or the image's own elements by "reflect", "replicate" or
    "circular"."""

    def __init__(self, channels: int, kernel: Size, *, padding_mode: str = "zeros", **options: Any) -> None:
        super().__init__(channels, kernel, **options)
        self.padding_mode = choice(padding_mode, "padding_mode", MODES)

    def weight_shape(self, inside: int) -> tuple[int, ...]:
        return (self.channels, inside // self.groups, *self.kernel)

    def apply(self, x: Array, weight: Array) -> Array:
        return CONV[self.axes](x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation,
                               groups=self.groups, padding_mode=self.padding_mode)


class Conv1d(Correlation):
    """x [B, in, L] -> [B, channels, L']. Options as in `Conv2d`."""
    axes = 1


class Conv2d(Correlation):
    """x [B, in, H, W] -> [B, channels, H', W']. `padding`: int, one per axis, a pair (before, after) per axis, "same"
    or "valid"; `padding_mode`: "zeros", "reflect", "replicate" or "circular"."""
    axes = 2


class Conv3d(Correlation):
    """x [B, in, D, H, W] -> [B, channels, D', H', W']. Options as in `Conv2d`."""
    axes = 3


class Transposed(Convolution):
    """What the transposed convolutions share: weight [in, channels / groups, kernel…], as in torch."""

    def __init__(self, channels: int, kernel: Size, *, output_padding: Size = 0, **options: Any) -> None:
        super().__init__(channels, kernel, **options)
        self.output_padding = per_axis(output_padding, self.axes)

    def weight_shape(self, inside: int) -> tuple[int, ...]:
        return (inside, self.channels // self.groups, *self.kernel)

    def apply(self, x: Array, weight: Array) -> Array:
        return TRANSPOSED[self.axes](x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation,
                                     output_padding=self.output_padding, groups=self.groups)


class ConvTranspose1d(Transposed):
    """The gradient of Conv1d towards its input, as a layer: x [B, in, L] -> [B, channels, L']. As `ConvTranspose2d`."""
    axes = 1


class ConvTranspose2d(Transposed):
    """The gradient of Conv2d towards its input, as a layer: x [B, in, H, W] -> [B, channels, (H-1)*stride - 2*padding
    + dilation*(k-1) + 1 + output_padding, …]; padding="same" gives H * stride.

    weight [in, channels / groups, kernel…], as in torch.
    """
    axes = 2


class ConvTranspose3d(Transposed):
    """The gradient of Conv3d towards its input, as a layer: x [B, in, D, H, W] -> [B, channels, D', H', W']. As
    `ConvTranspose2d`."""
    axes = 3


CONV = {1: gc.conv1d, 2: gc.conv2d, 3: gc.conv3d}
TRANSPOSED = {1: gc.conv_transpose1d, 2: gc.conv_transpose2d, 3: gc.conv_transpose3d}


def per_axis(value: Size, axes: int) -> tuple[int, ...]:
    """One value per axis."""
    return integers(value, "a size", axes, 0)


def channels_of(x: Array, axes: int, layer: str) -> int:
    """The channel count of x [B, C, …]; GraphError when the axes do not fit."""
    if len(x.shape) != axes + 2:
        names = {1: "length", 2: "height, width", 3: "depth, height, width"}
        raise GraphError(f"{layer} takes [batch, channels, {names[axes]}], got {len(x.shape)} axes: {list(x.shape)}")
    if not isinstance(x.shape[1], int):
        raise GraphError(f"{layer}: the number of channels must be an int, got the name {x.shape[1]}")
    return x.shape[1]
