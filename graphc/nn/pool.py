"""Pooling over windows and over whole images."""
from __future__ import annotations

from typing import Any
import graphc as gc
from graphc.dsl.adaptive_pool import OutputSize, output_sizes
from graphc.dsl.array import Array
from graphc.dsl.sliding import Padding, Size
from graphc.ir.convert import flag, is_sequence, real
from graphc.nn.conv import per_axis
from graphc.nn.module import Module


class Pool(Module):
    """What the pools share: one number for each window, which lie `stride` apart (kernel unless given). padding: an
    int, one per axis, a pair (before, after) per axis, "same" or "valid"."""
    axes = 2

    def __init__(self, kernel: Size, stride: Size | None = None, padding: Padding = 0, *, dilation: Size = 1,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel, self.dilation = per_axis(kernel, self.axes), per_axis(dilation, self.axes)
        self.stride = per_axis(kernel if stride is None else stride, self.axes)
        self.padding = padding if isinstance(padding, str) or is_sequence(padding) else per_axis(padding, self.axes)
        self.ceil_mode = flag(ceil_mode, "ceil_mode")

    def windows(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
                "ceil_mode": self.ceil_mode}


class MaxPool(Pool):
    """What the max pools share. return_indices: two results, the second for `MaxUnpool2d`."""

    def __init__(self, kernel: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1, *,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__(kernel, stride, padding, dilation=dilation, ceil_mode=ceil_mode)
        self.return_indices = flag(return_indices, "return_indices")

    def forward(self, x: Array) -> Array | tuple[Array, Array]:
        return MAX[self.axes](x, **self.windows(), return_indices=self.return_indices)


class AvgPool(Pool):
    """What the average pools share. count_include_pad: padding counts as zeros, as in torch."""

    def __init__(self, kernel: Size, stride: Size | None = None, padding: Padding = 0, *, dilation: Size = 1,
                 ceil_mode: bool = False, count_include_pad: bool = True) -> None:
        super().__init__(kernel, stride, padding, dilation=dilation, ceil_mode=ceil_mode)
        self.count_include_pad = flag(count_include_pad, "count_include_pad")

    def forward(self, x: Array) -> Array:
        return AVG[self.axes](x, **self.windows(), count_include_pad=self.count_include_pad)


class LPPool(Module):
    """What the power-average pools share: (sum of x^norm)^(1 / norm) over each window, as in torch."""
    axes = 2

    def __init__(self, norm: float, kernel: Size, stride: Size | None = None, *, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm, self.ceil_mode = real(norm, "norm"), flag(ceil_mode, "ceil_mode")
        self.kernel = per_axis(kernel, self.axes)
        self.stride = per_axis(kernel if stride is None else stride, self.axes)

    def forward(self, x: Array) -> Array:
        return LP[self.axes](x, self.norm, self.kernel, self.stride, ceil_mode=self.ceil_mode)


class AdaptiveAvgPool(Module):
    """What the adaptive average pools share: the size of the result is given (None: as it is), the windows follow."""
    axes = 2

    def __init__(self, size: OutputSize) -> None:
        super().__init__()
        self.size = output_sizes("the layer", self.axes, size)

    def forward(self, x: Array) -> Array:
        return ADAPTIVE_AVG[self.axes](x, self.size)


class AdaptiveMaxPool(Module):
    """What the adaptive max pools share: the size of the result is given (None: as it is), the windows follow."""
    axes = 2

    def __init__(self, size: OutputSize, *, return_indices: bool = False) -> None:
        super().__init__()
        self.size = output_sizes("the layer", self.axes, size)
        self.return_indices = flag(return_indices, "return_indices")

    def forward(self, x: Array) -> Array | tuple[Array, Array]:
        return ADAPTIVE_MAX[self.axes](x, self.size, return_indices=self.return_indices)


class MaxUnpool(Module):
    """What the inverses of max pools share: called with a max pool's two results."""
    axes = 2

    def __init__(self, kernel: Size, stride: Size | None = None, padding: Padding = 0) -> None:
        super().__init__()
        self.kernel, self.padding = per_axis(kernel, self.axes), padding
        self.stride = per_axis(kernel if stride is None else stride, self.axes)

    def forward(self, x: Array, indices: Array) -> Array:
        return UNPOOL[self.axes](x, indices, self.kernel, self.stride, self.padding)


class MaxPool1d(MaxPool):
    """The largest of each window: x [B, C, L] -> [B, C, L']; padding never wins."""
    axes = 1


class MaxPool2d(MaxPool):
    """The largest of each window: x [B, C, H, W] -> [B, C, H', W']; padding never wins."""
    axes = 2


class MaxPool3d(MaxPool):
    """The largest of each window: x [B, C, D, H, W] -> [B, C, D', H', W']; padding never wins."""
    axes = 3


class AvgPool1d(AvgPool):
    """The mean of each window: x [B, C, L] -> [B, C, L']; padding counts as zeros unless count_include_pad=False."""
    axes = 1


class AvgPool2d(AvgPool):
    """The mean of each window: x [B, C, H, W] -> [B, C, H', W']; padding counts as zeros unless
    count_include_pad=False."""
    axes = 2


class AvgPool3d(AvgPool):
    """The mean of each window: x [B, C, D, H, W] -> [B, C, D', H', W']; padding counts as zeros unless
    count_include_pad=False."""
    axes = 3


class LPPool1d(LPPool):
    """The norm of each window: x [B, C, L] -> [B, C, L']."""
    axes = 1


class LPPool2d(LPPool):
    """The norm of each window: x [B, C, H, W] -> [B, C, H', W']."""
    axes = 2


class LPPool3d(LPPool):
    """The norm of each window: x [B, C, D, H, W] -> [B, C, D', H', W']."""
    axes = 3


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """The mean of each window: x [B, C, L] -> [B, C, size]."""
    axes = 1


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """The mean of each window: x [B, C, H, W] -> [B, C, *size]."""
    axes = 2


class AdaptiveAvgPool3d(AdaptiveAvgPool):
    """The mean of each window: x [B, C, D, H, W] -> [B, C, *size]."""
    axes = 3


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    """The largest of each window: x [B, C, L] -> [B, C, size]."""
    axes = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    """The largest of each window: x [B, C, H, W] -> [B, C, *size]."""
    axes = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    """The largest of each window: x [B, C, D, H, W] -> [B, C, *size]."""
    axes = 3


class MaxUnpool1d(MaxUnpool):
    """Maxima back at their places, zeros elsewhere: x [B, C, L] and indices -> [B, C, L']."""
    axes = 1


class MaxUnpool2d(MaxUnpool):
    """Maxima back at their places, zeros elsewhere: x [B, C, H, W] and indices -> [B, C, H', W']."""
    axes = 2


class MaxUnpool3d(MaxUnpool):
    """Maxima back at their places, zeros elsewhere: x [B, C, D, H, W] and indices -> [B, C, D', H', W']."""
    axes = 3


class GlobalAvgPool2d(Module):
    """The mean over height and width: [B, C, H, W] -> [B, C]."""

    def forward(self, x: Array) -> Array:
        return gc.mean(x, axis=(2, 3))


MAX = {1: gc.max_pool1d, 2: gc.max_pool2d, 3: gc.max_pool3d}
AVG = {1: gc.avg_pool1d, 2: gc.avg_pool2d, 3: gc.avg_pool3d}
LP = {1: gc.lp_pool1d, 2: gc.lp_pool2d, 3: gc.lp_pool3d}
ADAPTIVE_AVG = {1: gc.adaptive_avg_pool1d, 2: gc.adaptive_avg_pool2d, 3: gc.adaptive_avg_pool3d}
ADAPTIVE_MAX = {1: gc.adaptive_max_pool1d, 2: gc.adaptive_max_pool2d, 3: gc.adaptive_max_pool3d}
UNPOOL = {1: gc.max_unpool1d, 2: gc.max_unpool2d, 3: gc.max_unpool3d}
