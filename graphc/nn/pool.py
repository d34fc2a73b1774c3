"""Pooling over windows and over whole images."""
from __future__ import annotations

import graphc as gc
from graphc.nn.conv import Size, per_axis
from graphc.nn.module import Module


class MaxPool2d(Module):
    """The largest of each window: x [B, C, H, W]; stride = kernel unless given."""

    def __init__(self, kernel: Size, stride: Size | None = None, padding: Size = 0):
        super().__init__()
        self.kernel, self.padding = per_axis(kernel, 2), per_axis(padding, 2)
        self.stride = per_axis(kernel if stride is None else stride, 2)

    def forward(self, x):
        return gc.max_pool2d(x, self.kernel, stride=self.stride, padding=self.padding)


class AvgPool2d(MaxPool2d):
    """The mean of each window; padding counts as zeros (torch's count_include_pad)."""

    def forward(self, x):
        return gc.avg_pool2d(x, self.kernel, stride=self.stride, padding=self.padding)


class GlobalAvgPool2d(Module):
    """The mean over height and width: [B, C, H, W] -> [B, C]."""

    def forward(self, x):
        return gc.mean(x, axis=(2, 3))
