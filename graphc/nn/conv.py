"""Convolutions: cross-correlation as in torch, channels on axis 1."""
from __future__ import annotations

from math import prod

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.convert import integer, integers, is_sequence
from graphc.nn.module import Module
from graphc.nn.parameter import fan_in_uniform

Size = int | tuple[int, ...]


class Convolution(Module):
    """What the convolutions share. weight [channels, in / groups, kernel…] and bias [channels] start as torch's.

    As in torch, Conv1d and Conv2d are cross-correlations: y[i] = sum over k of w[k] x[i + k]. With `flip` the kernel
    is turned round, which makes them convolutions in the mathematical sense: y[i] = sum over k of w[k] x[i + K - 1 -
    k].
    """
    axes = 2

    def __init__(self, channels: int, kernel: Size, *, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1,
                 groups: int = 1, bias: bool = True, flip: bool = False):
        super().__init__()
        self.channels, self.groups = integer(channels, "channels", 1), integer(groups, "groups", 1)
        self.biased, self.flip = bias, flip
        self.kernel, self.stride, self.dilation = (per_axis(v, self.axes) for v in (kernel, stride, dilation))
        self.padding = padding if isinstance(padding, str) or is_sequence(padding) else per_axis(padding, self.axes)

    def forward(self, x: Array):
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
        return (self.channels, inside // self.groups, *self.kernel)

    def apply(self, x: Array, weight: Array):
        function = gc.conv2d if self.axes == 2 else gc.conv1d
        return function(x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)


class Conv1d(Convolution):
    """x [B, in, L] -> [B, channels, L']."""
    axes = 1


class Conv2d(Convolution):
    """x [B, in, H, W] -> [B, channels, H', W']. `padding`: int, one per axis, a pair (before, after) per axis, "same"
    or "valid"."""
    axes = 2


class ConvTranspose2d(Convolution):
    """The gradient of Conv2d towards its input, as a layer: x [B, in, H, W] -> [B, channels, (H-1)*stride - 2*padding
    + dilation*(k-1) + 1, …].

    weight [in, channels / groups, kernel…], as in torch.
    """

    def weight_shape(self, inside):
        return (inside, self.channels // self.groups, *self.kernel)

    def apply(self, x: Array, weight: Array):
        return gc.conv_transpose2d(x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation,
                                   groups=self.groups)


def per_axis(value: Size, axes: int) -> tuple:
    """One value per axis."""
    return integers(value, "a size", axes, 0)


def channels_of(x: Array, axes: int, layer: str) -> int:
    """The channel count of x [B, C, …]; GraphError when the axes do not fit."""
    if len(x.shape) != axes + 2:
        wanted = "[batch, channels, length]" if axes == 1 else "[batch, channels, height, width]"
        raise GraphError(f"{layer} takes {wanted}, got {len(x.shape)} axes: {list(x.shape)}")
    if not isinstance(x.shape[1], int):
        raise GraphError(f"{layer}: the number of channels must be an int, got the name {x.shape[1]}")
    return x.shape[1]
