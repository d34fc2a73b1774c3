"""Pooling to a size of the result, and back to the places of maxima. Arrays are [N, C, L], [N, C, H, W] and [N, C, D,
H, W]."""
from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.elementwise import where
from graphc.dsl.form import formed
from graphc.dsl.index import scatter_add_along_axis, take
from graphc.dsl.pool import places
from graphc.dsl.shape import broadcast_to, zeros
from graphc.dsl.sliding import Padding, Size, check_image, explicit_pairs
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, integers, is_sequence, shown
from graphc.ir.dims import Dim
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.room import check_room
from graphc.ir.types import TensorType

LISTED = 1 << 24                    # windows whose places the program holds, at most
OutputSize = int | None | tuple[int | None, ...]


@formed
def adaptive_avg_pool1d(x: Array, size: OutputSize) -> Array:
    """x [N, C, L] -> [N, C, size]. As `adaptive_avg_pool2d`."""
    return _adaptive_avg(1, x, size)


@formed
def adaptive_avg_pool2d(x: Array, size: OutputSize) -> Array:
    """x [N, C, H, W] -> [N, C, *size]: window i of n is the mean of the elements from floor(i H / n) to ceil((i + 1) H
    / n), as torch's. size: an int, or one per axis; None leaves an axis as it is."""
    return _adaptive_avg(2, x, size)


@formed
def adaptive_avg_pool3d(x: Array, size: OutputSize) -> Array:
    """x [N, C, D, H, W] -> [N, C, *size]. As `adaptive_avg_pool2d`."""
    return _adaptive_avg(3, x, size)


@formed
def adaptive_max_pool1d(x: Array, size: OutputSize, *, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """x [N, C, L] -> [N, C, size]. As `adaptive_max_pool2d`."""
    return _adaptive_max(1, x, size, return_indices)


@formed
def adaptive_max_pool2d(x: Array, size: OutputSize, *, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """x [N, C, H, W] -> [N, C, *size]: the maximum of each window of `adaptive_avg_pool2d`. return_indices: as in
    `max_pool2d`."""
    return _adaptive_max(2, x, size, return_indices)


@formed
def adaptive_max_pool3d(x: Array, size: OutputSize, *, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """x [N, C, D, H, W] -> [N, C, *size]. As `adaptive_max_pool2d`."""
    return _adaptive_max(3, x, size, return_indices)


@formed
def max_unpool1d(x: Array, indices: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *,
                 output_size: Sequence[int] | None = None) -> Array:
    """Maxima [N, C, L] back at their places. As `max_unpool2d`."""
    return _max_unpool(1, x, indices, kernel, stride, padding, output_size)


@formed
def max_unpool2d(x: Array, indices: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *,
                 output_size: Sequence[int] | None = None) -> Array:
    """x [N, C, H, W] at the places that `max_pool2d` gives with return_indices, zeros elsewhere: [N, C, *output_size],
    by default (H - 1) stride - padding before and after + kernel. What meets at one place is added (torch keeps one of
    them); a place outside of the result is an error of the call."""
    return _max_unpool(2, x, indices, kernel, stride, padding, output_size)


@formed
def max_unpool3d(x: Array, indices: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *,
                 output_size: Sequence[int] | None = None) -> Array:
    """Maxima [N, C, D, H, W] back at their places. As `max_unpool2d`."""
    return _max_unpool(3, x, indices, kernel, stride, padding, output_size)


class _Windows:
    """The windows of one axis. `table`: the positions of each, those that are short repeat their last; None where the
    windows lie side by side as they are. `counts`: how many positions each window has."""

    def __init__(self, size: int, count: int):
        self.kernel, self.table, self.counts = size // count, None, np.full(count, size // count)
        if size % count == 0:
            return
        first = np.arange(count) * size // count
        self.counts = -(-(np.arange(count) + 1) * size // count) - first
        self.kernel = int(self.counts.max())
        steps = np.minimum(np.arange(self.kernel), self.counts[:, None] - 1)
        self.table = (first[:, None] + steps).reshape(-1)


def output_sizes(name: str, axes: int, size: OutputSize) -> tuple[int | None, ...]:
    """The size of the result along each axis; None: as it is."""
    wanted = list(size) if is_sequence(size) else [size] * axes
    if len(wanted) != axes:
        raise GraphError(f"{name}: the size of the result is an int, None or {axes} of them, got {shown(size)}")
    return tuple([None if n is None else integer(n, f"{name}: the size of the result", 1) for n in wanted])


def _sizes(name: str, axes: int, x: Array, size: OutputSize) -> list[Dim]:
    """How many windows there are along each axis."""
    check_image(name, x, axes)
    wanted = output_sizes(name, axes, size)
    if 0 in x.shape[FIRST_SPATIAL_AXIS:]:
        raise GraphError(f"{name}: there is nothing to pool in {x.type}")
    sizes = [old if new is None else new for old, new in zip(x.shape[FIRST_SPATIAL_AXIS:], wanted)]
    check_room(name, TensorType(x.dtype, (*x.shape[:FIRST_SPATIAL_AXIS], *sizes)))
    return sizes


def _windows(name: str, x: Array, counts: list[Dim]) -> list[_Windows]:
    found = []
    for size, count in zip(x.shape[FIRST_SPATIAL_AXIS:], counts):
        if size == count:
            size = count = 1            # windows of one element, whatever their number
        if isinstance(count, int) and count > LISTED and size % count:
            raise GraphError(f"{name}: the size of the result is at most {LISTED} where it does not divide {size}, got "
                             f"{count}")
        if not isinstance(size, int) or not isinstance(count, int):
            raise GraphError(f"{name}: which elements of {size} make {count} depends on the size, which is not known; "
                             "give it as a number")
        found.append(_Windows(size, count))
    return found


def _whole(x: Array, counts: list[Dim], named: bool) -> tuple[int, ...]:
    """The axes that are one window; `named`: of sizes that are not known."""
    axes = range(FIRST_SPATIAL_AXIS, x.ndim)
    return tuple([axis for axis, count in zip(axes, counts)
                  if count == 1 != x.shape[axis] and not (named and isinstance(x.shape[axis], int))])


def _apart(x: Array, windows: list[_Windows]) -> Array:
    """The elements of overlapping windows side by side."""
    for axis, w in enumerate(windows, FIRST_SPATIAL_AXIS):
        x = x if w.table is None else take(x, w.table, axis)
    return x


def _adaptive_avg(axes: int, x: Array, size: OutputSize) -> Array:
    name, x = f"adaptive_avg_pool{axes}d", as_array(x)
    counts = _sizes(name, axes, x, size)
    whole = _whole(x, counts, named=False)
    x = x.mean(whole, keepdims=True) if whole else x
    windows = _windows(name, x, counts)
    kernel = tuple([w.kernel for w in windows])
    apart = _apart(x, windows)
    if prod(kernel) == 1:
        return apart
    uneven = [(axis, w) for axis, w in enumerate(windows) if (w.counts < w.kernel).any()]
    scale = np.ones((1,) * axes)
    for axis, w in uneven:
        behind = (1,) * (axes - 1 - axis)
        real = np.arange(w.kernel) < w.counts[:, None]
        apart = where(as_array(real.reshape(-1, *behind)), apart, 0)
        scale = scale * (w.kernel / w.counts).reshape(-1, *behind)
    mean = emit(f"avg_pool{axes}d", apart, kernel=kernel, stride=kernel)
    return mean * scale.astype(x.dtype.np) if uneven else mean


def _adaptive_max(axes: int, x: Array, size: OutputSize, indices: bool) -> Array | tuple[Array, Array]:
    name, x = f"adaptive_max_pool{axes}d", as_array(x)
    counts, numbered = _sizes(name, axes, x, size), flag(indices, f"{name}: return_indices")
    whole = () if numbered else _whole(x, counts, named=True)
    x = x.max(whole, keepdims=True) if whole else x
    windows = _windows(name, x, counts)
    apart, kernel = _apart(x, windows), tuple([w.kernel for w in windows])
    y = emit(f"max_pool{axes}d", apart, kernel=kernel, stride=kernel)
    if not numbered:
        return y
    at = _apart(broadcast_to(places(x), (1, 1, *x.shape[FIRST_SPATIAL_AXIS:])), windows)
    return y, emit(f"max_pool{axes}d_pick", apart, broadcast_to(at, apart.shape), kernel=kernel, stride=kernel)


def _max_unpool(axes: int, x: Array, indices: Array, kernel: Size, stride: Size | None, padding: Padding,
                output_size: Sequence[int] | None) -> Array:
    name, x, at = f"max_unpool{axes}d", as_array(x), as_array(indices)
    check_image(name, x, axes)
    if at.shape != x.shape or not at.dtype.is_int:
        raise GraphError(f"{name}: indices are those that max_pool{axes}d gives with return_indices=True, integers "
                         f"shaped as x, {list(x.shape)}, got {at.type}")
    sizes = integers(kernel, f"{name}: kernel", axes, 1)
    steps = sizes if stride is None else integers(stride, f"{name}: stride", axes, 1)
    pads = explicit_pairs(name, padding, axes)
    if output_size is None:
        out = tuple([(n - 1) * step - sum(pad) + k
                     for n, step, pad, k in zip(x.shape[FIRST_SPATIAL_AXIS:], steps, pads, sizes)])
    else:
        out = integers(output_size, f"{name}: output_size", axes, 1)
    count, lead = prod(out), x.shape[:FIRST_SPATIAL_AXIS]
    at, x = (a.reshape((*lead, prod(a.shape[FIRST_SPATIAL_AXIS:]))) for a in (at, x))
    flat = scatter_add_along_axis(zeros((*lead, count), x.dtype), at, x, -1)
    return flat.reshape((*lead, *out))
