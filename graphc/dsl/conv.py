"""Convolutions and pooling. Arrays are [N, C, H, W] (2-D) or [N, C, L] (1-D), as in torch; correlation, not flipped."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.dsl.array import Array, as_array, emit
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import flag, integer, integers, is_sequence, items, shown
from graphc.ir.types import Dim

Size = int | tuple[int, ...]
Padding = int | str | tuple


@formed
def conv2d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1) -> Array:
    """x [N, C, H, W], w [F, C / groups, KH, KW] -> [N, F, OH, OW].

    padding: an int, one per axis, a pair (before, after) per axis, "valid" (none) or "same" (output size = input size
    / stride, rounded up).
    """
    x, w = as_array(x), as_array(w)
    _rank("conv2d", x, w, 4)
    options = _window("conv2d", x, w.shape[2:], stride, padding, dilation)
    return emit("conv2d", x, w, **options, groups=_groups("conv2d", groups))


@formed
def conv1d(x: Array, w: Array, stride: int = 1, padding: Padding = 0, dilation: int = 1, groups: int = 1) -> Array:
    """x [N, C, L], w [F, C / groups, K] -> [N, F, OL]. Options as in `conv2d`."""
    x, w = as_array(x), as_array(w)
    _rank("conv1d", x, w, 3)
    options = _raised(_window("conv1d", x, w.shape[2:], stride, padding, dilation))
    return _flat(emit("conv2d", _image(x), _image(w), **options, groups=_groups("conv1d", groups)))


@formed
def conv_transpose2d(x: Array, w: Array, stride: Size = 1, padding: Padding = 0, output_padding: Size = 0,
                     dilation: Size = 1,
                     groups: int = 1) -> Array:
    """The gradient of conv2d as a layer (torch's conv_transpose2d): x [N, C, H, W], w [C, F / groups, KH, KW] -> [N,
    F, OH, OW], OH = (H - 1) stride - 2 padding + dilation (KH - 1) + 1 + output_padding, which is smaller than stride
    or dilation."""
    x, w = as_array(x), as_array(w)
    _rank("conv_transpose2d", x, w, 4)
    options = _window("conv_transpose2d", x, w.shape[2:], stride, _explicit("conv_transpose2d", padding), dilation)
    return emit("conv_transpose2d", x, w, **options,
                output_padding=integers(output_padding, "conv_transpose2d: output_padding", 2, 0),
                groups=_groups("conv_transpose2d", groups))


@formed
def conv_transpose1d(x: Array, w: Array, stride: int = 1, padding: Padding = 0, output_padding: int = 0,
                     dilation: int = 1,
                     groups: int = 1) -> Array:
    """x [N, C, L], w [C, F / groups, K] -> [N, F, OL]. Options as in `conv_transpose2d`."""
    x, w = as_array(x), as_array(w)
    _rank("conv_transpose1d", x, w, 3)
    options = _raised(_window("conv_transpose1d", x, w.shape[2:], stride, _explicit("conv_transpose1d", padding),
                              dilation))
    more = integers(output_padding, "conv_transpose1d: output_padding", 1, 0)
    return _flat(emit("conv_transpose2d", _image(x), _image(w), **options, output_padding=(0, *more),
                      groups=_groups("conv_transpose1d", groups)))


@formed
def max_pool2d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1) -> Array:
    """The maximum of each window of x [N, C, H, W]; stride = kernel unless given; padding never wins."""
    x = as_array(x)
    return emit("max_pool2d", x, **_pool("max_pool2d", x, 2, kernel, stride, padding, dilation))


@formed
def avg_pool2d(x: Array, kernel: Size, stride: Size | None = None, padding: Padding = 0, *,
               count_include_pad: bool = True) -> Array:
    """The mean of each window of x [N, C, H, W]; stride = kernel unless given. count_include_pad: zeros of the
    padding count, as in torch."""
    x = as_array(x)
    options = _pool("avg_pool2d", x, 2, kernel, stride, padding, 1)
    del options["dilation"]
    return emit("avg_pool2d", x, **options, count_include_pad=flag(count_include_pad, "avg_pool2d: count_include_pad"))


@formed
def max_pool1d(x: Array, kernel: int, stride: int | None = None, padding: Padding = 0, dilation: int = 1) -> Array:
    """The maximum of each window of x [N, C, L]."""
    x = as_array(x)
    options = _raised(_pool("max_pool1d", x, 1, kernel, stride, padding, dilation))
    return _flat(emit("max_pool2d", _image(x), **options))


@formed
def avg_pool1d(x: Array, kernel: int, stride: int | None = None, padding: Padding = 0, *,
               count_include_pad: bool = True) -> Array:
    """The mean of each window of x [N, C, L]."""
    x = as_array(x)
    options = _raised(_pool("avg_pool1d", x, 1, kernel, stride, padding, 1))
    del options["dilation"]
    return _flat(emit("avg_pool2d", _image(x), **options,
                      count_include_pad=flag(count_include_pad, "avg_pool1d: count_include_pad")))


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


def _pool(name: str, x: Array, axes: int, kernel: Size, stride: Size | None, padding: Padding, dilation: Size) -> dict:
    if x.ndim != axes + 2:
        raise GraphError(f"{name} takes [N, C, {'H, W' if axes == 2 else 'L'}], got {x.type}")
    sizes = integers(kernel, f"{name}: kernel", axes, 1)
    return {"kernel": sizes, **_window(name, x, sizes, sizes if stride is None else stride, padding, dilation)}


def _window(name: str, x: Array, kernel: tuple[Dim, ...], stride: Size, padding: Padding, dilation: Size) -> dict:
    """stride, dilation and padding as the operators take them: one entry per spatial axis."""
    axes = len(kernel)
    strides, dilations = integers(stride, f"{name}: stride", axes, 1), integers(dilation, f"{name}: dilation", axes, 1)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    return {"stride": strides, "padding": _padding(name, padding, x.shape[2:], spans, strides), "dilation": dilations}


def _padding(name: str, padding: Padding, sizes: Sequence[Dim], spans: Sequence[Dim],
             strides: Sequence[int]) -> tuple[tuple[Dim, ...], ...]:
    what = f"{name}: padding"
    if isinstance(padding, str) and padding in ("valid", "same"):
        return tuple((0, 0) if padding == "valid" else _same(name, *axis) for axis in zip(sizes, spans, strides))
    pads = items(padding, what) if is_sequence(padding) else [padding] * len(spans)
    if len(pads) == 2 and len(spans) == 1:
        pads = [pads]
    if len(pads) != len(spans) or isinstance(padding, str):
        raise GraphError(f'{what} is an int, one per axis, a pair (before, after) per axis, "same" or "valid", '
                         f"got {shown(padding)}")
    return tuple(integers(p, what, 2, 0) for p in pads)


def _same(name: str, size: Dim, span: Dim, stride: int) -> tuple[Dim, Dim]:
    """Padding for an output of ceil(size / stride), the odd element behind, as in torch."""
    if stride == 1:
        total = span - 1
    elif isinstance(size, int) and isinstance(span, int):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
    else:
        raise GraphError(f'{name}: padding="same" with stride {stride} depends on the size {size}, which is not known; '
                         "give the padding as numbers")
    return total // 2, total - total // 2


def _explicit(name: str, padding: Padding) -> Padding:
    if isinstance(padding, str):
        raise GraphError(f"{name}: padding is given as numbers, got {shown(padding)}")
    return padding


def _rank(name: str, x: Array, w: Array, rank: int) -> None:
    if x.ndim != rank or w.ndim != rank:
        raise GraphError(f"{name} takes x and w with {rank} axes, got {x.type} and {w.type}")


def _groups(name: str, groups: int) -> int:
    return integer(groups, f"{name}: groups", 1)


def _image(x: Array) -> Array:
    """[N, C, L] as [N, C, 1, L]."""
    return x.reshape((*x.shape[:2], 1, x.shape[2]))


def _flat(x: Array) -> Array:
    """[N, C, 1, L] as [N, C, L]."""
    return x.reshape((*x.shape[:2], x.shape[3]))


def _raised(options: dict) -> dict:
    """Window options of one axis, as those of an image of height 1."""
    fill = {"kernel": 1, "stride": 1, "dilation": 1, "padding": (0, 0)}
    return {key: (fill[key], *value) for key, value in options.items()}
