"""Layers without parameters that move elements. Names, options and order of elements as in torch.nn."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, integers, is_sequence, items, real, shown
from graphc.ir.dims import Dims
from graphc.nn.module import Module


Size = int | tuple[int, ...]
Scale = float | tuple[float, ...]


class Identity(Module):
    """x itself."""

    def forward(self, x: Array) -> Array:
        return x


class Unflatten(Module):
    """Axis `axis` cut into axes of these sizes, one of which may be -1: [B, 12] -> [B, 3, 4]. (torch: dim,
    unflattened_size.)"""

    def __init__(self, axis: int, sizes: Sequence[int]) -> None:
        super().__init__()
        given = items(sizes, "Unflatten: sizes")
        self.axis, self.sizes = axis, tuple(integer(n, "Unflatten: a size", -1) for n in given)

    def forward(self, x: Array) -> Array:
        if not -x.ndim <= self.axis < x.ndim:
            raise GraphError(f"Unflatten({self.axis}, …) of an array with {x.ndim} axes")
        axis, sizes = self.axis % x.ndim, cast(Dims, self.sizes)
        size = x.shape[axis]
        if sizes.count(-1) == 1:
            known = prod(n for n in sizes if n != -1)
            sizes = tuple(size // known if n == -1 and known else n for n in sizes)
        if isinstance(size, int) and prod(sizes) != size or -1 in sizes:
            raise GraphError(f"Unflatten: axis {axis} of size {size} does not divide into {list(self.sizes)}")
        return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1:])


class PixelShuffle(Module):
    """[…, C r², H, W] -> […, C, H r, W r]: channels become pixels (Shi et al. 2016)."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = integer(upscale_factor, "PixelShuffle: upscale_factor", 1)

    def forward(self, x: Array) -> Array:
        return gc.pixel_shuffle(x, self.upscale_factor)


class PixelUnshuffle(Module):
    """The inverse of `PixelShuffle`: […, C, H r, W r] -> […, C r², H, W]."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = integer(downscale_factor, "PixelUnshuffle: downscale_factor", 1)

    def forward(self, x: Array) -> Array:
        return gc.pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(Module):
    """[B, C, …] with channel i of group j at place i groups + j (Zhang et al. 2018)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = integer(groups, "ChannelShuffle: groups", 1)

    def forward(self, x: Array) -> Array:
        return gc.channel_shuffle(x, self.groups)


class Unfold(Module):
    """The windows of images as columns: x [B, C, H, W] -> [B, C KH KW, windows]."""

    def __init__(self, kernel: Size, *, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None:
        super().__init__()
        self.options = _windows("Unfold", kernel, dilation, padding, stride)

    def forward(self, x: Array) -> Array:
        return gc.unfold(x, **self.options)


class Fold(Module):
    """The transpose of `Unfold`: columns [B, C KH KW, windows] are added up where their windows were, [B, C, *size]."""

    def __init__(self, size: Size, kernel: Size, *, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None:
        super().__init__()
        self.size = integers(size, "Fold: size", 2, 1)
        self.options = _windows("Fold", kernel, dilation, padding, stride)

    def forward(self, x: Array) -> Array:
        return gc.fold(x, self.size, **self.options)


class Upsample(Module):
    """x [B, C, …] at another size, or at scale_factor times its size: see `gc.interpolate`."""

    def __init__(self, size: Size | None = None, scale_factor: Scale | None = None,
                 mode: str = "nearest", align_corners: bool = False) -> None:
        super().__init__()
        self.size = _each(size, lambda n: integer(n, "size", 1))
        self.scale_factor = _each(scale_factor, lambda n: real(n, "scale_factor"))
        self.mode, self.align_corners = mode, flag(align_corners, "align_corners")

    def forward(self, x: Array) -> Array:
        return gc.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)


class UpsamplingNearest2d(Upsample):
    """`Upsample` of images, each pixel again and again."""

    def __init__(self, size: Size | None = None, scale_factor: Scale | None = None) -> None:
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of images, linear between pixels, with the corners in their places (torch: align_corners=True)."""

    def __init__(self, size: Size | None = None, scale_factor: Scale | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)


class Pad(Module):
    """What the padding layers share: elements around the last axes of x [B, C, …]. `padding`: as many on all sides, or
    (left, right, top, bottom, front, back), the last axis first, as in torch; below 0 elements go."""
    axes = 1
    mode = "constant"

    def __init__(self, padding: int | tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        given = items(padding, "padding") if is_sequence(padding) else (padding,) * (2 * self.axes)
        if len(given) != 2 * self.axes:
            raise GraphError(f"{type(self).__name__} takes one number, or {2 * self.axes}: before and behind the last "
                             f"axis, then of the axis before, got {shown(padding)}")
        self.padding = tuple(integer(n, "padding") for n in given)
        self.value = value

    def forward(self, x: Array) -> Array:
        if x.ndim not in (self.axes + 1, self.axes + 2):
            raise GraphError(f"{type(self).__name__} takes [batch, channels] and {self.axes} axes more, got "
                             f"{list(x.shape)}")
        pairs = list(zip(self.padding[::2], self.padding[1::2]))[::-1]
        lead = (slice(None),) * (x.ndim - self.axes)
        cut = tuple(slice(max(-a, 0), x.shape[x.ndim - self.axes + i] - max(-b, 0)) for i, (a, b) in enumerate(pairs))
        x = x[(*lead, *cut)] if any(n < 0 for n in self.padding) else x
        widths = [(0, 0)] * len(lead) + [(max(a, 0), max(b, 0)) for a, b in pairs]
        return gc.pad(x, widths, self.value, mode=self.mode)


def _each(value: Any, number: Callable[[Any], Any]) -> Any:
    """None, a number or a tuple of numbers."""
    if value is None or not is_sequence(value):
        return None if value is None else number(value)
    return tuple(number(n) for n in value)


def _windows(layer: str, kernel: Size, dilation: Size, padding: Size, stride: Size) -> dict[str, Any]:
    sizes = {"kernel": (kernel, 1), "dilation": (dilation, 1), "padding": (padding, 0), "stride": (stride, 1)}
    return {name: integers(size, f"{layer}: {name}", 2, least) for name, (size, least) in sizes.items()}
