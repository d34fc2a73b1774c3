"""Parameters and the initializers that give them their first values."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from math import inf, prod, sqrt
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from graphc.dsl.arguments import Converted
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.dsl.literal import array_of
from graphc.errors import GraphError
from graphc.ir.dims import static_shape
from graphc.ir.types import TensorType, shape_text
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.nn.module import Module

# a text, because to look at np.random is to import it, a tenth of what graphc takes
Initializer = Callable[["np.random.Generator", tuple[int, ...]], np.ndarray]


@formed
class Parameter:
    """A typed array that a layer owns, and how it starts. Compared by identity: a parameter used twice is one
    parameter.

    `trainable` is False for running statistics, and for what a `LoRA` holds; `is_weight` for the former alone. The
    value lives in a `State`, not here.
    """
    __slots__ = ("type", "init", "trainable", "like", "is_weight")

    def __init__(self, type: TensorType, init: Initializer, trainable: bool = True,
                 like: tuple[Module, str] | None = None) -> None:
        """`like`: the layer that this one's layer is a copy of, and the parameter's name in both."""
        self.type, self.init, self.trainable, self.like = type, init, trainable, like
        self.is_weight = trainable

    def originals(self) -> Iterator[Parameter]:
        """The parameter that this one is a copy of, that which that is a copy of, and so on, as far as they have been
        made."""
        layer, name = self.like or (None, "")
        while layer is not None:
            if name in layer._parameters:
                yield layer._parameters[name]
            layer = layer._original

    @property
    def is_given(self) -> bool:
        """Whether it starts with an array that is there, and not with random or constant numbers."""
        return isinstance(self.init, Value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        made = Parameter(self.type, copy.deepcopy(self.init, memo), self.is_weight)
        made.trainable = self.trainable
        return made

    def initial(self, type: TensorType, seed: int, name: str) -> np.ndarray:
        """The first value: a function of the seed and the name alone."""
        return np.asarray(self.init(generator(seed, name), static_shape(type.shape)), type.dtype.np)

    def __repr__(self) -> str:
        return f"Parameter({self.type})"


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers for one named array; other names and the order of creation do not change them."""
    if seed < 0:
        raise GraphError(f"a seed is an int >= 0, got {seed}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, crc32(name.encode())])))


class Spread(Converted):
    """Base of random ones, of which the one number says how far they spread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, width = next(iter(vars(self).items()))
        if not 0 <= width < inf:
            raise GraphError(f"{type(self).__name__}: {name} is a number >= 0, got {width}", user_loc())


@formed
@dataclass(frozen=True)
class Uniform(Spread):
    """Uniform in [-bound, bound)."""
    bound: float

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return random.uniform(-self.bound, self.bound, shape)


@formed
@dataclass(frozen=True)
class Normal(Spread):
    """Normal with mean 0 and standard deviation `std`."""
    std: float = 1.0

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return random.normal(0.0, self.std, shape)


@formed
@dataclass(frozen=True)
class Constant(Converted):
    """Every element is `value`."""
    value: float

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


@formed
@dataclass(frozen=True)
class XavierUniform(Spread):
    """Uniform with bound gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010). Shape [out, in, …]."""
    gain: float = 1.0

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        receptive = prod(shape[2:])
        return Uniform(self.gain * sqrt(6.0 / ((shape[0] + shape[1]) * receptive)))(random, shape)


@formed
@dataclass(frozen=True)
class Value(Converted):
    """A given array."""
    array: tuple[Any, ...] | np.ndarray

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        array = array_of(self.array)
        try:
            return np.broadcast_to(array.astype(np.float64) if array.dtype.kind == "O" else array, shape)
        except (ValueError, OverflowError):
            raise GraphError(f"nn.Value of shape {shape_text(array.shape)} for a parameter of shape "
                             f"{shape_text(shape)}") from None


ZEROS, ONES = Constant(0.0), Constant(1.0)


def fan_in_uniform(fan_in: int) -> Uniform:
    """torch's default for linear and convolutional layers: bound 1/sqrt(fan_in), which is He uniform with a =
    sqrt(5)."""
    return Uniform(1.0 / sqrt(fan_in) if fan_in else 0.0)
