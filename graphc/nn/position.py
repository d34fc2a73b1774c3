"""Layers that tell a sequence its order: a vector for each place added to x [B, T, E], or something done inside
attention."""
from __future__ import annotations

from math import inf, log, pi
from typing import cast

import numpy as np

import graphc as gc
from graphc.dsl.array import Array, as_array
from graphc.dsl.context import current_trace
from graphc.dsl.order import batch_comes_first, said
from graphc.errors import GraphError
from graphc.ir.dims import Dim, static_dim
from graphc.ir.types import DType
from graphc.nn.decode import decoding, stepping
from graphc.nn.module import Module
from graphc.nn.parameter import Normal


class SinusoidalPosition(Module):
    """x[b, t, 2i] + sin(t / 10000^(2i / E)), x[b, t, 2i + 1] + cos(the same) (Vaswani et al. 2017). No parameters."""

    def forward(self, x: Array) -> Array:
        x = _checked("SinusoidalPosition", x)
        width, step = static_dim(x.shape[2]), stepping()
        length = step.batch.capacity if step else x.shape[1]
        table = sines(length, np.repeat(frequencies(width), 2)[:width], np.arange(width) % 2 * (pi / 2), x.dtype)
        return x + (step.rows(table, 3) if step else table)


class LearnedPosition(Module):
    """x [B, T, E] + weight[:T]; weight [length, E] starts normal(0, std). `length`: that of the first input unless
    given."""

    def __init__(self, length: int | None = None, *, std: float = 0.02) -> None:
        super().__init__()
        self.length, self.std = length, std

    def forward(self, x: Array) -> Array:
        x = _checked("LearnedPosition", x)
        self.length = self.length or (x.shape[1] if isinstance(x.shape[1], int) else None)
        if self.length is None:
            raise GraphError(f"LearnedPosition: the input has {x.shape[1]} places; give the largest number to "
                             "LearnedPosition")
        now = decoding()
        if now:
            return x + now.learned(self.parameter("weight", (self.length, x.shape[2]), Normal(self.std), x.dtype),
                                   x.shape[1])
        if isinstance(x.shape[1], int) and x.shape[1] > self.length:
            raise GraphError(f"LearnedPosition knows {self.length} places, the input has {x.shape[1]}: "
                             "give the length to LearnedPosition")
        weight = self.parameter("weight", (self.length, x.shape[2]), Normal(self.std), x.dtype)
        return x + weight[:x.shape[1]]


class InnerPosition(Module):
    """A position embedding inside attention: `MultiHeadAttention(heads, position=…)`."""

    def turn(self, x: Array) -> Array:
        """Queries or keys [B, heads, T, D] that know their places."""
        return x

    def bias(self, q: Array, k: Array) -> Array | None:
        """What is added to the scores of q [B, heads, T, D] and k [B, heads, S, D]: [heads, T, S], or None."""
        return None


class RotaryPosition(InnerPosition):
    """Turns each pair of features of queries and keys by an angle that grows with their place, so that scores depend
    on distances alone (Su et al. 2021): (x[2i], x[2i + 1]) at place t by t / base^(2i / D).

    As a function: x [..., T, D] -> [..., T, D]. `halves`: the pairs are (x[i], x[i + D / 2]), as in LLaMA and
    GPT-NeoX. No parameters.
    """

    def __init__(self, *, base: float = 10000.0, halves: bool = False) -> None:
        super().__init__()
        if not 0 < base < inf:
            raise GraphError(f"RotaryPosition: base is a number above 0 (10000 as a rule), got {base}")
        self.base, self.halves = base, halves

    def forward(self, x: Array) -> Array:
        length, width = x.shape[-2:] if x.ndim > 1 else (None, None)
        if not isinstance(width, int) or width % 2:
            raise GraphError("RotaryPosition takes [..., time, features] with an even number of features, "
                             f"got {list(x.shape)}")
        cos, sin = self._turns(cast(Dim, length), width, x)
        shape, axis = ((2, width // 2), -2) if self.halves else ((width // 2, 2), -1)
        # of each pair, the other one
        others = gc.flip(x.reshape(*x.shape[:-1], *shape), axis).reshape(*x.shape)
        return x * cos + others * sin

    def _turns(self, length: Dim, width: int, x: Array) -> tuple[Array, ...]:
        """Cosines and sines for the places of x; layers that turn in the same way share them."""
        slow, step, shared = self._frequencies(width), stepping(), current_trace().shared
        key = "rotary", length, slow.tobytes(), x.dtype, step and (id(step), len(x.shape))
        if key not in shared:
            tables = (as_array(sines(step.batch.capacity if step else length, slow, phase, x.dtype))
                      for phase in (pi / 2, 0.0))
            shared[key] = tuple(step.rows(table, len(x.shape)) if step else table for table in tables)
        return shared[key]

    def _frequencies(self, width: int) -> np.ndarray:
        """One for each feature, negative for the first of a pair: (a, b) becomes (a cos - b sin, b cos + a sin)."""
        beside, apart = (np.tile, np.repeat) if self.halves else (np.repeat, np.tile)
        return beside(frequencies(width, self.base), 2) * apart([-1, 1], width // 2)

    turn = Module.__call__


class RelativePosition(InnerPosition):
    """A learned number for each head and distance, added to the scores (Raffel et al. 2020, T5).

    Distances j - i of key j from query i share `buckets` numbers: half of the buckets are for one distance each, the
    others widen logarithmically up to `max_distance`, the last one holding all that is further. Keys behind the query
    get buckets of their own; with `bidirectional=False` (causal attention) those ahead count as distance 0. weight
    [buckets, heads] starts normal(0, std). As a function: (q [B, heads, T, D], k [B, heads, S, D]) -> [heads, T, S].
    """

    def __init__(self, buckets: int = 32, *, max_distance: int = 128, bidirectional: bool = True,
                 std: float = 0.02) -> None:
        super().__init__()
        if buckets < 4 or max_distance <= buckets // (4 if bidirectional else 2):
            raise GraphError("RelativePosition needs 4 or more buckets and a max_distance above those of one "
                             f"distance each, got {buckets} and {max_distance}")
        self.buckets, self.max_distance, self.bidirectional, self.std = buckets, max_distance, bidirectional, std

    def forward(self, q: Array, k: Array) -> Array:
        heads, queries, keys = q.shape[-3], q.shape[-2], k.shape[-2]
        if not isinstance(queries, int) or not isinstance(keys, int):
            raise GraphError(f"RelativePosition needs the numbers of queries and keys as ints, got {queries} and "
                             f"{keys}")
        weight, step = self.parameter("weight", (self.buckets, heads), Normal(self.std), q.dtype), stepping()
        if step:
            # a product and no lookup: what may fail delays the caches' writes
            chosen = np.eye(self.buckets)[self.bucket(-np.arange(keys))]
            return step.by_distance((chosen.astype(q.dtype.np) @ weight).T)
        by_distance = gc.take(weight, as_array(self.bucket(np.arange(1 - queries, keys)))).T
        return gc.take(by_distance, as_array(np.arange(keys) - np.arange(queries)[:, None] + queries - 1), axis=1)

    def bucket(self, distances: np.ndarray) -> np.ndarray:
        """The bucket of each distance (key minus query), i64."""
        count = self.buckets // 2 if self.bidirectional else self.buckets
        ahead = (distances > 0) * count if self.bidirectional else 0
        far = np.abs(distances) if self.bidirectional else np.maximum(-distances, 0)
        exact = count // 2
        steps = np.log(np.maximum(far, exact).astype(np.float32) / np.float32(exact))
        share = steps / np.float32(log(self.max_distance / exact))
        wide = exact + (share * np.float32(count - exact)).astype(np.int64)         # in f32, as T5 rounds
        return ahead + np.where(far < exact, far, np.minimum(wide, count - 1)).astype(np.int64)

    bias = Module.__call__


def frequencies(width: int, base: float = 10000.0) -> np.ndarray:
    """base^(-2i / width) for each pair i of features, f64 [ceil(width / 2)]."""
    return base ** (-np.arange(0, width, 2) / width)


def sines(length: Dim, slow: np.ndarray, phase: np.ndarray | float, dtype: DType) -> Array | np.ndarray:
    """sin(t * slow + phase) for the places t below `length`: [length, len(slow)], computed in f64."""
    if isinstance(length, int):
        return np.sin(np.arange(length)[:, None] * slow + phase).astype(dtype.np)
    return gc.sin(gc.expand_dims(gc.arange(length, dtype=gc.f64), 1) * slow + phase).astype(dtype)


def _checked(layer: str, x: Array) -> Array:
    """x, a batch of sequences [B, T, E]."""
    if len(x.shape) != 3 or not isinstance(x.shape[2], int):
        raise GraphError(f"{layer} takes [batch, time, features] with the number of features as an int, "
                         f"got {list(x.shape)}")
    return said(x, batch_comes_first(layer, x, told=True))
