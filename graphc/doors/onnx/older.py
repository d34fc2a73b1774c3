"""Operators as they were in older opsets, where they meant something else: by the rules of the newest.

An attribute that became an operand of the same name needs no row here.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto

import graphc as gc
from graphc.doors.onnx.call import Call
from graphc.doors.onnx.known import Known, number_of
from graphc.doors.onnx.ops.boxes import roi_align
from graphc.doors.onnx.ops.elementwise import BINARY, cast, clip_rule, div, power, prelu
from graphc.doors.onnx.ops.image import resize_10
from graphc.doors.onnx.ops.index import one_hot
from graphc.doors.onnx.ops.norm import batch_normalization, dropout, group_normalization, hardmax
from graphc.doors.onnx.ops.product import gemm
from graphc.doors.onnx.ops.shape import pad
from graphc.doors.onnx.ops.signal import dft_17
from graphc.doors.onnx.rule import Int, Statistic
from graphc.dsl.array import Array

LARGEST = float(np.finfo(np.float32).max)
Versions = Sequence[tuple[int, Callable[..., Any]]]        # (below this opset, rule), the lowest first


def of_rows(function: Callable[..., Array]) -> Callable[..., Array]:
    """Softmax and its like before opset 13: of all axes from `axis` on together."""
    def rule(x: Array, *, axis: int = 1) -> Array:
        axis = axis % x.ndim
        rows = x.reshape((prod(x.shape[:axis]), prod(x.shape[axis:])))
        return function(rows, axis=-1).reshape(x.shape)
    return rule


def spread(op: str) -> Callable[..., Array]:
    """Before opset 7: the second operand stands beside axes of the first from `axis` on, or beside the last ones."""
    function = {**BINARY, "Div": div, "Pow": power}[op]

    def rule(x: Array, y: Array, *, axis: int | None = None, broadcast: int = 0) -> Array:
        if broadcast and axis is not None and y.ndim:
            y = y.reshape((*y.shape, *(1,) * (x.ndim - axis % x.ndim - y.ndim)))
        return function(x, y)
    return rule


def prelu_6(x: Array, slope: Array) -> Array:
    """One slope for each channel, axis 1."""
    wide = slope.ndim == 1 and slope.shape[0] != 1
    return prelu(x, slope.reshape((-1, *(1,) * (x.ndim - 2))) if wide else slope)


def batch_normalization_6(x: Array, scale: Array, bias: Array, mean: Statistic, var: Statistic, *,
                          epsilon: float = 1e-5, momentum: float = 0.9, is_test: int = 0, spatial: int = 1,
                          call: Call) -> Any:
    return batch_normalization(x, scale, bias, mean, var, epsilon=epsilon, momentum=momentum, spatial=spatial,
                               call=call)


def dropout_6(x: Array, *, ratio: float = 0.5, is_test: int = 0, call: Call) -> Any:
    return dropout(x, Known.of(np.float32(ratio)), call=call)


def cast_5(x: Array, *, to: str, call: Call) -> Array:
    """The type by its name."""
    return cast(x, to=TensorProto.DataType.Value(to), call=call)


def pad_2(x: Array, *, pads: Sequence[int] | None = None, paddings: Sequence[int] | None = None,
          mode: str = "constant", value: float = 0.0) -> Array:
    return pad(x, tuple(pads or paddings or ()), mode=mode, value=value)


def gemm_6(a: Array, b: Array, c: Array, *, alpha: float = 1.0, beta: float = 1.0, broadcast: int = 0, transA: int = 0,
           transB: int = 0) -> Array:
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


def group_normalization_18(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5, num_groups: int) -> Array:
    """One scale and shift for each group."""
    each: Any = x.shape[1] // num_groups
    wide = [gc.repeat(v, each, 0) for v in (scale, bias)]
    return group_normalization(x, *wide, epsilon=epsilon, num_groups=num_groups)


def roi_align_10(x: Array, rois: Array, batch_indices: Array, *, mode: str = "avg", output_height: int = 1,
                 output_width: int = 1, sampling_ratio: int = 0, spatial_scale: float = 1.0) -> Array:
    """Boxes begin at the corners of elements, not at their middles."""
    return roi_align(x, rois, batch_indices, coordinate_transformation_mode="output_half_pixel", mode=mode,
                     output_height=output_height, output_width=output_width, sampling_ratio=sampling_ratio,
                     spatial_scale=spatial_scale)


def one_hot_9(indices: Array, depth: Int, values: Array, *, axis: int = -1) -> Array:
    """Negative positions are nowhere."""
    at = indices.astype(gc.i64)
    return one_hot(gc.where(at < 0, number_of(depth), at), depth, values, axis=axis)


def clip_6(x: Array, *, min: float = -LARGEST, max: float = LARGEST) -> Array:
    """Without bounds those of f32's numbers: infinities become the last of these. f16 has none so large."""
    low, high = ((None if x.dtype is gc.f16 and abs(bound) == LARGEST else bound) for bound in (min, max))
    return gc.clip(x, low, high)


def upsample_1(x: Array, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Array:
    return resize_10(x, np.array([1, 1, height_scale, width_scale]), mode=mode)


OLDER: Mapping[str, Versions] = {
    "Softmax": ((13, of_rows(gc.softmax)),), "LogSoftmax": ((13, of_rows(gc.log_softmax)),),
    "Hardmax": ((13, of_rows(hardmax)),),
    "Resize": ((11, resize_10),), "Upsample": ((7, upsample_1), (100, resize_10)), "DFT": ((20, dft_17),),
    "RoiAlign": ((16, roi_align_10),), "OneHot": ((11, one_hot_9),),
    "Clip": ((6, clip_rule), (11, clip_6)),
    **{op: ((7, spread(op)),) for op in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less",
                                         "Greater")},
    "PRelu": ((7, prelu_6),), "GroupNormalization": ((21, group_normalization_18),),
    "BatchNormalization": ((7, batch_normalization_6),), "Dropout": ((7, dropout_6),),
    "Cast": ((6, cast_5),), "Pad": ((11, pad_2),), "Gemm": ((7, gemm_6),)}
