"""Products, convolutions and pools."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.known import count_of
from graphc.doors.onnx.rule import Ints, Unsupported, arrays
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.convert import choice
from graphc.ir.dims import Dim, product_of
from graphc.ir.ops.sliding import window_extents

Sizes = Sequence[int] | None        # attributes
CONV: Mapping[int, Callable[..., Array]] = {1: gc.conv1d, 2: gc.conv2d, 3: gc.conv3d}
TRANSPOSED: Mapping[int, Callable[..., Array]] = {1: gc.conv_transpose1d, 2: gc.conv_transpose2d,
                                                  3: gc.conv_transpose3d}
MAX: Mapping[int, Callable[..., Any]] = {1: gc.max_pool1d, 2: gc.max_pool2d, 3: gc.max_pool3d}
AVERAGE: Mapping[int, Callable[..., Array]] = {1: gc.avg_pool1d, 2: gc.avg_pool2d, 3: gc.avg_pool3d}
UNPOOL: Mapping[int, Callable[..., Array]] = {1: gc.max_unpool1d, 2: gc.max_unpool2d, 3: gc.max_unpool3d}
Padding = str | list[tuple[int, int]]
AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def gemm(a: Array, b: Array, c: Array | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
         transB: int = 0) -> Array:
    y = (a.T if transA else a) @ (b.T if transB else b)
    y = _scaled(y, alpha)
    return y if c is None or beta == 0 else y + _scaled(c, beta)


def _scaled(x: Array, by: float) -> Array:
    if by == 1:
        return x
    return x * by if x.dtype.is_float else (x.astype(gc.f64) * by).astype(x.dtype)


def einsum(*xs: Array, equation: str) -> Array:
    return gc.einsum(equation, *xs)


def axes_of(x: Array, table: Mapping[int, Callable[..., Any]]) -> Callable[..., Any]:
    """The function for the number of spatial axes."""
    if x.ndim - 2 not in table:
        raise Unsupported(f"{x.ndim - 2} spatial axes")
    return table[x.ndim - 2]


def padding(auto_pad: str, pads: Sizes, axes: int) -> Padding:
    """As convolutions take it: a word, or (before, after) of each axis."""
    if choice(auto_pad, "auto_pad", AUTO_PADS).startswith("SAME"):
        return "same" if auto_pad == "SAME_UPPER" else "same_lower"
    pads = (0,) * 2 * axes if pads is None or auto_pad == "VALID" else pads
    if len(pads) != 2 * axes:
        raise GraphError(f"{len(pads)} pads for {axes} axes")
    return list(zip(pads[:axes], pads[axes:]))


def conv(x: Array, w: Array, bias: Array | None = None, *, auto_pad: str = "NOTSET", dilations: Sizes = None,
         group: int = 1, kernel_shape: Sizes = None, pads: Sizes = None, strides: Sizes = None) -> Array:
    check_kernel(w, kernel_shape)
    y = axes_of(x, CONV)(x, w, strides or 1, padding(auto_pad, pads, x.ndim - 2), dilations or 1, group)
    return with_bias(y, bias)


def check_kernel(w: Array, kernel_shape: Sizes) -> None:
    """GraphError for weights that are not of the kernel that a node says."""
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:] and w.type.is_static:
        raise GraphError(f"kernel_shape is {list(kernel_shape)}, the weights are {w.type}")


def with_bias(y: Array, bias: Array | None) -> Array:
    """One number for each channel, axis 1."""
    return y if bias is None else y + bias.reshape((-1, *(1,) * (y.ndim - 2)))


def conv_transpose(x: Array, w: Array, bias: Array | None = None, *, auto_pad: str = "NOTSET", dilations: Sizes = None,
                   group: int = 1, kernel_shape: Sizes = None, output_padding: Sizes = None,
                   output_shape: Sizes = None, pads: Sizes = None, strides: Sizes = None) -> Array:
    """What padding takes away is cut from the whole result, so that every rule of `output_shape` and `auto_pad` is
    one."""
    check_kernel(w, kernel_shape)
    n = x.ndim - 2
    stride, dilation = strides or (1,) * n, dilations or (1,) * n
    extra = output_padding or (0,) * n
    full = [(x.shape[2 + i] - 1) * stride[i] + dilation[i] * (w.shape[2 + i] - 1) + 1 for i in range(n)]
    ends = _transposed_pads(auto_pad, pads, output_shape, [f + e for f, e in zip(full, extra)],
                            [x.shape[2 + i] * stride[i] for i in range(n)])
    if all(isinstance(p, int) and 0 <= p for pair in ends for p in pair) and all(
            e < max(s, d) for e, s, d in zip(extra, stride, dilation)) and ends_fit(ends, w.shape[2:], dilation):
        return with_bias(axes_of(x, TRANSPOSED)(x, w, stride, ends, extra, dilation, group), bias)
    y = axes_of(x, TRANSPOSED)(x, w, stride, 0, 0, dilation, group)
    y = gc.pad(y, [(0, 0), (0, 0), *((max(-a, 0), max(e - b, 0)) for e, (a, b) in zip(extra, ends))])
    cut = [slice(max(a, 0), size + max(-a, 0) + e - b if b > e else None)
           for size, e, (a, b) in zip(full, extra, ends)]
    return with_bias(y[(slice(None), slice(None), *cut)], bias)


def ends_fit(ends: Sequence[tuple[int, int]], kernel: Sequence[Any], dilation: Sequence[int]) -> bool:
    """Whether no padding is larger than what a kernel covers."""
    return all(max(pair) <= d * (k - 1) for pair, k, d in zip(ends, kernel, dilation))


def _transposed_pads(auto_pad: str, pads: Sizes, output_shape: Sizes, full: Sequence[Dim],
                     same: Sequence[Dim]) -> list[tuple[Any, Any]]:
    """(before, after) of each axis: given, or what is too much for the wanted size."""
    n = len(full)
    choice(auto_pad, "auto_pad", AUTO_PADS)
    wanted = output_shape or (same if auto_pad.startswith("SAME") else None)
    if wanted is None:
        pads = pads if pads is not None and auto_pad != "VALID" else (0,) * 2 * n
        return list(zip(pads[:n], pads[n:]))
    made = []
    for have, want in zip(full, list(wanted)[-n:]):
        much = have - want
        small = -(-much // 2) if isinstance(much, int) and much < 0 else much // 2      # to zero, as C divides
        large = much - small
        made.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    return made


def max_pool(x: Array, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Sizes = None,
             kernel_shape: Sequence[int], pads: Sizes = None, storage_order: int = 0, strides: Sizes = None,
             call: Call) -> Any:
    n = x.ndim - 2
    stride, dilation = strides or (1,) * n, dilations or (1,) * n
    ends = padding(auto_pad, pads, n)
    pool = axes_of(x, MAX)
    if call.wanted == 1:
        return pool(x, kernel_shape, stride, ends, dilation, ceil_mode=bool(ceil_mode))
    y, at = pool(x, kernel_shape, stride, ends, dilation, ceil_mode=bool(ceil_mode), return_indices=True)
    return y, _flat_places(at.astype(gc.i64), x, storage_order)


def _flat_places(at: Array, x: Array, storage_order: int) -> Array:
    """Places in a channel's image as places in all of x; `storage_order` 1: columns first in the image."""
    image = x.shape[2:]
    if storage_order:
        rest, place = at, at * 0
        for i in range(len(image)):
            below, step = (count_of(product_of(part)) for part in (image[i + 1:], image[:i]))
            place, rest = place + (rest // below) * step, rest % below
        at = place
    n, c = x.shape[:2]
    channel = gc.arange(n * c).reshape((n, c, *(1,) * len(image)))
    return at + channel * count_of(product_of(image))


def average_pool(x: Array, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
                 dilations: Sizes = None, kernel_shape: Sequence[int], pads: Sizes = None,
                 strides: Sizes = None) -> Array:
    n = x.ndim - 2
    stride, dilation = strides or (1,) * n, dilations or (1,) * n
    ends = padding(auto_pad, pads, n)
    return axes_of(x, AVERAGE)(x, kernel_shape, stride, ends, dilation=dilation, ceil_mode=bool(ceil_mode),
                               count_include_pad=bool(count_include_pad))


def lp_pool(x: Array, *, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Sizes = None,
            kernel_shape: Sequence[int], p: int = 2, pads: Sizes = None, strides: Sizes = None) -> Array:
    """The p-norm of each window: p-th powers averaged, times their number."""
    n = x.ndim - 2
    stride, dilation = strides or (1,) * n, dilations or (1,) * n
    ends = padding(auto_pad, pads, n)
    pool, powers = axes_of(x, AVERAGE), gc.abs(x) ** p
    if ceil_mode and not isinstance(ends, str):     # zeros beyond the padding: all windows have as many elements
        sizes = window_extents(x.shape[2:], tuple(kernel_shape), tuple(stride), tuple(ends), tuple(dilation), "LpPool",
                               True)
        wide = gc.pad(powers, [(0, 0), (0, 0), *((low, high + s - 1) for (low, high), s in zip(ends, stride))])
        powers = pool(wide, kernel_shape, stride, dilation=dilation)[(..., *[slice(0, size) for size in sizes])]
    else:
        powers = pool(powers, kernel_shape, stride, ends, dilation=dilation)
    powers = powers * prod(kernel_shape)
    return gc.sqrt(powers) if p == 2 else powers if p == 1 else powers ** (1.0 / p)


def max_unpool(x: Array, indices: Array, output_shape: Ints | None = None, *, kernel_shape: Sequence[int],
               pads: Sizes = None, strides: Sizes = None) -> Array:
    """Each number at its place; places count within all of the result that the kernel would give."""
    n = x.ndim - 2
    stride, pads = strides or (1,) * n, pads or (0,) * 2 * n
    own = [(x.shape[2 + i] - 1) * stride[i] - pads[i] - pads[n + i] + kernel_shape[i] for i in range(n)]
    whole = [*x.shape[:2], *own]
    flat = gc.scatter(gc.zeros(product_of(whole), x.dtype), indices.flatten(), x.flatten())
    y = flat.reshape(tuple(whole))
    if output_shape is None:
        return y
    return gc.pad(y, [(0, b - a) for a, b in zip(whole, output_shape)])


def global_pool(function: Callable[..., Array]) -> Callable[..., Array]:
    def rule(x: Array) -> Array:
        return function(x, tuple(range(2, x.ndim)), True)
    return rule


def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    return gc.sum(gc.abs(x) ** p, tuple(range(2, x.ndim)), True) ** (1.0 / p)


RULES: Mapping[str, Callable[..., Any]] = {
    "Einsum": einsum, "ConvTranspose": conv_transpose,
    "MaxPool": max_pool, "AveragePool": average_pool, "LpPool": lp_pool, "MaxUnpool": max_unpool,
    "GlobalAveragePool": global_pool(gc.mean), "GlobalMaxPool": global_pool(gc.max),
    "GlobalLpPool": global_lp_pool, "Det": arrays(gc.det)}
