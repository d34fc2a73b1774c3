"""MatMul, Gemm and Conv, of dequantised arrays by their integers (`codes`)."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.codes import Codes, ScaledSums, fixed
from graphc.doors.onnx.ops import product
from graphc.doors.onnx.ops.quantized import signed_weights, small_zero, whole_conv, whole_product
from graphc.doors.onnx.ops.tiny_weights import normal_weights
from graphc.dsl.array import Array
from graphc.ir.dims import Dim, product_of
from graphc.ir.types import f32, i8, i32, u8

Sizes = Sequence[int] | None
LONGEST = 1 << 16                   # sums of so many products of bytes fit i32
BIAS_APART = 1e-5                   # of a bias's scale from that of the sums, relatively: runtimes do not look at it


def matmul(a: Array, b: Array, *, call: Call) -> Array:
    sums = _product_sums(a, b, call)
    return _product(a, b, call) if sums is None else _floats(sums, call)


def gemm(a: Array, b: Array, c: Array | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
         transB: int = 0, call: Call) -> Array:
    plain = alpha == 1 and (beta == 1 or c is None) and not transA
    sums = _product_sums(a, b, call, bool(transB)) if plain else None
    if sums is not None:
        return _with_bias(sums, c, (), call)
    if plain:
        y = _product(a, b, call, bool(transB))
        return y if c is None else y + c
    return product.gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


def conv(x: Array, w: Array, bias: Array | None = None, *, auto_pad: str = "NOTSET", dilations: Sizes = None,
         group: int = 1, kernel_shape: Sizes = None, pads: Sizes = None, strides: Sizes = None, call: Call) -> Array:
    window: dict[str, Any] = {"auto_pad": auto_pad, "dilations": dilations, "group": group,
                              "kernel_shape": kernel_shape, "pads": pads, "strides": strides}
    found = _pair(x, w, product_of(w.shape[1:]), call)
    if found is None or found[1].axis not in (None, 0):
        x, w = normal_weights(call, x, w, 1, 1) if group == 1 and x.ndim > 2 else (x, w)
        return product.conv(x, w, bias, **window)
    image, kernels = found
    integers, zero = signed_weights(kernels.integers, kernels.zero, call)
    y = whole_conv(image.integers, integers, small_zero(image.zero, call), zero, **window)
    after = (1,) * (x.ndim - 2)
    return _with_bias(_scaled(y, image, kernels, after, call), bias, after, call)


def _pair(a: Array, b: Array, count: Dim, call: Call) -> tuple[Codes, Codes] | None:
    """What stands behind both, where a product of `count` terms may be one of integers: in inference, of data with one
    scale and the file's weights."""
    left, right = call.importer.origins.of(a), call.importer.origins.of(b)
    if not isinstance(left, Codes) or not isinstance(right, Codes) or call.training:
        return None
    fits = isinstance(count, int) and count < LONGEST and not left.lasting and right.lasting and left.axis is None
    return (left, right) if fits and all(v.integers.dtype in (i8, u8) for v in (left, right)) else None


def _product_sums(a: Array, b: Array, call: Call, transposed: bool = False) -> ScaledSums | None:
    if a.ndim < 2 or b.ndim != 2:
        return None
    columns = 0 if transposed else 1
    found = _pair(a, b, b.shape[1 - columns], call)
    if found is None or found[1].axis not in (None, columns):
        return None
    data, weights = found
    integers, zero = signed_weights(weights.integers, weights.zero, call)
    y = whole_product(data.integers, integers.T if transposed else integers, small_zero(data.zero, call), zero)
    return _scaled(y, data, weights, (), call)


def _product(a: Array, b: Array, call: Call, transposed: bool = False) -> Array:
    """Of numbers. Weights of bytes with a zero point are read as bytes around 0; what the zero point adds to all of a
    column is the sum of a row of `a` times one number. In training, of the weights as they are."""
    found = call.importer.origins.of(b)
    wanted = (None, 0 if transposed else 1)
    if (call.training or not isinstance(found, Codes) or found.zero is None or not found.lasting or b.ndim != 2
        or a.ndim < 2 or found.integers.dtype not in (i8, u8) or found.axis not in wanted):
        a, b = normal_weights(call, a, b, -1, 1 if transposed else 0) if b.ndim == 2 and a.ndim > 1 else (a, b)
        return gc.matmul(a, b.T if transposed else b)
    integers, zero = found.integers, call.array(found.zero).astype(f32)
    if integers.dtype is u8:
        integers, zero = (integers ^ 128).astype(i8), zero - 128.0
    scale = call.array(found.scale)
    one = found.axis is None
    scale, zero = (v.reshape(()) if one else v for v in (scale, zero))
    weights = integers.astype(f32) * (scale.reshape((-1, 1)) if transposed and not one else scale)
    y = gc.matmul(a, weights.T if transposed else weights)
    known = fixed(found.zero)
    if known is not None and np.all(known == (128 if found.integers.dtype is u8 else 0)):
        return y
    return y - gc.sum(a, -1, keepdims=True) * (zero * scale)


def _scaled(y: Array, data: Codes, weights: Codes, after: tuple[int, ...], call: Call) -> ScaledSums:
    """The sums with the scale of each output; `after`: axes behind that of the outputs."""
    one, each = call.array(data.scale).reshape(()), call.array(weights.scale)
    scale = one * each.reshape(() if weights.axis is None else (-1, *after))
    known = fixed(data.scale), fixed(weights.scale)
    return ScaledSums(y, scale, None if known[0] is None or known[1] is None else known[0] * known[1])


def _with_bias(sums: ScaledSums, bias: Array | None, after: tuple[int, ...], call: Call) -> Array:
    """A bias of integers in the scale of the sums is added to them, another to the floats."""
    if bias is None:
        return _floats(sums, call)
    found = call.importer.origins.of(bias)
    if isinstance(found, Codes) and found.integers.dtype is i32 and found.zero is None and _agree(found, sums):
        return _floats(replace(sums, integers=sums.integers + found.integers.reshape((-1, *after))), call)
    y = sums.integers.astype(f32) * sums.scale
    return y + (bias.reshape((-1, *after)) if after else bias)


def _agree(bias: Codes, sums: ScaledSums) -> bool:
    """Whether a bias has the scale of the sums."""
    own, wanted = fixed(bias.scale), sums.fixed
    return (own is not None and wanted is not None and own.size in (1, wanted.size)
            and bool(np.all(np.abs(own - wanted) <= BIAS_APART * np.abs(wanted))))


def _floats(sums: ScaledSums, call: Call) -> Array:
    return call.importer.origins.note(sums.integers.astype(f32) * sums.scale, sums)


RULES: Mapping[str, Callable[..., Any]] = {"MatMul": matmul, "Gemm": gemm, "Conv": conv}
