"""Random numbers: new ones in each call, by the key of the network's state. `seed` of a file is not read: the state's
seed decides."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import graphc as gc
from graphc.doors.onnx.call import Call, type_of
from graphc.doors.onnx.rule import Operand, Unsupported
from graphc.dsl.array import Array
from graphc.ir.dims import Dim
from graphc.ir.types import DType, TensorType


def _dtype(call: Call, number: int | None, like: TensorType | None = None) -> DType:
    if number is not None:
        return call.importer.dtype(number)
    return like.dtype if like is not None and like.dtype.is_float else gc.f32


def _drawn(draw: Callable[..., Array], shape: Sequence[Dim], a: float, b: float, dtype: DType) -> Array:
    """Numbers of 16 bits are drawn in f32 and rounded."""
    if not dtype.is_float:
        raise Unsupported(f"random numbers of {dtype}")
    return draw(tuple(shape), a, b, dtype.compute).astype(dtype)


def random_uniform(*, shape: Sequence[int], low: float = 0.0, high: float = 1.0, dtype: int = 1,
                   seed: float | None = None, call: Call) -> Array:
    return _drawn(gc.uniform, shape, low, high, _dtype(call, dtype))


def random_normal(*, shape: Sequence[int], mean: float = 0.0, scale: float = 1.0, dtype: int = 1,
                  seed: float | None = None, call: Call) -> Array:
    return _drawn(gc.normal, shape, mean, scale, _dtype(call, dtype))


def random_uniform_like(x: Operand, *, low: float = 0.0, high: float = 1.0, dtype: int | None = None,
                        seed: float | None = None, call: Call) -> Array:
    return _drawn(gc.uniform, type_of(x).shape, low, high, _dtype(call, dtype, type_of(x)))


def random_normal_like(x: Operand, *, mean: float = 0.0, scale: float = 1.0, dtype: int | None = None,
                       seed: float | None = None, call: Call) -> Array:
    return _drawn(gc.normal, type_of(x).shape, mean, scale, _dtype(call, dtype, type_of(x)))


def bernoulli(x: Array, *, dtype: int | None = None, seed: float | None = None, call: Call) -> Array:
    return gc.bernoulli(x).astype(x.dtype if dtype is None else call.importer.dtype(dtype))


def multinomial(x: Array, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None, call: Call) -> Array:
    """Classes drawn by unnormalised log-probabilities [batch, classes], as the largest of them plus Gumbel noise."""
    noise = gc.uniform((x.shape[0], sample_size, x.shape[1]), 1e-20, 1.0, x.dtype.compute)
    return gc.argmax(gc.expand_dims(x, 1) - gc.log(-gc.log(noise)), axis=2).astype(call.importer.dtype(dtype))


RULES: Mapping[str, Callable[..., Any]] = {
    "RandomUniform": random_uniform, "RandomNormal": random_normal, "RandomUniformLike": random_uniform_like,
    "RandomNormalLike": random_normal_like, "Bernoulli": bernoulli, "Multinomial": multinomial}
