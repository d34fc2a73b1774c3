"""Linear maps and lookups."""
from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.ir.types import DType
from graphc.nn.activation import activation_named
from graphc.nn.module import Module
from graphc.nn.parameter import Initializer, Normal, fan_in_uniform


class Linear(Module):
    """x [..., in] -> x @ weight.T + bias [..., features]. weight [features, in] and bias [features] start as torch's,
    unless initializers are given."""

    def __init__(self, features: int | None, *, bias: bool = True, init: Initializer | None = None,
                 bias_init: Initializer | None = None):
        super().__init__()
        self.features, self.biased, self.init, self.bias_init = features, bias, init, bias_init

    def forward(self, x: Array):
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

    def __init__(self, features: int, activation: Callable | str = "relu", **options):
        super().__init__(features, **options)
        self.activation = activation_named(activation)

    def forward(self, x: Array):
        return self.activation(super().forward(x))

    def __repr__(self) -> str:
        return f"FeedForward({self.features}, {self.activation!r})"


class Embedding(Module):
    """ids [...] (integers below `count`) -> rows of weight [..., features]. weight [count, features] starts normal(0,
    std) and has the float type `dtype` (f32 unless given).

    `attend(x)` gives the scores of x [..., features] against every row, [..., count]: an output layer with tied
    weights.
    """

    def __init__(self, count: int, features: int, *, std: float = 1.0, dtype: DType | None = None):
        super().__init__()
        self.count, self.features, self.std, self.dtype = count, features, std, dtype or gc.f32

    def table(self):
        return self.parameter("weight", (self.count, self.features), Normal(self.std), self.dtype)

    def forward(self, ids: Array):
        if not ids.dtype.is_int:
            raise GraphError(f"Embedding takes integer ids, got {ids.dtype}; convert with ids.astype(gc.i32)")
        return gc.embedding(self.table(), ids)

    def attend(self, x: Array):
        return self.within(lambda: x @ self.table().T)

    def __repr__(self) -> str:
        return f"Embedding({self.count}, {self.features})"


class Flatten(Module):
    """Joins the axes from `start_axis` on: [B, C, H, W] -> [B, C*H*W]."""

    def __init__(self, start_axis: int = 1):
        super().__init__()
        self.start_axis = start_axis

    def forward(self, x: Array):
        size = 1
        for d in x.shape[self.start_axis:]:
            size = size * d
        return x.reshape(*x.shape[:self.start_axis], size)


def _size(dim) -> int:
    """A dimension that a parameter's first value depends on; a symbolic one is refused by `Module.parameter`."""
    return dim if isinstance(dim, int) else 0
