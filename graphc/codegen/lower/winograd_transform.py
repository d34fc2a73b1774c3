"""The transforms of Winograd convolutions as loop functions: a vector of channels at a time, all numbers of a tile in registers.

One function for each (tile size, vector width); strides and sizes are arguments. Equal specs give the same object.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from graphc.codegen.loops import Function, Val
from graphc.codegen.lower.micro import ANY, multiply_add
from graphc.ir.types import f32
from graphc.ir.winograd import Matrix, transforms

Row = tuple[float, ...]


@dataclass(frozen=True)
class TransformSpec:
    """m: results along a side of a tile. masked: the last vector of channels is not whole. fused: the target has fma."""
    m: int
    lanes: int
    masked: bool = False
    fused: bool = True

    @property
    def suffix(self) -> str:
        return f"{self.m}x3_{self.lanes}{'_masked' if self.masked else ''}{'' if self.fused else '_unfused'}"


@cache
def input_kernel(spec: TransformSpec) -> Function:
    """v[point] = (Bᵀ d B)[point], for channels from 0 on. Views: d, v. Integers: channels in whole vectors, steps of d to the next row and
    column, step of v to the next point, and (if masked) channels that d has; behind them v gets zeros.
    """
    f = Function(f"winograd_input_{spec.suffix}", noalias=True)
    d, v = (f.view(name, f32, (ANY,), (1,)) for name in "dv")
    channels = f.param("channels", 0, 1 << 24, spec.lanes)
    row, column, plane = (f.param(name, 0, 1 << 32) for name in ("row", "column", "plane"))
    count = f.param("count", 1, 1 << 24) if spec.masked else channels
    bt = transforms(spec.m).bt
    with f.loop(0, channels, spec.lanes) as loop:
        mask = f.tail_mask(count - loop.index, spec.lanes) if spec.masked else None

        def load(i: int, j: int) -> Val:
            return f.load(d, [row * i + column * j + loop.index], spec.lanes, mask)
        _both_sides(f, spec, bt, load, lambda i, j, value: f.store(v, [plane * (i * len(bt) + j) + loop.index], value))
    return f


@cache
def output_kernel(spec: TransformSpec) -> Function:
    """y[i, j] = (Aᵀ p A)[i, j], for features from 0 on. Views: p, y. Integers: features (whole vectors), step of p to the next point,
    step of y to the next result.
    """
    f = Function(f"winograd_output_{spec.suffix}", noalias=True)
    p, y = (f.view(name, f32, (ANY,), (1,)) for name in "py")
    features, plane, step = f.param("features", 0, 1 << 24, spec.lanes), f.param("plane", 0, 1 << 32), f.param("step", 0, 1 << 32)
    at = transforms(spec.m).at
    n = len(at[0])
    with f.loop(0, features, spec.lanes) as loop:
        def load(i: int, j: int) -> Val:
            return f.load(p, [plane * (i * n + j) + loop.index], spec.lanes)
        _both_sides(f, spec, at, load, lambda i, j, value: f.store(y, [step * (i * spec.m + j) + loop.index], value))
    return f


def _both_sides(f: Function, spec: TransformSpec, matrix: Matrix, load, store) -> None:
    """matrix · x · matrixᵀ for square x, column by column, then row by row."""
    n = len(matrix[0])
    columns = [linear_map(f, matrix, [load(i, j) for i in range(n)], spec.fused) for j in range(n)]
    for i in range(len(matrix)):
        for j, value in enumerate(linear_map(f, matrix, [column[i] for column in columns], spec.fused)):
            store(i, j, value)


def linear_map(f: Function, matrix: Matrix, x: Sequence[Val], fused: bool) -> list[Val]:
    """matrix @ x. The points lie in pairs ±p: what both need is computed once, as sums and differences of operands where two columns differ in
    signs only, and of results where two rows do.
    """
    columns = list(zip(*matrix))
    for i, j in _pairs(columns):
        x = [*x[:i], f.add(x[i], x[j]), *x[i + 1:j], f.sub(x[i], x[j]), *x[j + 1:]]
        same = tuple(a if a == b else 0.0 for a, b in zip(columns[i], columns[j]))
        columns[j] = tuple(a if a != b else 0.0 for a, b in zip(columns[i], columns[j]))
        columns[i] = same
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


def _dot(f: Function, row: Sequence[float], x: Sequence[Val], fused: bool) -> Val:
    """The terms with factor 1 first, which need no product."""
    terms = sorted(((c, v) for c, v in zip(row, x) if c), key=lambda term: (term[0] != 1, abs(term[0]) != 1))
    total = terms[0][1] if terms[0][0] == 1 else f.mul(terms[0][1], terms[0][0])
    for c, v in terms[1:]:
        total = f.add(total, v) if c == 1 else f.sub(total, v) if c == -1 else multiply_add(f, v, f.const(c, f32, v.lanes), total, fused)
    return total


