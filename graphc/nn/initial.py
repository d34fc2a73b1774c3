"""First values as in torch.nn.init: given to a layer as `init=`, where torch changes a tensor in place. Shapes are
[out, in, kernel…]: fan_in is in times the kernel's size, fan_out is out times it."""
from __future__ import annotations

from math import inf, prod, sqrt

import numpy as np

from graphc.dsl.arguments import Converted
from graphc.dsl.context import user_loc
from graphc.dsl.form import formed
from graphc.errors import GraphError
from graphc.ir.convert import real
from graphc.nn.parameter import Normal, Spread, Uniform
from graphc.records import dataclass

FAR, MOST_DRAWS = 2.0, 1000         # further out nearly all draws are outside
MODES = ("fan_in", "fan_out")
# by how much a nonlinearity shrinks what comes out of it, made up for
CONVOLUTIONS = [f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3)]
GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": sqrt(2.0), "selu": 3 / 4, "leaky_relu": 0.0,
         **dict.fromkeys(CONVOLUTIONS, 1.0)}


@formed
def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """torch.nn.init.calculate_gain: the factor for weights in front of this nonlinearity; `param`: the slope of
    leaky_relu below 0 (0.01 unless given)."""
    if not isinstance(nonlinearity, str) or nonlinearity not in GAINS:
        raise GraphError(f"calculate_gain knows {', '.join(GAINS)}, got {nonlinearity!r}", user_loc())
    if nonlinearity != "leaky_relu":
        return GAINS[nonlinearity]
    slope = 0.01 if param is None else real(param, "calculate_gain: param")
    return sqrt(2.0 / (1 + slope * slope))


@formed
@dataclass(frozen=True)
class TruncNormal(Spread):
    """Normal with this mean and standard deviation, drawn again where it lies outside [a, b]."""
    std: float = 1.0
    mean: float = 0.0
    a: float = -2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.a < self.b:
            raise GraphError(f"TruncNormal: a is below b, got {self.a} and {self.b}", user_loc())
        if self.std and (self.a > self.mean + FAR * self.std or self.b < self.mean - FAR * self.std):
            raise GraphError(f"TruncNormal: [{self.a}, {self.b}] is more than {FAR} standard deviations from the mean",
                             user_loc())

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        drawn = random.normal(self.mean, self.std, shape)
        for _ in range(MOST_DRAWS):
            outside = (drawn < self.a) | (drawn > self.b)
            if not outside.any():
                break
            drawn[outside] = random.normal(self.mean, self.std, int(outside.sum()))
        return np.clip(drawn, self.a, self.b)


@formed
@dataclass(frozen=True)
class XavierNormal(Spread):
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    gain: float = 1.0

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return Normal(self.gain * sqrt(2.0 / max(sum(_fans("XavierNormal", shape)), 1)))(random, shape)


@dataclass(frozen=True)
class _Kaiming(Converted):
    """What both share: `mode`, "fan_in" or "fan_out", says which is kept at one size, forward or backward values; `a`:
    the slope below 0 in front of a leaky_relu (He et al. 2015)."""
    a: float = 0.0
    mode: str = "fan_in"
    nonlinearity: str = "leaky_relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES or not abs(self.a) < inf:
            raise GraphError(f"{type(self).__name__}: mode is one of {', '.join(MODES)}, a is a number; got "
                             f"{self.mode!r}, {self.a}", user_loc())
        calculate_gain(self.nonlinearity)

    def std(self, shape: tuple[int, ...]) -> float:
        fan = _fans(type(self).__name__, shape)[MODES.index(self.mode)]
        return calculate_gain(self.nonlinearity, self.a) / sqrt(max(fan, 1))


@formed
@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    """Normal with standard deviation gain / sqrt(fan)."""

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return Normal(self.std(shape))(random, shape)


@formed
@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    """Uniform with bound gain sqrt(3 / fan)."""

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return Uniform(sqrt(3.0) * self.std(shape))(random, shape)


@formed
@dataclass(frozen=True)
class LecunNormal(Spread):
    """Normal with standard deviation gain / sqrt(fan_in), for selu (LeCun et al. 1998)."""
    gain: float = 1.0

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return Normal(self.gain / sqrt(max(_fans("LecunNormal", shape)[0], 1)))(random, shape)


@formed
@dataclass(frozen=True)
class Orthogonal(Spread):
    """gain times a matrix with orthonormal rows or columns, whichever are fewer, of [out, in * kernel] (Saxe et al.
    2014)."""
    gain: float = 1.0

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        _fans("Orthogonal", shape)
        rows, columns = shape[0], prod(shape[1:])
        q, r = np.linalg.qr(random.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))         # so that all such matrices are equally likely
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


@formed
@dataclass(frozen=True)
class Eye:
    """The identity matrix, as far as the shape goes."""

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 2:
            raise GraphError(f"Eye is for matrices, not for a parameter of shape {list(shape)}")
        return np.eye(*shape)


@formed
@dataclass(frozen=True)
class Dirac(Converted):
    """Kernels [out, in, k…] that hand on input channel i as output channel i of each group."""
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1:
            raise GraphError(f"Dirac: groups is a number >= 1, got {self.groups}", user_loc())

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if not 3 <= len(shape) <= 5 or shape[0] % self.groups:
            raise GraphError(f"Dirac({self.groups}) is for kernels of convolutions with channels divisible by groups, "
                             f"not for a parameter of shape {list(shape)}")
        kernels, per = np.zeros(shape), shape[0] // self.groups
        for i in range(min(per, shape[1])):
            centre: tuple[slice | int, ...] = (slice(i, None, per), i, *(k // 2 for k in shape[2:]))
            kernels[centre] = 1
        return kernels


@formed
@dataclass(frozen=True)
class Sparse(Spread):
    """Normal with standard deviation `std`, and in every column a share of `sparsity` zeros (Martens 2010)."""
    sparsity: float = 0.1
    std: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity > 1 or not 0 <= self.std < inf:
            raise GraphError(f"Sparse: sparsity is a share from 0 to 1, std a number >= 0, got {self.sparsity} and "
                             f"{self.std}", user_loc())

    def __call__(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 2:
            raise GraphError(f"Sparse is for matrices, not for a parameter of shape {list(shape)}")
        drawn = random.normal(0.0, self.std, shape)
        order = np.argsort(random.random(shape), axis=0)
        np.put_along_axis(drawn, order[:int(np.ceil(self.sparsity * shape[0]))], 0.0, axis=0)
        return drawn


def _fans(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_in and fan_out."""
    if len(shape) < 2:
        raise GraphError(f"{name} is for weights [out, in, …], not for a parameter of shape {list(shape)}")
    receptive = prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive
