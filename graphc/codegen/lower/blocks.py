"""Products by matrices of codes in blocks: dot products of rows as they lie, codes converted in registers."""
from __future__ import annotations


from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, nested, rows
from graphc.ir.dims import static_dim
from graphc.ir.op import Op
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.types import f32, i32
from graphc.records import dataclass
from graphc.schedule.parallel_rows import ROWS_TOGETHER, rows_of
from graphc.schedule.plain_schedule import PlainSchedule


@dataclass(frozen=True)
class _Dots:
    """The matrix, and how many lanes of a block are taken at a time."""
    f: LoopFunction
    op: BlockProduct
    lanes: int
    fused: bool
    codes: View
    scales: tuple[View, ...]            # and minima

    @property
    def blocks(self) -> int:
        return static_dim(self.scales[0].shape[1])

    def of(self, x: View, at: list[Ix], columns: list[Ix]) -> list[Val]:
        """The products of the row of x at `at` with these rows of the matrix."""
        f = self.f
        zero = f.const(0, f32, self.lanes)
        with f.loop(0, self.blocks, carry=[zero] * len(columns), name="block") as loop:
            vectors = [f.load(x, [*at, loop.index * self.op.block + i], self.lanes)
                       for i in range(0, self.op.block, self.lanes)]
            total = self._total(vectors)
            start = f.mul(total, -self.op.zero) if self.op.zero else zero
            loop.next(*(self._add_block(vectors, total, start, n, loop.index, acc)
                        for n, acc in zip(columns, loop.carried)))
        return [f.reduce(acc, "add") for acc in loop.results]

    def _total(self, vectors: list[Val]) -> Val:
        total = vectors[0]
        for v in vectors[1:]:
            total = self.f.add(total, v)
        return total

    def _add_block(self, vectors: list[Val], total: Val, start: Val, n: Ix, g: Ix, acc: Val) -> Val:
        f, sums = self.f, start
        for x, code in zip(vectors, self._codes(n, g)):
            sums = multiply_add(f, x, f.cast(code, f32), sums, self.fused)
        scale, *minimum = (f.splat(f.cast(f.load(view, [n, g]), f32), self.lanes) for view in self.scales)
        acc = multiply_add(f, sums, scale, acc, self.fused)
        return multiply_add(f, total, minimum[0], acc, self.fused) if minimum else acc

    def _codes(self, n: Ix, g: Ix) -> list[Val]:
        """Those of a block in order, i32."""
        f, size = self.f, self.op.block * self.op.bits // 8
        loaded = [f.cast(f.load(self.codes, [n, g * size + i], self.lanes), i32) for i in range(0, size, self.lanes)]
        return loaded if self.op.bits == 8 else [*(f.and_(v, 15) for v in loaded), *(f.lshr(v, 4) for v in loaded)]


def _block_product(r: KernelRequest[PlainSchedule, BlockProduct]) -> LoopFunction:
    f, (x, codes, *scales), (y,) = function(r)
    if 0 in y.shape:
        return f
    op, count = r.op, static_dim(codes.shape[0])
    lanes = r.schedule.lanes
    while op.block * op.bits // 8 % lanes:
        lanes //= 2
    dots = _Dots(f, op, lanes, r.target.has_fma, codes, tuple(scales))
    apart = -(-count // ROWS_TOGETHER)
    with rows(f, rows_of(r.node, r.ins, r.outs).extents, r.schedule) as at:
        # rows far from each other: each is one long stream through memory
        columns = [f.min_(at[0] + j * apart, count - 1) for j in range(min(ROWS_TOGETHER, count))]

        def of_row(index: list[Ix]) -> None:
            for n, value in zip(columns, dots.of(x, index, columns)):
                f.store(y, [*index, n], value)
        nested(f, y.shape[:-1], of_row)
    return f


LOWERINGS: dict[type[Op], Lowering] = {BlockProduct: _block_product}
