"""Normalisation, softmax, pools, images, dropout and random numbers."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log1p, pi, prod
from typing import Any

import graphc as gc
from graphc.doors.torch.rules.products import _per_axis
from graphc.doors.torch.rules.promotion import as_type, floating, in_widest_type, size_array
from graphc.doors.torch.rules.shapes import axis_of
from graphc.errors import GraphError
from graphc.ir.types import DType, bool_, f32, f64, i64

Array = gc.Array
Rule = Callable[..., Any]
FLOAT_EPS = {f32: 2.0 ** -23, f64: 2.0 ** -52}


def _softmax(function: Callable[..., Array]) -> Rule:
    def rule(x: Array, dim: int, *more: Any, dtype: DType | None = None, **_: Any) -> Array:
        wanted = dtype or next((m for m in more if isinstance(m, DType)), None)
        x = x.astype(wanted) if wanted is not None else x if x.dtype.is_float else x.astype(f32)
        return function(x, axis_of(dim, x.ndim)) if x.ndim else function(x.reshape(1), 0).reshape(())
    return rule


def _safe_softmax(x: Array, dim: int, dtype: DType | None = None) -> Array:
    x = x if dtype is None else x.astype(dtype)
    axis = axis_of(dim, x.ndim)
    nothing = gc.all(gc.equal(x, -float("inf")), axis, keepdims=True)
    return gc.where(nothing, as_type(0, x.dtype), gc.softmax(gc.where(nothing, as_type(0, x.dtype), x), axis))


def _layer_norm(x: Array, shape: Sequence[Any], weight: Array | None = None, bias: Array | None = None,
                eps: float = 1e-5, *_: Any) -> Array:
    weight = gc.ones(tuple(shape), x.dtype) if weight is None and bias is not None else weight
    return gc.layer_norm(x, weight, bias, axes=len(shape), eps=eps)


def _native_layer_norm(x: Array, shape: Sequence[Any], weight: Array | None, bias: Array | None,
                       eps: float) -> tuple[Array, Array, Array]:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    spread = gc.rsqrt(gc.var(x, axes, keepdims=True) + eps)
    return _layer_norm(x, shape, weight, bias, eps), gc.mean(x, axes, keepdims=True), spread


def _rms_norm(x: Array, shape: Sequence[Any], weight: Array | None = None, eps: float | None = None) -> Array:
    eps = FLOAT_EPS.get(x.dtype, FLOAT_EPS[f32]) if eps is None else eps
    if len(shape) == 1:
        return gc.rms_norm(x, weight, eps=eps)
    y = x * gc.rsqrt(gc.mean(x * x, tuple(range(x.ndim - len(shape), x.ndim)), True) + eps)
    return y if weight is None else y * weight


def _fused_rms_norm(x: Array, shape: Sequence[Any], weight: Array | None = None,
                    eps: float | None = None) -> tuple[Array, Array]:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    small = FLOAT_EPS.get(x.dtype, FLOAT_EPS[f32]) if eps is None else eps
    return _rms_norm(x, shape, weight, eps), gc.rsqrt(gc.mean(x * x, axes, True) + small)


def _group_norm(x: Array, groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5,
                *_: Any) -> Array:
    return gc.group_norm(x, *_scale(weight, bias, x), groups=groups, eps=eps)


def _native_group_norm(x: Array, weight: Array | None, bias: Array | None, n: Any, c: Any, space: Any, groups: int,
                       eps: float) -> tuple[Array, Array, Array]:
    rows = x.reshape((n, groups, c // groups * space))
    return (_group_norm(x, groups, weight, bias, eps), gc.mean(rows, 2), gc.rsqrt(gc.var(rows, 2) + eps))


def _scale(weight: Array | None, bias: Array | None, x: Array) -> tuple[Array | None, Array | None]:
    """Both or neither, which is how the functions take them."""
    if weight is None and bias is None:
        return None, None
    channels = (x.shape[1],)
    return (gc.ones(channels, x.dtype) if weight is None else weight,
            gc.zeros(channels, x.dtype) if bias is None else bias)


def _filled_scale(weight: Array | None, bias: Array | None, x: Array) -> tuple[Array, Array]:
    gamma, beta = _scale(weight, bias, x)
    channels = (x.shape[1],)
    return (gc.ones(channels, x.dtype) if gamma is None else gamma,
            gc.zeros(channels, x.dtype) if beta is None else beta)


def _batch_inference(x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, eps: float) -> Array:
    gamma, beta = _filled_scale(weight, bias, x)
    return gc.batch_norm_inference(x, gamma, beta, mean=mean, var=var, eps=eps)


def _batch_training(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    return gc.batch_norm(x, *_filled_scale(weight, bias, x), eps=eps)


def _unbiased(x: Array, var: Array) -> Array:
    n = prod((x.shape[0], *x.shape[2:]))
    if isinstance(n, int):
        return var * (n / (n - 1)) if n > 1 else var * float("nan") if n == 1 else var
    count = size_array(n).astype(var.dtype)
    return var * (count / (count - 1))


def _batch_norm_functional(x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, training: bool,
                           momentum: float, eps: float) -> tuple[Array, ...]:
    """The result, the batch's mean and 1 / standard deviation, and the new running statistics."""
    if not training:
        none = gc.zeros((0,), x.dtype)
        return _batch_inference(x, weight, bias, mean, var, eps), none, none, mean, var
    y, batch_mean, batch_var = _batch_training(x, weight, bias, eps)
    news = [running * (1 - momentum) + gc.stop_gradient(batch).astype(running.dtype) * momentum
            for running, batch in ((mean, batch_mean), (var, _unbiased(x, batch_var)))]
    return y, batch_mean, gc.rsqrt(batch_var + eps), *news


def _batch_norm(x: Array, weight: Array | None, bias: Array | None, mean: Array | None, var: Array | None,
                training: bool, momentum: float, eps: float, *_: Any) -> Array:
    if not training and mean is not None and var is not None:
        return _batch_inference(x, weight, bias, mean, var, eps)
    return _batch_training(x, weight, bias, eps)[0]


def _batch_no_stats(x: Array, weight: Array | None, bias: Array | None, training: bool, momentum: float,
                    eps: float) -> tuple[Array, ...]:
    y, mean, var = _batch_training(x, weight, bias, eps)
    return y, mean, gc.rsqrt(var + eps)


def _batch_no_training(x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, momentum: float,
                       eps: float) -> tuple[Array, ...]:
    none = gc.zeros((0,), x.dtype)
    return _batch_inference(x, weight, bias, mean, var, eps), none, none


def _instance_norm(x: Array, weight: Array | None, bias: Array | None, mean: Array | None, var: Array | None,
                   use_input_stats: bool, momentum: float, eps: float, *_: Any) -> Array:
    if not use_input_stats and mean is not None and var is not None:
        return _batch_inference(x, weight, bias, mean, var, eps)
    axes = tuple(range(2, x.ndim))
    y = (x - gc.mean(x, axes, True)) * gc.rsqrt(gc.var(x, axes, keepdims=True) + eps)
    gamma, beta = _scale(weight, bias, x)
    if gamma is None or beta is None:
        return y
    return y * gamma.reshape(-1, *(1,) * len(axes)) + beta.reshape(-1, *(1,) * len(axes))


# pools

MAX = {1: gc.max_pool1d, 2: gc.max_pool2d, 3: gc.max_pool3d}
AVERAGE = {1: gc.avg_pool1d, 2: gc.avg_pool2d, 3: gc.avg_pool3d}
ADAPTIVE = {1: gc.adaptive_avg_pool1d, 2: gc.adaptive_avg_pool2d, 3: gc.adaptive_avg_pool3d}
ADAPTIVE_MAX = {1: gc.adaptive_max_pool1d, 2: gc.adaptive_max_pool2d, 3: gc.adaptive_max_pool3d}


def _batched(function: Callable[..., Any], axes: int, x: Array, *args: Any, **named: Any) -> Any:
    """Of an image without a batch, too."""
    if x.ndim == axes + 2:
        return function(x, *args, **named)
    y = function(gc.expand_dims(x, 0), *args, **named)
    return tuple(part.squeeze(0) for part in y) if isinstance(y, tuple) else y.squeeze(0)


def _max_pool(axes: int, indices: bool) -> Rule:
    def rule(x: Array, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
             ceil_mode: bool = False) -> Any:
        kernel = _per_axis(kernel, axes)
        stride = kernel if not isinstance(stride, int) and not stride else _per_axis(stride, axes)
        return _batched(MAX[axes], axes, x, kernel, stride, _per_axis(padding, axes), _per_axis(dilation, axes),
                        ceil_mode=ceil_mode, return_indices=indices)
    return rule


def _around(size: Any, kernel: int, stride: int, padding: int, ceil_mode: bool) -> tuple[int, int]:
    """The zeros around an axis so that windows end where ceil_mode has them: the last one begins inside."""
    rest = size + 2 * padding - kernel
    if not ceil_mode or rest % stride == 0:
        return padding, padding
    last = -(-rest // stride)
    last -= last * stride >= size + padding
    return padding, padding + max(last * stride - rest, 0)


def _average_pool(axes: int) -> Rule:
    def rule(x: Array, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
             count_include_pad: bool = True, divisor_override: int | None = None) -> Array:
        kernel = _per_axis(kernel, axes)
        stride = kernel if not isinstance(stride, int) and not stride else _per_axis(stride, axes)
        padding = _per_axis(padding, axes)
        if divisor_override is None:
            return _batched(AVERAGE[axes], axes, x, kernel, stride, padding, ceil_mode=ceil_mode,
                            count_include_pad=count_include_pad)
        around = [_around(*walk, ceil_mode) for walk in zip(x.shape[-axes:], kernel, stride, padding)]
        x = gc.pad(x, [(0, 0)] * (x.ndim - axes) + around)
        return _batched(AVERAGE[axes], axes, x, kernel, stride) * (prod(kernel) / divisor_override)
    return rule


def _fractional_pool(axes: int) -> Rule:
    pool = gc.fractional_max_pool2d if axes == 2 else gc.fractional_max_pool3d

    def rule(x: Array, kernel: Any, size: Any, samples: Array) -> Any:
        return _batched(pool, axes, x, _per_axis(kernel, axes), _per_axis(size, axes), random_samples=samples,
                        return_indices=True)
    return rule


def _adaptive_pool(axes: int, kinds: dict[int, Callable[..., Any]], **options: Any) -> Rule:
    return lambda x, size: _batched(kinds[axes], axes, x, _per_axis(size, axes) if axes > 1 else _per_axis(
        size, 1)[0], **options)


def _max_unpool(axes: int) -> Rule:
    """Maxima at their places. The gradient of each is that of its place, also of several that share one, as
    overlapping windows have them: PyTorch's."""
    def rule(x: Array, indices: Array, size: Sequence[int], *_: Any) -> Array:
        rest = x.ndim - axes
        places = indices.reshape((*x.shape[:rest], prod(x.shape[rest:])))

        def placed(values: Array, at: Array) -> Array:
            flat = gc.zeros((*x.shape[:rest], prod(size)), x.dtype)
            return gc.scatter_along_axis(flat, at, values, rest)
        spread = gc.custom_vjp(placed, lambda inputs, output, g: gc.take_along_axis(g, inputs[1], rest))
        y = (spread if x.dtype.is_float else placed)(x.reshape(places.shape), places)
        return y.reshape((*x.shape[:rest], *size))
    return rule


# images

GRID_MODES, GRID_PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def _grid(x: Array, grid: Array, mode: int, padding: int, align_corners: bool) -> Array:
    return gc.grid_sample(x, grid, GRID_MODES[mode], GRID_PADDINGS[padding], align_corners)


def _upsample(mode: str, corners: bool) -> Rule:
    """The form `vec`: sizes or scales; the default form has the scales of each axis at its end."""
    def rule(x: Array, size: Any, *more: Any, scale_factors: Any = None) -> Array:
        align = bool(more[0]) if corners else False
        scales = more[1 if corners else 0:]
        if scales and isinstance(scales[0], Sequence):
            scale_factors = scales[0]
        elif scales and all(s is not None for s in scales):
            scale_factors = scales
        if scale_factors is not None:
            return gc.interpolate(x, scale_factor=tuple(scale_factors), mode=mode, align_corners=align)
        return gc.interpolate(x, tuple(size), mode=mode, align_corners=align)
    return rule


def _antialiased(mode: str) -> Rule:
    """Of the forms `vec` and default, as `_upsample`."""
    def rule(x: Array, size: Any, align_corners: bool, *scales: Any, scale_factors: Any = None) -> Array:
        given = scales[0] if scales and isinstance(scales[0], Sequence) else scale_factors or scales
        factors = list(given) if given and all(s is not None for s in given) else None
        if size is None:
            size = tuple(int(n * f) for n, f in zip(x.shape[2:], factors or ()))
        if align_corners:                       # says how far apart new pixels are, not where they begin
            if any(n < 2 for n in (*size, *x.shape[2:])):
                raise GraphError("align_corners with antialias takes axes of two pixels or more, before and after")
            factors = [(new - 1) / (old - 1) for new, old in zip(size, x.shape[2:])]
        return gc.resize(x, tuple(size), mode, antialias=True, scales=factors)
    return rule


def _im2col(x: Array, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Array:
    return _batched(gc.unfold, 2, x, tuple(kernel), tuple(dilation), tuple(padding), tuple(stride))


def _col2im(x: Array, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Array:
    return _batched(gc.fold, 1, x, tuple(size), tuple(kernel), tuple(dilation), tuple(padding), tuple(stride))


# random numbers


def _dropout(x: Array, p: float, train: bool) -> Array:
    if not train or p == 0:
        return x
    return x * as_type(0, x.dtype) if p == 1 else gc.dropout(x, p)


def _native_dropout(x: Array, p: float, train: bool | None) -> tuple[Array, Array]:
    if train is False or p == 0:
        return x, gc.ones(x.shape, bool_)
    if p == 1:
        return x * as_type(0, x.dtype), gc.zeros(x.shape, bool_)
    kept = gc.bernoulli(1 - p, x.shape)
    return gc.where(kept, x, as_type(0, x.dtype)) * (1 / (1 - p)), kept


def _feature_dropout(x: Array, p: float, train: bool) -> Array:
    if not train or p == 0:
        return x
    if p == 1:
        return x * as_type(0, x.dtype)
    kept = gc.bernoulli(1 - p, (*x.shape[:2], *(1,) * (x.ndim - 2)))
    return gc.where(kept, x, as_type(0, x.dtype)) * (1 / (1 - p))


def _drawn(function: Callable[..., Array]) -> Rule:
    return lambda size, *_, dtype=None, **__: function(tuple(size), dtype=dtype or f32)


def _drawn_like(function: Callable[..., Array]) -> Rule:
    return lambda x, *_, dtype=None, **__: function(x.shape, dtype=dtype or x.dtype)


def _whole(low: Any, high: Any, size: Any, dtype: DType | None) -> Array:
    drawn = gc.floor(gc.uniform(tuple(size), dtype=f64) * (high - low))
    return drawn.astype(dtype or i64) + as_type(low, dtype or i64)


def _normal(mean: Any, std: Any = 1.0, **_: Any) -> Array:
    """Numbers around `mean`, through which no gradient flows, as in PyTorch."""
    mean, std = floating(mean, std)
    return gc.stop_gradient(mean + std * gc.normal((mean + std).shape, dtype=mean.dtype))


def _geometric(x: Array, p: float, **_: Any) -> Array:
    """How often is tried until the first success, each with probability p."""
    tries = gc.ceil(gc.log1p(-gc.uniform(x.shape, dtype=f64)) * (1 / log1p(-p) if p < 1 else 0.0))
    return gc.maximum(tries, 1.0).astype(x.dtype)


def _bernoulli(x: Array, p: Any = None, **_: Any) -> Array:
    return (gc.bernoulli(x) if p is None else gc.bernoulli(as_type(p, x.dtype), x.shape) if isinstance(p, Array)
            else gc.bernoulli(p, x.shape)).astype(x.dtype)


RULES: dict[str, Rule] = {
    **{f"{prefix}softmax.{form}": _softmax(gc.softmax) for prefix, form in (("", "int"), ("_", "default"))},
    **{f"{prefix}log_softmax.{form}": _softmax(gc.log_softmax) for prefix, form in (("", "int"), ("_", "default"))},
    "special_softmax.default": _softmax(gc.softmax), "special_log_softmax.default": _softmax(gc.log_softmax),
    "_safe_softmax.default": _safe_softmax, "layer_norm.default": in_widest_type(_layer_norm),
    "native_layer_norm.default": in_widest_type(_native_layer_norm), "rms_norm.default": _rms_norm,
    "_fused_rms_norm.default": _fused_rms_norm, "group_norm.default": in_widest_type(_group_norm),
    "native_group_norm.default": in_widest_type(_native_group_norm), "batch_norm.default": in_widest_type(_batch_norm),
    "_native_batch_norm_legit_functional.default": in_widest_type(_batch_norm_functional),
    "_native_batch_norm_legit.default": in_widest_type(lambda *args: _batch_norm_functional(*args)[:3]),
    "_native_batch_norm_legit.no_stats": _batch_no_stats, "native_batch_norm.default": lambda x, w, b, m, v, t, mo, e:
    _batch_norm_functional(x, w, b, m, v, t, mo, e)[:3] if m is not None else _batch_no_stats(x, w, b, t, mo, e),
    "_native_batch_norm_legit_no_training.default": in_widest_type(_batch_no_training),
    "instance_norm.default": _instance_norm,
    **{f"max_pool{n}d.default": _max_pool(n, False) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices.default": _max_pool(n, True) for n in (1, 2, 3)},
    **{f"avg_pool{n}d.default": _average_pool(n) for n in (1, 2, 3)},
    **{f"fractional_max_pool{n}d.default": _fractional_pool(n) for n in (2, 3)},
    **{f"{name}adaptive_avg_pool{n}d.default": _adaptive_pool(n, ADAPTIVE) for name, n in (
        ("", 1), ("", 2), ("", 3), ("_", 2), ("_", 3))},
    **{f"adaptive_max_pool{n}d.default": _adaptive_pool(n, ADAPTIVE_MAX, return_indices=True) for n in (1, 2, 3)},
    "max_unpool2d.default": _max_unpool(2), "max_unpool3d.default": _max_unpool(3),
    "grid_sampler_2d.default": _grid, "grid_sampler_3d.default": _grid, "grid_sampler.default": _grid,
    **{f"upsample_{name}.{form}": _upsample(mode, corners) for form in ("vec", "default") for name, mode, corners in (
        ("nearest1d", "nearest", False), ("nearest2d", "nearest", False), ("nearest3d", "nearest", False),
        ("linear1d", "linear", True), ("bilinear2d", "bilinear", True),
        ("trilinear3d", "trilinear", True), ("bicubic2d", "bicubic", True))},
    **{f"_upsample_nearest_exact{n}d.{form}": _upsample("nearest-exact", False) for n in (1, 2, 3)
       for form in ("vec", "default")},
    **{f"_upsample_{mode}2d_aa.{form}": _antialiased(mode) for mode in ("bilinear", "bicubic")
       for form in ("vec", "default")},
    "im2col.default": _im2col, "col2im.default": _col2im, "dropout.default": _dropout,
    "native_dropout.default": _native_dropout, "feature_dropout.default": _feature_dropout,
    "rand.default": _drawn(gc.uniform), "randn.default": _drawn(gc.normal),
    "rand_like.default": _drawn_like(gc.uniform), "randn_like.default": _drawn_like(gc.normal),
    "randint.default": lambda high, size, *, dtype=None, **_: _whole(0, high, size, dtype),
    "randint.low": lambda low, high, size, *, dtype=None, **_: _whole(low, high, size, dtype),
    "randint_like.default": lambda x, high, *, dtype=None, **_: _whole(0, high, x.shape, dtype or x.dtype),
    "randint_like.low_dtype": lambda x, low, high, *, dtype=None, **_: _whole(low, high, x.shape, dtype or x.dtype),
    "randperm.default": lambda n, *, dtype=None, **_: gc.permutation(n).astype(dtype or i64),
    "bernoulli.default": _bernoulli, "bernoulli.p": _bernoulli, "bernoulli.Tensor": _bernoulli,
    "normal_functional.default": lambda x, mean=0.0, std=1.0, **_: gc.normal(x.shape, mean, std, x.dtype),
    **{f"normal.{form}": _normal for form in ("Tensor_float", "float_Tensor", "Tensor_Tensor")},
    "log_normal.default": lambda x, mean=1.0, std=2.0, **_: gc.exp(gc.normal(x.shape, mean, std, x.dtype)),
    "cauchy.default": lambda x, median=0.0, sigma=1.0, **_: (
        gc.tan(gc.uniform(x.shape, -pi / 2, pi / 2, f64)) * sigma + median).astype(x.dtype),
    "geometric.default": _geometric,
    "uniform.default": lambda x, low=0.0, high=1.0, **_: gc.uniform(x.shape, low, high, x.dtype),
    "exponential.default": lambda x, rate=1.0, **_: -gc.log1p(-gc.uniform(x.shape, dtype=x.dtype)) / rate,
    "rrelu_with_noise_functional.default": lambda x, noise, low=0.125, high=1 / 3, training=False, *_, **__: (
        gc.leaky_relu(x, (low + high) / 2), noise) if not training else _noisy(x, low, high),
}


def _noisy(x: Array, low: float, high: float) -> tuple[Array, Array]:
    slope = gc.where(x > 0, as_type(1, x.dtype), gc.uniform(x.shape, low, high, x.dtype))
    return x * slope, slope
