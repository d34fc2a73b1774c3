"""The last step of a tile: finished sums, vector by vector, through the epilogue and into the outputs."""
from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.outputs import GateEpilogueFunction, Outputs
from graphc.codegen.lower.ranges import Index, Range, offset, unflatten, vector_run, walk, walk_runs
from graphc.codegen.lower.transpose import turn
from graphc.errors import InternalError
from graphc.ir.dims import Dim
from graphc.records import dataclass
from graphc.schedule.contraction_form import Phase

Source = Callable[[Ix, Ix, int, Val | None], Val]       # (row in tile, column in tile, lanes, mask) -> sums
Line = Callable[[Ix, int, Val | None], Val]             # (position in the line, lanes, mask) -> sums


@dataclass(frozen=True)
class OutputTile:
    """A part of the output: `rows` rows from `row` on, a range of columns, in one batch entry.

    row_range: the rows as a range of the dims of m, if the sums are transposed before they are stored.
    """
    batch: Index
    row: Ix
    rows: Ix
    columns: Range
    row_range: Range | None = None

    @property
    def rows_of_dims(self) -> Range:
        if self.row_range is None:
            raise InternalError("a tile whose sums are transposed has its rows as a range of dims", "lower")
        return self.row_range

    @property
    def whole(self) -> "TilePart":
        return TilePart(Ix(), self.rows, Ix(), self.columns)


@dataclass(frozen=True)
class TilePart:
    """A part of a tile: `rows` rows from `row` of the tile on, and a range of columns, from `column` of the tile on."""
    row: Ix
    rows: Ix
    column: Ix
    columns: Range


def sums_in(f: LoopFunction, scratch: View, row: Ix = Ix(), column: Ix = Ix()) -> Source:
    """Sums in scratch, of which the first is that of a row and a column of the tile."""
    return lambda i, j, lanes, mask: f.load(scratch, [i - row, j - column], lanes, mask)


@dataclass(frozen=True)
class Sweep:
    """Stores finished sums of tiles, in vectors of `lanes`."""
    outputs: Outputs
    lanes: int

    @property
    def f(self) -> LoopFunction:
        return self.outputs.f

    @property
    def phase(self) -> Phase[Dim]:
        return self.outputs.phase

    def store(self, tile: OutputTile, part: TilePart, source: Source) -> None:
        """The sums of a part of a tile. Vectors run along the innermost column dim."""
        with self.f.loop(0, part.rows) as loop:
            row = part.row + loop.index
            index = tile.batch | unflatten(self.f, tile.row + row, self.phase.m, self.phase.sizes)
            self._store_line(index, part.columns, lambda j, lanes, mask: source(row, part.column + j, lanes, mask))

    def store_transposed(self, tile: OutputTile, sums: View) -> None:
        """All sums of a tile, with vectors along the innermost row dim: they are transposed first."""
        f = self.f
        transposed_sums = f.scratch("turned", sums.dtype, sums.shape[::-1])
        turn(f, sums, transposed_sums, tile.rows, tile.columns.length, self.lanes)
        with walk(f, tile.columns) as (columns, at):
            self._store_line(tile.batch | columns, tile.rows_of_dims,
                             lambda i, lanes, mask: f.load(transposed_sums, [at, i], lanes, mask))

    def prefetch(self, tile: OutputTile, row: Ix, rows: int, column: Ix, vectors: int) -> None:
        """Before the sums of a micro-tile: what storing them reads and writes, which arrives while they are computed.
        The hardware's prefetchers see single lines in rows that are far apart."""
        f, p, columns = self.f, self.phase, tile.columns
        if columns.split != len(columns.dims) - 1:
            return
        with f.loop(0, f.min_(rows, tile.rows - row)) as loop:
            index = tile.batch | unflatten(f, tile.row + row + loop.index, p.m, p.sizes) | columns.first
            index[columns.dims[-1]] = columns.start + column
            self.outputs.prefetch(index, columns.dims[-1], range(0, vectors * self.lanes, self.lanes))

    def _store_line(self, index: Index, line: Range, source: Line) -> None:
        """Sums along a range of row or column dims; `index` has the others."""
        if self.outputs.epilogue is None and self.phase.out.steps_evenly(line.dims[line.split:], self.phase.sizes):
            return self._store_run(index | line.first, line.dims[-1], line.length, source)
        if self._store_joined(index | line.first, line, source):
            return
        with walk_runs(self.f, line) as (outer, at, first, count):
            self._store_part(index | outer | {line.dims[-1]: first}, line.dims[-1], count,
                             lambda j, lanes, mask: source(at + j, lanes, mask))

    def _store_joined(self, index: Index, line: Range, source: Line) -> bool:
        """The same as one run from `index` on, where its dims are one in all that the epilogue reads and writes."""
        dims = line.dims[line.split:]
        outputs = self.outputs.joined(dims) if len(dims) > 1 and self.lanes > 1 else None
        if outputs is None:
            return False
        start = index | {d: Ix() for d in dims[1:]}
        vector_run(self.f, line.length, self.lanes, lambda j, lanes, mask: outputs.store(
            start | {dims[-1]: j}, dims[-1], source(j, lanes, mask), lanes, mask))
        return True

    def _store_part(self, index: Index, last: int, count: Ix, source: Line) -> None:
        """`count` sums along dim `last` from `index` on."""
        f, outputs = self.f, self.outputs
        if outputs.epilogue is None:
            return self._store_run(index, last, count, source)

        def body(j: Ix, lanes: int, mask: Val | None) -> None:
            outputs.store(index | {last: index[last] + j}, last, source(j, lanes, mask), lanes, mask)
        if outputs.takes_vectors(last) and self.lanes > 1:
            return vector_run(f, count, self.lanes, body)
        with f.loop(0, count) as loop:
            body(loop.index, 1, None)

    def _store_run(self, index: Index, last: int, count: Ix, source: Line) -> None:
        """`count` sums as they are, at equal distances in the output."""
        f, out, stride = self.f, self.outputs.flat, self.phase.out.strides[last]
        start = offset(self.phase.out, index)
        vector_run(f, count, self.lanes, lambda j, lanes, mask: f.store(
            View(out.root, (lanes,), (stride,), out.start + start + j * stride), [0], source(j, lanes, mask), mask))


@dataclass(frozen=True)
class GateSweep(Sweep):
    """The same for an epilogue that reads the columns as equal parts, `gates`: a vector of units at a time, with the
    sums of all gates.
    """
    epilogue: GateEpilogueFunction
    gates: int

    @property
    def axis(self) -> int:
        """Of the outputs: the units."""
        return len(self.outputs.views[0].shape) - 1

    def _store_line(self, index: Index, line: Range, source: Line) -> None:
        f, views, lanes = self.f, self.outputs.views, self.lanes
        at = self.outputs.index_of(index)
        with f.loop(0, line.count) as units:
            sums = [source((units.index * self.gates + gate) * lanes, lanes, None) for gate in range(self.gates)]
            at[self.axis] = (line.start + units.index) * lanes
            for out, value in zip(views, self.epilogue(f, sums, at, lanes, None, self.axis), strict=True):
                f.store(out, at, value)

    def prefetch(self, tile: OutputTile, row: Ix, rows: int, column: Ix, vectors: int) -> None:
        """The values that the epilogue reads beside the sums. The gates of a unit are far apart in memory, single lines
        that the hardware's prefetchers do not predict.
        """
        f, p, units = self.f, self.phase, self.phase.sizes[self.phase.n[0]] * self.lanes
        with f.loop(0, f.min_(rows, tile.rows - row)) as loop:
            at = self.outputs.index_of(tile.batch | unflatten(f, tile.row + row + loop.index, p.m, p.sizes))
            for v in range(vectors):
                unit, gate = f.divmod(f.divmod(column, self.lanes)[0] + v, self.gates)
                at[self.axis] = gate * units + (tile.columns.start + unit) * self.lanes
                self.epilogue.prefetch(f, at, self.axis)
