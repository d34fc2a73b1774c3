"""Random graphs of what fuses: elementwise operators, broadcasts, reductions, transposes and reshapes over a few common
dims.
"""
from __future__ import annotations

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.types import TensorType, f32

UNARY = ("neg", "abs", "tanh", "sigmoid", "sin")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
REDUCE = ("sum", "max", "min")
SHAPES = ((7, 33), (4, 5, 19), (130,), (3, 64, 8), (40, 1), (2, 3, 4, 5), (6, 16))


class RandomGraph:
    """Grows one graph: every step appends an operator on values made so far; values stay of moderate size."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.b = Builder("random")
        shape = SHAPES[self.rng.integers(len(SHAPES))]
        self.values = [self.b.input("x0", TensorType(f32, shape)),
                       self.b.input("x1", TensorType(f32, self._narrowed(shape)))]

    def grow(self, steps: int) -> Graph:
        for _ in range(steps):
            self.values.append(self._step())
        made = self.values[2:]
        ends = [v for v in made if not any(v in n.inputs for n in self.b.nodes)]
        extra = made[self.rng.integers(len(made))]
        return self.b.finish(list(dict.fromkeys([*ends, extra])), ("",) * len(dict.fromkeys([*ends, extra])))

    def arrays(self, graph: Graph) -> list[np.ndarray]:
        return [self.rng.uniform(-1, 1, v.type.shape).astype(np.float32) for v in graph.inputs]

    def _narrowed(self, shape):
        kept = tuple(n if self.rng.random() < 0.6 else 1 for n in shape)
        return kept[self.rng.integers(len(kept)):] if self.rng.random() < 0.5 else kept

    def _pick(self) -> Value:
        return self.values[min(int(self.rng.geometric(0.35)), len(self.values)) * -1]

    def _step(self) -> Value:
        kinds = (self._unary, self._binary, self._binary, self._binary, self._reduce, self._reduce, self._move,
                 self._iota)
        return kinds[self.rng.integers(len(kinds))]()

    def _unary(self) -> Value:
        return getattr(self.b, UNARY[self.rng.integers(len(UNARY))])(self._pick())

    def _binary(self) -> Value:
        x = self._pick()
        fits = [v for v in self.values if _broadcasts(v.type.shape, x.type.shape)]
        return getattr(self.b, BINARY[self.rng.integers(len(BINARY))])(x, fits[self.rng.integers(len(fits))])

    def _reduce(self) -> Value:
        x = self._pick()
        if not x.type.rank:
            return self.b.neg(x)
        axes = tuple(a for a in range(x.type.rank) if self.rng.random() < 0.5) or (x.type.rank - 1,)
        kind = REDUCE[self.rng.integers(len(REDUCE))]
        result = getattr(self.b, kind)(x, axes=axes, keepdims=bool(self.rng.random() < 0.7))
        return self.b.mul(result, 1 / 16) if kind == "sum" else result

    def _move(self) -> Value:
        x = self._pick()
        if self.rng.random() < 0.5 or x.type.rank < 2:
            return self.b.reshape(x, shape=_regrouped(x.type.shape, self.rng))
        return self.b.transpose(x, perm=tuple(int(p) for p in self.rng.permutation(x.type.rank)))

    def _iota(self) -> Value:
        x = self._pick()
        if not x.type.rank:
            return x if x in self.values[2:] else self.b.neg(x)
        counted = self.b.iota(shape=x.type.shape, axis=int(self.rng.integers(x.type.rank)), dtype=f32)
        return self.b.where(self.b.lt(counted, 2.0), x, self.b.mul(counted, 0.01))


def _broadcasts(a, b) -> bool:
    try:
        return np.prod(np.broadcast_shapes(a, b)) <= 20_000
    except ValueError:
        return False


def _regrouped(shape, rng):
    """Axes merged, or split, at random."""
    flat = [n for n in shape for n in ((n // 2, 2) if n % 2 == 0 and n > 2 and rng.random() < 0.3 else (n,))]
    result = []
    for n in flat:
        if result and rng.random() < 0.3:
            result[-1] *= n
        else:
            result.append(n)
    return tuple(result)
