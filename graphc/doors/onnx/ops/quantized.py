"""Quantised operators of ONNX: a number is (q - zero point) scale. IntegerSums are exact, in i32."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

import graphc as gc
from graphc.doors.onnx.call import Call, as_known, plain, type_of
from graphc.doors.onnx.codes import Codes, fixed
from graphc.doors.onnx.narrow import NARROW, Narrow, narrowed
from graphc.doors.onnx.ops import product
from graphc.doors.onnx.rule import Known, Operand, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.dims import product_of
from graphc.ir.types import DType, f32, i8, i32, normalize_axis, u8

Sizes = Sequence[int] | None
CODES = (i8, u8, i32)               # of which products are made, and which are added to them


def per_axis(x: Array, scale: Array, axis: int, block: int) -> Array:
    """A scale or zero point shaped to meet x: one number, one for each index of an axis, or one for each block of so
    many elements along it."""
    if block:
        axis = normalize_axis(axis, x.ndim)
        wide = gc.repeat(scale, block, axis=axis)
        return wide[(slice(None),) * axis + (slice(0, x.shape[axis]),)]
    if scale.ndim == 0 or scale.shape == (1,):
        return scale.reshape(())
    if scale.ndim != 1:
        return scale
    axis = normalize_axis(axis, x.ndim)
    return scale.reshape((-1, *(1,) * (x.ndim - axis - 1)))


def _check_zero(scale: Array, zero: Operand) -> None:
    """A zero point is one number, or has the shape of the scales."""
    shape = scale.shape if zero is None else type_of(zero).shape
    if shape != scale.shape and not {shape, scale.shape} <= {(), (1,)}:
        raise GraphError(f"scales {scale.type} and zero points of the shape {list(shape)}")


def quantized(y: Array, scale: Array, zero: Array | None, dtype: DType) -> Array:
    """The nearest number, half to even, in the range of the type."""
    low, high = dtype.range
    wide = gc.round(y / scale)
    wide = wide if zero is None else wide + zero.astype(wide.dtype)
    return gc.clip(wide, float(low), float(high)).astype(dtype)


def dequantized(x: Array, scale: Array, zero: Array | None = None) -> Array:
    if zero is None:
        return x.astype(scale.dtype) * scale
    if x.dtype.is_float:                # the small floats
        return (x.astype(scale.dtype) - zero.astype(scale.dtype)) * scale
    return (x.astype(i32) - zero.astype(i32)).astype(scale.dtype) * scale


def quantize_linear(x: Array, scale: Array, zero: Operand = None, *, axis: int = 1, saturate: int = 1,
                    block_size: int = 0, output_dtype: int = 0, precision: int = 0, call: Call) -> Array | Narrow:
    """Also to the types that graphc holds in others."""
    _check_zero(scale, zero)
    narrow = zero.kind if isinstance(zero, Narrow) else NARROW.get(output_dtype) if zero is None else None
    offset = None if zero is None else call.array(zero)
    dtype = (narrow.holder if narrow else offset.dtype if offset is not None
             else call.importer.dtype(output_dtype) if output_dtype else u8)
    if zero is not None and output_dtype and (NARROW.get(output_dtype) is not narrow or (
            narrow is None and call.importer.dtype(output_dtype) is not dtype)):
        raise GraphError(f"output_dtype is {TensorProto.DataType.Name(output_dtype)}, the zero point another type")
    compute = f32 if precision in (0, TensorProto.FLOAT) else call.importer.dtype(precision)
    plain_form = narrow is None and dtype in CODES and not block_size and compute is f32
    if plain_form and (found := _from_codes(x, scale, zero, dtype, call)) is not None:
        return found
    if plain_form and scale.shape in ((), (1,)) and (joined := call.importer.origins.joined(x)):
        parts = [quantize_linear(part, scale, zero, output_dtype=output_dtype, call=call) for part in joined[0]]
        return gc.concat([call.array(part) for part in parts], joined[1])
    wide, by = x.astype(compute), per_axis(x, scale.astype(compute), axis, block_size)
    offset = None if offset is None else per_axis(x, offset, axis, block_size)
    if narrow is None:
        if not dtype.is_int:
            raise Unsupported(f"QuantizeLinear to {dtype}")
        return quantized(wide, by, offset, dtype)
    if narrow.is_float:
        shifted = wide / by if offset is None else wide / by + offset.astype(compute)
        return narrowed(shifted, narrow, bool(saturate))
    bits, signed = int(narrow.name[-1]), dtype.is_signed
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return Narrow(gc.clip(quantized(wide, by, offset, dtype), low, high), narrow)


def dequantize_linear(x: Array, scale: Array, zero: Operand = None, *, axis: int = 1, block_size: int = 0,
                      output_dtype: int = 0, call: Call) -> Array:
    _check_zero(scale, zero)
    if zero is not None and type_of(zero).dtype is not x.dtype:
        raise GraphError(f"{x.dtype} with a zero point of {type_of(zero).dtype}")
    offset = small_zero(zero, call)
    offset = None if offset is None else per_axis(x, offset, axis, block_size)
    y = dequantized(x, per_axis(x, scale, axis, block_size), offset)
    y = y.astype(call.importer.dtype(output_dtype)) if output_dtype else y
    held = any(isinstance(v, Narrow) for v in (call.operands[0], zero))
    if held or block_size or scale.ndim > 1 or not y.dtype is scale.dtype is f32 or x.dtype not in CODES:
        return y
    one = scale.shape in ((), (1,))
    if zero is not None and (type_of(zero).shape not in ((), (1,)) if one else type_of(zero).shape != scale.shape):
        return y
    axis_of = None if one else normalize_axis(axis, x.ndim)
    codes = Codes(x, call.operands[1], _point(zero), axis_of, isinstance(call.operands[0], Known))
    return call.importer.origins.note(y, codes)


def _point(zero: Operand) -> Known | Array | None:
    """A zero point, None where it is 0 and nothing can change it."""
    numbers = fixed(zero)
    return None if numbers is not None and not np.any(numbers) else zero


def _from_codes(x: Array, scale: Array, zero: Operand, dtype: DType, call: Call) -> Array | None:
    """What is quantised of what integers stand behind: they themselves, where it is what they were; sums, brought to
    another scale at once, as of the QLinear operators."""
    origin = call.importer.origins.of(x)
    if isinstance(origin, Codes):
        same = origin.integers.dtype is dtype and origin.has_scale(call.operands[1], _point(zero))
        return origin.integers if same else None
    if origin is None or scale.shape not in ((), (1,)) or scale.dtype is not f32 or call.training:
        return None
    offset = gc.zeros((), dtype) if zero is None else call.array(zero).reshape(())
    y = _requantized(origin.integers, origin.scale, scale.reshape(()), offset)
    return gc.maximum(y, offset) if origin.rectified else y


def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """u8 over the range of x, with 0 in it."""
    low, high = gc.minimum(gc.min(x), 0.0), gc.maximum(gc.max(x), 0.0)
    scale = (high - low) / 255.0
    scale = gc.where(scale == 0, 1.0, scale)
    zero = gc.clip(gc.round(-low / scale), 0.0, 255.0).astype(u8)
    return quantized(x, scale, zero, u8), scale, zero


def small_zero(value: Operand, call: Call) -> Array | None:
    """A zero point, if it is not known to be 0."""
    value = plain(value)
    if value is None or (not isinstance(value, Array) and not np.any(as_known(value).numbers)):
        return None
    return call.array(value)


def whole_product(a: Array, b: Array, a_zero: Array | None, b_zero: Array | None) -> Array:
    """(a - a_zero) (b - b_zero) in i32, exactly: the product of the small integers, less what the zero points add. Sums
    of weights are computed once."""
    wide = max(a.ndim, b.ndim)
    y = gc.matmul(a, b, dtype=i32)
    if b_zero is not None:
        rows = gc.sum(a.astype(i32), axis=-1, keepdims=True)
        y = y - rows * b_zero.astype(i32)
    if a_zero is not None:
        own = a_zero.astype(i32)
        own = own.reshape((-1, 1)) if own.ndim == 1 and own.shape != (1,) else own
        columns = gc.sum(b.astype(i32), axis=-2, keepdims=True) if b.ndim > 1 else gc.sum(b.astype(i32))
        if b_zero is not None:
            columns = columns - b_zero.astype(i32) * a.shape[-1]
        y = y - own * columns
    if y.ndim > max(wide, 1):
        raise GraphError(f"zero points {a_zero} and {b_zero} do not fit a product of {a.type} and {b.type}")
    return y


def matmul_integer(a: Array, b: Array, a_zero: Operand = None, b_zero: Operand = None, *, call: Call) -> Array:
    b, zero = signed_weights(b, b_zero, call)
    return whole_product(a, b, small_zero(a_zero, call), zero)


def signed_weights(w: Array, zero: Operand, call: Call) -> tuple[Array, Array | None]:
    """Weights and their zero point, None where it is 0. Unsigned ones around 128 are signed ones around 0."""
    zero = plain(zero)
    numbers = None if zero is None or isinstance(zero, Array) else as_known(zero).numbers
    if w.dtype is u8 and numbers is not None and np.all(numbers == 128):
        return (w ^ 128).astype(i8), None
    return w, small_zero(zero, call)


def whole_conv(x: Array, w: Array, x_zero: Array | None, w_zero: Array | None, *, auto_pad: str = "NOTSET",
               pads: Sizes = None, **window: Any) -> Array:
    """In i32, exactly; around the image is its zero point. What zero points add is taken from the convolution of bytes:
    that of the image is a number for each feature, that of the weights the sum of what a kernel covers."""
    around = product.padding(auto_pad, pads, x.ndim - 2)
    if isinstance(around, str) and x_zero is not None:
        x, x_zero = x.astype(i32) - x_zero.astype(i32).reshape(()), None
    if x_zero is None:
        window = {**window, "auto_pad": auto_pad, "pads": pads}
    elif any(map(any, ends := _pairs(around, x.ndim - 2))):
        frame = gc.pad(gc.zeros(x.shape[2:], x.dtype), ends, value=1)
        x = gc.pad(x, [(0, 0), (0, 0), *ends]) + frame * x_zero.reshape(())
    y = product.conv(x.astype(i32), w.astype(i32), None, **window)
    after = (1,) * (w.ndim - 2)
    if x_zero is not None:
        y = y - x_zero.reshape(()).astype(i32) * gc.sum(w.astype(i32), tuple(range(1, w.ndim))).reshape((-1, *after))
    if w_zero is None:
        return y
    covered = _covered(x, w, window)
    if x_zero is not None:
        covered = covered - x_zero.reshape(()).astype(i32) * product_of(w.shape[1:])
    zero = w_zero.astype(i32)
    return y - covered * (zero.reshape(()) if zero.shape in ((), (1,)) else zero.reshape((-1, *after)))


def _covered(x: Array, w: Array, window: Mapping[str, Any]) -> Array:
    """The sum of what each kernel covers; one for all features of a group."""
    groups = window.get("group", 1)
    ones = gc.ones((groups, *w.shape[1:]), w.dtype).astype(i32)
    y = product.conv(x.astype(i32), ones, None, **window)
    return y if groups == 1 else gc.repeat(y, w.shape[0] // groups, axis=1)


def _pairs(padding: Any, axes: int) -> Sequence[tuple[int, int]]:
    """(before, after) of each spatial axis."""
    each = [padding] * axes if isinstance(padding, int) else padding
    return [(p, p) if isinstance(p, int) else tuple(p) for p in each]


def conv_integer(x: Array, w: Array, x_zero: Operand = None, w_zero: Operand = None, *, auto_pad: str = "NOTSET",
                 dilations: Sizes = None, group: int = 1, kernel_shape: Sizes = None, pads: Sizes = None,
                 strides: Sizes = None, call: Call) -> Array:
    w, zero = signed_weights(w, w_zero, call)
    return whole_conv(x, w, small_zero(x_zero, call), zero, auto_pad=auto_pad, dilations=dilations, group=group,
                      kernel_shape=kernel_shape, pads=pads, strides=strides)


def needed_arrays(values: Sequence[Operand], call: Call) -> list[Array]:
    """Operands that must be there."""
    if any(v is None for v in values):
        raise GraphError(f"{call.op} needs all of its operands but zero points")
    return [call.array(v) for v in values]


def qlinear_matmul(*operands: Operand, call: Call) -> Array:
    """Of a, b and y each the array (of y none), scale and zero point."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = operands
    a, a_scale, b, b_scale, y_scale, y_zero = needed_arrays((a, a_scale, b, b_scale, y_scale, y_zero), call)
    b, zero = signed_weights(b, b_zero, call)
    y = whole_product(a, b, small_zero(a_zero, call), zero)
    rows = a_scale.reshape((-1, 1)) if a_scale.ndim == 1 and a_scale.shape != (1,) else a_scale
    return _requantized(y, rows.astype(f32) * b_scale.astype(f32), y_scale, y_zero)


def _requantized(y: Array, scale: Array, y_scale: Array, y_zero: Array) -> Array:
    """IntegerSums of products brought to the scale of the result."""
    factor = scale / y_scale.astype(f32)
    low, high = y_zero.dtype.range
    wide = gc.round(y.astype(f32) * factor) + y_zero.astype(f32)
    return gc.clip(wide, float(low), float(high)).astype(y_zero.dtype)


def qlinear_conv(*operands: Operand, auto_pad: str = "NOTSET", dilations: Sizes = None, group: int = 1,
                 kernel_shape: Sizes = None, pads: Sizes = None, strides: Sizes = None, call: Call) -> Array:
    """Of x, w and y each the array (of y none), scale and zero point, then perhaps a bias in i32."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = operands
    x, x_scale, w, w_scale, y_scale, y_zero = needed_arrays((x, x_scale, w, w_scale, y_scale, y_zero), call)
    w, zero = signed_weights(w, w_zero, call)
    y = whole_conv(x, w, small_zero(x_zero, call), zero, auto_pad=auto_pad, dilations=dilations, group=group,
                   kernel_shape=kernel_shape, pads=pads, strides=strides)
    if bias and bias[0] is not None:
        y = product.with_bias(y, call.array(bias[0]).astype(i32))
    scale = x_scale.reshape(()) * (w_scale.reshape((-1, *(1,) * (y.ndim - 2))) if w_scale.ndim else w_scale)
    return _requantized(y, scale, y_scale.reshape(()), y_zero.reshape(()))


RULES: Mapping[str, Callable[..., Any]] = {
    "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear, "MatMulInteger": matmul_integer, "ConvInteger": conv_integer,
    "QLinearMatMul": qlinear_matmul, "QLinearConv": qlinear_conv}
