"""Products by matrices of codes in blocks. Of many rows: micro-tiles, whose columns become numbers when these are
packed. Of few: dot products of rows as they lie, codes converted in registers, once for all rows taken together."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.block_dots import BlockDots, Place, block_dots
from graphc.codegen.lower.contraction.epilogue import Epilogue, GateEpilogue, epilogue_of
from graphc.codegen.lower.contraction.lowering import lower_block_product
from graphc.codegen.lower.ranges import vector_run
from graphc.codegen.lower.request import KernelRequest, Lowering
from graphc.codegen.lower.rows import function, nested
from graphc.ir.dims import Dims, ceil_div, round_up, static_dim
from graphc.ir.op import Op
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.fused import core_of
from graphc.ir.types import f32
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.parallel_rows import MOST_GROUPS, ROWS_TOGETHER, few_together
from graphc.schedule.plain_schedule import PlainSchedule


@dataclass(frozen=True)
class _Tile:
    """Some rows of codes out of each of `together` streams, `apart` rows from each other: each is one long run through
    memory. With gates a stream is that of a gate. Their products go to scratch, and from there in vectors through the
    epilogue."""
    dots: BlockDots
    epilogue: Epilogue | GateEpilogue | None
    outs: Sequence[View]
    count: int
    together: int
    most: int
    start: Ix

    @property
    def f(self) -> LoopFunction:
        return self.dots.f

    @property
    def apart(self) -> int:
        return -(-self.count // self.together)

    @property
    def size(self) -> Ix:
        """Rows of each stream; of the last ones perhaps fewer."""
        return self.f.min_(self.most, self.apart - self.start)

    def run(self, groups: list[list[Place]]) -> None:
        """The products by rows of numbers, those of a group together."""
        f, places = self.f, [place for group in groups for place in group]
        sums = f.scratch("sums", f32, (len(places), self.together, round_up(self.most, self.dots.lanes)))
        with f.loop(0, self.size, name="row") as loop:
            columns = [f.min_(self.start + loop.index + j * self.apart, self.count - 1) for j in range(self.together)]
            first = 0
            for group in groups:
                step = self.together if len(group) <= 2 else 2      # as many sums as registers hold
                for j in range(0, self.together, step):
                    self._put_sums(self.dots.of(group, columns[j:j + step]), sums, (first, j), loop.index)
                first += len(group)
        for i, place in enumerate(places):
            self._store(place, sums, i)

    def _put_sums(self, values: list[list[Val]], sums: View, first: tuple[int, int], row: Ix) -> None:
        for i, line in enumerate(values, first[0]):
            for j, value in enumerate(line, first[1]):
                self.f.store(sums, [i, j, row], value)

    def _store(self, place: Place, sums: View, i: int) -> None:
        epilogue = self.epilogue
        if isinstance(epilogue, GateEpilogue):
            def gates(at: Ix, lanes: int, mask: Val | None) -> None:
                found = [self.f.load(sums, [i, j, at], lanes, mask) for j in range(self.together)]
                index = [*place, self.start + at]
                self._put(index, epilogue(self.f, found, index, lanes, mask, len(place)), mask)
            return vector_run(self.f, self.size, self.dots.lanes, gates)
        for j in range(self.together):
            self._store_stream(place, sums, i, j)

    def _store_stream(self, place: Place, sums: View, i: int, j: int) -> None:
        f, first = self.f, j * self.apart
        rows = min(self.apart, self.count - first)
        if rows <= 0:
            return
        start = self.start if rows == self.apart else f.min_(self.start, rows)      # a stream may have ended before

        def part(at: Ix, lanes: int, mask: Val | None) -> None:
            index, value = [*place, start + at + first], f.load(sums, [i, j, at], lanes, mask)
            assert not isinstance(self.epilogue, GateEpilogue)
            self._put(index, self.epilogue(f, value, index, lanes, mask, len(place)) if self.epilogue else [value],
                      mask)
        vector_run(f, f.min_(self.most, rows - start), self.dots.lanes, part)

    def _put(self, index: Place, results: list[Val], mask: Val | None) -> None:
        for y, result in zip(self.outs, results, strict=True):
            self.f.store(y, index, result, mask)


def _block_product(r: KernelRequest[PlainSchedule | ContractionSchedule, BlockProduct]) -> LoopFunction:
    epilogue = epilogue_of(r)
    if isinstance(r.schedule, ContractionSchedule):
        return lower_block_product(r.ins, r.outs, r.schedule, r.target, r.op, epilogue, r.function_name)
    f, xs, ys = function(r)
    if 0 in ys[0].shape:
        return f
    core = core_of(r.node)
    dots = block_dots(f, r.op, r.target, r.schedule.lanes, xs[:len(core.inputs)])
    dots.arrange()
    count, extents = static_dim(dots.codes.shape[0]), dots.extents
    together = len(epilogue.slices) if isinstance(epilogue, GateEpilogue) else min(ROWS_TOGETHER, count)
    groups = _together(extents, few_together(r.target))
    with f.parallel(ceil_div(-(-count // together), r.schedule.tile), "rows", serial=r.schedule.serial) as t:
        tile = _Tile(dots, epilogue, ys, count, together, r.schedule.tile, t * r.schedule.tile)
        if groups is None:
            nested(f, extents, lambda index: tile.run([[index]]))
        else:
            tile.run(groups)
    return f


def _together(extents: Dims, most: int) -> list[list[Place]] | None:
    """The indices of a few rows, in groups of at most so many; None where they are many, or their number is open."""
    if not all(isinstance(n, int) for n in extents):
        return None
    places = list(_places(extents, MOST_GROUPS * most))
    if len(places) > MOST_GROUPS * most:
        return None
    groups = -(-len(places) // most)
    size = -(-len(places) // groups)
    return [places[i:i + size] for i in range(0, len(places), size)]


def _places(extents: Dims, most: int) -> Iterator[Place]:
    """All indices, or one more than `most`."""
    for count, index in enumerate(product(*(range(static_dim(n)) for n in extents))):
        if count > most:
            return
        yield [Ix(i) for i in index]


LOWERINGS: dict[type[Op], Lowering] = {BlockProduct: _block_product}
