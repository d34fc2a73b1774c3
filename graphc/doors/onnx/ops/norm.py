"""Normalisations, softmax, dropout."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.doors.onnx.call import Call, as_known
from graphc.doors.onnx.known import MOST_PARTS, computable
from graphc.doors.onnx.rule import Known, Statistic, Unsupported
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.types import normalize_axis


def batch_normalization(x: Array, scale: Array, bias: Array, mean: Statistic, var: Statistic, *, epsilon: float = 1e-5,
                        momentum: float = 0.9, training_mode: int = 0, spatial: int = 1, call: Call) -> Any:
    """With the statistics of the batch in a training step or where the file says so, which then become part of the
    running ones. `spatial` 0, of opsets before 9: of each element of an image by itself."""
    if not spatial and x.ndim > 2:
        raise Unsupported("statistics of each element of an image (spatial is 0)")
    if not training_mode and (not call.training or call.frozen):
        return _normalized(x, scale, bias, mean, var, epsilon)
    axes = (0, *range(2, x.ndim))
    if scale.dtype == x.dtype == mean.dtype:
        y, now, spread = gc.batch_norm(x, scale, bias, eps=epsilon)
    else:
        wide = x.astype(mean.dtype)
        now, spread = gc.mean(wide, axes), gc.var(wide, axes)
        y = _normalized(x, scale, bias, now, spread, epsilon)
    new_mean, new_var = (old * momentum + value * (1.0 - momentum) for old, value in ((mean, now), (var, spread)))
    if call.training:
        call.write(3, gc.stop_gradient(new_mean))
        call.write(4, gc.stop_gradient(new_var))
    return (y, new_mean, new_var)[:max(call.wanted, 1)]


def _normalized(x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float) -> Array:
    if x.dtype == scale.dtype == mean.dtype and x.ndim >= 2:
        return gc.batch_norm_inference(x, scale, bias, mean=mean, var=var, eps=epsilon)
    wide = (-1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else (1,)
    scale, bias, mean, var = (v.astype(gc.f32).reshape(wide) for v in (scale, bias, mean, var))
    return ((x.astype(gc.f32) - mean) / gc.sqrt(var + epsilon) * scale + bias).astype(x.dtype)


def dropout(x: Array, ratio: Known | None = None, training_mode: Known | None = None, *, seed: int | None = None,
            call: Call) -> Any:
    """Drops elements in a training step, or where the file says so. With a seed in the file the same ones in each
    call: those that numpy's RandomState draws, as in ONNX's own reference."""
    rate = 0.5 if ratio is None else float(ratio.item("ratio"))
    told = training_mode is not None and bool(training_mode.item("training_mode"))
    everything = gc.ones(x.shape, gc.bool_)
    if not rate or not (told or call.training and not call.frozen):
        return (x, everything)[:call.wanted]
    if seed is not None and x.type.is_static:
        drawn = np.random.RandomState(seed % (1 << 32)).uniform(0, 1.0, x.shape) >= rate
        mask = as_known(np.asarray(drawn)).array()
        return (gc.where(mask, x * (1.0 / (1.0 - rate)), 0.0), mask)[:call.wanted]
    if call.wanted == 1:
        return gc.dropout(x, rate)
    mask = gc.bernoulli(1.0 - rate, x.shape)
    return gc.where(mask, x / (1.0 - rate), 0.0), mask


def instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    channels: Any = x.shape[1]
    return gc.group_norm(x, scale, bias, groups=channels, eps=epsilon)


def group_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5, num_groups: int,
                        stash_type: int = 1) -> Array:
    return gc.group_norm(x, scale, bias, groups=num_groups, eps=epsilon)


def layer_normalization(x: Array, scale: Array, bias: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5,
                        stash_type: int = 1, call: Call) -> Any:
    """Also the mean and 1 / deviation, where they are read."""
    axis = normalize_axis(axis, x.ndim)
    axes = tuple(range(axis, x.ndim))
    if scale.shape == x.shape[axis:]:
        y = gc.layer_norm(x, scale, bias, axes=len(axes), eps=epsilon)
    else:
        y = gc.layer_norm(x, axes=len(axes), eps=epsilon) * scale
        y = y if bias is None else y + bias
    if not any(call.named[1:]):
        return y
    wide = x.astype(gc.f32) if stash_type == 1 else x
    return y, gc.mean(wide, axes, True), 1.0 / gc.sqrt(gc.var(wide, axes, keepdims=True) + epsilon)


def rms_normalization(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    axes = tuple(range(normalize_axis(axis, x.ndim), x.ndim))
    if len(axes) == 1 and scale.shape == x.shape[-1:] and scale.dtype == x.dtype:
        return gc.rms_norm(x, scale, eps=epsilon)
    wide = x.astype(gc.f32) if stash_type == 1 else x
    y = wide / gc.sqrt(gc.mean(wide * wide, axes, True) + epsilon)
    return y.astype(scale.dtype) * scale


def lrn(x: Array, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> Array:
    """Across channels: by the sum of squares of `size` neighbours."""
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    if isinstance(x.shape[1], int):         # neighbours beyond the channels are 0
        before, after = min(before, x.shape[1]), min(after, x.shape[1])
    computable(before + after, MOST_PARTS)
    wide = gc.pad(x * x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    total = wide[:, :x.shape[1]]
    for i in range(1, 1 + before + after):
        total = total + wide[:, i:i + x.shape[1]]
    return x / (bias + total * (alpha / size)) ** beta


def mean_variance_normalization(x: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    centred = x - gc.mean(x, tuple(axes), True)
    return centred / (gc.sqrt(gc.mean(centred * centred, tuple(axes), True)) + 1e-9)


def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """0 where the norm is 0."""
    if p not in (1, 2):
        raise GraphError(f"p is 1 or 2, got {p}")
    size = gc.sum(gc.abs(x) if p == 1 else x * x, axis, True)
    size = gc.where(size == 0, 1.0, size)           # before the root, which has no slope at 0
    return x / (size if p == 1 else gc.sqrt(size))


def softmax(function: Callable[..., Array]) -> Callable[..., Array]:
    def rule(x: Array, *, axis: int = -1) -> Array:
        return function(x, axis)
    return rule


def hardmax(x: Array, *, axis: int = -1) -> Array:
    """1 at the first largest."""
    axis = normalize_axis(axis, x.ndim)
    best = gc.argmax(x, axis=axis, keepdims=True)
    return gc.equal(gc.iota(x.shape, axis), best).astype(x.dtype)


RULES: Mapping[str, Callable[..., Any]] = {
    "BatchNormalization": batch_normalization, "Dropout": dropout, "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization, "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization, "LRN": lrn, "MeanVarianceNormalization": mean_variance_normalization,
    "LpNormalization": lp_normalization, "Softmax": softmax(gc.softmax), "LogSoftmax": softmax(gc.log_softmax),
    "Hardmax": hardmax}
