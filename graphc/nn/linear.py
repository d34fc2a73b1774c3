"""Linear maps and lookups."""
from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, cast

import numpy as np

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.dims import Dim
from graphc.ir.types import DType
from graphc.nn.activation import activation_named
from graphc.nn.module import Module
from graphc.nn.parameter import Initializer, Normal, fan_in_uniform
from graphc.records import dataclass


class Linear(Module):
    """x [..., in] -> x @ weight.T + bias [..., features]. weight [features, in] and bias [features] start as torch's,
    unless initializers are given."""
    maps_last_axis = True

    def __init__(self, features: int | None, *, bias: bool = True, init: Initializer | None = None,
                 bias_init: Initializer | None = None) -> None:
        super().__init__()
        self.features = cast(Dim, features)                 # None until the layer that it is a part of says so
        self.biased, self.init, self.bias_init = bias, init, bias_init

    def forward(self, x: Array) -> Array:
        if not x.shape:
            raise GraphError("Linear takes an array with at least one axis, got a scalar")
        start = fan_in_uniform(_size(x.shape[-1]))
        y = x @ self.parameter("weight", (self.features, x.shape[-1]), self.init or start, x.dtype).T
        return y + self.parameter("bias", (self.features,), self.bias_init or start, x.dtype) if self.biased else y

    def __repr__(self) -> str:
        return f"Linear({self.features}{'' if self.biased else ', bias=False'})"


class FeedForward(Linear):
    """activation(x @ weight.T + bias): one layer of a multi-layer perceptron; x [..., in] -> [..., features].

    `activation`: a layer or function of one array, or its name. Parameters are those of `Linear`; `FeedForward(64,
    "sigmoid") ** 3` is a network of three.
    """
    maps_last_axis = False              # the activation comes after

    def __init__(self, features: int, activation: Callable[..., Any] | str = "relu", **options: Any) -> None:
        super().__init__(features, **options)
        self.activation = activation_named(activation)

    def forward(self, x: Array) -> Array:
        return self.activation(super().forward(x))

    def __repr__(self) -> str:
        return f"FeedForward({self.features}, {self.activation!r})"


class Embedding(Module):
    """ids [...] (integers below `count`) -> rows of weight [..., features]. weight [count, features] starts normal(0,
    std) and has the float type `dtype` (f32 unless given). Row `padding_idx` (counted from the end if below 0) starts
    as zeros and is not trained by what looks it up.

    `attend(x)` gives the scores of x [..., features] against every row, [..., count]: an output layer with tied
    weights.
    """

    def __init__(self, count: int, features: int, *, std: float = 1.0, dtype: DType | None = None,
                 padding_idx: int | None = None) -> None:
        super().__init__()
        self.count, self.features, self.std, self.dtype = count, features, std, dtype or gc.f32
        if padding_idx is not None and not -count <= padding_idx < count:
            raise GraphError(f"padding_idx is a row, from {-count} to {count - 1}, got {padding_idx}")
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % count

    def table(self) -> Array:
        start = Normal(self.std) if self.padding_idx is None else _WithZeroRow(Normal(self.std), self.padding_idx)
        return self.parameter("weight", (self.count, self.features), start, self.dtype)

    def forward(self, ids: Array) -> Array:
        if not ids.dtype.is_int:
            raise GraphError(f"Embedding takes integer ids, got {ids.dtype}; convert with ids.astype(gc.i32)")
        rows = gc.embedding(self.table(), ids)
        if self.padding_idx is None:
            return rows
        return gc.where(gc.expand_dims(ids, -1) == self.padding_idx, gc.stop_gradient(rows), rows)

    def attend(self, x: Array) -> Array:
        return self.within(lambda: x @ self.table().T)

    def __repr__(self) -> str:
        return f"Embedding({self.count}, {self.features})"


class EmbeddingBag(Embedding):
    """ids [B, N] -> the "sum", "mean" or "max" over each bag of N rows of weight, [B, features]; with
    `per_sample_weights` [B, N] their weighted sum. Ids that are `padding_idx` are left out; an empty bag gives 0."""

    def __init__(self, count: int, features: int, *, mode: str = "mean", std: float = 1.0, dtype: DType | None = None,
                 padding_idx: int | None = None) -> None:
        super().__init__(count, features, std=std, dtype=dtype, padding_idx=padding_idx)
        if mode not in ("sum", "mean", "max"):
            raise GraphError(f'EmbeddingBag: mode is "sum", "mean" or "max", got {mode!r}')
        self.mode = mode

    def forward(self, ids: Array, per_sample_weights: Array | None = None) -> Array:
        if ids.ndim != 2:
            raise GraphError(f"EmbeddingBag takes bags of one length, ids [batch, n], got {ids.type}; fill shorter "
                             "ones with padding_idx")
        if per_sample_weights is not None and (self.mode != "sum" or per_sample_weights.shape != ids.shape):
            raise GraphError('per_sample_weights of the shape of the ids belong to EmbeddingBag(mode="sum")')
        rows = super().forward(ids)
        real = gc.ones_like(ids, gc.bool_) if self.padding_idx is None else ids != self.padding_idx
        counted = gc.expand_dims(real, -1)
        if per_sample_weights is not None:
            rows = rows * gc.expand_dims(per_sample_weights, -1)
        some = gc.any(counted, axis=1)
        if self.mode == "max":
            return gc.where(some, gc.max(gc.where(counted, rows, -inf), axis=1), 0.0)
        total = gc.sum(gc.where(counted, rows, 0.0), axis=1)
        return total if self.mode == "sum" else total / gc.maximum(gc.sum(counted.astype(rows.dtype), axis=1), 1)


class Flatten(Module):
    """Joins the axes from `start_axis` to `end_axis`: [B, C, H, W] -> [B, C*H*W]."""

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        super().__init__()
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x: Array) -> Array:
        end, size = self.end_axis % x.ndim + 1 if x.ndim else 0, cast(Dim, 1)
        for d in x.shape[self.start_axis:end]:
            size = size * d
        return x.reshape(*x.shape[:self.start_axis], size, *x.shape[end:])


@dataclass(frozen=True)
class _WithZeroRow:
    """Another first value, with zeros in one row."""
    start: Initializer
    row: int

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        rows = np.array(self.start(random, shape))
        rows[self.row] = 0
        return rows


def _size(dim: Dim) -> int:
    """A dimension that a parameter's first value depends on; a symbolic one is refused by `Module.parameter`."""
    return dim if isinstance(dim, int) else 0
