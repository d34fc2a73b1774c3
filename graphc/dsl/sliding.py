"""Windows as users write them: sizes of a kernel, strides, dilations and paddings of convolutions and pools."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphc.dsl.array import Array
from graphc.dsl.pad import extended_along, pad
from graphc.errors import GraphError
from graphc.ir.convert import integers, is_sequence, items, shown
from graphc.ir.dims import Dim, Dims, ceil_div, largest, static_shape
from graphc.ir.image import FIRST_SPATIAL_AXIS, SPATIAL_NAMES, image_text, kernel_text

Size = int | tuple[int, ...]
Padding = int | str | tuple
PadPairs = tuple[tuple[Dim, ...], ...]          # (before, after) for each spatial axis
WORDS = ("valid", "same", "same_upper", "same_lower")
NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}      # of torch's: those of `pad`
MODES = ("zeros", *NUMPY_MODES)


def check_image(name: str, x: Array, axes: int) -> None:
    """GraphError unless x is a batch of images with so many spatial axes."""
    if x.ndim != axes + FIRST_SPATIAL_AXIS:
        raise GraphError(f"{name} takes {image_text(axes)}, got {x.type}{_other_rank(name, x)}")


def check_kernels(name: str, x: Array, w: Array, axes: int, first: str, second: str) -> None:
    """GraphError unless x is a batch of images with so many spatial axes, and w are kernels for them."""
    count = axes + FIRST_SPATIAL_AXIS
    if x.ndim != count or w.ndim != count:
        raise GraphError(f"{name} takes x and w with {count} axes, {image_text(axes)} and "
                         f"{kernel_text(axes, first, second)}, got {x.type} and {w.type}{_other_rank(name, x)}")


def _other_rank(name: str, x: Array) -> str:
    """Which function of the same family takes such an image."""
    axes = x.ndim - FIRST_SPATIAL_AXIS
    if axes in SPATIAL_NAMES:
        return f"; {name[:-2]}{axes}d takes {image_text(axes)}"
    return "; one image without a batch is x[None]" if axes == int(name[-2]) - 1 and x.ndim > 1 else ""


class Walk(NamedTuple):
    """How windows walk an image, as the user writes it."""
    stride: Size
    padding: Padding
    dilation: Size

    def steps(self, name: str, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """stride and dilation of each axis."""
        stride = integers(self.stride, f"{name}: stride", axes, 1)
        return stride, integers(self.dilation, f"{name}: dilation", axes, 1)


def windows(name: str, x: Array, kernel: Dims, walk: Walk) -> dict:
    """stride, dilation and padding as the operators take them: one entry per spatial axis."""
    strides, dilations = walk.steps(name, len(kernel))
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    pads = pad_pairs(name, walk.padding, x.shape[FIRST_SPATIAL_AXIS:], spans, strides)
    return {"stride": strides, "padding": pads, "dilation": dilations}


def pad_pairs(name: str, padding: Padding, sizes: Sequence[Dim], spans: Sequence[Dim],
              strides: Sequence[int]) -> PadPairs:
    """The padding (before, after) of each axis. `spans`: how many elements a window covers."""
    if isinstance(padding, str) and padding in WORDS:
        if padding == "valid":
            return ((0, 0),) * len(spans)
        halves = [_halved(_same(name, *axis)) for axis in zip(sizes, spans, strides)]
        return tuple([pair[::-1] if padding == "same_lower" else pair for pair in halves])
    return explicit_pairs(name, padding, len(spans))


def explicit_pairs(name: str, padding: Padding, axes: int) -> PadPairs:
    """A padding given as numbers."""
    what = f"{name}: padding"
    pads = items(padding, what) if is_sequence(padding) else [padding] * axes
    if len(pads) == 2 and axes == 1:
        pads = [pads]
    if len(pads) != axes or isinstance(padding, str):
        raise GraphError(f'{what} is an int, one per axis, a pair (before, after) per axis, "same" or "valid" '
                         f'("same_lower" has the odd element in front), got {shown(padding)}')
    return tuple([integers(p, what, 2, 0) for p in pads])


def _same(name: str, size: Dim, span: Dim, stride: int) -> Dim:
    """How much padding gives an output of ceil(size / stride)."""
    if stride == 1:
        return span - 1
    if not isinstance(span, int):
        raise GraphError(f'{name}: padding="same" with stride {stride} depends on the size {span} of the kernel, which '
                         "is not known; give the padding as numbers")
    return largest((ceil_div(size, stride) - 1) * stride + span - size, 0)


def framed(x: Array, options: dict, value: float = 0) -> tuple[Array, dict]:
    """The image with the padding around it and windows that need none, where the padding depends on sizes that are not
    known; operators take numbers."""
    pads = options["padding"]
    if all(isinstance(n, int) for pair in pads for n in pair):
        return x, options
    return pad(x, [(0, 0)] * FIRST_SPATIAL_AXIS + list(pads), value), {**options, "padding": ((0, 0),) * len(pads)}


def _halved(total: Dim) -> tuple[Dim, Dim]:
    """The odd element behind, as in torch and in ONNX's SAME_UPPER."""
    return total // 2, total - total // 2


def transposed_windows(name: str, kernel: Dims, walk: Walk, output_padding: Size) -> dict:
    """The options of a transposed convolution. padding="same": an output of size * stride, as in ONNX: what the windows
    have more is cut off, what they have less is output padding."""
    axes, padding = len(kernel), walk.padding
    strides, dilations = walk.steps(name, axes)
    more = integers(output_padding, f"{name}: output_padding", axes, 0)
    if not isinstance(padding, str) or padding not in WORDS:
        pads = explicit_pairs(name, padding, axes)
    elif padding == "valid":
        pads = ((0, 0),) * axes
    else:
        if not all(isinstance(k, int) for k in kernel):
            raise GraphError(f"{name}: padding={padding!r} needs a kernel of known size, got {list(kernel)}")
        totals = [d * (k - 1) + 1 - step + m
                  for d, k, step, m in zip(dilations, static_shape(kernel), strides, more)]
        pads = tuple([_halved(max(t, 0))[::-1 if padding == "same_lower" else 1] for t in totals])
        more = tuple([m + max(-t, 0) for m, t in zip(more, totals)])
    return {"stride": strides, "padding": pads, "output_padding": more, "dilation": dilations}


def extended(name: str, x: Array, pads: PadPairs, mode: str) -> Array:
    """x with its own elements around it, as torch's padding_mode says: "reflect" (mirrored, the edge once), "replicate"
    (the edge again) or "circular" (from the other end)."""
    for axis, (before, after) in enumerate(pads, FIRST_SPATIAL_AXIS):
        size = x.shape[axis]
        most = {"reflect": size - 1, "circular": size}.get(mode)
        if isinstance(most, int) and any(isinstance(n, int) and n > most for n in (before, after)):
            raise GraphError(f'{name}: padding_mode="{mode}" has at most {most} elements to put around an axis of '
                             f"{size}, got padding ({before}, {after})")
        x = extended_along(x, axis, before, after, NUMPY_MODES[mode])
    return x
