"""Contractions by matrix registers: the micro-kernel takes all rows of a tile and a panel of its columns."""
from __future__ import annotations

from functools import cached_property

from graphc.codegen.lower.contraction.matrix_kernel import MatrixOperands, call_matrix_kernel
from graphc.codegen.lower.contraction.micro_kernel import ColumnPanel, MicroTileSums, ProductTypes, RowPanel
from graphc.codegen.lower.contraction.matrix_rows import MATRIX_ROW_SOURCES
from graphc.codegen.lower.contraction.row_source import RowSource
from graphc.codegen.lower.contraction.tile import MicroTile, SumBlock
from graphc.codegen.lower.contraction.tiled import TiledContraction
from graphc.codegen.loops.index import Ix, as_ix
from graphc.ir.dims import Dim, static_dim
from graphc.schedule.target import MATRIX_LANES


class MatrixContraction(TiledContraction):
    """A micro-tile is as high as a tile. What is left of its rows needs no other kernel."""

    @cached_property
    def rows(self) -> RowSource:
        return MATRIX_ROW_SOURCES[self.schedule.a](self)

    def prefetch(self, block: SumBlock, at: MicroTile) -> None:
        """Nothing: micro-tiles are so few that it would come in bursts."""

    def multiply(self, block: SumBlock, at: MicroTile, a: RowPanel, b: ColumnPanel, c: MicroTileSums) -> None:
        first, distance = a.offsets
        rows = self.f.min_(block.tile.rows - at.row, at.mr)
        types = ProductTypes(a.memory.dtype, b.memory.dtype, c.memory.dtype)
        steps = _number(distance), _number(b.layout.step), _number(c.row_step)
        call_matrix_kernel(self.f, types, steps, self.schedule.blocking.nr // MATRIX_LANES, MatrixOperands(
            a.memory, first, b.memory, c.memory, block.k.length, rows, c.accumulate, b.next), b.layout.prefetch_lines)


def _number(step: Ix | Dim) -> int:
    return static_dim(as_ix(step).const)
