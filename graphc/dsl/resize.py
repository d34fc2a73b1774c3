"""Images of another size, and images read at computed places."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.dsl.array import Array, as_array, as_float, emit
from graphc.dsl.form import formed
from graphc.dsl.sizes import as_shape
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integers, is_sequence, items, real, shown
from graphc.ir.dims import Dim
from graphc.ir.interpolation import COORDINATES, ROUNDINGS
from graphc.ir.ops import grid_sample as sampling

MODES = {"nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear", "trilinear": "bilinear",
         "cubic": "bicubic", "bicubic": "bicubic"}


@formed
def resize(x: Array, shape: int | Sequence[int], mode: str = "nearest", coordinates: str | None = None,
           rounding: str = "floor", antialias: bool = False, exclude_outside: bool | None = None,
           cubic: float | None = None, scales: Sequence[float] | None = None, crop: Sequence[float] | None = None,
           fill: float = 0.0) -> Array:
    """Images [N, C, *S] scaled to [N, C, *shape], of one to three spatial axes: "nearest", "linear" (also
    "bilinear", "trilinear") or "cubic" ("bicubic"); by default as torch's interpolate with align_corners=False.

    All else is as in ONNX's Resize. coordinates: where new elements lie among the old ones, half_pixel (the default;
    of "nearest" asymmetric), half_pixel_symmetric, pytorch_half_pixel, tf_half_pixel_for_nn, align_corners (torch's
    align_corners=True), asymmetric, tf_crop_and_resize, which shows `crop` (starts, then ends, as shares of each axis)
    with `fill` beyond the image. rounding of "nearest": floor, ceil, round_prefer_floor, round_prefer_ceil (torch's
    "nearest-exact": half_pixel and round_prefer_ceil). scales: of each axis, in place of the ratio of sizes. antialias:
    a wider kernel where an axis shrinks. cubic: the parameter of Keys' kernel; exclude_outside: elements beyond the
    border do not count, instead of repeating it. These two are as torch has them unless given: -0.5 and True with
    antialias, else -0.75 and False.
    """
    x = as_array(x)
    count = x.ndim - 2
    if not 1 <= count <= 3:
        raise GraphError(f"resize takes images [N, C, *S] of one to three spatial axes, got {x.type}")
    sizes = integers(shape, "resize: the shape", count, 0)
    mode = MODES[choice(mode, "resize: mode", tuple(MODES))]
    flag(antialias, "antialias")
    common = {
        "mode": mode, "antialias": antialias,
        "coordinates": "" if coordinates is None else choice(coordinates, "resize: coordinates", COORDINATES),
        "rounding": choice(rounding, "resize: rounding", tuple(ROUNDINGS)),
        "exclude_outside": antialias if exclude_outside is None else flag(exclude_outside, "exclude_outside"),
        "cubic": (-0.5 if antialias else -0.75) if cubic is None else real(cubic, "cubic"), "fill": real(fill, "fill")}
    factors = None if scales is None else _numbers(scales, "scales", count)
    ends = None if crop is None else _numbers(crop, "crop", 2 * count)
    if count == 2:
        return _resized(x, sizes, common, factors, ends)
    return _by_pairs(x, sizes, common, factors, ends)


def _by_pairs(x: Array, sizes: tuple[int, ...], common: dict, factors: tuple[float, ...] | None,
              ends: tuple[float, ...] | None) -> Array:
    """Of one axis: an image of height 1. Of three: the last two, then the first; each axis is scaled on its own."""
    def of(values: tuple[float, ...] | None, chosen: tuple[int, ...], neutral: float) -> tuple[float, ...] | None:
        return None if values is None else tuple(values[i] if i >= 0 else neutral for i in chosen)
    n, c, *old = x.shape
    if len(old) == 1:
        flat = _resized(x.reshape((n, c, 1, old[0])), (1, sizes[0]), common, of(factors, (-1, 0), 1.0),
                        None if ends is None else (0.0, ends[0], 1.0, ends[1]))
        return flat.reshape((n, c, sizes[0]))
    if common["coordinates"] == "tf_crop_and_resize" and common["fill"] != 0:
        raise GraphError("resize of three axes fills with 0 alone")
    inner: tuple[Dim, ...] = (n, c * old[0], old[1], old[2])
    flat = _resized(x.reshape(inner), sizes[1:], common, of(factors, (1, 2), 1.0), of(ends, (1, 2, 4, 5), 0.0))
    flat = flat.reshape((n, c, old[0], sizes[1] * sizes[2]))
    whole = None if ends is None else (ends[0], 0.0, ends[3], 1.0)
    flat = _resized(flat, (sizes[0], sizes[1] * sizes[2]), common, of(factors, (0, -1), 1.0), whole)
    return flat.reshape((n, c, *sizes))


def _resized(x: Array, sizes: tuple[int, ...], common: dict, factors: tuple[float, ...] | None,
             ends: tuple[float, ...] | None) -> Array:
    return emit("resize", x, shape=tuple(sizes), scales=factors or (), crop=ends or (), **common)


def _numbers(values: object, what: str, count: int) -> tuple[float, ...]:
    given = items(values, what) if is_sequence(values) else [values] * count
    if len(given) != count:
        raise GraphError(f"resize: {what} are {count} numbers, got {len(given)}")
    return tuple(real(v, what) for v in given)


@formed
def grid_sample(x: Array, grid: Array, mode: str = "bilinear", padding: str = "zeros",
                align_corners: bool = False) -> Array:
    """x [N, C, H, W] read at the places grid [N, H', W', 2]: [N, C, H', W'], as torch's grid_sample; of one or three
    spatial axes likewise. The last axis of grid holds (x, y): -1 and 1 are the ends of the image, with align_corners
    the centres of its first and last elements.

    mode: "nearest", "bilinear", "bicubic" (two axes). padding: "zeros", "border" or "reflection" beyond the image. The
    gradient reaches x and, but for "nearest", grid. A place that is NaN counts as outside.
    """
    x, grid = as_array(x), as_array(grid)
    return emit("grid_sample", x, grid, mode=choice(mode, "mode", tuple(sampling.MODES)),
                padding=choice(padding, "padding", sampling.PADDINGS),
                align_corners=flag(align_corners, "align_corners"))


@formed
def affine_grid(theta: Array, size: Sequence[int], align_corners: bool = False) -> Array:
    """The places of `grid_sample` after an affine map, as torch's: theta [N, 2, 3] and size (N, C, H, W) give
    [N, H, W, 2], theta [N, 3, 4] and (N, C, D, H, W) give [N, D, H, W, 3]. The last axis holds (x, y), or (x, y, z);
    align_corners as there.

    Source: torch.nn.functional.affine_grid; spatial transformers of Jaderberg et al. 2015, arXiv:1506.02025.
    """
    theta, shape, ends = as_float(theta), as_shape(size), flag(align_corners, "align_corners")
    axes = len(shape) - 2
    if axes not in (2, 3) or theta.shape != (shape[0], axes, axes + 1):
        raise GraphError("affine_grid takes theta [N, 2, 3] and a size (N, C, H, W), or [N, 3, 4] and (N, C, D, H, W); "
                         f"got {theta.type} and {shown(size)}")
    if not all(isinstance(n, int) and n > 0 for n in shape[2:]):
        raise GraphError(f"affine_grid takes known sizes >= 1, got {shown(size)}")
    lines, sizes = [], [int(n) for n in shape[2:]]
    for axis, n in reversed(list(enumerate(sizes))):                        # x is the last axis
        line = np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        line = line if ends else line * ((n - 1) / n)
        lines.append(np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(axes)]), sizes))
    base = np.stack([*lines, np.ones(sizes)], -1).reshape(-1, axes + 1)
    return (as_array(base.astype(theta.dtype.np)) @ theta.mT).reshape((shape[0], *sizes, axes))
