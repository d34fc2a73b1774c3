"""Convolutions over one, two and three spatial axes: correlation, not flipped, as in torch. Arrays are [N, C, L],
[N, C, H, W] and [N, C, D, H, W]."""
from __future__ import annotations

from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.form import formed
from graphc.dsl.sliding import (
    MODES, Padding, Size, Walk, check_kernels, extended, framed, transposed_windows, windows)
from graphc.ir.convert import choice, integer
from graphc.ir.image import FIRST_SPATIAL_AXIS


@formed
def conv1d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, *,
           padding_mode: str = "zeros") -> Array:
    """x [N, C, L], w [F, C / groups, K] -> [N, F, OL]. Options as in `conv2d`."""
    return _conv(1, x, w, Walk(stride, padding, dilation), groups, padding_mode)


@formed
def conv2d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, *,
           padding_mode: str = "zeros") -> Array:
    """x [N, C, H, W], w [F, C / groups, KH, KW] -> [N, F, OH, OW].

    stride, dilation: an int, or one per axis. padding: an int, one per axis, a pair (before, after) per axis, "valid"
    (none) or "same" (output size = input size / stride, rounded up; an odd element stands behind, and in front with
    "same_lower"). padding_mode: what stands there, "zeros" or the image's own elements: "reflect", "replicate",
    "circular", as in torch.
    """
    return _conv(2, x, w, Walk(stride, padding, dilation), groups, padding_mode)


@formed
def conv3d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1, *,
           padding_mode: str = "zeros") -> Array:
    """x [N, C, D, H, W], w [F, C / groups, KD, KH, KW] -> [N, F, OD, OH, OW]. Options as in `conv2d`."""
    return _conv(3, x, w, Walk(stride, padding, dilation), groups, padding_mode)


@formed
def conv_transpose1d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, output_padding: Size = 0,
                     dilation: Size = 1, groups: int = 1) -> Array:
    """x [N, C, L], w [C, F / groups, K] -> [N, F, OL]. Options as in `conv_transpose2d`."""
    return _conv_transpose(1, x, w, Walk(stride, padding, dilation), output_padding, groups)


@formed
def conv_transpose2d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, output_padding: Size = 0,
                     dilation: Size = 1, groups: int = 1) -> Array:
    """The gradient of conv2d as a layer (torch's conv_transpose2d): x [N, C, H, W], w [C, F / groups, KH, KW] -> [N,
    F, OH, OW], OH = (H - 1) stride - padding before and after + dilation (KH - 1) + 1 + output_padding, which is
    smaller than stride or dilation. padding: as in `conv2d`; "same" gives OH = H stride."""
    return _conv_transpose(2, x, w, Walk(stride, padding, dilation), output_padding, groups)


@formed
def conv_transpose3d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, output_padding: Size = 0,
                     dilation: Size = 1, groups: int = 1) -> Array:
    """x [N, C, D, H, W], w [C, F / groups, KD, KH, KW] -> [N, F, OD, OH, OW]. Options as in `conv_transpose2d`."""
    return _conv_transpose(3, x, w, Walk(stride, padding, dilation), output_padding, groups)


def _conv(axes: int, x: Array, w: Array, walk: Walk, groups: int, mode: str) -> Array:
    name, x, w = f"conv{axes}d", as_array(x), as_array(w)
    check_kernels(name, x, w, axes, "F", "C / groups")
    options = windows(name, x, w.shape[FIRST_SPATIAL_AXIS:], walk)
    if choice(mode, f"{name}: padding_mode", MODES) != "zeros":
        x, options["padding"] = extended(name, x, options["padding"], mode), ((0, 0),) * axes
    if all(isinstance(size, int) for size in w.shape[FIRST_SPATIAL_AXIS:]):
        x, options = framed(x, options)
    return emit(name, x, w, **options, groups=integer(groups, f"{name}: groups", 1))


def _conv_transpose(axes: int, x: Array, w: Array, walk: Walk, more: Size, groups: int) -> Array:
    name, x, w = f"conv_transpose{axes}d", as_array(x), as_array(w)
    check_kernels(name, x, w, axes, "C", "F / groups")
    options = transposed_windows(name, w.shape[FIRST_SPATIAL_AXIS:], walk, more)
    return emit(name, x, w, **options, groups=integer(groups, f"{name}: groups", 1))
