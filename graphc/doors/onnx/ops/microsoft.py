"""Operators of com.microsoft that ONNX Runtime's optimizers and quantizers write: fused products and norms, and
quantised arithmetic. Those of attention are in `microsoft_attention`."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.codes import same_numbers
from graphc.doors.onnx.ops import norm, product, quantized, recurrent
from graphc.doors.onnx.ops.quantized import dequantized
from graphc.doors.onnx.rule import Known, Operand, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.types import f32, u8

MICROSOFT = "com.microsoft"
Sizes = Sequence[int] | None


def _swapped(x: Array) -> Array:
    return gc.swapaxes(x, -1, -2)


def fused_matmul(a: Array, b: Array, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0,
                 transBatchB: int = 0) -> Array:
    """`transBatch`: the first axis goes behind the other ones of the batch."""
    if transBatchA:
        a = gc.moveaxis(a, 0, -2)
    if transBatchB:
        b = gc.moveaxis(b, 0, -2)
    y = (_swapped(a) if transA else a) @ (_swapped(b) if transB else b)
    return y if alpha == 1.0 else y * alpha


def activated(x: Array, name: str, numbers: Sequence[float] = ()) -> Array:
    """A fused activation by its name."""
    if not name:
        return x
    if name.lower() == "clip":
        return gc.clip(x, *numbers)
    function, defaults = recurrent.ACTIVATIONS.get(name.lower(), (None, ()))
    if function is None:
        raise Unsupported(f"the activation {name}")
    return function(x, *[*numbers, *defaults[len(numbers):]][:len(defaults)])


def fused_gemm(a: Array, b: Array, c: Array | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
               transB: int = 0, activation: str = "", activation_alpha: float | None = None,
               activation_beta: float | None = None, activation_gamma: float | None = None) -> Array:
    if activation_gamma is not None:
        raise Unsupported("activation_gamma")
    y = product.gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return activated(y, activation, [v for v in (activation_alpha, activation_beta) if v is not None])


def fused_conv(x: Array, w: Array, bias: Array | None = None, z: Array | None = None, *, activation: str = "",
               activation_params: Sequence[float] = (), auto_pad: str = "NOTSET", dilations: Sizes = None,
               group: int = 1, kernel_shape: Sizes = None, pads: Sizes = None, strides: Sizes = None) -> Array:
    y = product.conv(x, w, bias, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape,
                     pads=pads, strides=strides)
    return activated(y if z is None else y + z, activation, activation_params)


def gelu(x: Array) -> Array:
    return gc.gelu(x)


def fast_gelu(x: Array, bias: Array | None = None) -> Array:
    return gc.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(x: Array, *, alpha: float = 1.702) -> Array:
    return x * gc.sigmoid(x * alpha)


def bias_gelu(x: Array, bias: Array) -> Array:
    return gc.gelu(x + bias)


# ---- norms

def simplified_layer_normalization(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5,
                                   stash_type: int = 1) -> Array:
    return norm.rms_normalization(x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type)


def _skipped(x: Array, skip: Array, bias: Array | None) -> Array:
    total = x + skip
    return total if bias is None else total + bias


def skip_layer_normalization(x: Array, skip: Array, gamma: Array, beta: Array | None = None, bias: Array | None = None,
                             *, epsilon: float = 1e-12, call: Call) -> tuple[Any, ...]:
    """The norm of a sum; also its mean, 1 / deviation, and the sum, where they are read."""
    total = _skipped(x, skip, bias)
    y = gc.layer_norm(total, gamma, beta, eps=epsilon)
    if not any(call.named[1:3]):
        return (y, None, None, total)[:call.wanted]
    mean, var = gc.mean(total, -1, True), gc.var(total, -1, keepdims=True)
    return (y, mean, 1.0 / gc.sqrt(var + epsilon), total)[:call.wanted]


def skip_simplified_layer_normalization(x: Array, skip: Array, gamma: Array, bias: Array | None = None, *,
                                        epsilon: float = 1e-12, call: Call) -> tuple[Any, ...]:
    total = _skipped(x, skip, bias)
    return (gc.rms_norm(total, gamma, eps=epsilon), None, None, total)[:call.wanted]


def embed_layer_normalization(ids: Array, segments: Array | None, *tables: Operand, epsilon: float = 1e-12,
                              mask_index_type: int = 0, call: Call) -> tuple[Any, ...]:
    """Embeddings of words, positions and segments, their sum and its norm; the mask as lengths [B]. `tables`: those of
    words, positions and segments, scale and shift, the mask, and the numbers of positions."""
    given = [None if t is None else call.array(t) for t in (*tables, *[None] * (7 - len(tables)))]
    words, positions, kinds, gamma, beta, mask, places = given
    if words is None or positions is None or gamma is None:
        raise GraphError("EmbedLayerNormalization needs tables of words and positions, and a scale")
    total = gc.embedding(words, ids)
    total = total + (positions[:ids.shape[1]] if places is None else gc.embedding(positions, places))
    if segments is not None and kinds is not None:
        total = total + gc.embedding(kinds, segments)
    lengths = gc.zeros((ids.shape[0],), gc.i32) if mask is None or not mask_index_type else gc.sum(
        mask.astype(gc.i32), axis=1)
    return (gc.layer_norm(total, gamma, beta, eps=epsilon), lengths, total)[:call.wanted]


# ---- quantised products

def matmul_integer_to_float(a: Array, b: Array, a_scale: Array, b_scale: Array, a_zero: Operand = None,
                            b_zero: Operand = None, bias: Array | None = None, *, call: Call) -> Array:
    y = quantized.matmul_integer(a, b, a_zero, b_zero, call=call).astype(a_scale.dtype) * (a_scale * b_scale)
    return y if bias is None else y + bias


def dynamic_quantize_matmul(a: Array, b: Array, b_scale: Array, b_zero: Operand = None, bias: Array | None = None, *,
                            call: Call) -> Array:
    """a is quantised as it comes."""
    small, scale, zero = quantized.dynamic_quantize_linear(a)
    return matmul_integer_to_float(small, b, scale, b_scale, zero, b_zero, bias, call=call)


def dynamic_quantize_lstm(x: Array, w: Operand, r: Operand, *rest: Operand, activation_alpha: Sequence[float] = (),
                          activation_beta: Sequence[float] = (), activations: Sequence[str] = (),
                          clip: float | None = None, direction: str = "forward", hidden_size: int | None = None,
                          input_forget: int = 0, call: Call) -> tuple[Array, ...]:
    """Weights [D, inputs, 4 H] and [D, H, 4 H] of small integers; inputs of a step, and of all steps the input, are
    quantised as they come. `rest`: bias, lengths, the two states and the peepholes of LSTM, then scale and zero point
    of both weights."""
    bias, lengths, h, c, p, *scales = rest
    w_scale, w_zero, r_scale, r_zero = scales
    scale_of_w, scale_of_r = quantized.needed_arrays((w_scale, r_scale), call)
    options = recurrent.Options(activation_alpha, activation_beta, activations, clip, direction)
    recurrent_weights = call.array(r)
    hidden = recurrent_weights.shape[1]
    if not isinstance(hidden, int) or hidden_size not in (None, hidden):
        raise GraphError(f"hidden_size is {hidden_size}, the recurrent weights {recurrent_weights.type}")

    def of(values: Operand, i: int) -> Operand:
        """Zero points of a direction; numbers of the file stay known."""
        return None if values is None else Known.of(values.numbers[i]) if isinstance(values, Known) else values[i]

    def by(weights: Array, scale: Array, zero: Operand, i: int) -> Callable[[Array], Array]:
        return lambda v: dynamic_quantize_matmul(v, weights[i], scale[i], of(zero, i), call=call)
    d = recurrent.Direction(recurrent_weights, (), hidden, coupled=bool(input_forget))
    own = [None if v is None else call.array(v) for v in (bias, h, c, p)]
    input_weights = call.array(w)
    products = tuple((by(input_weights, scale_of_w, w_zero, i), by(recurrent_weights, scale_of_r, r_zero, i))
                     for i in range(len(recurrent.DIRECTIONS[direction])))
    layer = recurrent.Layer(x, input_weights, recurrent_weights, own[0], (own[1], own[2]), own[3], products)
    return recurrent.run_layer(recurrent.LSTM, layer, lengths, d, options)[:max(call.wanted, 1)]


def matmul_nbits(a: Array, b: Known, scales: Known, zeros: Known | None = None, groups: Known | None = None,
                 bias: Array | None = None, *, K: int, N: int, bits: int = 4, block_size: int,
                 accuracy_level: int = 0, weight_prepacked: int = 0) -> Array:
    """a @ Wᵀ, where each row of W [N, K] is cut in blocks that have a scale; its numbers are packed, the first in the
    low bits. W is unpacked while importing."""
    if weight_prepacked:
        raise Unsupported("weights that are packed for a machine")
    if bits not in (2, 4, 8) or (groups is not None and groups.numbers.size):
        raise Unsupported(f"weights of {bits} bits" + " in groups" * (groups is not None))
    count = -(-K // block_size)
    packed = _unpacked(b.numbers.reshape(N, count, -1), bits, block_size)
    if zeros is None:
        middle: np.ndarray = np.full((N, count, 1), 1 << (bits - 1), np.float32)
    elif zeros.dtype is u8:
        middle = _unpacked(zeros.numbers.reshape(N, -1), bits, count)[..., None]
    else:
        middle = zeros.numbers.reshape(N, count, 1).astype(np.float32)
    w = (packed - middle) * scales.numbers.reshape(N, count, 1).astype(np.float32)
    y = a @ Known.of(np.ascontiguousarray(w.reshape(N, -1)[:, :K].T.astype(a.dtype.np))).array()
    return y if bias is None else y + bias


def _unpacked(numbers: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The numbers of `bits` bits in bytes, along the last axis, as f32."""
    parts = [(numbers >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(*numbers.shape[:-1], -1)[..., :count].astype(np.float32)


# ---- quantised functions: what they do to numbers, and the result quantised again

def _again(y: Array, scale: Array, zero: Array | None, like: Array) -> Array:
    return quantized.quantized(y, scale.reshape(()), None if zero is None else zero.reshape(()), like.dtype)


def _plain(x: Array, scale: Array, zero: Array | None) -> Array:
    return dequantized(x, scale.reshape(()), None if zero is None else zero.reshape(()))


def qlinear_binary(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def rule(a: Array, a_scale: Array, a_zero: Array | None, b: Array, b_scale: Array, b_zero: Array | None,
             c_scale: Array, c_zero: Array | None = None) -> Array:
        return _again(function(_plain(a, a_scale, a_zero), _plain(b, b_scale, b_zero)), c_scale, c_zero, a)
    return rule


def qlinear_sigmoid(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array,
                    y_zero: Array | None = None) -> Array:
    return _again(gc.sigmoid(_plain(x, x_scale, x_zero)), y_scale, y_zero, x)


def qlinear_leaky_relu(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None, *,
                       alpha: float = 0.01) -> Array:
    return _again(gc.leaky_relu(_plain(x, x_scale, x_zero), alpha), y_scale, y_zero, x)


def qlinear_softmax(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None, *,
                    axis: int = -1, opset: int) -> Array:
    wide = _plain(x, x_scale, x_zero)
    if opset < 13:                      # of everything from the axis on
        from_there = axis % x.ndim
        flat = wide.reshape((*x.shape[:from_there], -1))
        return _again(gc.softmax(flat, -1).reshape(x.shape), y_scale, y_zero, x)
    return _again(gc.softmax(wide, axis), y_scale, y_zero, x)


def qlinear_average_pool(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None,
                         *, auto_pad: str = "NOTSET", ceil_mode: int = 0, channels_last: int = 0,
                         count_include_pad: int = 0, kernel_shape: Sequence[int], pads: Sizes = None,
                         strides: Sizes = None) -> Array:
    wide = _plain(x, x_scale, x_zero)
    wide = gc.moveaxis(wide, -1, 1) if channels_last else wide
    y = product.average_pool(wide, auto_pad=auto_pad, ceil_mode=ceil_mode, count_include_pad=count_include_pad,
                             kernel_shape=kernel_shape, pads=pads, strides=strides)
    return _again(gc.moveaxis(y, 1, -1) if channels_last else y, y_scale, y_zero, x)


def qlinear_global_average_pool(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array,
                                y_zero: Array | None = None, *, channels_last: int = 0) -> Array:
    axes = tuple(range(1, x.ndim - 1)) if channels_last else tuple(range(2, x.ndim))
    return _again(gc.mean(_plain(x, x_scale, x_zero), axes, True), y_scale, y_zero, x)


def qlinear_reduce_mean(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None,
                        *, axes: Sequence[int] = (), keepdims: int = 1) -> Array:
    along = tuple(axes) or tuple(range(x.ndim))
    return _again(gc.mean(_plain(x, x_scale, x_zero), along, bool(keepdims)), y_scale, y_zero, x)


def qlinear_concat(y_scale: Operand, y_zero: Operand, *parts: Operand, axis: int, call: Call) -> Array:
    """Each part brought to the scale of the result, unless it has it, and then joined."""
    made = []
    for i in range(0, len(parts), 3):
        x, scale, zero = parts[i:i + 3]
        own = call.array(x)
        kept = same_numbers(scale, y_scale) and same_numbers(zero, y_zero)
        made.append(own if kept else _again(_plain(own, call.array(scale), call.array(zero)), call.array(y_scale),
                                            call.array(y_zero), own))
    return gc.concat(made, axis)


def qlinear_where(condition: Array, *parts: Array) -> Array:
    """Of x and y each the array, scale and zero point, then scale and zero point of the result."""
    x, y, (scale, zero) = parts[:3], parts[3:6], parts[6:]
    return _again(gc.where(condition, _plain(*x), _plain(*y)), scale, zero, x[0])


def qgemm(a: Array, a_scale: Array, a_zero: Operand | None, b: Array, b_scale: Array, b_zero: Operand | None,
          c: Array | None = None, y_scale: Array | None = None, y_zero: Array | None = None, *, alpha: float = 1.0,
          transA: int = 0, transB: int = 0, call: Call) -> Array:
    """alpha A B + C, C in i32 at the scale of the product; quantised where y_scale is given."""
    zero_a, zero_b = (None if v is None else call.array(v) for v in (a_zero, b_zero))
    y = quantized.whole_product(_swapped(a) if transA else a, _swapped(b) if transB else b, zero_a, zero_b)
    y = y if c is None else y + c
    wide = y.astype(f32) * (a_scale * b_scale * alpha)
    if y_scale is None:
        return wide
    return quantized.quantized(wide, y_scale, y_zero, a.dtype if y_zero is None else y_zero.dtype)


FUSED: Mapping[str, Callable[..., Any]] = {
    "FusedMatMul": fused_matmul, "FusedGemm": fused_gemm, "FusedConv": fused_conv, "Gelu": gelu,
    "FastGelu": fast_gelu, "QuickGelu": quick_gelu, "BiasGelu": bias_gelu,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
    "EmbedLayerNormalization": embed_layer_normalization}
QUANTIZED: Mapping[str, Callable[..., Any]] = {
    "MatMulIntegerToFloat": matmul_integer_to_float, "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "DynamicQuantizeLSTM": dynamic_quantize_lstm, "MatMulNBits": matmul_nbits,
    "QuantizeLinear": quantized.quantize_linear, "DequantizeLinear": quantized.dequantize_linear,
    "QLinearAdd": qlinear_binary(gc.add), "QLinearMul": qlinear_binary(gc.mul), "QLinearSigmoid": qlinear_sigmoid,
    "QLinearLeakyRelu": qlinear_leaky_relu, "QLinearSoftmax": qlinear_softmax,
    "QLinearAveragePool": qlinear_average_pool, "QLinearGlobalAveragePool": qlinear_global_average_pool,
    "QLinearReduceMean": qlinear_reduce_mean, "QLinearConcat": qlinear_concat, "QLinearWhere": qlinear_where,
    "QGemm": qgemm}
RULES: Mapping[str, Callable[..., Any]] = {
    # ONNX Runtime has it in the domain of ONNX
    "SimplifiedLayerNormalization": simplified_layer_normalization,
    **{f"{MICROSOFT}:{name}": rule for name, rule in {**FUSED, **QUANTIZED}.items()}}
