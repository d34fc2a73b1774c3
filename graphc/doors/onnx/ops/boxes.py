"""What lies in boxes of images: cut into cells, of each of which one number is made."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import graphc as gc
from graphc.doors.onnx.known import count_of
from graphc.doors.onnx.ops.product import MAX
from graphc.doors.onnx.rule import Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.convert import choice
from graphc.ir.dims import Dim

SHIFTS = {"half_pixel": 0.5, "output_half_pixel": 0.0}


def roi_align(x: Array, rois: Array, batch_indices: Array, *, coordinate_transformation_mode: str = "half_pixel",
              mode: str = "avg", output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0,
              spatial_scale: float = 1.0) -> Array:
    """Each box cut into cells, in each of which `sampling_ratio`² points are read between elements."""
    if sampling_ratio <= 0:
        raise Unsupported("a number of points that depends on the boxes")
    choice(mode, "mode", ("avg", "max"))
    shift = SHIFTS[choice(coordinate_transformation_mode, "coordinate_transformation_mode", tuple(SHIFTS))]
    corners = rois * spatial_scale - shift
    height, width = (count_of(size, x.dtype) for size in x.shape[2:])
    places = []
    for low, high, cells in ((1, 3, output_height), (0, 2, output_width)):
        length = corners[:, high] - corners[:, low]
        length = length if shift else gc.maximum(length, 1.0)
        steps = (gc.arange(cells * sampling_ratio).astype(x.dtype) + 0.5) / (cells * sampling_ratio)
        places.append(gc.expand_dims(corners[:, low], 1) + gc.expand_dims(length, 1) * steps)
    y, x_at = places
    shape = (y.shape[0], y.shape[1], x_at.shape[1])
    y, x_at = gc.broadcast_to(gc.expand_dims(y, 2), shape), gc.broadcast_to(gc.expand_dims(x_at, 1), shape)
    seen = gc.expand_dims((y >= -1.0) & (y <= height) & (x_at >= -1.0) & (x_at <= width), 1)
    images = gc.take(x, batch_indices, 0)
    if mode == "max":
        return MAX[2](gc.where(seen, _largest_corner(images, y, x_at), 0.0), sampling_ratio)
    grid = gc.stack([at * 2.0 / gc.maximum(size - 1.0, 1.0) - 1.0 for at, size in ((x_at, width), (y, height))], 3)
    read = gc.grid_sample(images, grid, "bilinear", "border", True)
    return gc.avg_pool2d(gc.where(seen, read, 0.0), sampling_ratio)


def _largest_corner(images: Array, y: Array, x: Array) -> Array:
    """The largest of the four elements around each point, each times its weight in the number between them: what ONNX
    calls the maximum. Points outside are read at the border."""
    height, width = images.shape[2:]
    flat = images.reshape((*images.shape[:2], height * width))
    sides = [_neighbours(y, height), _neighbours(x, width)]
    corners = []
    for row, row_weight in sides[0]:
        for column, column_weight in sides[1]:
            at = (row * count_of(width) + column).reshape((y.shape[0], 1, -1))
            at = gc.broadcast_to(at, (y.shape[0], images.shape[1], at.shape[2]))
            read = gc.take_along_axis(flat, at, 2).reshape((*images.shape[:2], *y.shape[1:]))
            corners.append(read * gc.expand_dims(row_weight * column_weight, 1))
    return gc.maximum(gc.maximum(corners[0], corners[1]), gc.maximum(corners[2], corners[3]))


def _neighbours(at: Array, size: Dim) -> Sequence[tuple[Array, Array]]:
    """The elements below and above places on an axis, and their weights."""
    last = count_of(size, at.dtype) - 1.0
    inside = gc.clip(at, 0.0, last)
    below = gc.floor(inside)
    above = gc.minimum(below + 1.0, last)
    return (below.astype(gc.i64), 1.0 - (inside - below)), (above.astype(gc.i64), inside - below)


def max_roi_pool(x: Array, rois: Array, *, pooled_shape: tuple[int, ...], spatial_scale: float = 1.0) -> Array:
    """The largest number in each cell of each box (image, left, top, right, bottom: whole elements, the last ones too);
    0 in cells without elements. A maximum along rows and then along columns."""
    if len(pooled_shape) != 2 or x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 5:
        raise GraphError(f"boxes {rois.type} of images {x.type}, pooled to {list(pooled_shape)}")
    scaled = rois[:, 1:] * spatial_scale
    corners = gc.where(scaled < 0, gc.ceil(scaled - 0.5), gc.floor(scaled + 0.5))           # halves away from 0
    inside = [_in_cells(corners[:, low], corners[:, high], cells, size, x) for low, high, cells, size in (
        (1, 3, pooled_shape[0], x.shape[2]), (0, 2, pooled_shape[1], x.shape[3]))]
    images = gc.take(x, rois[:, 0].astype(gc.i64), 0)
    across = gc.where(inside[1][:, None, None], images[:, :, :, None], -inf)                 # [n, c, h, cells, w]
    across = gc.swapaxes(gc.max(across, -1), 2, 3)
    y = gc.max(gc.where(inside[0][:, None, :, None], across[:, :, None], -inf), -1)
    return gc.where(y == -inf, 0.0, y)


def _in_cells(low: Array, high: Array, cells: int, size: Dim, x: Array) -> Array:
    """[boxes, cells, size]: which elements of an axis lie in which cell."""
    length = gc.maximum(high - low + 1.0, 1.0) / float(cells)
    number = gc.arange(cells).astype(x.dtype)
    starts = gc.floor(number * length[:, None]) + low[:, None]
    ends = gc.ceil((number + 1.0) * length[:, None]) + low[:, None]
    at = gc.arange(size).astype(x.dtype)
    return (at >= starts[:, :, None]) & (at < ends[:, :, None])


RULES: Mapping[str, Callable[..., Any]] = {"RoiAlign": roi_align, "MaxRoiPool": max_roi_pool}
