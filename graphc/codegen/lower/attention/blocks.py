"""Blocks of attention and of its gradient: scores as rows × columns, lanes along columns.

The matrices that have the columns are transposed into panels, block by block; those that have the rows are read
unpacked, with any strides, and the last block of rows needs no mask.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contraction.matrix_kernel import MatrixOperands, call_matrix_kernel
from graphc.codegen.lower.contraction.micro_kernel import (
    ColumnLayout, ColumnPanel, MicroTileShape, MicroTileSums, ProductTypes, RowLayout, RowPanel, call_micro_kernel)
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import at_most, unflattened
from graphc.codegen.lower.transpose import turned_square
from graphc.ir.ops.attention import AttentionOp
from graphc.ir.dims import Dim, Dims, ceil_div, static_dim
from graphc.ir.types import DType, bf16
from graphc.records import dataclass
from graphc.schedule.attention_schedule import AttentionSchedule
from graphc.schedule.contraction_schedule import round_up
from graphc.schedule.target import LINE_BYTES, MATRIX_LANES, Target


TOGETHER = 6            # keys whose exponentials are computed together
TILES_AHEAD = 2         # register tiles from one whose rows are read to one whose rows are prefetched


def in_groups(f: LoopFunction, start: Ix, stop: Ix, size: int) -> tuple[tuple[Ix, Ix, int], ...]:
    """(from, to, step) of two loops that cover start … stop - 1: whole groups, then what is left one by one."""
    whole = start + f.divmod(stop - start, size)[0] * size
    return (start, whole, size), (whole, stop, 1)


def larger(f: LoopFunction, a: Val, b: Val) -> Val:
    """The maximum, b if one is NaN: one instruction."""
    return f.select(f.gt(a, b), a, b)


@dataclass(frozen=True)
class Blocks:
    """The function, its schedule, and how many columns and rows the scores have. in_pairs: factors of products are
    pairs of bf16; matrices: which matrix registers multiply."""
    f: LoopFunction
    s: AttentionSchedule
    target: Target
    dtype: DType
    columns: Dim
    rows: Dim
    causal: bool
    serial: bool | Val = False      # all on the caller
    in_pairs: bool = False
    matrices: bool = False

    @property
    def panels(self) -> int:
        """Register tiles side by side in a block."""
        return self.s.columns // self.s.nr

    def panels_from(self, column: Ix) -> Ix:
        """Register tiles of a block that starts at this column, up to the last column."""
        return self.f.min_(self.panels, self.f.divmod(self.columns - column + (self.s.nr - 1), self.s.nr)[0])

    def panels_made(self, column: Ix) -> Ix | int:
        """Register tiles of such a block that are filled: all, unless blocks may be much longer than what there is."""
        return self.panels if isinstance(self.columns, int) else self.panels_from(column)

    def made(self, column: Ix, panel: Ix | int) -> Ix | int:
        """Columns of a register tile that are computed, in a block that starts at this column: those that are left, in
        whole register tiles of the last columns."""
        f, lanes, widths = self.f, self.s.lanes, [*[vectors for _, vectors in self.s.fewer], self.s.vectors]
        if len(widths) == 1:
            return self.s.nr
        left = f.divmod(self.columns - column - as_ix(panel) * self.s.nr + (lanes - 1), lanes)[0]
        return sum([f.min_(f.max_(left - a, 0), 1) * (b - a) for a, b in pairwise(widths)], Ix(widths[0])) * lanes

    def columns_made(self, column: Ix) -> Ix | int:
        """The same of the whole block."""
        last = self.panels_made(column) - 1
        return last * self.s.nr + self.made(column, last)

    @property
    def block_rows(self) -> int:
        """Rows of a block of scores, with room for a register tile from any of them on and for whole vectors."""
        together = round_up(self.s.rows, TOGETHER) if self.s.any_length else 0
        most = max([self.s.mr, *[mr for mr, _ in self.s.fewer]])
        return round_up(max(self.s.rows + most - 1, together), self.s.lanes)

    @property
    def column_blocks(self) -> Dim:
        return ceil_div(self.columns, self.s.columns)

    def panel_scratch(self, name: str, features: int) -> View:
        """[panel][feature][column in the panel], with room for whole register tiles and whole vectors."""
        rows = max(round_up(features, self.s.mr), round_up(features, self.s.lanes))
        return self.f.scratch(name, self.dtype, (self.panels, rows, self.s.nr))

    def matrix_scratch(self, name: str, features: int) -> View:
        """[column of the block][feature], with room for whole register tiles."""
        return self.f.scratch(name, self.dtype, (self.s.columns, round_up(features, self.s.nr)))


def blocks_of(r: KernelRequest[AttentionSchedule, AttentionOp], f: LoopFunction, columns: Dim, rows: Dim) -> Blocks:
    """For the function of a request."""
    s, op = r.schedule, r.op
    serial = at_most(f, op.cost(*(v.type for v in r.node.inputs)).flops, s.alone) if s.alone else s.serial
    pairs = op.factors is not None
    return Blocks(f, s, r.target, r.outs[0].dtype, columns, rows, op.causal, serial, pairs,
                  pairs and r.target.multiplies_matrices(bf16.name))


def queries_left(b: Blocks, first: Ix, panel: Ix) -> Ix:
    """Columns of a panel of the block that starts at column `first`: the last one may have fewer than fit."""
    return b.f.min_(b.columns - first - panel * b.s.nr, b.s.nr)


def by_width(b: Blocks, made: Ix | int) -> Iterator[Blocks]:
    """Opens a branch for each number of columns of a register tile that may be made, with register tiles of these."""
    f, s, fewer = b.f, b.s, b.s.fewer
    if not fewer:
        yield b
        return
    mr, vectors = fewer[0]
    with f.if_(f.le(f.value(as_ix(made)), vectors * s.lanes)):
        yield replace(b, s=replace(s, mr=mr, vectors=vectors, fewer=(), brief=True))
    with f.else_():
        yield from by_width(replace(b, s=replace(s, fewer=fewer[1:])), made)


def vectors_of(b: Blocks, made: Ix | int) -> Iterator[Sequence[Ix | int]]:
    """The columns of a register tile that are made, as vectors: all together, or one after the other where their number
    comes with the call."""
    if isinstance(made, int):
        yield range(0, made, b.s.lanes)
        return
    with b.f.loop(0, made, b.s.lanes) as across:
        yield [across.index]


def matrix(f: LoopFunction, view: View, number: Ix, lead: Dims) -> View:
    """The [T, D] matrix of batch entry `number` of the leading dims `lead`, to which the view's own broadcast."""
    index = unflattened(f, number, lead)
    own = view.shape[:-2]
    index = [Ix() if n == 1 else i for n, i in zip(own, index[len(lead) - len(own):])]
    return view.view_at([*index, 0, 0], view.shape[-2:], view.strides[-2:])


# ---- rows and panels

def whole_rows(b: Blocks, view: View) -> bool:
    """Whether every block of rows is of vectors in memory."""
    return view.shape[0] % b.s.columns == 0 and view.shape[1] % b.s.lanes == 0 and view.strides[1] == 1


def copy_rows(b: Blocks, source: View, first: Ix, target: View) -> None:
    """Rows of [T, D] from `first` on, for whole register tiles; rows past the last are 0."""
    f, lanes, (count, features) = b.f, b.s.lanes, source.shape
    zero = f.const(0, b.dtype, lanes)
    here = f.min_(b.s.columns, count - first)
    with f.loop(0, here) as loop:
        i = loop.index
        vector_run(f, Ix(features), lanes,
                   lambda j, n, mask: f.store(target, [i, j], f.load(source, [first + i, j], n, mask)))
    with f.loop(here, b.columns_made(first)) as loop, f.loop(0, target.shape[1], lanes) as across:
        f.store(target, [loop.index, across.index], zero)


def turn(b: Blocks, source: View, first: Ix, features: int, panels: View, factor: float, column: Ix) -> None:
    """The rows from `first` on of the block that starts at `column`, times `factor`, as panels; `source` has whole
    vectors of features."""
    f, lanes = b.f, b.s.lanes
    with (f.loop(0, b.panels_made(column)) as panel, f.loop(0, round_up(features, lanes), lanes) as across,
          f.loop(0, b.made(column, panel.index), lanes) as u):
        row = first + panel.index * b.s.nr + u.index
        _turn_square(b, source.view_at([row, across.index], (1,), (1,)), source.strides[0],
                     panels.view_at([panel.index, across.index, u.index], (1,), (1,)), panels.strides[1], factor)


def turn_back(b: Blocks, panels: View, panel: Ix, features: int, target: View, first: Ix,
              factor: float | View) -> None:
    """One panel, times a factor, or one for each of its columns, as rows from `first` on, of whole vectors."""
    f, lanes = b.f, b.s.lanes
    with f.loop(0, round_up(features, lanes), lanes) as across, f.loop(0, b.s.nr, lanes) as u:
        row = first + panel * b.s.nr + u.index
        _turn_square(b, panels.view_at([panel, across.index, u.index], (1,), (1,)), panels.strides[1],
                     target.view_at([row, across.index], (1,), (1,)), target.strides[0],
                     factor if isinstance(factor, float) else factor.view_at([u.index], (lanes,), (1,)))


def _turn_square(b: Blocks, source: View, row: Dim, target: View, column: Dim, factor: float | View) -> None:
    """By a function: a transpose is much code, and there are regimes."""
    factors = [] if isinstance(factor, float) else [factor]
    square = turned_square(b.dtype, b.s.lanes, factor if isinstance(factor, float) else None)
    b.f.call(square, [source, target, *factors, as_ix(row), as_ix(column)])


def fetch_ahead(b: Blocks, views: Sequence[View], row: Ix, panel: Ix) -> None:
    """Prefetches one panel's share of the rows that the block after the one at `row` reads: the micro-kernel, which
    computes long with each row, prefetches too late to hide the latency of these."""
    f, share = b.f, -(-b.s.rows // b.panels)
    first = row + b.s.rows + panel * share
    with f.loop(0, share) as loop:
        for view in views:
            for column in range(0, view.shape[1] if view.strides[1] == 1 else 0, LINE_BYTES // b.dtype.itemsize):
                f.prefetch(view, [first + loop.index, column], level=2)


def store_rows(b: Blocks, rows: View, first: Ix, target: View) -> None:
    """Rows to [T, D], from row `first` on, without the padding."""
    f = b.f
    with f.loop(0, f.min_(b.s.columns, target.shape[0] - first)) as loop:
        i = loop.index
        vector_run(f, Ix(target.shape[1]), b.s.lanes,
                   lambda j, n, mask: f.store(target, [first + i, j], f.load(rows, [i, j], n, mask), mask))


# ---- products

@dataclass(frozen=True)
class RowRange:
    """Rows `start` … `stop` - 1 of a matrix, counted from its row `first` on; rows past the last repeat it."""
    matrix: View
    stop: Ix
    first: Ix = Ix()
    start: Ix = Ix()


Steps = Ix | int | Callable[[Ix], Ix]


def product(b: Blocks, rows: RowRange, panel: View, steps: Steps, target: View, add: Ix | int = 0,
            factors: View | None = None, ahead: bool = False) -> None:
    """target[i, x] = (add ? target[i, x] : 0) + sum over k < steps of row i [k] * panel[k, x], for the rows i.
    With `factors`, target[i, x] * factors[x] + the sum.

    Rows are computed in whole register tiles. `steps` may depend on the first row of a register tile. ahead: rows are
    prefetched, those of a register tile while one before is computed.
    """
    f, a = b.f, rows.matrix
    if b.matrices and a.dtype.is_packed and a.strides[1] == 1 and factors is None:
        return _matrix_products(b, rows, panel, steps, target, add)
    memory, layout = a.view_at([0, 0], (1,), (1,)), RowLayout(a.strides[1], scattered=True)
    for begin, end, mr in _row_tiles(b, rows.start, rows.stop):
        shape = MicroTileShape(mr, b.s.vectors, b.s.lanes, b.target.has_fma)
        columns = ColumnPanel(panel.view_at([0, 0], (1,), (1,)), ColumnLayout(panel.strides[0]))
        with f.loop(begin, end, mr) as down:
            offsets = tuple([f.min_(rows.first + (down.index + i), a.shape[0] - 1) * a.strides[0] for i in range(mr)])
            sums = MicroTileSums(target.view_at([down.index, 0], (1,), (1,)), target.strides[0], add, factors)
            count = steps(down.index) if callable(steps) else steps
            if ahead:
                _fetch_rows(f, a, rows.first + (down.index + TILES_AHEAD * mr), mr)
            call_micro_kernel(f, shape, RowPanel(memory, layout, offsets), columns, sums, count,
                              brief=b.s.brief)


def _fetch_rows(f: LoopFunction, a: View, first: Ix, count: int) -> None:
    """Prefetches so many rows, which lie along memory."""
    for i in range(count):
        for column in range(0, static_dim(a.shape[1]) if a.strides[1] == 1 else 0, LINE_BYTES // a.dtype.itemsize):
            f.prefetch(a, [first + i, column], level=2)


def _matrix_products(b: Blocks, rows: RowRange, panel: View, steps: Steps, target: View, add: Ix | int) -> None:
    """The same by matrix registers: rows of pairs that lie along the sum, and no others than these rows."""
    if not callable(steps):
        return _matrix_product(b, rows, panel, as_ix(steps), target, add)
    with b.f.loop(rows.start, rows.stop, b.s.mr) as down:
        some = RowRange(rows.matrix, b.f.min_(down.index + b.s.mr, rows.stop), rows.first, down.index)
        _matrix_product(b, some, panel, as_ix(steps(down.index)), target, add)


def _matrix_product(b: Blocks, rows: RowRange, panel: View, steps: Ix, target: View, add: Ix | int) -> None:
    f, a, wide = b.f, rows.matrix, 2 * MATRIX_LANES
    types = ProductTypes(a.dtype, panel.dtype, target.dtype)
    distances = static_dim(a.strides[0]), static_dim(panel.strides[0]), static_dim(target.strides[0])
    for column in range(0, b.s.nr, wide):
        first = (rows.first + rows.start) * distances[0]
        call_matrix_kernel(f, types, distances, min(wide, b.s.nr - column) // MATRIX_LANES, MatrixOperands(
            a.view_at([0, 0], (1,), (1,)), first, panel.view_at([0, column], (1,), (1,)),
            target.view_at([rows.start, column], (1,), (1,)), steps, rows.stop - rows.start, add))


def _row_tiles(b: Blocks, start: Ix, stop: Ix) -> list[tuple[Ix, Ix, int]]:
    """(from, to, rows of a register tile): where it is known how many rows are left, the last tile has no more."""
    length = stop - start
    if not isinstance(length.const, int) or not length.is_const or length.const % b.s.mr == 0:
        return [(start, stop, b.s.mr)]
    rest = length.const % b.s.mr
    return [(start, stop - rest, b.s.mr), (stop - rest, stop, rest)]


def sub_panel(panels: View, number: Ix) -> View:
    """One panel: [feature][column]."""
    return panels.view_at([number, 0, 0], panels.shape[1:], panels.strides[1:])
