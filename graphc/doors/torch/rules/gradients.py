"""The operators that PyTorch's own backward passes call: vector-Jacobian products of rules of other tables, and of
norms, whose forward pass left its statistics, their formulas."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import graphc as gc
from graphc.autodiff.backward import backward
from graphc.doors.torch.rules import layers, losses, products, shapes
from graphc.doors.torch.rules.promotion import as_type, in_widest_type
from graphc.dsl.array import emit
from graphc.dsl.context import current_trace
from graphc.errors import GraphError

Array = gc.Array
Rule = Callable[..., Any]


def pulled(function: Callable[..., Any], g: Any, *primals: Array) -> tuple[Array, ...]:
    """g times the Jacobian of `function` at `primals`, towards each of them, as nodes of the running trace. Of several
    results g holds as many, None for those that nothing depends on."""
    trace = current_trace()
    b = trace.builder
    inputs = [emit("copy", x) for x in primals]         # of their own, even if two are the same array
    before = len(b.nodes)
    y = function(*inputs)
    pairs = [(y, g)] if isinstance(y, Array) else [(emit("copy", r), s) for r, s in zip(y, g) if s is not None]
    values = [trace.value(x) for x in inputs]
    seeds = {trace.value(r): trace.value(gc.broadcast_to(s, r.shape)) for r, s in pairs}
    found = backward(b, tuple(b.nodes[before:]), seeds, values)
    return tuple(gc.zeros(x.shape, x.dtype) if v is None else Array(v, trace) for x, v in zip(inputs, found))


def _recurrent(name: str) -> Rule:
    """Of a whole layer, which is run again."""
    def rule(grads: Sequence[Array | None], x: Array, hx: Any, params: Sequence[Array],
             *options: Any) -> tuple[Array, ...]:
        states = list(hx) if isinstance(hx, tuple | list) else [hx]

        def run(x: Array, *rest: Array) -> tuple[Array, ...]:
            carry = rest[:len(states)]
            return products.LAYERS[name](x, carry if name == "lstm" else carry[0], rest[len(states):], *options)
        return pulled(run, grads, x, *states, *params)
    return rule


def _kept(results: Sequence[Array | None], mask: Sequence[bool] | None) -> tuple[Array | None, ...]:
    """Those that are asked for."""
    return tuple(results) if mask is None else tuple(r if m else None for r, m in zip(results, mask))


def _convolution(g: Array, x: Array, w: Array, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
                 output_padding: Any, groups: int, mask: Sequence[bool]) -> tuple[Array | None, ...]:
    dx, dw = pulled(lambda a, b: products.convolution(a, b, None, stride, padding, dilation, transposed,
                                                      output_padding, groups), g, x, w)
    channels = 1 if x.ndim == w.ndim else 0
    db = gc.sum(g, tuple(a for a in range(g.ndim) if a != channels))
    return _kept((dx, dw, db), mask)


def _normalised(g: Array, x: Array, mean: Array, spread: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """(gradient towards x, normalised x) of (x - mean) * spread, where both are over `axes` of x."""
    hat = (x - mean) * spread
    dx = spread * (g - gc.mean(g, axes, True) - hat * gc.mean(g * hat, axes, True))
    return dx, hat


def _layer_norm(g: Array, x: Array, shape: Sequence[Any], mean: Array, spread: Array, weight: Array | None,
                bias: Array | None, mask: Sequence[bool]) -> tuple[Array | None, ...]:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    rest = tuple(range(x.ndim - len(shape)))
    dx, hat = _normalised(g if weight is None else g * weight, x, mean, spread, axes)
    return _kept((dx, gc.sum(g * hat, rest), gc.sum(g, rest)), mask)


def _weight_norm(g: Array, v: Array, scale: Array, norms: Array, dim: int) -> tuple[Array, Array]:
    """Of v * scale / |v|, whose norms are over all axes but one."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    norms = norms.reshape(scale.shape)
    along = gc.sum(g * v, axes, True).reshape(scale.shape) / norms
    return scale / norms * (g - v * (along / norms)), along


def _rms_norm(g: Array, x: Array, shape: Sequence[Any], spread: Array, weight: Array | None,
              mask: Sequence[bool]) -> tuple[Array | None, ...]:
    axes, rest = tuple(range(x.ndim - len(shape), x.ndim)), tuple(range(x.ndim - len(shape)))
    hat, inner = x * spread, g if weight is None else g * weight
    dx = spread * (inner - hat * gc.mean(inner * hat, axes, True))
    return _kept((dx, gc.sum(g * hat, rest)), mask)


def _group_norm(g: Array, x: Array, mean: Array, spread: Array, weight: Array | None, n: Any, c: Any, space: Any,
                groups: int, mask: Sequence[bool]) -> tuple[Array | None, ...]:
    channels = (1, c, *(1,) * (x.ndim - 2))
    inner = g if weight is None else g * weight.reshape(channels)
    rows = (n, groups, c // groups * space)
    dx, hat = _normalised(inner.reshape(rows), x.reshape(rows), mean.reshape(n, groups, 1),
                          spread.reshape(n, groups, 1), (2,))
    hat = hat.reshape(x.shape)
    rest = (0, *range(2, x.ndim))
    return _kept((dx.reshape(x.shape), gc.sum(g * hat, rest), gc.sum(g, rest)), mask)


def _batch_norm(g: Array, x: Array, weight: Array | None, mean: Array | None, var: Array | None,
                batch_mean: Array | None, batch_spread: Array | None, train: bool, eps: float,
                mask: Sequence[bool]) -> tuple[Array | None, ...]:
    channels = (1, x.shape[1], *(1,) * (x.ndim - 2))
    rest = (0, *range(2, x.ndim))
    inner = g if weight is None else g * weight.reshape(channels)
    if train and batch_mean is not None and batch_spread is not None:
        dx, hat = _normalised(inner, x, batch_mean.reshape(channels), batch_spread.reshape(channels), rest)
    else:
        assert mean is not None and var is not None
        spread = gc.rsqrt(var + eps).reshape(channels)
        dx, hat = inner * spread, (x - mean.reshape(channels)) * spread
    return _kept((dx, gc.sum(g * hat, rest), gc.sum(g, rest)), mask)


def _embedding(g: Array, ids: Array, rows: Any, padding_idx: int, scale: bool) -> Array:
    if padding_idx >= 0:
        g = gc.where(gc.expand_dims(gc.equal(ids, padding_idx), ids.ndim), as_type(0, g.dtype), g)
    flat = ids.reshape(-1)
    width = g.shape[-1]
    grads = g.reshape((prod(ids.shape), width))
    if scale:
        counts = gc.scatter_add(gc.zeros((rows,), g.dtype), flat, gc.ones(flat.shape, g.dtype))
        grads = grads / gc.expand_dims(gc.take(counts, flat, 0), 1)
    return gc.scatter_add(gc.zeros((rows, width), g.dtype), flat, grads)


def _max_pool(axes: int) -> Rule:
    def rule(g: Array, x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
             indices: Array) -> Array:
        rest = x.ndim - axes
        flat = gc.zeros((*x.shape[:rest], prod(x.shape[rest:])), g.dtype)
        many = (*x.shape[:rest], prod(g.shape[rest:]))
        return gc.scatter_add_along_axis(flat, indices.reshape(many), g.reshape(many), rest).reshape(x.shape)
    return rule


def _average_pool(axes: int) -> Rule:
    return lambda g, x, *options: pulled(
        lambda a: layers.RULES[f"avg_pool{axes}d.default"](a, *options), g, x)[0]


def _adaptive_pool(axes: int) -> Rule:
    return lambda g, x: pulled(
        lambda a: layers.RULES[f"adaptive_avg_pool{axes}d.default"](a, g.shape[-axes:]), g, x)[0]


def _softmax(g: Array, y: Array, dim: int, dtype: Any = None) -> Array:
    axis = shapes.axis_of(dim, y.ndim)
    return y * (g - gc.sum(g * y, axis, True)) if y.ndim else g * 0


def _log_softmax(g: Array, y: Array, dim: int, dtype: Any = None) -> Array:
    axis = shapes.axis_of(dim, y.ndim)
    return g - gc.exp(y) * gc.sum(g, axis, True) if y.ndim else g * 0


def _attention(g: Array, q: Array, k: Array, v: Array, out: Array, sums: Array, dropout: float, causal: bool, *,
               attn_mask: Array | None = None, scale: float | None = None) -> tuple[Array, ...]:
    if dropout:
        raise GraphError("attention with dropout, whose mask its backward pass would have to know")
    return pulled(lambda a, b, c: products.attention(a, b, c, attn_mask, 0.0, causal, scale=scale), g, q, k, v)


def _upsample(name: str, corners: bool) -> Rule:
    """Linear, so any x will do."""
    def rule(g: Array, size: Any, before: Sequence[Any], *more: Any) -> Array:
        return pulled(lambda a: layers.RULES[f"{name}.default"](a, size, *more), g, gc.zeros(tuple(before), g.dtype))[0]
    return rule


def _pad(name: str) -> Rule:
    return lambda g, x, widths: pulled(lambda a: shapes.RULES[name](a, widths), g, x)[0]


def _grid(g: Array, x: Array, grid: Array, mode: int, padding: int, corners: bool,
          mask: Sequence[bool] | None = None) -> tuple[Array | None, ...]:
    return _kept(pulled(lambda a, b: layers.RULES["grid_sampler_2d.default"](a, b, mode, padding, corners), g, x, grid),
                 mask)


def _cdist(g: Array, x: Array, y: Array, p: float, distances: Array) -> Array:
    return pulled(lambda a: gc.cdist(a, y, p), g, x)[0]


def _elementwise(rule: Rule) -> Rule:
    """The gradient of an elementwise rule towards its first operand, its other arguments as given."""
    return lambda g, x, *more, **named: pulled(lambda a: rule(a, *more, **named), g, x)[0]


def _cumulative_extreme(g: Array, x: Array, at: Array, dim: int) -> Array:
    return gc.scatter_add_along_axis(gc.zeros(x.shape, g.dtype), at, g, shapes.axis_of(dim, x.ndim))


def _linear_cross_entropy(x: Array, weight: Array, target: Array, bias: Array | None, classes: Array | None,
                          reduction: str, ignore_index: int, smoothing: float, *options: Any) -> tuple[Array, ...]:
    """The loss of a linear layer, which PyTorch computes in pieces, and its gradients towards x, weight and bias, of
    which the last options say whether they are wanted."""
    given = (x, weight) if bias is None else (x, weight, bias)

    def loss(x: Array, *rest: Array) -> Array:
        return losses.RULES["cross_entropy_loss.default"](
            products.linear(x, *rest), target, classes, losses.HOW.index(reduction), ignore_index, smoothing)
    towards = pulled(loss, as_type(1, x.dtype), *given)
    nothing = [gc.zeros(shape, x.dtype) for shape in ((0, 0), (0, 0), (0,))]
    found = (*towards, nothing[2])
    return loss(*given), *(g if wanted else none for g, wanted, none in zip(found, options[-3:], nothing))


RULES: dict[str, Rule] = {
    "torch_nn._linear_cross_entropy_batch_chunked.default": _linear_cross_entropy,
    "torch_nn._linear_cross_entropy_batch_chunked_no_reduction.default": lambda x, w, target, bias, classes, ignore, *_:
    losses.RULES["cross_entropy_loss.default"](products.linear(x, w, bias), target, classes, 0, ignore),
    **{f"graphc.{name}_backward.default": _recurrent(name) for name in products.LAYERS},
    "convolution_backward.default": _convolution, "native_layer_norm_backward.default": in_widest_type(_layer_norm),
    "native_group_norm_backward.default": in_widest_type(_group_norm),
    "native_batch_norm_backward.default": in_widest_type(_batch_norm),
    "_weight_norm_interface_backward.default": _weight_norm,
    "_fused_rms_norm_backward.default": _rms_norm, "embedding_dense_backward.default": _embedding,
    "max_pool2d_with_indices_backward.default": _max_pool(2), "max_pool3d_with_indices_backward.default": _max_pool(3),
    **{f"fractional_max_pool{n}d_backward.default": lambda g, x, kernel, size, at, n=n: _max_pool(n)(
        g, x, 0, 0, 0, 0, False, at) for n in (2, 3)},
    "avg_pool2d_backward.default": _average_pool(2), "avg_pool3d_backward.default": _average_pool(3),
    "_adaptive_avg_pool2d_backward.default": _adaptive_pool(2),
    "_adaptive_avg_pool3d_backward.default": _adaptive_pool(3),
    "adaptive_max_pool2d_backward.default": lambda g, x, at: _max_pool(2)(g, x, 0, 0, 0, 0, False, at),
    "_softmax_backward_data.default": _softmax, "_log_softmax_backward_data.default": _log_softmax,
    "_scaled_dot_product_flash_attention_for_cpu_backward.default": _attention,
    **{f"upsample_{name}_backward.default": _upsample(f"upsample_{name}", corners) for name, corners in (
        ("nearest1d", False), ("nearest2d", False), ("nearest3d", False), ("linear1d", True), ("bilinear2d", True),
        ("trilinear3d", True), ("bicubic2d", True))},
    **{f"_upsample_{mode}2d_aa_backward.default": _upsample(f"_upsample_{mode}2d_aa", True)
       for mode in ("bilinear", "bicubic")},
    **{f"{kind}_pad{n}d_backward.default": _pad(f"{kind}_pad{n}d.default") for n in (1, 2, 3)
       for kind in ("reflection", "replication")},
    "grid_sampler_2d_backward.default": _grid, "_cdist_backward.default": _cdist,
    "_pdist_backward.default": lambda g, x, p, distances: pulled(lambda a: gc.pdist(a, p), g, x)[0],
    "gelu_backward.default": _elementwise(lambda x, *, approximate="none": gc.gelu(x, approximate)),
    "silu_backward.default": _elementwise(gc.silu), "mish_backward.default": _elementwise(gc.mish),
    "native_dropout_backward.default": lambda g, mask, scale: gc.where(mask, g, as_type(0, g.dtype)) * scale,
    "cummaxmin_backward.default": _cumulative_extreme,
    # of functions that state their gradients, where none is asked for: `own_gradients` makes regions of the others
    "graphc.cotangent.default": gc.zeros_like, "graphc.own_gradient.default": lambda outs, *_: outs,
}
