"""Random arrays. The numbers are a function of a key i64[2] = (seed, step), of the place in the network, and of the
element's index.

Without `key` the key is hidden state: `seed=` sets it, and every run takes the next step. With `key` equal keys give
equal numbers.
"""
from __future__ import annotations

from typing import Any

from graphc.dsl.array import Array, as_array, as_float, emit
from graphc.dsl.context import current_trace
from graphc.dsl.form import formed
from graphc.dsl.literal import as_dtype
from graphc.dsl.shape import Shape, broadcast_to
from graphc.dsl.sizes import as_shape
from graphc.errors import GraphError
from graphc.ir.convert import flag, is_integer, is_number, real
from graphc.ir.dim_text import as_dim
from graphc.ir.dims import Dim
from graphc.ir.types import DType, f32, i64, normalize_axis

TINY = 2.0 ** -24                   # half the distance of 1 to the number below in f32
Key = Array | int | tuple[int, int] | None


@formed
def uniform(shape: Shape, low: float | Array = 0.0, high: float | Array = 1.0, dtype: DType = f32,
            key: Key = None) -> Array:
    """Uniform in [low, high)."""
    x = _draw("random_uniform", key, shape=as_shape(shape), dtype=_float(dtype))
    if is_number(low) and is_number(high):
        low, high = real(low, "uniform: low"), real(high, "uniform: high")
        return x if (low, high) == (0, 1) else x * (high - low) + low
    return x * (as_array(high, x.dtype) - low) + low


@formed
def normal(shape: Shape, mean: float | Array = 0.0, std: float | Array = 1.0, dtype: DType = f32,
           key: Key = None) -> Array:
    """Normally distributed."""
    x = _draw("random_normal", key, shape=as_shape(shape), dtype=_float(dtype))
    x = x if is_number(std) and std == 1 else x * std
    return x if is_number(mean) and mean == 0 else x + mean


@formed
def bernoulli(p: float | Array, shape: Shape | None = None, key: Key = None) -> Array:
    """bool: True with probability p, a number or an array that broadcasts to `shape` (default: the shape of p)."""
    if is_number(p):
        p = real(p, "bernoulli: p")
        if not 0 <= p <= 1:
            raise GraphError(f"bernoulli: p is a probability, got {p}")
        return _draw("random_bernoulli", key, shape=as_shape(() if shape is None else shape), p=p)
    p = as_float(p)
    dims = p.shape if shape is None else as_shape(shape)
    return _draw("random_uniform", key, shape=dims, dtype=p.dtype) < (p if p.shape == dims else broadcast_to(p, dims))


@formed
def permutation(n: Dim, key: Key = None) -> Array:
    """i64 [n]: the numbers 0 … n - 1 in random order. Shuffle rows with gc.take(x, gc.permutation(n))."""
    return _draw("random_permutation", key, n=as_dim(n))


@formed
def dropout(x: Array, rate: float, *, key: Key = None) -> Array:
    """x with each element 0 with probability `rate`, the others divided by 1 - rate. Always drops: layers ask whether
    they train."""
    x, rate = as_float(x), real(rate, "dropout: the rate")
    if not 0 <= rate < 1:
        raise GraphError(f"dropout: the rate must be in [0, 1), got {rate}")
    if rate == 0:
        return x
    key, stream = _source("dropout", key)
    return emit("dropout", x, key, rate=rate, stream=stream)


@formed
def gumbel_softmax(logits: Array, tau: float = 1.0, hard: bool = False, axis: int = -1, *, key: Key = None) -> Array:
    """softmax((logits + g) / tau) along `axis` with Gumbel noise g: classes drawn by their probabilities, the nearer to
    one-hot the smaller tau is. hard: one-hot, with the gradient of the soft ones (Jang et al. 2017)."""
    logits, tau = as_float(logits), real(tau, "gumbel_softmax: tau")
    if not tau > 0:
        raise GraphError(f"gumbel_softmax: tau is a number > 0, got {tau}")
    axis = normalize_axis(axis, logits.ndim)
    drawn = _draw("random_uniform", key, shape=logits.shape, dtype=logits.dtype)
    noise = -emit("log", -emit("log", drawn * (1 - 2 * TINY) + TINY))   # of numbers in (0, 1): never infinite
    soft = emit("softmax", (logits + noise) / tau, axis=axis)
    if not flag(hard, "gumbel_softmax: hard"):
        return soft
    one = emit("one_hot", emit("argmax", soft, axis=axis, keepdims=False), depth=logits.shape[axis], dtype=logits.dtype)
    order = [*range(axis), logits.ndim - 1, *range(axis, logits.ndim - 1)]
    return one.transpose(order) + (soft - emit("stop_gradient", soft))


def _draw(name: str, key: Key, **attributes: Any) -> Array:
    array, stream = _source(name, key)
    return emit(name, array, **attributes, stream=stream)


def _source(name: str, key: Key) -> tuple[Array, int]:
    """The key and the stream: hidden state and the operator's own stream, or the user's key and stream 0."""
    if key is None:
        trace = current_trace()
        return trace.random_key(), trace.next_stream(name)
    array = as_array((key, 0) if is_integer(key) else key, i64)
    if array.dtype != i64 or array.shape != (2,):
        raise GraphError(f"a random key is an i64[2] array (seed, step) or an int, got {array.type}")
    return array, 0


def _float(dtype: object) -> DType:
    wanted = as_dtype(dtype)
    if not wanted.is_float:
        raise GraphError(f"random numbers are f32 or f64, got {wanted}; convert with astype")
    return wanted
