"""What a sample is: an operator, input arrays, and what may be checked there. Helpers that make arrays and samples."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from zlib import crc32

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.op import Op, as_tuple
from graphc.ir.types import DType, TensorType, bool_, dtype_of, f32, f64, i32, i64

FLOATS = (f32, f64)
CORE = (f32, f64, i32, i64, bool_)         # the types in which every sample is made; tests/native/test_storage_types.py takes the others


@dataclass(frozen=True, eq=False)
class Sample:
    """`op` applied to `arrays`.

    smooth: the gradient may be compared with differences here (f64 only; ties, kinks and special values are not smooth).
    expect: the result again, from the arrays, by other means than the reference.
    tolerance: allowed error in units of eps of the dtype, relative to each result and, if `scaled`, to the largest operand or result.
    """
    op: Op
    arrays: tuple[np.ndarray, ...]
    tag: str = ""
    smooth: bool = True
    expect: Callable | None = None
    tolerance: float = 32
    scaled: bool = True

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(TensorType(dtype_of(a), a.shape) for a in self.arrays)

    @property
    def name(self) -> str:
        shapes = ";".join(f"{t.dtype}{'x'.join(map(str, t.shape)) or 'scalar'}" for t in self.types)
        return f"{self.op.name}-{shapes}" + (f"-{self.tag}" if self.tag else "")

    @property
    def differentiable(self) -> bool:
        """Whether a gradient check makes sense: every float is f64, smooth, and there are elements."""
        floats = [a for a in self.arrays if a.dtype.kind == "f"]
        outs = [t for t in as_tuple(self.op.infer(*self.types)) if t.dtype.is_float]
        return self.smooth and bool(floats and outs) and all(a.dtype == np.float64 and a.size for a in floats) and all(t.size and t.dtype == f64 for t in outs)

    def graph(self) -> Graph:
        """A graph with inputs x0, x1, … and the outputs of the operator."""
        b = Builder("sample")
        outs = b.apply(self.op, [b.input(f"x{i}", t) for i, t in enumerate(self.types)])
        return b.finish(outs, None if len(outs) == 1 else ("",) * len(outs))

    @property
    def scale(self) -> float:
        """The largest finite operand or result, 16 at most, to which small results may owe their error; 0 unless `scaled`."""
        arrays = [np.abs(a[np.isfinite(a)]).max(initial=0.0) for a in map(np.asarray, self.arrays + self.expected()) if a.dtype.kind == "f"]
        return min(max(arrays, default=0.0), 16.0) if self.scaled else 0.0

    def expected(self) -> tuple[np.ndarray, ...]:
        """What the numpy reference gives."""
        with np.errstate(all="ignore"):
            return as_tuple(self.op.reference(*self.arrays))


def _traits(s: Sample) -> set:
    """What a sample has that others of its operator may not have: attributes and shapes, and the types with the ranks."""
    types, shapes = tuple(a.dtype.name for a in s.arrays), tuple(a.shape for a in s.arrays)
    attributes = {(f.name, repr(getattr(s.op, f.name))) for f in (fields(s.op) if is_dataclass(s.op) else ())}
    return attributes | {shapes, (types, tuple((len(shape), 0 in shape) for shape in shapes)), (types, "special" in s.tag)}


def covering(samples: Sequence[Sample]) -> list[Sample]:
    """Some of the samples of an operator: each attribute, each shape, and each type with each rank is in one of them."""
    traits = [_traits(s) for s in samples]
    chosen, left = set(), set().union(*traits)
    while left:
        best = max(range(len(samples)), key=lambda i: len(traits[i] & left))
        chosen.add(best)
        left -= traits[best]
    return [samples[i] for i in sorted(chosen)]


def shares(samples: Sequence[Sample]) -> list:
    """Parameters of a test that takes the samples of an operator together: those that cover it, then, slow, all."""
    of = {name: [s for s in samples if s.op.name == name] for name in sorted({s.op.name for s in samples})}
    return [*(pytest.param(covering(own), id=name) for name, own in of.items()),
            *(pytest.param(own, id=f"{name}, all", marks=pytest.mark.slow) for name, own in of.items())]


def rng_for(*words) -> np.random.Generator:
    """The same generator for the same words, in every process."""
    return np.random.default_rng(crc32(repr(words).encode()))


def floats(shape, dtype: DType = f32, low: float = -2.0, high: float = 2.0, seed=0) -> np.ndarray:
    return np.asarray(rng_for(shape, low, high, seed).uniform(low, high, shape), dtype.np)


def ints(shape, dtype: DType, low: int = -20, high: int = 20, seed=0) -> np.ndarray:
    return np.asarray(rng_for(shape, low, high, seed).integers(low, high, shape), dtype.np)


def values(shape, dtype: DType, seed=0) -> np.ndarray:
    """Ordinary numbers of any dtype."""
    if dtype.is_float:
        return floats(shape, dtype, seed=seed)
    return ints(shape, dtype, seed=seed) if dtype.is_int else np.asarray(rng_for(shape, seed).random(shape) < 0.5)


def distinct(shape, dtype: DType, seed=0) -> np.ndarray:
    """A shuffled arithmetic sequence: no ties."""
    n = int(np.prod(shape))
    return ((rng_for(shape, seed).permutation(n) - n / 2) / 4).reshape(shape).astype(dtype.np)


def special(dtype: DType) -> np.ndarray:
    """Numbers at which implementations go wrong."""
    if not dtype.is_float:
        info = np.iinfo(dtype.np)
        return np.array([0, 1, -1, 2, -2, 3, 31, 32, 40, 64, 100, info.max, info.min, info.max - 1, info.min + 1], dtype.np)
    info = np.finfo(dtype.np)
    small = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 1e-8, 1e-4, 20.0, 88.0, 89.0, 104.0, 710.0, 1e5, info.max, info.tiny, info.smallest_subnormal, np.inf]
    return np.array(small + [-x for x in small] + [np.nan], dtype.np)


def each(op: Op, shapes: Sequence[tuple], dtypes: Sequence[DType] = FLOATS, make: Callable = values, **rest) -> Iterator[Sample]:
    """One sample per (shapes of all operands, dtype)."""
    for row in shapes:
        for dtype in dtypes:
            yield Sample(op, tuple(make(shape, dtype, seed=i) for i, shape in enumerate(row)), **rest)
