"""Where matrix registers load rows of a: from memory, where these lie at equal distances along the sum, else from a
copy of a tile's rows, [row][step]."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.index_proofs import at_least
from graphc.codegen.lower.contraction.micro_kernel import RowLayout, RowPanel
from graphc.codegen.lower.contraction.pack_rows import row_offset
from graphc.codegen.lower.contraction.pack_transposed import PackedForm, packed_runs
from graphc.codegen.lower.contraction.row_source import RowSource, UnpackedRows
from graphc.codegen.lower.contraction.tile import ContractionTile, MicroTile, SumBlock
from graphc.codegen.lower.ranges import Index, Range, offset, vector_run, walk
from graphc.ir.dims import product_of, static_dim
from graphc.records import dataclass
from graphc.schedule.blocking import PackingMode
from graphc.schedule.matrix_registers import copied_row
from graphc.schedule.target import MATRIX_LANES as LANES
from graphc.schedule.tile_cost import rows_lie_across
from graphc.schedule.tile_sizes import linear_from


@dataclass(frozen=True)
class CopiedMatrixRows(RowSource):
    """Those of a tile in a KC block, in scratch of the thread."""

    @property
    def distance(self) -> int:
        """Of two rows in the copy."""
        return copied_row(static_dim(self.c.schedule.blocking.kc.length(self.c.k_sizes)))

    def pack(self, tile: ContractionTile, k: Range) -> View:
        c, p = self.c, self.c.phase
        memory = c.f.scratch("packed_a", c.a.dtype, (c.grid.padded_rows * self.distance,))
        if p.a.strides[p.k[-1]] == 1:
            self._copy_runs(tile, k, memory)
        elif rows_lie_across(p):
            self._turn(tile, k, memory)
        else:
            self._gather(tile, tile.rows, k, memory)
        return memory

    def panels(self, block: SumBlock, at: MicroTile) -> tuple[RowPanel, ...]:
        layout = RowLayout(1, scattered=True, even=True)
        return RowPanel(block.a, layout, (at.row * self.distance, as_ix(self.distance))),

    def _copy_runs(self, tile: ContractionTile, k: Range, memory: View) -> None:
        """Each row lies along the sum."""
        c, f, p = self.c, self.c.f, self.c.phase
        with f.loop(0, tile.rows) as loop:
            row = row_offset(c, tile.row + loop.index, False)
            with self._even_runs(k) as (index, at, count):
                source = offset(p.a, tile.batch | index) + row
                place = loop.index * self.distance + at
                vector_run(f, count, LANES, lambda i, lanes, mask: f.store(
                    memory, [place + i], f.load(c.a, [source + i], lanes, mask), mask))

    def _turn(self, tile: ContractionTile, k: Range, memory: View) -> None:
        """Each step is a run of rows: squares of elements are transposed in registers. The last steps of a run are
        those of a square whose last ones repeat; nobody reads these."""
        f = self.c.f
        if not at_least(tile.rows, LANES):
            if at_least(LANES - 1 - tile.rows, 0):
                return self._gather(tile, tile.rows, k, memory)
            with f.if_(f.ge(f.value(tile.rows), LANES)):
                self._squares(tile, k, memory)
            with f.else_():
                self._gather(tile, f.min_(tile.rows, LANES - 1), k, memory)
            return
        self._squares(tile, k, memory)

    def _squares(self, tile: ContractionTile, k: Range, memory: View) -> None:
        c, f, p, distance = self.c, self.c.f, self.c.phase, self.distance
        with self._even_runs(k) as (index, at, count):
            base = offset(p.a, tile.batch | index) + row_offset(c, tile.row, False)

            def square(i: Ix, steps: Sequence[Ix]) -> None:
                form = PackedForm(c.a.dtype, memory.dtype, LANES, even=False)
                starts = [base + step * p.a.strides[p.k[-1]] for step in steps]
                f.call(packed_runs(form), [c.a, memory.view_at([at + i], (1,)), tile.rows, distance,
                                           (tile.rows - LANES) * distance, *starts])
            whole, _ = f.divmod(count, LANES)
            with f.loop(0, whole * LANES, LANES) as loop:
                square(loop.index, [loop.index + i for i in range(LANES)])
            with f.if_(f.gt(f.value(count - whole * LANES), 0)):
                square(whole * LANES, [f.min_(whole * LANES + i, count - 1) for i in range(LANES)])

    @contextmanager
    def _even_runs(self, k: Range) -> Iterator[tuple[Index, Ix, Ix]]:
        """Loops over the dims of k, without those inside which steps lie at equal distances: the index of a run's first
        step, its position in the range, and its length."""
        p = self.c.phase
        even = linear_from(p.a, p, p.k)
        with walk(self.c.f, k, max(even, k.split)) as (index, at):
            if k.split >= even:
                yield k.first, at, k.length
            else:
                yield index, at, as_ix(product_of(k.sizes[even:]))

    def _gather(self, tile: ContractionTile, rows: Ix, k: Range, memory: View) -> None:
        """Element by element."""
        c, f, p = self.c, self.c.f, self.c.phase
        with f.loop(0, rows) as loop:
            row = row_offset(c, tile.row + loop.index, False)
            with walk(f, k) as (index, step):
                value = f.load(c.a, [offset(p.a, tile.batch | index) + row])
                f.store(memory, [loop.index * self.distance + step], value)


MATRIX_ROW_SOURCES: dict[PackingMode, type[RowSource]] = {
    PackingMode.UNPACKED: UnpackedRows, PackingMode.PER_TILE: CopiedMatrixRows}
