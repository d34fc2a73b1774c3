"""Dropout of whole channels, and dropout that keeps mean and variance. Nothing in inference."""
from __future__ import annotations

from math import sqrt

import graphc as gc
from graphc.dsl.activation import SELU_ALPHA, SELU_SCALE
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.dims import Dims
from graphc.nn.module import Module
from graphc.nn.norm import Dropout


class Dropout1d(Dropout):
    """In training, zeroes whole channels of x [B, C, L] with probability `rate` and scales the rest by 1 / (1 - rate)
    (Tompson et al. 2015)."""
    axes: int | None = 1

    def forward(self, x: Array) -> Array:
        if not self.training or not self.rate:
            return x
        return x * gc.dropout(gc.ones(_of_channels(self, x), x.dtype), self.rate)


class Dropout2d(Dropout1d):
    """`Dropout1d` of x [B, C, H, W]."""
    axes = 2


class Dropout3d(Dropout1d):
    """`Dropout1d` of x [B, C, D, H, W]."""
    axes = 3


class AlphaDropout(Dropout):
    """In training, replaces elements by SELU's value at minus infinity with probability `rate`, and scales and shifts
    all so that mean 0 and variance 1 stay (Klambauer et al. 2017)."""

    def forward(self, x: Array) -> Array:
        if not self.training or not self.rate:
            return x
        kept, low = 1 - self.rate, -SELU_ALPHA * SELU_SCALE
        scale = 1 / sqrt(kept * (1 + self.rate * low ** 2))
        return gc.where(gc.bernoulli(kept, self._drawn(x)), x, low) * scale - scale * self.rate * low

    def _drawn(self, x: Array) -> Dims:
        return x.shape


class FeatureAlphaDropout(AlphaDropout):
    """`AlphaDropout` of whole channels: x [B, C, …]."""
    axes: int | None = None

    def _drawn(self, x: Array) -> Dims:
        return _of_channels(self, x)


class RReLU(Module):
    """x where x > 0, else x times a slope: in training drawn for each element from [lower, upper], in inference their
    middle (Xu et al. 2015)."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        super().__init__()
        if not lower <= upper:
            raise GraphError(f"RReLU: lower is at most upper, got {lower} and {upper}")
        self.lower, self.upper = lower, upper

    def forward(self, x: Array) -> Array:
        if not self.training:
            return gc.leaky_relu(x, (self.lower + self.upper) / 2)
        return gc.where(x > 0, x, x * gc.uniform(x.shape, self.lower, self.upper, x.dtype))


def _of_channels(layer: Dropout1d | FeatureAlphaDropout, x: Array) -> Dims:
    """One number for each channel of each example, as an array that broadcasts to x."""
    if x.ndim < 2 or layer.axes is not None and x.ndim not in (layer.axes + 1, layer.axes + 2):
        raise GraphError(f"{type(layer).__name__} takes [batch, channels] and {layer.axes or 'any'} axes more, got "
                         f"{list(x.shape)}")
    behind = x.ndim - 2 if layer.axes is None else layer.axes
    return (*x.shape[:x.ndim - behind], *(1,) * behind)
