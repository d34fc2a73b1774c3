"""Parameters of a layer that are made of others: weight normalisation and spectral normalisation."""
from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy as np

import graphc as gc
from graphc.dsl.array import Array
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import integer, real, shown
from graphc.ir.dims import static_shape
from graphc.ir.types import TensorType, normalize_axis
from graphc.nn.module import Module
from graphc.nn.parameter import Initializer, Parameter, generator
from graphc.records import dataclass

FIRST_ROUNDS = 15                   # of the power iteration with which torch begins
Layer = TypeVar("Layer", bound=Module)
Formula = Callable[[np.ndarray, "np.random.Generator"], np.ndarray]


class Following(Parameter):
    """A parameter or buffer whose first value follows from that of another one of the layer: `formula(its value,
    random numbers that all that follow from it have in common)`. `endings`: of both names in a state."""
    __slots__ = ("source", "endings", "formula")

    def __init__(self, type: TensorType, source: Parameter, endings: tuple[str, str], formula: Formula,
                 trainable: bool) -> None:
        super().__init__(type, source.init, trainable)
        self.source, self.endings, self.formula = source, endings, formula

    @property
    def is_given(self) -> bool:
        return False

    def initial(self, type: TensorType, seed: int, name: str) -> np.ndarray:
        own, other = self.endings
        stem = name.removesuffix(own)
        value = self.source.initial(self.source.type, seed, stem + other).astype(np.float64)
        return np.asarray(self.formula(value, generator(seed, stem)), type.dtype.np)

    def __deepcopy__(self, memo: dict[int, Any]) -> Following:
        made = Following(self.type, copy.deepcopy(self.source, memo), self.endings, self.formula, self.is_weight)
        made.trainable = self.trainable
        return made


@dataclass(frozen=True)
class Norms:
    """The norms of a weight over all axes but one, as an array that broadcasts to it; None: the norm of all."""
    axis: int | None

    def axes(self, rank: int) -> tuple[int, ...]:
        kept = None if self.axis is None else normalize_axis(self.axis, rank)
        return tuple(a for a in range(rank) if a != kept)

    def __call__(self, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.sqrt((v * v).sum(self.axes(v.ndim), keepdims=self.axis is not None))


@dataclass(frozen=True)
class Directions:
    """u or v: unit vectors for which u W v is near the largest singular value of a weight as a matrix."""
    axis: int
    eps: float
    right: bool

    def __call__(self, w: np.ndarray, random: np.random.Generator) -> np.ndarray:
        matrix = np.moveaxis(w, self.axis, 0).reshape(w.shape[self.axis], -1)
        v = self._unit(random.normal(size=matrix.shape[1]))
        u = self._unit(matrix @ v)
        for _ in range(FIRST_ROUNDS):
            v = self._unit(matrix.T @ u)
            u = self._unit(matrix @ v)
        return v if self.right else u

    def _unit(self, x: np.ndarray) -> np.ndarray:
        return x / max(float(np.sqrt((x * x).sum())), self.eps)


@dataclass(frozen=True)
class WeightNorm:
    """What `weight_norm` makes a parameter of."""
    name: str
    axis: int | None

    def __call__(self, layer: Module, type: TensorType, init: Initializer) -> Array:
        place, norms = f"parametrizations.{self.name}", Norms(self.axis)
        axes = norms.axes(type.rank)
        shape = () if self.axis is None else tuple(1 if a in axes else d for a, d in enumerate(type.shape))
        v = layer._own(f"{place}.original1", type, init, True)
        g = layer._parameters.setdefault(f"{place}.original0", Following(
            type.dtype[shape], v, ("original0", "original1"), norms, True))
        scale, direction = layer._array(f"{place}.original0", g), layer._array(f"{place}.original1", v)
        return direction * (scale / gc.sqrt(gc.sum(direction * direction, axes, self.axis is not None)))


@dataclass(frozen=True)
class SpectralNorm:
    """What `spectral_norm` makes a parameter of."""
    name: str
    rounds: int
    eps: float
    axis: int

    def __call__(self, layer: Module, type: TensorType, init: Initializer) -> Array:
        place, axis = f"parametrizations.{self.name}", normalize_axis(self.axis, type.rank)
        original = layer._own(f"{place}.original", type, init, True)
        shape = static_shape(type.shape)
        rows, columns = shape[axis], prod(shape) // max(shape[axis], 1)
        vectors = []
        for which, size in (("0._u", rows), ("0._v", columns)):
            layer._parameters.setdefault(f"{place}.{which}", Following(
                type.dtype[(size,)], original, (which, "original"), Directions(axis, self.eps, which == "0._v"), False))
            vectors.append(layer._array(f"{place}.{which}", layer._parameters[f"{place}.{which}"]))
        w = layer._array(f"{place}.original", original)
        matrix = gc.moveaxis(w, axis, 0).reshape((rows, columns))
        u, v = vectors
        if layer.training and not layer.frozen:
            fixed = gc.stop_gradient(matrix)
            for _ in range(self.rounds):
                u = gc.normalize(fixed @ v, axis=0, eps=self.eps)
                v = gc.normalize(fixed.T @ u, axis=0, eps=self.eps)
            layer.update(f"{place}.0._u", u)
            layer.update(f"{place}.0._v", v)
        return w / gc.vdot(u, matrix @ v)


@formed
def weight_norm(layer: Layer, name: str = "weight", axis: int | None = 0) -> Layer:
    """The layer itself, whose parameter `name` is from now on g v / |v| (Salimans and Kingma 2016, arXiv:1602.07868):
    length and direction are trained apart. |v| is the norm over all axes but `axis`, whose numbers have a length each;
    None: of the whole array.

    In the state: "parametrizations.weight.original0" (g) and "….original1" (v), as of
    torch.nn.utils.parametrizations.weight_norm; at first g is |v|, and v drawn as the parameter would be. `axis` is
    torch's `dim`. GraphError if the layer was called before, or has no such parameter when it is.

    Examples:
        >>> net = nn.weight_norm(nn.Linear(16)) >> nn.relu >> nn.Linear(1)
        >>> step = gc.train_step(net, loss=nn.mse, optimizer=optim.SGD(0.1), x=gc.f32[4, 3], y=gc.f32[4, 1])
        >>> step.state["0.parametrizations.weight.original0"].shape
        (16, 1)
    """
    return _made("weight_norm", layer, name, WeightNorm(name, axis))


@formed
def spectral_norm(layer: Layer, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  axis: int | None = None) -> Layer:
    """The layer itself, whose parameter `name` is from now on divided by its largest singular value, as a matrix of
    `axis` by all other axes (Miyato et al. 2018, arXiv:1802.05957). None: axis 1 of transposed convolutions, else 0.

    The singular value is that along two vectors, which each call in training moves by `n_power_iterations` rounds of
    the power iteration; in inference they stay. In the state: "parametrizations.weight.original", and the vectors
    "parametrizations.weight.0._u" and "….0._v", as of torch.nn.utils.parametrizations.spectral_norm. `axis` is torch's
    `dim`. GraphError if the layer was called before, or has no such parameter when it is.
    """
    if integer(n_power_iterations, "spectral_norm: n_power_iterations") < 1:
        raise GraphError(f"spectral_norm: n_power_iterations is at least 1, got {n_power_iterations}", user_loc())
    if not real(eps, "spectral_norm: eps") > 0:
        raise GraphError(f"spectral_norm: eps is a number above 0, got {eps}", user_loc())
    transposed = isinstance(layer, (gc.nn.ConvTranspose1d, gc.nn.ConvTranspose2d, gc.nn.ConvTranspose3d))
    return _made("spectral_norm", layer, name,
                 SpectralNorm(name, n_power_iterations, eps, int(transposed) if axis is None else axis))


def _made(called: str, layer: Layer, name: str, formula: Callable[..., Array]) -> Layer:
    if not isinstance(layer, Module):
        raise GraphError(f"{called} takes a layer with parameters, such as nn.Linear(8), got {shown(layer)}",
                         user_loc())
    if layer._parameters:
        raise GraphError(f"{called}: the layer has been called and has {', '.join(layer._parameters)} already; "
                         "change it before its first call", user_loc())
    if name in layer._made:
        raise GraphError(f"{called}: {name} of this layer is made of others already", user_loc())
    layer._made[name] = formula
    return layer
