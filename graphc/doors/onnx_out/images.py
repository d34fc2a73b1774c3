"""Convolutions and pooling of f32; of other types by `windows`."""
from __future__ import annotations

from math import prod

import numpy as np

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.movement import only, reshaped
from graphc.doors.onnx_out.rule import SINGLE, Rule, Rules
from graphc.ir.dims import Dim, Dims
from graphc.ir.graph import Node, NodeOf
from graphc.ir.ops.conv import Conv, ConvInputGrad, ConvOp, ConvWeightGrad
from graphc.ir.ops.sliding import Pads
from graphc.ir.ops.window import AvgPool, AvgPoolGrad, AvgPooling, MaxPool, MaxPoolGrad, MaxPoolPick, Pooling
from graphc.ir.types import TensorType, f32, f64, i8, i32, u8

MAXIMA = frozenset((f32, f64))
BYTES = frozenset((i8, u8))
DILATED_MEAN_SINCE = 19


def pads(padding: Pads) -> list[int]:
    """All that is before the axes, then all that is after them."""
    return [low for low, _ in padding] + [high for _, high in padding]


def _walk(op: ConvOp) -> dict[str, object]:
    """The attributes of a convolution."""
    return {"strides": list(op.stride), "pads": pads(op.padding), "dilations": list(op.dilation), "group": op.groups}


def _conv(e: Emitter, node: NodeOf[Conv]) -> list[str] | None:
    """Of f32, and of bytes in i32."""
    dtype = node.outputs[0].type.dtype
    if dtype is not f32 and (dtype is not i32 or any(v.type.dtype not in BYTES for v in node.inputs)):
        return None
    kind = "Conv" if dtype is f32 else "ConvInteger"
    return [e.op(kind, *(e.values[v] for v in node.inputs), **_walk(node.op))]


def _input_grad(e: Emitter, node: NodeOf[ConvInputGrad]) -> list[str] | None:
    """A transposed convolution; rows of the image that no window reaches are zeros at its end."""
    op, (w, dy) = node.op, node.inputs
    behind = []
    for axis in range(op.axes):
        size, kernel = op.x_shape[2 + axis], w.type.shape[2 + axis]
        low, high = op.padding[axis]
        span = (dy.type.shape[2 + axis] - 1) * op.stride[axis] + op.dilation[axis] * (kernel - 1) + 1
        rest = size + low + high - span
        if not isinstance(rest, int):
            return None
        behind.append(rest)
    return [e.op("ConvTranspose", e.values[dy], e.values[w], output_padding=behind, **_walk(op))]


def _weight_grad(e: Emitter, node: NodeOf[ConvWeightGrad]) -> list[str]:
    """A convolution with batch and channels exchanged, of the image by dy: stride and dilation exchanged too."""
    op, (x, dy) = node.op, node.inputs
    g, (n, c, *size) = op.groups, x.type.shape
    spatial = range(3, 3 + op.axes)
    apart = reshaped(e, e.values[x], (n, g, _per(c, g), *size))
    turned = reshaped(e, e.op("Transpose", apart, perm=[2, 1, 0, *spatial]), (_per(c, g), g * n, *size))
    kernels = e.op("Transpose", e.values[dy], perm=[1, 0, *range(2, 2 + op.axes)])
    y = e.op("Conv", turned, kernels, strides=list(op.dilation), dilations=list(op.stride), pads=pads(op.padding),
             group=g)
    wanted = op.w_shape[2:]
    y = e.op("Slice", y, e.numbers(*[0] * op.axes), e.shape(wanted), e.numbers(*range(2, 2 + op.axes)))
    return [e.op("Transpose", y, perm=[1, 0, *range(2, 2 + op.axes)])]


def _per(count: Dim, groups: int) -> Dim:
    return count // groups


def _window(op: Pooling, x: Dims) -> dict[str, object] | None:
    """The attributes of pooling; None where they depend on a size that is not a number. What `ceil_mode` adds is
    written as padding."""
    padding = op.padding
    if 0 in x[2:]:
        return None
    if op.ceil_mode:
        size, out = x[2:], op.output_shape(x)[2:]
        if not all(isinstance(d, int) for d in (*size, *out)):
            return None
        padding = op.frame(size, out)       # type: ignore[arg-type]    # numbers, as was just looked at
    if any(max(pair) >= k for pair, k in zip(padding, op.kernel)):          # which runtimes refuse
        return None
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": pads(padding),
            "dilations": list(op.dilation)}


def _max_pool(e: Emitter, node: NodeOf[MaxPool]) -> list[str] | None:
    window = _window(node.op, node.inputs[0].type.shape)
    return None if window is None else [e.op("MaxPool", only(e, node), **window)]


def _chosen(e: Emitter, node: Node) -> str | None:
    """The number, in all of the image, of what max pooling chose: one axis of positions."""
    op = node.op
    window = _window(op, node.inputs[0].type.shape) if isinstance(op, Pooling) else None
    if window is None:
        return None
    return e.op("Reshape", e.ops("MaxPool", only(e, node), outputs=2, **window)[1], e.numbers(-1))


def _max_grad(e: Emitter, node: NodeOf[MaxPoolGrad]) -> list[str] | None:
    chosen = _chosen(e, node)
    if chosen is None:
        return None
    x, dy = node.inputs
    zero = e.constant(0, dy.type.dtype)
    flat = e.op("Expand", zero, e.shape((x.type.size,)))
    spread = e.op("ScatterElements", flat, chosen, e.op("Reshape", e.values[dy], e.numbers(-1)), axis=0,
                  reduction="add")
    return [reshaped(e, spread, x.type.shape)]


def _max_pick(e: Emitter, node: NodeOf[MaxPoolPick]) -> list[str] | None:
    chosen = _chosen(e, node)
    if chosen is None:
        return None
    flat = e.op("Reshape", e.values[node.inputs[1]], e.numbers(-1))
    return [reshaped(e, e.op("Gather", flat, chosen, axis=0), node.outputs[0].type.shape)]


def _counts(op: AvgPooling, x: TensorType) -> np.ndarray | None:
    """By what the sums of windows are divided; None where a size is not a number."""
    size = x.shape[2:]
    if all(isinstance(d, int) for d in size):
        return op.counts((1, 1, *size), x.dtype.np)     # type: ignore[arg-type]
    padded = any(map(any, op.padding)) and not op.count_include_pad
    return None if padded or op.ceil_mode else np.array(prod(op.kernel), x.dtype.np)


def _avg_pool(e: Emitter, node: NodeOf[AvgPool]) -> list[str] | None:
    op = node.op
    if op.ceil_mode or (set(op.dilation) != {1} and e.opset < DILATED_MEAN_SINCE):
        return None
    window = _window(op, node.inputs[0].type.shape)
    if window is None:
        return None
    if set(op.dilation) == {1}:
        del window["dilations"]         # which old opsets do not have
    return [e.op("AveragePool", only(e, node), count_include_pad=int(op.count_include_pad), **window)]


def _avg_grad(e: Emitter, node: NodeOf[AvgPoolGrad]) -> list[str] | None:
    """A transposed convolution with a kernel of ones, of each channel alone."""
    op, dy = node.op, node.inputs[0]
    n, c, *size = op.x_shape
    counts = _counts(op, dy.type.with_shape(op.x_shape))
    if counts is None:
        return None
    share = e.op("Div", e.values[dy], e.constant(counts))
    alone = reshaped(e, share, (n * c, 1, *dy.type.shape[2:]))
    padding = op.padding
    if op.ceil_mode:
        padding = op.frame(tuple(size), dy.type.shape[2:])      # type: ignore[arg-type]
    grad = ConvInputGrad.at(op.axes)(op.stride, padding, op.dilation, 1, x_shape=(n * c, 1, *size))
    spans = [(o - 1) * s + k for o, s, k in zip(dy.type.shape[2:], op.stride, op.spans)]
    behind = [d + sum(p) - span for d, p, span in zip(size, padding, spans)]
    if not all(isinstance(d, int) for d in behind):
        return None
    ones = e.constant(np.ones((1, 1, *op.kernel), dy.type.dtype.np))
    return [reshaped(e, e.op("ConvTranspose", alone, ones, output_padding=behind, **_walk(grad)), op.x_shape)]


def _rules() -> Rules:
    """For one, two and three spatial axes."""
    found: Rules = {}
    for family, write, types in (
            (Conv, _conv, SINGLE | BYTES), (ConvInputGrad, _input_grad, SINGLE), (ConvWeightGrad, _weight_grad, SINGLE),
            (MaxPool, _max_pool, MAXIMA), (MaxPoolGrad, _max_grad, MAXIMA), (MaxPoolPick, _max_pick, MAXIMA),
            (AvgPool, _avg_pool, SINGLE), (AvgPoolGrad, _avg_grad, SINGLE)):
        for kind in family.every():
            found[kind] = Rule(write, types)
    return found


RULES = _rules()
