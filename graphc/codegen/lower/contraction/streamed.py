"""Contractions with few rows: all rows and columns of a tile at once, by a micro-kernel that streams b from memory."""
from __future__ import annotations

from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.accumulators import Accumulators, TileAccumulators
from graphc.codegen.lower.contraction.micro_kernel import ProductTypes
from graphc.codegen.lower.contraction.stream_kernel import StreamKernelSpec, stream_kernel
from graphc.codegen.lower.contraction.tile import MicroTile, SumBlock
from graphc.codegen.lower.contraction.tiled import TiledContraction
from graphc.ir.dims import static_dim


class StreamedContraction(TiledContraction):
    """The two innermost loops are in the micro-kernel, which takes all rows and columns of a tile."""

    def column_panels(self, block: SumBlock, sums: Accumulators) -> None:
        f, p, s, tile = self.f, self.phase, self.schedule, block.tile
        a, = self.rows.panels(block, MicroTile(Ix(), Ix(), tile.row, s.blocking.mr))
        b = self.columns.panel(block, Ix())
        types = ProductTypes(a.memory.dtype, b.memory.dtype, sums.sums.dtype)
        spec = StreamKernelSpec(types, s.blocking.mr, s.lanes, static_dim(a.layout.step),
                                static_dim(b.layout.step), static_dim(s.width(p)), self.fused)
        views = [a.memory, b.memory, f.reinterpret(sums.sums, (1,), (1,))]
        f.call(stream_kernel(spec), [*views, block.k.length, tile.columns.length, block.accumulate, *a.offsets])

    def accumulators(self) -> Accumulators:
        return TileAccumulators(self)
