"""Products by matrices of codes in blocks. Of many rows: micro-tiles, whose columns become numbers when these are
packed. Of few: dot products of rows as they lie, codes converted in registers, once for all rows taken together."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.contraction.epilogue import plain_epilogue_of
from graphc.codegen.lower.contraction.lowering import lower_block_product
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, nested, rows
from graphc.ir.dims import Dims, static_dim
from graphc.ir.op import Op
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.fused import core_of
from graphc.ir.types import f32, i32
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.parallel_rows import MOST_GROUPS, ROWS_TOGETHER, few_together, rows_of
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

    def of(self, x: View, places: list[list[Ix]], columns: list[Ix]) -> list[list[Val]]:
        """The products of each of the rows of x at `places` with these rows of the matrix."""
        f = self.f
        zero = f.const(0, f32, self.lanes)
        with f.loop(0, self.blocks, carry=[zero] * (len(places) * len(columns)), name="block") as loop:
            vectors = [[f.load(x, [*at, loop.index * self.op.block + i], self.lanes)
                        for i in range(0, self.op.block, self.lanes)] for at in places]
            totals = [self._total(v) for v in vectors]
            starts = [f.mul(total, -self.op.zero) if self.op.zero else zero for total in totals]
            sums = list(loop.carried)
            for j, n in enumerate(columns):
                codes = [f.cast(code, f32) for code in self._codes(n, loop.index)]
                parts = [f.splat(f.cast(f.load(view, [n, loop.index]), f32), self.lanes) for view in self.scales]
                for i, (own, total, start) in enumerate(zip(vectors, totals, starts)):
                    at = i * len(columns) + j
                    sums[at] = self._add_block(own, codes, total, start, parts, sums[at])
            loop.next(*sums)
        found = [f.reduce(acc, "add") for acc in loop.results]
        return [found[i:i + len(columns)] for i in range(0, len(found), len(columns))]

    def _total(self, vectors: list[Val]) -> Val:
        total = vectors[0]
        for v in vectors[1:]:
            total = self.f.add(total, v)
        return total

    def _add_block(self, vectors: list[Val], codes: list[Val], total: Val, start: Val, parts: list[Val],
                   acc: Val) -> Val:
        f, sums = self.f, start
        for x, code in zip(vectors, codes):
            sums = multiply_add(f, x, code, sums, self.fused)
        acc = multiply_add(f, sums, parts[0], acc, self.fused)
        return multiply_add(f, total, parts[1], acc, self.fused) if len(parts) > 1 else acc

    def _codes(self, n: Ix, g: Ix) -> list[Val]:
        """Those of a block in order, i32."""
        f, size = self.f, self.op.block * self.op.bits // 8
        loaded = [f.cast(f.load(self.codes, [n, g * size + i], self.lanes), i32) for i in range(0, size, self.lanes)]
        return loaded if self.op.bits == 8 else [*(f.and_(v, 15) for v in loaded), *(f.lshr(v, 4) for v in loaded)]


def _block_product(r: KernelRequest[PlainSchedule | ContractionSchedule, BlockProduct]) -> LoopFunction:
    epilogue = plain_epilogue_of(r)
    if isinstance(r.schedule, ContractionSchedule):
        return lower_block_product(r.ins, r.outs, r.schedule, r.target, r.op, epilogue, r.function_name)
    f, xs, ys = function(r)
    if 0 in ys[0].shape:
        return f
    core = core_of(r.node)
    x, codes, *scales = xs[:len(core.inputs)]
    op, count, extents = r.op, static_dim(codes.shape[0]), core.outputs[0].type.shape[:-1]
    lanes = r.schedule.lanes
    while op.block * op.bits // 8 % lanes:
        lanes //= 2
    dots = _Dots(f, op, lanes, r.target.has_fma, codes, tuple(scales))
    apart = -(-count // ROWS_TOGETHER)
    with rows(f, rows_of(core, r.ins[:len(core.inputs)], r.outs).extents, r.schedule) as at:
        # rows far from each other: each is one long stream through memory
        columns = [f.min_(at[0] + j * apart, count - 1) for j in range(min(ROWS_TOGETHER, count))]

        def of_rows(places: list[list[Ix]]) -> None:
            for index, values in zip(places, dots.of(x, places, columns)):
                for n, value in zip(columns, values):
                    place = [*index, n]
                    results = epilogue(f, value, place, 1, None, len(index)) if epilogue else [value]
                    for y, result in zip(ys, results, strict=True):
                        f.store(y, place, result)
        together = _together(extents, few_together(r.target))
        if together is None:
            nested(f, extents, lambda index: of_rows([index]))
        for places in together or ():
            of_rows(places)
    return f


def _together(extents: Dims, most: int) -> list[list[list[Ix]]] | None:
    """The indices of a few rows, in groups of at most so many; None where they are many, or their number is open."""
    if not all(isinstance(n, int) for n in extents):
        return None
    places = list(_places(extents, MOST_GROUPS * most))
    if len(places) > MOST_GROUPS * most:
        return None
    groups = -(-len(places) // most)
    size = -(-len(places) // groups)
    return [places[i:i + size] for i in range(0, len(places), size)]


def _places(extents: Dims, most: int) -> Iterator[list[Ix]]:
    """All indices, or one more than `most`."""
    for count, index in enumerate(product(*(range(static_dim(n)) for n in extents))):
        if count > most:
            return
        yield [Ix(i) for i in index]


LOWERINGS: dict[type[Op], Lowering] = {BlockProduct: _block_product}
