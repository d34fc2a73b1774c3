"""Composite operators that ONNX has too. The others are written as what they are made of."""
from __future__ import annotations

import numpy as np

from graphc.doors.onnx_out.emitter import Emitter
from graphc.doors.onnx_out.movement import only, reshaped
from graphc.doors.onnx_out.rule import FLOATS, SINGLE, Rule, Rules, Write, plain
from graphc.ir.dims import Dims, product_of
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.op import Opcode
from graphc.ir.ops.activation import Clip, Elu, Gelu, LeakyRelu, Relu, Softplus
from graphc.ir.ops.attention import Attention
from graphc.ir.ops.norm import (
    BatchNormInference, GroupNorm, LayerNorm, LogSoftmax, RMSNorm, Softmax, SoftmaxLike)
from graphc.ir.ops.resize import Resize
from graphc.ir.ops.trig import Acos, Acosh, Asin, Asinh, Atan, Atanh, Cosh, Sinh, Tan
from graphc.ir.types import bool_, i8, i32, i64, u8

GELU_SINCE, RMS_NORM_SINCE, ATTENTION_SINCE = 20, 23, 23
ATTENTION_AXES = 4                  # batch, heads, positions, features

TRIGONOMETRY: dict[Opcode, str] = {Acos: "Acos", Acosh: "Acosh", Asin: "Asin", Asinh: "Asinh", Atan: "Atan",
                                   Atanh: "Atanh", Cosh: "Cosh", Sinh: "Sinh", Tan: "Tan"}


def _leaky_relu(e: Emitter, node: NodeOf[LeakyRelu]) -> list[str]:
    return [e.op("LeakyRelu", only(e, node), alpha=node.op.slope)]


def _elu(e: Emitter, node: NodeOf[Elu]) -> list[str]:
    return [e.op("Elu", only(e, node), alpha=node.op.alpha)]


def _gelu(e: Emitter, node: NodeOf[Gelu]) -> list[str]:
    return [e.op("Gelu", only(e, node), approximate=node.op.approximate)]


def _clip(e: Emitter, node: NodeOf[Clip]) -> list[str]:
    ends = ["" if end is None else e.constant(end, node.inputs[0].type.dtype) for end in (node.op.low, node.op.high)]
    return [e.op("Clip", only(e, node), *(ends if ends[1] else ends[:1] if ends[0] else []))]


def _softmax(kind: str) -> Write:
    def write(e: Emitter, node: NodeOf[SoftmaxLike]) -> list[str]:
        return [e.op(kind, only(e, node), axis=node.op.axis)]
    return write


def _scale(e: Emitter, node: Node, shape: Dims) -> list[str] | None:
    """Scale and shift, or ones where there is none, which ONNX asks for."""
    given = [e.values[v] for v in node.inputs[1:]]
    if given:
        return given
    sizes = [d for d in shape if isinstance(d, int)]
    return [e.constant(np.ones(sizes, node.inputs[0].type.dtype.np))] if len(sizes) == len(shape) else None


def _layer_norm(e: Emitter, node: NodeOf[LayerNorm]) -> list[str] | None:
    op, x = node.op, node.inputs[0]
    scale = _scale(e, node, x.type.shape[x.type.rank - op.axes:])
    return scale and [e.op("LayerNormalization", e.values[x], *scale, axis=-op.axes, epsilon=op.eps)]


def _rms_norm(e: Emitter, node: NodeOf[RMSNorm]) -> list[str] | None:
    op, x = node.op, node.inputs[0]
    scale = _scale(e, node, x.type.shape[x.type.rank - op.axes:])
    return scale and [e.op("RMSNormalization", e.values[x], *scale, axis=-op.axes, epsilon=op.eps)]


def _group_norm(e: Emitter, node: NodeOf[GroupNorm]) -> list[str]:
    """An instance norm of the groups, then scale and shift of the channels. (ONNX's own group norm is computed from
    E[x²] - E[x]², of which little is left where the mean is large.)"""
    op, x = node.op, node.inputs[0]
    n, c, *rest = x.type.shape
    grouped = reshaped(e, e.values[x], (n, op.groups, product_of((c // op.groups, *rest))))
    ones, zeros = (e.constant(np.full(op.groups, value, x.type.dtype.np)) for value in (1, 0))
    y = reshaped(e, e.op("InstanceNormalization", grouped, ones, zeros, epsilon=op.eps), x.type.shape)
    for kind, s in zip(("Mul", "Add"), node.inputs[1:]):
        y = e.op(kind, y, reshaped(e, e.values[s], (*s.type.shape, *(1 for _ in rest))))
    return [y]


def _batch_norm(e: Emitter, node: NodeOf[BatchNormInference]) -> list[str]:
    return [e.op("BatchNormalization", *(e.values[v] for v in node.inputs), epsilon=node.op.eps)]


def _attention(e: Emitter, node: NodeOf[Attention]) -> list[str] | None:
    """Where it is the same: one batch and head for all operands, no bool mask (a query that it hides whole gives 0
    here), and nobody reads the logsumexp, which ONNX does not give."""
    q, k, v, *mask = node.inputs
    lead = q.type.shape[:-2]
    alike = all(t.type.shape[:-2] == lead for t in (k, v)) and len(lead) <= ATTENTION_AXES - 2
    if not alike or e.is_read(node.outputs[1]) or any(m.type.dtype is bool_ for m in mask):
        return None
    if k.type.shape[-2] == 0 or any(not 1 < m.type.rank <= q.type.rank for m in mask):
        return None

    def wide(x: Value) -> str:
        shape = x.type.shape
        ones = ATTENTION_AXES - len(shape)
        return reshaped(e, e.values[x], (1,) * ones + shape) if ones else e.values[x]
    y = e.op("Attention", *map(wide, (q, k, v, *mask)), scale=float(node.op.factor(q.type.shape)),
             is_causal=int(node.op.causal))
    shape = node.outputs[0].type.shape
    return [y if len(shape) == ATTENTION_AXES else reshaped(e, y, shape), e.file.unique("unread")]


RESIZE_MODES = {"bilinear": "linear", "bicubic": "cubic"}
RESIZE_PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")


def _resize(e: Emitter, node: NodeOf[Resize]) -> list[str] | None:
    """Of modes that mix neighbours, by sizes alone. What "nearest" reads may lie between two elements: graphc's choice
    is written as positions."""
    op = node.op
    places = op.coordinates or "half_pixel"
    if op.exclude_outside and op.mode != "bicubic":
        return None
    if op.mode not in RESIZE_MODES or op.scales or places not in RESIZE_PLACES:
        return None
    return [e.op("Resize", only(e, node), "", "", e.shape((*node.inputs[0].type.shape[:2], *op.shape)),
                 mode=RESIZE_MODES[op.mode], coordinate_transformation_mode=places, antialias=int(op.antialias),
                 exclude_outside=int(op.exclude_outside), cubic_coeff_a=op.cubic)]


RULES: Rules = {
    Relu: Rule(plain("Relu"), FLOATS | {i8, i32}), LeakyRelu: Rule(_leaky_relu, SINGLE), Elu: Rule(_elu, SINGLE),
    Gelu: Rule(_gelu, SINGLE, GELU_SINCE), Softplus: Rule(plain("Softplus"), SINGLE),
    Clip: Rule(_clip, FLOATS | {i8, i32, i64, u8}), Softmax: Rule(_softmax("Softmax"), FLOATS),
    LogSoftmax: Rule(_softmax("LogSoftmax"), SINGLE), LayerNorm: Rule(_layer_norm, SINGLE),
    RMSNorm: Rule(_rms_norm, SINGLE, RMS_NORM_SINCE), GroupNorm: Rule(_group_norm, SINGLE),
    BatchNormInference: Rule(_batch_norm, SINGLE), Attention: Rule(_attention, SINGLE, ATTENTION_SINCE),
    Resize: Rule(_resize, SINGLE)}
RULES |= {kind: Rule(plain(name), SINGLE) for kind, name in TRIGONOMETRY.items()}
