"""Functions of images [B, C, …] that move or mix pixels. Names and options as in torch.nn.functional."""
from __future__ import annotations


import numpy as np

from graphc.dsl.array import Array, as_array, as_float
from graphc.dsl.form import formed
from graphc.dsl.index import scatter_add
from graphc.dsl.pad import pad
from graphc.dsl.resize import resize
from graphc.dsl.shape import stack, whole, zeros
from graphc.errors import GraphError
from graphc.ir.convert import choice, flag, integer, integers, is_sequence, items, real, shown

Pixels = int | tuple[int, ...]
LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}       # and of how many axes
MODES = ("nearest", "nearest-exact", *LINEAR, "bicubic")
MOST_OFFSETS = 4096                 # in a window of `unfold`, which moves the image once for each


@formed
def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """[…, C r², H, W] -> […, C, H r, W r]: channel c r² + i r + j gives pixel (i, j) of each square."""
    x, r = as_array(x), integer(upscale_factor, "pixel_shuffle: upscale_factor", 1)
    if x.ndim < 3 or x.shape[-3] % (r * r):
        raise GraphError(f"pixel_shuffle takes […, C {r * r}, H, W], got {x.type}")
    lead, (c, h, w) = x.shape[:-3], x.shape[-3:]
    n = len(lead)
    y = x.reshape(*lead, c // (r * r), r, r, h, w).transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return y.reshape(*lead, c // (r * r), h * r, w * r)


@formed
def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    """The inverse of `pixel_shuffle`: […, C, H r, W r] -> […, C r², H, W]."""
    x, r = as_array(x), integer(downscale_factor, "pixel_unshuffle: downscale_factor", 1)
    if x.ndim < 3 or x.shape[-1] % r or x.shape[-2] % r:
        raise GraphError(f"pixel_unshuffle takes […, C, H {r}, W {r}], got {x.type}")
    lead, (c, h, w) = x.shape[:-3], x.shape[-3:]
    n = len(lead)
    y = x.reshape(*lead, c, h // r, r, w // r, r).transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return y.reshape(*lead, c * r * r, h // r, w // r)


@formed
def channel_shuffle(x: Array, groups: int) -> Array:
    """[B, C, …] with channel i of group j at place i groups + j."""
    x, groups = as_array(x), integer(groups, "channel_shuffle: groups", 1)
    if x.ndim < 2 or x.shape[1] % groups:
        raise GraphError(f"channel_shuffle takes [batch, channels, …] with channels divisible by {groups}, got "
                         f"{x.type}")
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]).swapaxes(1, 2).reshape(*x.shape)


@formed
def unfold(x: Array, kernel: Pixels, dilation: Pixels = 1, padding: Pixels = 0, stride: Pixels = 1) -> Array:
    """The windows of images as columns: x [B, C, H, W] -> [B, C KH KW, windows], windows in row-major order."""
    x = as_array(x)
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = _window("unfold", kernel, dilation, padding, stride)
    if x.ndim != 4:
        raise GraphError(f"unfold takes [B, C, H, W], got {x.type}")
    x = pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows, columns = ((size - d * (k - 1) - 1) // s + 1 for size, k, d, s in
                     zip(x.shape[2:], (kh, kw), (dh, dw), (sh, sw)))
    known = all(not isinstance(n, int) or n > 0 for n in (rows, columns))
    if not known or kh * kw > MOST_OFFSETS:
        raise GraphError(f"unfold: windows of {kh} x {kw} pixels do not fit {x.type}, or have more than {MOST_OFFSETS}")
    parts = [x[:, :, i * dh:i * dh + (rows - 1) * sh + 1:sh, j * dw:j * dw + (columns - 1) * sw + 1:sw]
             for i in range(kh) for j in range(kw)]
    return stack(parts, 2).reshape(x.shape[0], x.shape[1] * kh * kw, rows * columns)


@formed
def fold(x: Array, size: Pixels, kernel: Pixels, dilation: Pixels = 1, padding: Pixels = 0,
         stride: Pixels = 1) -> Array:
    """The transpose of `unfold`: columns [B, C KH KW, windows] are added up where their windows were: [B, C, *size]."""
    x, (height, width) = as_array(x), integers(size, "fold: size", 2, 1)
    kernels, dilations, paddings, strides = _window("fold", kernel, dilation, padding, stride)
    full = [n + 2 * p for n, p in zip((height, width), paddings)]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(full, kernels, dilations, strides)]
    count, area = counts[0] * counts[1], kernels[0] * kernels[1]
    if min(counts) < 1 or x.ndim != 3 or x.shape[1] % area or x.shape[2] != count:
        raise GraphError(f"fold to {[height, width]} takes [B, C {area}, {count}], got {x.type}")
    at = [np.arange(k)[:, None] * d + np.arange(n) * s for k, d, n, s in zip(kernels, dilations, counts, strides)]
    places = at[0][:, None, :, None] * full[1] + at[1][None, :, None, :]        # of [KH, KW, rows, columns]
    channels = x.shape[1] // area
    rows = x.reshape(x.shape[0] * channels, area * count).T
    summed = scatter_add(zeros((full[0] * full[1], x.shape[0] * channels), x.dtype), as_array(places.reshape(-1)), rows)
    image = summed.T.reshape(x.shape[0], channels, *full)
    (top, left) = paddings
    return image[:, :, top:top + height, left:left + width]


@formed
def interpolate(x: Array, size: Pixels | None = None, scale_factor: float | tuple[float, ...] | None = None,
                mode: str = "nearest", align_corners: bool = False) -> Array:
    """x [B, C, …] at another `size`, one number or one for each axis, or at scale_factor times its size, rounded down.

    mode: "nearest" (the pixel at floor(i in / out)), "nearest-exact" (the one whose middle is nearest), "linear",
    "bilinear", "trilinear" (of 1, 2, 3 axes), "bicubic" (of 2; Keys 1981 with slope -0.75). align_corners: the middles
    of the corner pixels stay where they are; otherwise the corners of the image do. These are torch's names for some of
    the forms of `resize`.
    """
    x = as_array(x)
    mode, align_corners = choice(mode, "interpolate: mode", MODES), flag(align_corners, "interpolate: align_corners")
    axes = x.ndim - 2
    if not 1 <= axes <= 3 or LINEAR.get(mode, axes) != axes or mode == "bicubic" and axes != 2:
        raise GraphError(f'interpolate: "{mode}" takes images [B, C, …] of '
                         f"{LINEAR.get(mode, 2 if mode == 'bicubic' else '1 to 3')} axes, got {x.type}")
    if align_corners and mode.startswith("nearest"):
        raise GraphError(f'interpolate: align_corners belongs to linear and cubic modes, not to "{mode}"')
    x = whole(x)
    sizes, scales = _targets(x, size, scale_factor)
    if mode == "nearest":
        return resize(x, sizes, scales=scales)
    if mode == "nearest-exact":
        return resize(x, sizes, "nearest", "half_pixel", "round_prefer_ceil", scales=scales)
    if align_corners:                   # the corners say where the rest is, whatever the factors were before rounding
        return resize(as_float(x), sizes, mode, "align_corners")
    return resize(as_float(x), sizes, mode, scales=scales)


def _targets(x: Array, size: object, scale_factor: object) -> tuple[list[int], list[float] | None]:
    """For each axis behind the channels the new size; the factors by which they grow, if these are given."""
    axes, spatial = x.ndim - 2, [n for n in x.shape[2:] if isinstance(n, int) and n]
    if (size is None) == (scale_factor is None):
        raise GraphError("interpolate takes size= or scale_factor=")
    if len(spatial) != axes:
        raise GraphError(f"interpolate takes images of known size, of at least one pixel, got {x.type}")
    if size is not None:
        return list(integers(size, "interpolate: size", axes, 1)), None
    given = items(scale_factor, "interpolate: scale_factor") if is_sequence(scale_factor) else (scale_factor,) * axes
    factors = [real(f, "interpolate: scale_factor") for f in given]
    if len(factors) != axes or not all(0 < f < 1e9 and int(f * n) for f, n in zip(factors, spatial)):
        raise GraphError(f"interpolate: scale_factor is a number above 0, or {axes}, that leaves a pixel, got "
                         f"{shown(scale_factor)} for {x.type}")
    return [int(f * n) for f, n in zip(factors, spatial)], factors


def _window(name: str, kernel: Pixels, dilation: Pixels, padding: Pixels, stride: Pixels) -> list[tuple[int, ...]]:
    given = (("kernel", kernel, 1), ("dilation", dilation, 1), ("padding", padding, 0), ("stride", stride, 1))
    return [integers(size, f"{name}: {what}", 2, least) for what, size, least in given]
