"""Pooling over windows and over whole images."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import Array
from graphc.nn.conv import Size, per_axis
from graphc.nn.module import Module


class Pool(Module):
    """What the pools share: one number for each window, which lie `stride` apart (kernel unless given)."""
    axes = 2

    def __init__(self, kernel: Size, stride: Size | None = None, padding: Size = 0):
        super().__init__()
        self.kernel, self.padding = per_axis(kernel, self.axes), per_axis(padding, self.axes)
        self.stride = per_axis(kernel if stride is None else stride, self.axes)

    def windows(self) -> dict:
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding}


class MaxPool2d(Pool):
    """The largest of each window: x [B, C, H, W] -> [B, C, H', W']; padding never wins."""

    def forward(self, x: Array):
        return gc.max_pool2d(x, **self.windows())


class AvgPool2d(Pool):
    """The mean of each window: x [B, C, H, W] -> [B, C, H', W']; padding counts as zeros (torch's count_include_pad).
    """

    def forward(self, x: Array):
        return gc.avg_pool2d(x, **self.windows())


class MaxPool1d(Pool):
    """The largest of each window: x [B, C, L] -> [B, C, L']."""
    axes = 1

    def forward(self, x: Array):
        return gc.max_pool1d(x, **self.windows())


class AvgPool1d(Pool):
    """The mean of each window: x [B, C, L] -> [B, C, L']."""
    axes = 1

    def forward(self, x: Array):
        return gc.avg_pool1d(x, **self.windows())


class GlobalAvgPool2d(Module):
    """The mean over height and width: [B, C, H, W] -> [B, C]."""

    def forward(self, x: Array):
        return gc.mean(x, axis=(2, 3))
