"""Images of other sizes, images read at computed places, boxes."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.ops.open_resize import OpenAxis, along
from graphc.doors.onnx.ops.product import check_kernel
from graphc.doors.onnx.rule import Int, Ints, Known, Numbers, Unsupported
from graphc.dsl.array import Array, as_array
from graphc.errors import GraphError
from graphc.ir.convert import choice
from graphc.ir.dims import Dim, product_of
from graphc.ir.types import normalize_axis

MOST_PARTS_OF_ONE = 1 << 10         # a scale is a number of such parts, where it is of a named size
WHOLE = (0.0, 1.0)                  # start and end of an axis of which all is shown
GRID_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def resize(x: Array, roi: Numbers | None = None, scales: Numbers | None = None, sizes: Ints | None = None, *,
           antialias: int = 0, axes: Sequence[int] | None = None,
           coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75, exclude_outside: int = 0,
           extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
           nearest_mode: str = "round_prefer_floor") -> Array:
    chosen = list(range(x.ndim)) if axes is None else [normalize_axis(a, x.ndim) for a in axes]
    wanted, factors = _wanted(x, chosen, scales, sizes, keep_aspect_ratio_policy)
    moved = [a for a in range(x.ndim) if wanted[a] != x.shape[a] or factors[a] != 1]
    crop = coordinate_transformation_mode == "tf_crop_and_resize"
    cropped = _cropped(roi, chosen) if crop else {}
    if not moved and not cropped:
        return x
    if repeats := _whole_repeats(factors, moved, mode, coordinate_transformation_mode, nearest_mode):
        for axis, times in repeats.items():
            x = gc.repeat(x, times, axis)
        return x
    spatial = sorted({*moved, *cropped})
    if any(not isinstance(size, int) for a in moved for size in (x.shape[a], wanted[a])):
        if crop or antialias:
            raise Unsupported("antialias or tf_crop_and_resize of a named size")
        for a in moved:
            x = along(x, a, wanted[a], OpenAxis(coordinate_transformation_mode, factors[a], mode, nearest_mode,
                                                cubic_coeff_a, bool(exclude_outside)))
        return x
    ends = [cropped.get(a, WHOLE)[i] for i in (0, 1) for a in spatial] if crop else None
    return _resized(x, spatial, wanted, mode=mode, coordinates=coordinate_transformation_mode, rounding=nearest_mode,
                    antialias=bool(antialias), exclude_outside=bool(exclude_outside), cubic=cubic_coeff_a, crop=ends,
                    fill=extrapolation_value, scales=None if crop else [factors[a] for a in spatial])


def _wanted(x: Array, axes: Sequence[int], scales: Numbers | None, sizes: Ints | None,
            policy: str) -> tuple[list[Dim], list[float | None]]:
    """The size of each axis of the result, and new / old, or what the file says instead; None where that is known when
    it runs."""
    choice(policy, "keep_aspect_ratio_policy", ("stretch", "not_larger", "not_smaller"))
    wanted: list[Dim] = list(x.shape)
    factors: list[float | None] = [1.0] * x.ndim
    if sizes is not None and len(sizes):
        own: list[Any] = [x.shape[a] for a in axes]
        ratio = 0.0
        if policy != "stretch":
            if not all(isinstance(size, int) for size in (*sizes, *own)):
                raise Unsupported(f"keep_aspect_ratio_policy {policy} of a named size")
            ratios = [new / old for new, old in zip(sizes, own)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            sizes = tuple(floor(ratio * old + 0.5) for old in own)
        for axis, new, old in zip(axes, sizes, own):
            if not isinstance(new, int) or not isinstance(old, int):
                factors[axis] = _named_ratio(new, old)
            else:
                factors[axis] = ratio if policy != "stretch" else new / old if old else 1.0
            wanted[axis] = new
    elif scales is not None and scales.size:
        if len(scales.reshape(-1)) != len(axes):
            raise GraphError(f"{scales.size} scales for {len(axes)} axes")
        for axis, scale in zip(axes, scales.reshape(-1).tolist()):
            size = x.shape[axis]
            factors[axis] = float(scale)
            wanted[axis] = floor(size * scale) if isinstance(size, int) else _share(size, float(scale))
    else:
        raise GraphError("neither scales nor sizes")
    return wanted, factors


def _named_ratio(new: Dim, old: Dim) -> float | None:
    """Of sizes of which one has a name, where it is a whole number whatever they are."""
    try:
        ratio = new // old if new != old else 1
    except GraphError:
        return None
    return float(ratio) if isinstance(ratio, int) and old * ratio == new else None


def _share(size: Dim, scale: float) -> Dim:
    """floor(size * scale)."""
    exact = Fraction(scale)
    if exact.denominator > MOST_PARTS_OF_ONE:
        raise Unsupported(f"a named size times {scale}")
    return size * exact.numerator // exact.denominator


def _whole_repeats(factors: Sequence[float | None], moved: Sequence[int], mode: str, coordinates: str,
                   rounding: str) -> dict[int, int] | None:
    """The times that each element stands in a row, where that is all that resizing does: which serves named sizes."""
    plain = mode == "nearest" and (coordinates == "asymmetric" and rounding == "floor"
                                   or coordinates == "half_pixel" and rounding.startswith("round_prefer"))
    times = {a: factors[a] for a in moved}
    if not plain or not all(t is not None and t.is_integer() and t >= 1 for t in times.values()):
        return None
    return {a: int(t) for a, t in times.items() if t is not None}


def _cropped(roi: Numbers | None, axes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Start and end of the axes of which a part is shown."""
    flat = [] if roi is None else roi.reshape(-1).tolist()
    if len(flat) != 2 * len(axes):
        raise GraphError(f"{len(flat)} ends for {len(axes)} axes")
    return {a: pair for a, pair in zip(axes, zip(flat, flat[len(axes):])) if pair != WHOLE}


def _resized(x: Array, spatial: Sequence[int], wanted: Sequence[Dim], **options: Any) -> Array:
    """Along these axes, as those of images [N, C, …]."""
    if len(spatial) > 3:
        raise Unsupported(f"{len(spatial)} axes of other sizes")
    others = [a for a in range(x.ndim) if a not in spatial]
    sizes: Any = [wanted[a] for a in spatial]
    order = [*others, *spatial]
    moved = x if order == list(range(x.ndim)) else x.transpose(order)
    lead = moved.shape[:len(others)]
    y = gc.resize(moved.reshape((product_of(lead), 1, *moved.shape[len(others):])) if len(others) != 2 else moved,
                  sizes, **options)
    y = y.reshape((*lead, *y.shape[2:]))
    return y if order == list(range(x.ndim)) else y.transpose([order.index(a) for a in range(x.ndim)])


def resize_10(x: Array, scales: Numbers, *, mode: str = "nearest") -> Array:
    """Before opset 11, and Upsample."""
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def grid_sample(x: Array, grid: Array, *, align_corners: int = 0, mode: str = "linear",
                padding_mode: str = "zeros") -> Array:
    return gc.grid_sample(x, grid, GRID_MODES.get(mode, mode), padding_mode, bool(align_corners))


def col2im(x: Array, image_shape: Ints, block_shape: Ints, *, dilations: Sequence[int] | None = None,
           pads: Sequence[int] | None = None, strides: Sequence[int] | None = None) -> Array:
    """Windows, added up where they were."""
    n = len(image_shape)
    dilation, stride, pads = dilations or (1,) * n, strides or (1,) * n, pads or (0,) * 2 * n
    full = [int(image_shape[i]) + pads[i] + pads[n + i] for i in range(n)]
    counts = [(full[i] - dilation[i] * (int(block_shape[i]) - 1) - 1) // stride[i] + 1 for i in range(n)]
    places = np.zeros([1] * 2 * n, np.int64)
    for i in range(n):
        along = np.arange(int(block_shape[i]))[:, None] * dilation[i] + np.arange(counts[i]) * stride[i]
        form = [1] * 2 * n
        form[i], form[n + i] = along.shape
        places = places * full[i] + along.reshape(form)
    batch, area = x.shape[0], int(np.prod([int(b) for b in block_shape]))
    channels = x.shape[1] // area
    columns = x.reshape((batch * channels, -1)).T
    nothing = gc.zeros((int(np.prod(full)), batch * channels), x.dtype)
    total = gc.scatter_add(nothing, as_array(places.reshape(-1)), columns)
    image = total.T.reshape((batch, channels, *full))
    return image[(slice(None), slice(None), *(slice(pads[i], pads[i] + int(image_shape[i])) for i in range(n)))]


def deform_conv(x: Array, w: Array, offset: Array, bias: Array | None = None, mask: Array | None = None, *,
                dilations: Sequence[int] | None = None, group: int = 1, kernel_shape: Sequence[int] | None = None,
                offset_group: int = 1, pads: Sequence[int] | None = None,
                strides: Sequence[int] | None = None) -> Array:
    """A convolution whose kernel's elements read beside their places, between elements of x, zeros outside."""
    if x.ndim != 4:
        raise Unsupported(f"{x.ndim - 2} spatial axes")
    n, c, height, width = x.shape
    check_kernel(w, kernel_shape)
    kh, kw = w.shape[2:]
    (dh, dw), (sh, sw), pads = dilations or (1, 1), strides or (1, 1), pads or (0, 0, 0, 0)
    rows, columns = offset.shape[2:]
    moves = offset.reshape((n, offset_group, kh * kw, 2, rows, columns))
    weights = None if mask is None else mask.reshape((n, offset_group, 1, kh * kw, rows, columns))
    parts = x.reshape((n * offset_group, c // offset_group, height, width))
    high, wide = _binary_size(height), _binary_size(width)
    if (high, wide) != (height, width):
        parts = gc.pad(parts, [(0, 0), (0, 0), (0, high - height), (0, wide - width)])
    read = []
    for at in range(kh * kw):
        y = gc.arange(rows).reshape((-1, 1)) * sh - pads[0] + at // kw * dh
        x_at = gc.arange(columns) * sw - pads[1] + at % kw * dw
        grid = gc.stack([((place + own.astype(x.dtype)) * 2.0 + 1.0) / size - 1.0 for place, own, size in (
            (moves[:, :, at, 1], x_at, wide), (moves[:, :, at, 0], y, high))], 4)
        grid = grid.reshape((n * offset_group, rows, columns, 2))
        read.append(gc.grid_sample(parts, grid, "bilinear", "zeros"))
    windows = gc.stack(read, 2).reshape((n, offset_group, c // offset_group, kh * kw, rows, columns))
    windows = windows if weights is None else windows * weights
    windows = windows.reshape((n, group, c // group * kh * kw, rows * columns))
    kernels = w.reshape((group, w.shape[0] // group, -1))
    y = gc.matmul(kernels, windows).reshape((n, w.shape[0], rows, columns))
    return y if bias is None else y + bias.reshape((-1, 1, 1))


def _binary_size(size: Dim) -> Dim:
    """A power of 2 that is no less: whole places are shares of it without rounding. Of a named size itself."""
    return 1 << (size - 1).bit_length() if isinstance(size, int) else size


def non_max_suppression(boxes: Numbers, scores: Numbers, most: Int = 0, overlap: Known | None = None,
                        least: Known | None = None, *, center_point_box: int = 0) -> np.ndarray:
    """Of boxes that are known while importing: how many are left decides a size."""
    limit = 0.0 if overlap is None else float(overlap.item("iou_threshold"))
    floor_ = None if least is None else least.item("score_threshold")
    b = boxes.astype(np.float64)
    if center_point_box:
        b = np.concatenate([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)
    low, high = np.minimum(b[..., :2], b[..., 2:]), np.maximum(b[..., :2], b[..., 2:])
    kept: list[tuple[int, int, int]] = []
    for n, c in np.ndindex(scores.shape[:2]):
        chosen: list[int] = []
        for i in np.argsort(-scores[n, c], kind="stable").tolist():
            if len(chosen) >= most or floor_ is not None and not scores[n, c, i] > floor_:
                break
            if all(_overlap(low[n], high[n], i, j) <= limit for j in chosen):
                chosen.append(i)
        kept += [(n, c, i) for i in chosen]
    return np.array(kept, np.int64).reshape(-1, 3)


def _overlap(low: np.ndarray, high: np.ndarray, i: int, j: int) -> float:
    """The common part of two boxes, as a share of both together."""
    sides = np.maximum(np.minimum(high[i], high[j]) - np.maximum(low[i], low[j]), 0)
    common = float(sides.prod())
    whole = float((high[i] - low[i]).prod() + (high[j] - low[j]).prod()) - common
    return common / whole if whole > 0 else 0.0


RULES: Mapping[str, Callable[..., Any]] = {
    "Resize": resize, "GridSample": grid_sample, "Col2Im": col2im, "DeformConv": deform_conv,
    "NonMaxSuppression": non_max_suppression}
