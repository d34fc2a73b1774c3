"""Pooling over windows at random places: of each axis as many as the result has elements, about equally far apart."""
from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphc.dsl.array import Array, as_array
from graphc.dsl.elementwise import floor, where
from graphc.dsl.form import formed
from graphc.dsl.index import take_along_axis
from graphc.dsl.random import uniform
from graphc.dsl.shape import broadcast_to, iota
from graphc.dsl.sliding import check_image
from graphc.errors import GraphError
from graphc.ir.convert import flag, integers, is_sequence, items, real, shown
from graphc.ir.types import f32, f64, i64

Ratio = float | Sequence[float]


@formed
def fractional_max_pool2d(x: Array, kernel: int | tuple[int, ...], size: int | tuple[int, ...] | None = None, *,
                          output_ratio: Ratio | None = None, return_indices: bool = False,
                          random_samples: Array | None = None) -> Array | tuple[Array, Array]:
    """x [N, C, H, W] -> [N, C, *size]: the maxima of windows of `kernel` elements, whose places are drawn anew for each
    example and channel, in inference too (Graham 2014, arXiv:1412.6071). size: an int or one per axis, or
    `output_ratio` of the input's, between 0 and 1.

    Window i of n begins at floor((i + s) a) - floor(s a) for a = (H - kernel) / (n - 1) and the axis' number s in
    [0, 1) of `random_samples` [N, C, 2], the last one at H - kernel; the first of them is that of the last axis, as in
    torch. None: they are drawn. return_indices: with the i64 places in H W of the first maxima. The gradient goes to
    these. H and W are known numbers.
    """
    return _pooled(2, x, kernel, _wanted(2, x, size, output_ratio), return_indices, random_samples)


@formed
def fractional_max_pool3d(x: Array, kernel: int | tuple[int, ...], size: int | tuple[int, ...] | None = None, *,
                          output_ratio: Ratio | None = None, return_indices: bool = False,
                          random_samples: Array | None = None) -> Array | tuple[Array, Array]:
    """x [N, C, D, H, W] -> [N, C, *size]. As `fractional_max_pool2d`; `random_samples` [N, C, 3] are those of D, H and
    W in this order, as in torch."""
    return _pooled(3, x, kernel, _wanted(3, x, size, output_ratio), return_indices, random_samples)


def _wanted(axes: int, x: Array, size: int | tuple[int, ...] | None, ratio: Ratio | None) -> tuple[int, ...]:
    """The sizes of the result."""
    name = f"fractional_max_pool{axes}d"
    x = as_array(x)
    check_image(name, x, axes)
    old = x.shape[2:]
    if not all(isinstance(n, int) for n in old):
        raise GraphError(f"{name} needs the sizes of x as ints, got {x.type}; bind them first")
    if (size is None) == (ratio is None):
        raise GraphError(f"{name} takes size= or output_ratio=, one of the two")
    if size is not None:
        return integers(size, f"{name}: size", axes, 1)
    shares = [real(r, f"{name}: output_ratio") for r in (
        items(ratio, f"{name}: output_ratio") if is_sequence(ratio) else [ratio] * axes)]
    if len(shares) != axes or not all(0 < r < 1 for r in shares):
        raise GraphError(f"{name}: output_ratio is a number between 0 and 1, or {axes} of them, got {shown(ratio)}")
    return tuple(int(n * r) for n, r in zip(old, shares) if isinstance(n, int))


def _pooled(axes: int, x: Array, kernel: int | tuple[int, ...], sizes: tuple[int, ...], return_indices: bool,
            samples: Array | None) -> Array | tuple[Array, Array]:
    name, x = f"fractional_max_pool{axes}d", as_array(x)
    window = integers(kernel, f"{name}: kernel", axes, 1)
    n, c, *old = x.shape
    for width, count, whole in zip(window, sizes, old):
        if not isinstance(whole, int) or count < 1 or width + count - 1 > whole:
            raise GraphError(f"{name}: {count} windows of {width} elements do not fit into {whole} of {x.type}")
    if samples is None:
        drawn = uniform((n, c, axes))
    else:
        drawn = as_array(samples, f32)
        if drawn.shape != (n, c, axes):
            raise GraphError(f"{name}: random_samples are {f32[n, c, axes]}, got {drawn.type}")
    # torch takes the numbers of two axes in the other order
    order = range(axes) if axes > 2 else reversed(range(axes))
    dtype = f64 if x.dtype == f64 else f32
    found, place = x, broadcast_to(as_array(0, i64), (n, c, *old))
    for axis, at in enumerate(order):
        begin = _starts(drawn[:, :, at].astype(dtype), int(old[axis]), window[axis], sizes[axis])
        rows = (begin.reshape((n, c, sizes[axis], 1)) + iota(window[axis])).reshape(
            (n, c, *(sizes[axis] * window[axis] if i == axis else 1 for i in range(axes))))
        rows = broadcast_to(rows, (n, c, *(sizes[axis] * window[axis] if i == axis else found.shape[2 + i]
                                           for i in range(axes))))
        found, place = take_along_axis(found, rows, 2 + axis), take_along_axis(place, rows, 2 + axis)
        place = place * old[axis] + rows
    return _largest(found, place, window, sizes, flag(return_indices, f"{name}: return_indices"))


def _starts(sample: Array, size: int, width: int, count: int) -> Array:
    """[N, C, count], i64: where the windows of an axis begin."""
    last = as_array(size - width, i64)
    if count == 1:
        return broadcast_to(last, (*sample.shape, 1))
    number = iota(count)
    apart = (size - width) / (count - 1)
    s = sample.reshape((*sample.shape, 1))
    places = floor((number.astype(s.dtype) + s) * apart).astype(i64) - floor(s * apart).astype(i64)
    return where(number == count - 1, last, places)


def _largest(found: Array, place: Array, window: Sequence[int], sizes: Sequence[int],
             indices: bool) -> Array | tuple[Array, Array]:
    """Of each window, whose elements lie side by side, the first maximum, and where it was."""
    n, c = found.shape[:2]
    axes = len(sizes)
    apart = [n, c, *(d for pair in zip(sizes, window) for d in pair)]
    order = [0, 1, *(2 + 2 * i for i in range(axes)), *(3 + 2 * i for i in range(axes))]
    rows, places = (v.reshape(apart).transpose(order).reshape((n, c, *sizes, prod(window))) for v in (found, place))
    first = rows.argmax(-1, keepdims=True)
    y, where_ = (take_along_axis(v, first, -1).reshape((n, c, *sizes)) for v in (rows, places))
    return (y, where_) if indices else y
