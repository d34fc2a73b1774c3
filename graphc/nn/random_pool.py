"""Max pooling over windows at random places."""
from __future__ import annotations

from typing import ClassVar

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.fractional_pool import Ratio
from graphc.ir.convert import flag
from graphc.nn.conv import per_axis
from graphc.nn.module import Module


class FractionalMaxPool(Module):
    """Base. `size`, or `output_ratio` of the input's."""
    axes: ClassVar[int]

    def __init__(self, kernel: int | tuple[int, ...], *, size: int | tuple[int, ...] | None = None,
                 output_ratio: Ratio | None = None, return_indices: bool = False) -> None:
        super().__init__()
        self.kernel, self.size = per_axis(kernel, self.axes), None if size is None else per_axis(size, self.axes)
        self.output_ratio, self.return_indices = output_ratio, flag(return_indices, "return_indices")

    def forward(self, x: Array) -> Array | tuple[Array, Array]:
        pool = gc.fractional_max_pool2d if self.axes == 2 else gc.fractional_max_pool3d
        return pool(x, self.kernel, self.size, output_ratio=self.output_ratio, return_indices=self.return_indices)


class FractionalMaxPool2d(FractionalMaxPool):
    """The largest of windows at random places, other ones in each call: x [B, C, H, W] -> [B, C, *size]. See
    `gc.fractional_max_pool2d`."""
    axes = 2


class FractionalMaxPool3d(FractionalMaxPool):
    """The largest of windows at random places, other ones in each call: x [B, C, D, H, W] -> [B, C, *size]. See
    `gc.fractional_max_pool2d`."""
    axes = 3
