"""Random numbers: Philox-4x32-10 as one structured operator, `random_bits`, and composites of it with elementwise
operators.

Philox-4x32 with 10 rounds (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011) maps a
counter of four 32-bit words and a key of two to four random words. Element i (row-major) of `random_bits(shape, stream,
lane)(key)` is

    word i mod 4 of philox(counter = (i div 4, lane, stream, step mod 2^32), key = (seed mod 2^32, seed div 2^32))

where `key` holds (seed, step) as i64, read as unsigned. So one Philox block serves four neighbours,
nothing depends on tiles, threads or fusion, and operators differ by stream (the DSL numbers them), runs by step.
`lane` tells apart several words for one element. Distributions, from signed words w: probability p is w < round(p 2^32)
- 2^31; uniform f32 is the top 24 bits times 2^-24; uniform f64 is ((lane 0 >> 5) 2^26 + (lane 1 >> 6)) 2^-53,
shifts unsigned; normal is Box-Muller's sqrt(-2 log(1 - u)) cos(2 pi v) with u from the first lanes and v from the next,
at most 5.77 in f32.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from graphc.ir.dims import Dim, Dims, Sizes, static_dim, static_shape
from graphc.ir.graph import Value
from graphc.ir.op import Composite, Cost, Gradients, Op, OpBuilder, Values, as_tuple, only_gradient, require
from graphc.ir.ops.constant import number
from graphc.ir.types import DType, TensorType, bool_, i32, i64

KEY = TensorType(i64, (2,))
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK32 = 0xFFFFFFFF
Words = np.ndarray | np.uint64       # 32 bits each, in 64


class RandomBits(Op):
    """i32[shape] of uniformly random bits from a key i64[2] = (seed, step); which words, this file says at its top."""
    name: ClassVar[str] = "random_bits"
    is_generator = True
    element_flops = 30
    shape: tuple[Dim, ...]
    stream: int = 0
    lane: int = 0

    def size_conditions(self, *ins: TensorType) -> tuple[Dim, ...]:
        return (room_in_stream(self.shape),)

    def infer(self, key: TensorType) -> TensorType:
        check_draw(self, key)
        require(0 <= self.lane <= MASK32, f"{self.name}: the lane must be in 0..2^32-1, got {self.lane}")
        return TensorType(i32, self.shape)

    def reference(self, key: np.ndarray) -> np.ndarray:
        return bits(key, static_shape(self.shape), self.stream, self.lane)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)

    def cost(self, key: TensorType) -> Cost:
        out = self.infer(key)
        return Cost(20 * out.size, out.nbytes)


class Draw(Composite):
    """Base of the distributions: an array of `shape` from a key; no gradient."""
    shape: tuple[Dim, ...]

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)

    def cost(self, key: TensorType) -> Cost:
        out, = as_tuple(self.infer(key))
        return Cost(60 * out.size, out.nbytes)


class FloatDraw(Draw):
    """Base of the distributions over floats."""
    dtype: DType
    stream: int = 0

    def size_conditions(self, *ins: TensorType) -> tuple[Dim, ...]:
        return (room_in_stream(self.shape),)

    def infer(self, key: TensorType) -> TensorType:
        check_draw(self, key)
        require(self.dtype.is_float, f"{self.name} makes float arrays, got {self.dtype}")
        return TensorType(self.dtype, self.shape)


class RandomUniform(FloatDraw):
    """Uniform in [0, 1): multiples of 2^-24 in f32, of 2^-53 in f64."""
    name: ClassVar[str] = "random_uniform"

    def reference(self, key: np.ndarray) -> np.ndarray:
        return _uniform(key, static_shape(self.shape), self.stream, self.dtype, 0)

    def decompose(self, b: OpBuilder, key: Value) -> Value:
        return _uniform_nodes(b, key, self.shape, self.stream, self.dtype, 0)


class RandomNormal(FloatDraw):
    """Normal with mean 0 and variance 1."""
    name: ClassVar[str] = "random_normal"

    def reference(self, key: np.ndarray) -> np.ndarray:
        u, v = (_uniform(key, static_shape(self.shape), self.stream, self.dtype, draw) for draw in (0, 1))
        return np.sqrt(-2 * np.log(1 - u)) * np.cos(self.dtype.np.type(2 * math.pi) * v)

    def decompose(self, b: OpBuilder, key: Value) -> Value:
        u, v = (_uniform_nodes(b, key, self.shape, self.stream, self.dtype, draw) for draw in (0, 1))
        radius = b.sqrt(b.mul(b.log(b.sub(1, u)), -2))
        return b.mul(radius, b.cos(b.mul(v, 2 * math.pi)))


class RandomBernoulli(Draw):
    """bool[shape], each True with probability p (exactly round(p 2^32) / 2^32). For a p that is an array:
    `random_uniform < p`."""
    name: ClassVar[str] = "random_bernoulli"
    p: float
    stream: int = 0

    def size_conditions(self, *ins: TensorType) -> tuple[Dim, ...]:
        return (room_in_stream(self.shape),)

    def infer(self, key: TensorType) -> TensorType:
        check_draw(self, key)
        require(0 <= self.p <= 1, f"random_bernoulli: p is a probability, got {self.p}")
        return TensorType(bool_, self.shape)

    def reference(self, key: np.ndarray) -> np.ndarray:
        return _below(key, static_shape(self.shape), self.stream, self.p)

    def decompose(self, b: OpBuilder, key: Value) -> Value:
        return _below_nodes(b, key, self.shape, self.stream, self.p)


class RandomPermutation(Composite):
    """A random order of 0..n-1, i64: the stable argsort of n random words."""
    name: ClassVar[str] = "random_permutation"
    n: Dim
    stream: int = 0

    def infer(self, key: TensorType) -> TensorType:
        _check_key(self.name, key, self.stream)
        return TensorType(i64, (self.n,))

    def reference(self, key: np.ndarray) -> np.ndarray:
        return np.argsort(bits(key, (static_dim(self.n),), self.stream), kind="stable").astype(np.int64)

    def decompose(self, b: OpBuilder, key: Value) -> Value:
        return b.argsort(b.random_bits(key, shape=(self.n,), stream=self.stream), axis=0)

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return (None,)


class Dropout(Composite):
    """x / (1 - rate) where `random_bernoulli(1 - rate)` of x's shape is True, else 0 (Srivastava et al. 2014; as
    torch.nn.Dropout in training)."""
    name: ClassVar[str] = "dropout"
    linear_in = ((0,),)
    rate: float
    stream: int = 0

    def infer(self, x: TensorType, key: TensorType) -> TensorType:
        _check_key(self.name, key, self.stream)
        require(0 <= self.rate <= 1, f"dropout: the rate is a probability, got {self.rate}")
        require(x.dtype.is_float, f"dropout takes float arrays, got {x.dtype}")
        return x

    def size_conditions(self, *ins: TensorType) -> tuple[Dim, ...]:
        return (room_in_stream(ins[0].shape),)

    def reference(self, x: np.ndarray, key: np.ndarray) -> np.ndarray:
        kept = _below(key, x.shape, self.stream, 1 - self.rate)
        return np.where(kept, x * x.dtype.type(self._scale), x.dtype.type(0))

    def decompose(self, b: OpBuilder, x: Value, key: Value) -> Value:
        kept = _below_nodes(b, key, x.type.shape, self.stream, 1 - self.rate)
        return b.where(kept, b.mul(x, self._scale), number(b, 0, x))

    def vjp(self, b: OpBuilder, gs: Gradients, ins: Values, outs: Values) -> Gradients:
        return self.decompose(b, only_gradient(gs), ins[1]), None       # linear in x, with the same bits again

    @property
    def _scale(self) -> float:
        return 1 / (1 - self.rate) if self.rate < 1 else 0.0


def philox(counter: Sequence[Words], key: tuple[Words, Words]) -> tuple[Words, ...]:
    """Four words (uint64 arrays holding 32 bits) for a counter of four words and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (_high(second) ^ c1 ^ k0, _low(second), _high(first) ^ c3 ^ k1, _low(first))
        k0, k1 = _low(k0 + np.uint64(WEYL[0])), _low(k1 + np.uint64(WEYL[1]))
    return c0, c1, c2, c3


def bits(key: np.ndarray, shape: tuple[int, ...], stream: int, lane: int = 0) -> np.ndarray:
    """The i32 array that `random_bits` makes."""
    size = math.prod(shape)
    seed, step = (np.uint64(int(k) & 0xFFFFFFFFFFFFFFFF) for k in key)
    block = np.arange((size + 3) // 4, dtype=np.uint64)
    counter = block, *(np.full_like(block, word) for word in (lane, stream, _low(step)))
    words = philox(counter, (_low(seed), _high(seed)))
    return np.stack(words, axis=-1).astype(np.uint32).reshape(-1)[:size].view(np.int32).reshape(shape)


STREAM = 4 << 32                    # numbers in it


def check_draw(op: RandomBits | FloatDraw | RandomBernoulli, key: TensorType) -> None:
    """What every draw of an array requires of its key, stream and shape."""
    _check_key(op.name, key, op.stream)
    size = TensorType(i32, op.shape).size
    require(not isinstance(size, int) or size <= STREAM,
            f"{op.name}: {size} elements are more than one stream has (2^34); draw them in parts")


def room_in_stream(shape: Dims) -> Dim:
    """How many numbers of a stream an array of this shape leaves."""
    return TensorType(i32, shape).size * -1 + STREAM


def _check_key(name: str, key: TensorType, stream: int) -> None:
    require(key == KEY, f"{name} takes a key {KEY} = (seed, step), got {key}")
    require(0 <= stream <= MASK32, f"{name}: the stream must be in 0..2^32-1, got {stream}")


def _uniform(key: np.ndarray, shape: Sizes, stream: int, dtype: DType, draw: int) -> np.ndarray:
    if dtype.itemsize == 4:
        return ((bits(key, shape, stream, draw).view(np.uint32) >> 8) * 2.0 ** -24).astype(np.float32)
    first, second = (bits(key, shape, stream, lane).view(np.uint32) for lane in (2 * draw, 2 * draw + 1))
    return ((first >> 5) * 2.0 ** 26 + (second >> 6)) * 2.0 ** -53


def _uniform_nodes(b: OpBuilder, key: Value, shape: Dims, stream: int, dtype: DType, draw: int) -> Value:
    def top(lane: int, n: int) -> Value:
        words = b.random_bits(key, shape=shape, stream=stream, lane=lane)
        return b.cast(b.bitand(b.shift_right(words, 32 - n), (1 << n) - 1), dtype=dtype)
    if dtype.itemsize == 4:
        return b.mul(top(draw, 24), 2.0 ** -24)
    return b.mul(b.add(b.mul(top(2 * draw, 27), 2.0 ** 26), top(2 * draw + 1, 26)), 2.0 ** -53)


def _below(key: np.ndarray, shape: Sizes, stream: int, p: float) -> np.ndarray:
    return bits(key, shape, stream).astype(np.int64) < _threshold(p)


def _below_nodes(b: OpBuilder, key: Value, shape: Dims, stream: int, p: float) -> Value:
    words, limit = b.random_bits(key, shape=shape, stream=stream), _threshold(p)
    return b.le(words, limit - 1) if limit > -(1 << 31) else b.lt(words, limit)


def _threshold(p: float) -> int:
    return round(p * 2.0 ** 32) - (1 << 31)


def _high(x: Words) -> Words:
    return x >> np.uint64(32)


def _low(x: Words) -> Words:
    return x & np.uint64(MASK32)


OPS = (RandomBits, RandomUniform, RandomNormal, RandomBernoulli, RandomPermutation, Dropout)
