"""Pooling over windows of one, two and three spatial axes. Arrays are [N, C, L], [N, C, H, W] and [N, C, D, H, W]."""
from __future__ import annotations

from math import prod
from typing import NamedTuple

from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.form import formed
from graphc.dsl.shape import arange, broadcast_to, full
from graphc.dsl.sliding import Padding, Size, Walk, check_image, framed, windows
from graphc.errors import GraphError
from graphc.ir.convert import flag, integers, real
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.ops.window import lowest
from graphc.ir.types import i32


class PoolWalk(NamedTuple):
    """How windows walk an image, as the user writes it; stride None: side by side."""
    stride: Size | None
    padding: Padding
    dilation: Size


@formed
def max_pool1d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1, *,
               ceil_mode: bool = False, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """The maximum of each window of x [N, C, L]. Options as in `max_pool2d`."""
    return _max_pool(1, x, kernel, PoolWalk(stride, padding, dilation), ceil_mode, return_indices)


@formed
def max_pool2d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1, *,
               ceil_mode: bool = False, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """The maximum of each window of x [N, C, H, W]; stride = kernel unless given; padding never wins.

    padding: as in `conv2d`, less than what the kernel covers. ceil_mode: as in torch, a last window may reach beyond
    the padding, if it begins in the image or in the padding before it. return_indices: also, i32, the place of each
    maximum (the first, row by row) in its channel's image, counted row by row.
    """
    return _max_pool(2, x, kernel, PoolWalk(stride, padding, dilation), ceil_mode, return_indices)


@formed
def max_pool3d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1, *,
               ceil_mode: bool = False, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """The maximum of each window of x [N, C, D, H, W]. Options as in `max_pool2d`."""
    return _max_pool(3, x, kernel, PoolWalk(stride, padding, dilation), ceil_mode, return_indices)


@formed
def avg_pool1d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *, dilation: Size = 1,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """The mean of each window of x [N, C, L]. Options as in `avg_pool2d`."""
    return _avg_pool(1, x, kernel, PoolWalk(stride, padding, dilation), ceil_mode, count_include_pad)


@formed
def avg_pool2d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *, dilation: Size = 1,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """The mean of each window of x [N, C, H, W]; stride = kernel unless given. Options as in `max_pool2d`.

    count_include_pad: zeros of the padding count, as in torch; what `ceil_mode` adds beyond it never does.
    """
    return _avg_pool(2, x, kernel, PoolWalk(stride, padding, dilation), ceil_mode, count_include_pad)


@formed
def avg_pool3d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *, dilation: Size = 1,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Array:
    """The mean of each window of x [N, C, D, H, W]. Options as in `avg_pool2d`."""
    return _avg_pool(3, x, kernel, PoolWalk(stride, padding, dilation), ceil_mode, count_include_pad)


@formed
def lp_pool1d(x: Array, norm: float, kernel: Size, stride: Size | None = None, *, ceil_mode: bool = False) -> Array:
    """The norm of each window of x [N, C, L], as `lp_pool2d`."""
    return _lp_pool(1, x, norm, kernel, stride, ceil_mode)


@formed
def lp_pool2d(x: Array, norm: float, kernel: Size, stride: Size | None = None, *, ceil_mode: bool = False) -> Array:
    """(sum of x^norm)^(1 / norm) over each window of x [N, C, H, W], as torch's: NaN where the sum is negative, and
    a window that `ceil_mode` cuts off counts as if its mean filled it. norm = 1 is the sum."""
    return _lp_pool(2, x, norm, kernel, stride, ceil_mode)


@formed
def lp_pool3d(x: Array, norm: float, kernel: Size, stride: Size | None = None, *, ceil_mode: bool = False) -> Array:
    """The norm of each window of x [N, C, D, H, W], as `lp_pool2d`."""
    return _lp_pool(3, x, norm, kernel, stride, ceil_mode)


@formed
def global_avg_pool(x: Array) -> Array:
    """[N, C, …] -> [N, C]: the mean over all other axes."""
    x = as_array(x)
    return x.mean(tuple(range(2, x.ndim)))


@formed
def global_max_pool(x: Array) -> Array:
    """[N, C, …] -> [N, C]: the maximum over all other axes."""
    x = as_array(x)
    return x.max(tuple(range(2, x.ndim)))


def _max_pool(axes: int, x: Array, kernel: Size, walk: PoolWalk, ceil: bool,
              indices: bool) -> Array | tuple[Array, Array]:
    name, x = f"max_pool{axes}d", as_array(x)
    options = _options(name, axes, x, kernel, walk, ceil)
    if not flag(indices, f"{name}: return_indices"):
        x, options = framed(x, options, lowest(x.dtype.np) if x.dtype.kind != "bool" else 0)
        return emit(name, x, **options)
    if framed(x, options)[0] is not x:
        raise GraphError(f"{name}: return_indices with a padding that depends on the size {x.shape[2:]}, which is not "
                         "known; give the padding as numbers")
    y = emit(name, x, **options)
    return y, emit(f"{name}_pick", x, broadcast_to(places(x), x.shape), **options)


def places(x: Array) -> Array:
    """The number of each element of an image in its channel, row by row: i32 [*spatial]."""
    size = x.shape[FIRST_SPATIAL_AXIS:]
    return arange(prod(size), dtype=i32).reshape(size)


def _avg_pool(axes: int, x: Array, kernel: Size, walk: PoolWalk, ceil: bool, include: bool) -> Array:
    name, x = f"avg_pool{axes}d", as_array(x)
    options = _options(name, axes, x, kernel, walk, ceil)
    inside, at_once = framed(x, options)
    if inside is x:
        return emit(name, x, **options, count_include_pad=flag(include, f"{name}: count_include_pad"))
    y = emit(name, inside, **at_once)
    if include:
        return y
    ones, _ = framed(full((1, 1, *x.shape[FIRST_SPATIAL_AXIS:]), 1.0, x.dtype), options)
    return y / emit(name, ones, **at_once)


def _lp_pool(axes: int, x: Array, norm: float, kernel: Size, stride: Size | None, ceil: bool) -> Array:
    name, x, p = f"lp_pool{axes}d", as_array(x), real(norm, f"lp_pool{axes}d: norm")
    if not 0 < p < float("inf"):
        raise GraphError(f"{name}: norm is a number above 0, got {p:g}; the largest of each window is max_pool{axes}d")
    options = _options(name, axes, x, kernel, PoolWalk(stride, 0, 1), ceil)
    total = emit(f"avg_pool{axes}d", x if p == 1 else x ** p, **options) * prod(options["kernel"])
    return total if p == 1 else total ** (1 / p)


def _options(name: str, axes: int, x: Array, kernel: Size, walk: PoolWalk, ceil: bool) -> dict:
    check_image(name, x, axes)
    sizes = integers(kernel, f"{name}: kernel", axes, 1)
    given = Walk(sizes if walk.stride is None else walk.stride, walk.padding, walk.dilation)
    return {"kernel": sizes, **windows(name, x, sizes, given),
            "ceil_mode": flag(ceil, f"{name}: ceil_mode")}
