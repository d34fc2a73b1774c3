"""The transforms of Winograd convolutions as loop functions: a vector of channels at a time, all numbers of a tile in
registers.

One function for each (tile size, vector width); strides and sizes are arguments. Equal specs give the same object.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from graphc.codegen.loops.builder import LoopFunction, Val
from graphc.codegen.loops.index import ELEMENTS, Ix
from graphc.codegen.lower.contraction.micro_kernel import ANY, multiply_add
from graphc.ir.types import DType
from graphc.ir.winograd import Matrix, transforms
from graphc.records import dataclass

Row = tuple[float, ...]


@dataclass(frozen=True)
class TransformSpec:
    """Of numbers of type `dtype`. matrix: which of `Transforms`, for tiles of m × m results. masked: the last vector
    of channels is not whole. fused: the target has fma. added: to so many earlier results.
    """
    dtype: DType
    m: int
    matrix: str
    lanes: int
    masked: bool = False
    fused: bool = True
    added: int = 0

    @property
    def name(self) -> str:
        suffix = ("_masked" if self.masked else "") + ("" if self.fused else "_unfused")
        suffix += f"_added{self.added}" if self.added else ""
        return f"winograd_{self.matrix}_{self.dtype}_{self.m}x3_{self.lanes}{suffix}"

    @property
    def rows(self) -> Matrix:
        return getattr(transforms(self.m), self.matrix)


@cache
def transform_kernel(spec: TransformSpec) -> LoopFunction:
    """y = M x Mᵀ, M the matrix, for channels from 0 on. Views: x, y. Integers: channels in whole vectors, steps of x
    to the next row and column, step of y to the next element (row-major), and (if masked) channels that x has; behind
    them y gets zeros. If added, the last integer is the distance from y to y₁, from that to y₂ …, and y becomes
    y + (y₁ + (… + M x Mᵀ)).
    """
    f = LoopFunction(spec.name, noalias=True)
    x, y = (f.view(name, spec.dtype, (ANY,), (1,)) for name in "xy")
    channels = f.param("channels", 0, 1 << 24, spec.lanes)
    row, column, step = (f.param(name, 0, ELEMENTS) for name in ("row", "column", "step"))
    count = f.param("count", 0, 1 << 24) if spec.masked else channels
    distance = f.param("distance", 0, ELEMENTS) if spec.added else Ix()
    width = len(spec.rows)
    with f.loop(0, channels, spec.lanes) as loop:
        mask = f.tail_mask(count - loop.index, spec.lanes) if spec.masked else None

        def load(i: int, j: int) -> Val:
            return f.load(x, [row * i + column * j + loop.index], spec.lanes, mask)

        def store(i: int, j: int, value: Val) -> None:
            place = step * (i * width + j) + loop.index
            for number in reversed(range(spec.added)):
                value = f.add(f.load(y, [place + distance * number], spec.lanes), value)
            f.store(y, [place], value)
        _both_sides(f, spec, load, store)
    return f


def _both_sides(f: LoopFunction, spec: TransformSpec, load: Callable[[int, int], Val],
                store: Callable[[int, int, Val], None]) -> None:
    """Column by column, then row by row."""
    matrix, n = spec.rows, len(spec.rows[0])
    columns = [linear_map(f, matrix, [load(i, j) for i in range(n)], spec.fused) for j in range(n)]
    for i in range(len(matrix)):
        for j, value in enumerate(linear_map(f, matrix, [column[i] for column in columns], spec.fused)):
            store(i, j, value)


def linear_map(f: LoopFunction, matrix: Matrix, x: Sequence[Val], fused: bool) -> list[Val]:
    """matrix @ x. The points lie in pairs ±p: what both need is computed once, as sums and differences of operands
    where two columns differ in signs only, and of results where two rows do.
    """
    columns = list(zip(*matrix))
    for i, j in _pairs(columns):
        x = [*x[:i], f.add(x[i], x[j]), *x[i + 1:j], f.sub(x[i], x[j]), *x[j + 1:]]
        equal = tuple(a if a == b else 0.0 for a, b in zip(columns[i], columns[j]))
        columns[j] = tuple(a if a != b else 0.0 for a, b in zip(columns[i], columns[j]))
        columns[i] = equal
    rows = list(zip(*columns))
    results: list[Val | None] = [None] * len(rows)
    for i, j in _pairs(rows):
        same = _dot(f, [a if a == b else 0.0 for a, b in zip(rows[i], rows[j])], x, fused)
        other = _dot(f, [a if a != b else 0.0 for a, b in zip(rows[i], rows[j])], x, fused)
        results[i], results[j] = f.add(same, other), f.sub(same, other)
    return [_dot(f, row, x, fused) if result is None else result for row, result in zip(rows, results)]


def _pairs(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Rows that differ in signs only, in some but not all."""
    found: list[tuple[int, int]] = []
    for i, a in enumerate(rows):
        for j, b in enumerate(rows[:i]):
            mixed = any(x == y != 0 for x, y in zip(a, b)) and any(x == -y != 0 for x, y in zip(a, b))
            if mixed and all(abs(x) == abs(y) for x, y in zip(a, b)) and not any(j in pair for pair in found):
                found.append((j, i))
    return found


def _dot(f: LoopFunction, row: Sequence[float], x: Sequence[Val], fused: bool) -> Val:
    """The terms with factor 1 first, which need no product."""
    terms = sorted(((c, v) for c, v in zip(row, x) if c), key=lambda term: (term[0] != 1, abs(term[0]) != 1))
    total = terms[0][1] if terms[0][0] == 1 else f.mul(terms[0][1], terms[0][0])
    for c, v in terms[1:]:
        if abs(c) == 1:
            total = f.add(total, v) if c == 1 else f.sub(total, v)
        else:
            total = multiply_add(f, v, f.const(c, v.dtype, v.lanes), total, fused)
    return total


