"""Layers of two arrays, and activations that learn."""
from __future__ import annotations

import graphc as gc
from graphc.dsl.array import Array
from graphc.errors import GraphError
from graphc.nn.module import Module
from graphc.nn.parameter import Constant, fan_in_uniform


class PReLU(Module):
    """x where x > 0, else weight * x; weight [num_parameters] is trained, one number or one for each channel (axis 1),
    and starts as `init` (He et al. 2015)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        if num_parameters < 1:
            raise GraphError(f"PReLU: num_parameters is a number >= 1, got {num_parameters}")
        self.num_parameters, self.init = num_parameters, init

    def forward(self, x: Array) -> Array:
        return gc.prelu(x, self.parameter("weight", (self.num_parameters,), Constant(self.init), x.dtype))


class Bilinear(Module):
    """x [..., in1] and y [..., in2] -> [..., features]: x' A_k y + b_k for each feature k; weight [features, in1, in2]
    and bias [features]."""

    def __init__(self, features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.features, self.bias = features, bias

    def forward(self, x: Array, y: Array) -> Array:
        if not x.ndim or x.shape[:-1] != y.shape[:-1]:
            raise GraphError(f"Bilinear takes two arrays that agree in all axes but the last, got {list(x.shape)} and "
                             f"{list(y.shape)}")
        start = fan_in_uniform(x.shape[-1] if isinstance(x.shape[-1], int) else 0)
        weight = self.parameter("weight", (self.features, x.shape[-1], y.shape[-1]), start, x.dtype)
        z = gc.sum(gc.einsum("...i,kij->...kj", x, weight) * gc.expand_dims(y, -2), axis=-1)
        return z + self.parameter("bias", (self.features,), start, x.dtype) if self.bias else z


class CosineSimilarity(Module):
    """`gc.cosine_similarity` of two arrays along `axis`."""

    def __init__(self, axis: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.axis, self.eps = axis, eps

    def forward(self, x: Array, y: Array) -> Array:
        return gc.cosine_similarity(x, y, self.axis, self.eps)


class PairwiseDistance(Module):
    """`gc.pairwise_distance` of two arrays of vectors."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> None:
        super().__init__()
        self.p, self.eps, self.keepdims = p, eps, keepdims

    def forward(self, x: Array, y: Array) -> Array:
        return gc.pairwise_distance(x, y, self.p, self.eps, self.keepdims)
