"""Packing columns of b for the micro-kernel: panels [k][NR].

Vector copies where b is contiguous along the packed columns; transposed in registers where it is contiguous along k;
element by element otherwise.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import ClassVar

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.index_proofs import at_least
from graphc.codegen.lower.contraction.micro_kernel import store_as
from graphc.codegen.lower.contraction.phase import BlockCodes
from graphc.codegen.lower.contraction.pack_rows import PACK_STEPS
from graphc.codegen.lower.contraction.pack_transposed import (
    ColumnStarts, PackedForm, TapsForm, column_starts, packed_runs, packed_taps)
from graphc.codegen.lower.contraction.tile import TiledPhase
from graphc.codegen.lower.nibbles import RUN_WORDS, WORD_BYTES, number_in, words_across
from graphc.codegen.lower.ranges import (
    Index, Range, load_spaced, offset, vector_run, walk, walk_runs)
from graphc.codegen.lower.transpose import gathered, transposed_runs
from graphc.ir.dims import Dim, static_dim, typical
from graphc.ir.types import DType, f32, i32
from graphc.records import dataclass
from graphc.schedule.blocking import ColumnPacking, Cut, fine_cut
from graphc.schedule.contraction_schedule import column_packing, group_sizes, round_up, taps

RUN_BYTES = RUN_WORDS * WORD_BYTES      # of codes of four bits that are transposed together
PACK_PIECES, PACK_WORK = 8, 4096        # most pieces into which packing is divided, and the least elements of one


@dataclass(frozen=True)
class ColumnPanels:
    """Where packed columns go: column j of a tile, step i of k: start + (j / width) * panel + i * width + j % width.

    private: to one thread, which stores panels in order.
    """
    memory: View
    start: Ix
    width: int
    panel: Dim
    private: bool

    def at(self, f: LoopFunction, column: Ix) -> Ix:
        """Where a column (of a tile; a whole vector starts there) begins."""
        panel, lane = f.divmod(column, self.width)
        return self.start + panel * self.panel + lane


@dataclass(frozen=True)
class ColumnPacker(ABC):
    """How columns are copied. reads_runs: each step of k reads one run of memory."""
    c: TiledPhase
    reads_runs: ClassVar[bool] = False

    @property
    def width(self) -> int:
        """Columns of a panel; the distance in it of two steps of k."""
        return self.c.schedule.blocking.nr

    @property
    def steps(self) -> Cut:
        """The steps of k that are packed together where all columns are packed: a KC block; fewer in runs, or where
        blocks would be too few pieces for the threads.
        """
        c, s = self.c, self.c.schedule
        if s.packed_in_runs:
            return fine_cut(c.k_sizes, round_up(-(-PACK_WORK // c.n), PACK_STEPS))
        tiles, elements = typical(c.batches * s.blocking.nc.count(c.n_sizes)), typical(c.batches * c.n * c.k)
        pieces = -(-min(PACK_PIECES, elements // PACK_WORK) // tiles)
        if pieces <= typical(s.blocking.kc.count(c.k_sizes)):
            return s.blocking.kc
        return fine_cut(c.k_sizes, round_up(-(-typical(c.k) // pieces), PACK_STEPS))

    @property
    def dtype(self) -> DType:
        """Of the elements of a panel."""
        return self.c.b.dtype

    @abstractmethod
    def pack(self, batch: Index, columns: Range, k: Range, target: ColumnPanels) -> None:
        """Packs a range of columns and of k."""

    def _starts(self, columns: Range, first: Ix) -> ColumnStarts:
        return column_starts(self.c, columns, first, self.c.schedule.lanes)

class CopiedPanels(ColumnPacker):
    """b is contiguous along its only column dim: rows of vectors."""
    reads_runs = True

    def pack(self, batch: Index, columns: Range, k: Range, target: ColumnPanels) -> None:
        c, f, p, lanes = self.c, self.c.f, self.c.phase, self.c.schedule.lanes
        ragged = c.n % self.width != 0
        with walk(f, k) as (index, at):
            source = offset(p.b, batch | index | columns.outer | {p.n[0]: columns.start})
            with f.loop(0, columns.count, self.width) as loop:
                place = target.at(f, loop.index) + at * target.width
                for v in range(c.schedule.vectors):
                    column = loop.index + v * lanes
                    mask = f.tail_mask(columns.count - column, lanes) if ragged else None
                    store_as(f, target.memory, [place + v * lanes], f.load(c.b, [source + column], lanes, mask))


class CopiedRuns(ColumnPacker):
    """Runs along the innermost column dim, side by side: one panel of all columns of a tile."""

    @property
    def width(self) -> int:
        return static_dim(self.c.schedule.width(self.c.phase))

    def pack(self, batch: Index, columns: Range, k: Range, target: ColumnPanels) -> None:
        """In thread scratch whole vectors are stored: what they write past a run is overwritten by the next one (masked
        stores are slow).
        """
        c, f, p = self.c, self.c.f, self.c.phase
        last = p.n[-1]
        stride = p.b.strides[last]
        with walk(f, k) as (index, at), walk_runs(f, columns) as (outer, column, first, count):
            source = offset(p.b, batch | index | outer | {last: first})
            start = target.start + at * target.width + column
            vector_run(f, count, c.schedule.lanes, lambda i, lanes, mask: store_as(
                f, target.memory, [start + i], load_spaced(f, c.b, source + i * stride, stride, lanes, mask),
                None if target.private else mask))


class TransposedColumns(ColumnPacker):
    """b is contiguous along k: blocks of lanes × lanes are transposed in registers."""

    def pack(self, batch: Index, columns: Range, k: Range, target: ColumnPanels) -> None:
        f, p, lanes = self.c.f, self.c.phase, self.c.schedule.lanes
        with f.loop(0, columns.length, lanes) as loop:
            place = target.at(f, loop.index)
            starts = self._starts(columns, loop.index)
            with walk_runs(f, k) as (outer, at, first, count):
                base = offset(p.b, batch | outer | {p.k[-1]: first}) - p.b.base
                self._run(starts.moved(base), count, target, place + at * target.width)

    def _run(self, starts: ColumnStarts, count: Ix, target: ColumnPanels, place: Ix) -> None:
        """`count` steps of k. Short runs have code of their own; little, where they are packed before all calls."""
        c, f, lanes = self.c, self.c.f, self.c.schedule.lanes
        if at_least(count, lanes) and starts.are_known:
            form = PackedForm(c.b.dtype, target.memory.dtype, lanes, starts.even)
            return f.call(packed_runs(form), [c.b, target.memory.view_at([place], (1,)), count, target.width,
                                              (count - lanes) * target.width, *starts.offsets])
        rows = starts.each(f, lanes)
        whole, rest = f.divmod(count, lanes)

        def block(i: Ix, steps: int) -> None:
            for step, row in enumerate(transposed_runs(f, c.b, [s + i for s in rows], steps)):
                store_as(f, target.memory, [place + (i + step) * target.width], row)
        with f.loop(0, whole * lanes, lanes) as inner:
            block(inner.index, lanes)
        if rest.is_const and isinstance(rest.const, int) and rest.const >= 3 and c.contraction.prepacked_role != "b":
            return block(whole * lanes, rest.const)
        with f.loop(whole * lanes, count) as inner:
            row = gathered(f, c.b, [s + inner.index for s in rows])
            store_as(f, target.memory, [place + inner.index * target.width], row)


class TransposedTaps(ColumnPacker):
    """b holds all kernel positions of a channel side by side: for each channel these are transposed, all of k."""

    @property
    def steps(self) -> Cut:
        return Cut(0, static_dim(self.c.k_sizes[0]))

    def pack(self, batch: Index, columns: Range, k: Range, target: ColumnPanels) -> None:
        f, p, lanes = self.c.f, self.c.phase, self.c.schedule.lanes
        together = taps(p)
        others = tuple(d for d in p.k if d not in together)
        distances = {d: prod(p.sizes[e] for e in p.k[position + 1:]) for position, d in enumerate(p.k)}
        order = self._tap_order(together, distances)
        back = sum(min(0, p.b.strides[d]) * (p.sizes[d] - 1) for d in together)
        with f.loop(0, columns.length, lanes) as loop:
            place = target.at(f, loop.index)
            starts = self._starts(columns, loop.index).moved(offset(p.b, batch) - p.b.base + back)
            form = self._form(others, order, starts.even, target) if starts.are_known else None
            if form is not None:
                count, distance = p.sizes[others[0]], distances[others[0]] * target.width
                tap_distance = abs(order[-1] - order[0]) // (form.taps - 1) * target.width
                f.call(packed_taps(form), [self.c.b, target.memory.view_at([place], (1,)), count, distance,
                                           (count - 1) * distance, *starts.offsets, tap_distance])
            else:
                self._apart(starts.each(f, lanes), others, distances, order, target, place)

    def _form(self, others: tuple[int, ...], order: Sequence[Dim], even: bool, target: ColumnPanels) -> TapsForm | None:
        """The function that packs, if taps and channels lie at even distances where they go to."""
        p, steps = self.c.phase, {b - a for a, b in zip(order, order[1:])}
        if len(others) != 1 or len(steps) != 1:
            return None
        channel, step = p.b.strides[others[0]], steps.pop()
        if not isinstance(step, int) or not isinstance(channel, int) or channel < 0:
            return None
        return TapsForm(self.c.b.dtype, target.memory.dtype, self.c.schedule.lanes, even, len(order), channel, step < 0)

    def _apart(self, rows: Sequence[Ix], others: tuple[int, ...], distances: Mapping[int, Dim], order: Sequence[Dim],
               target: ColumnPanels, place: Ix) -> None:
        """With code of its own."""
        f, p, lanes = self.c.f, self.c.phase, self.c.schedule.lanes
        channels = Range(others, group_sizes(p, others), 0, {}, Ix(), Ix(p.sizes[others[0]]), Ix(), 1)
        with walk(f, channels) as (channel, _):
            base = offset(p.b, channel) - p.b.base
            at = sum((channel[d] * distances[d] for d in others), Ix())
            for first in range(0, len(order), lanes):
                found = self._tap_rows([s + base + first for s in rows], min(lanes, len(order) - first))
                for tap, row in zip(order[first:], found):
                    store_as(f, target.memory, [place + (at + tap) * target.width], row)

    def _tap_order(self, together: tuple[int, ...], distances: dict[int, Dim]) -> list[Dim]:
        """The steps of k of the taps in the order in which these lie in memory."""
        p = self.c.phase
        walks = [range(p.sizes[d]) if p.b.strides[d] > 0 else range(p.sizes[d] - 1, -1, -1) for d in together]
        return [sum(distances[d] * i for d, i in zip(together, index)) for index in product(*walks)]

    def _tap_rows(self, starts: list[Ix], width: int) -> list[Val]:
        f, b = self.c.f, self.c.b
        return [gathered(f, b, starts)] if width == 1 else transposed_runs(f, b, starts, width)


@dataclass(frozen=True)
class DecodedColumns(ColumnPacker):
    """b is codes in blocks along k: words of four-bit codes, or bytes, are transposed in registers and become those
    numbers that `BlockProduct.whole` makes, element by element, so that sums of them have the same bits."""
    source: BlockCodes

    @property
    def dtype(self) -> DType:
        return f32

    def pack(self, batch: Index, columns: Range, k: Range, target: ColumnPanels) -> None:
        c, f, op, lanes = self.c, self.c.f, self.source.op, self.c.schedule.lanes
        first, _ = f.divmod(k.start, op.block)
        count, _ = f.divmod(k.count, op.block)
        with f.loop(0, columns.length, lanes) as loop:
            place = target.at(f, loop.index)
            rows = [f.min_(columns.flat + (loop.index + i), c.n - 1) for i in range(lanes)]
            with f.loop(0, count, name="block") as blocks:
                # the minimum is for the verifier, which does not know that blocks end where the sum does
                block = f.min_(first + blocks.index, static_dim(c.k) // op.block - 1)
                self._block(rows, block, target.memory, place + blocks.index * op.block * target.width,
                            target.width)

    def _block(self, rows: list[Ix], block: Ix, memory: View, place: Ix, width: int) -> None:
        """One block of a vector of columns, whose steps are `width` apart from `place` on."""
        f, op, lanes = self.c.f, self.source.op, self.c.schedule.lanes
        size, blocks = op.block * op.bits // 8, static_dim(self.c.k) // op.block
        parts = [f.cast(gathered(f, view, [row * blocks + block for row in rows]), f32) for view in self.source.scales]
        starts = [(row * blocks + block) * size for row in rows]
        if op.bits == 4 and size % RUN_BYTES == 0 and lanes % RUN_WORDS == 0:
            with f.loop(0, size, RUN_BYTES) as loop:
                self._run([s + loop.index for s in starts], parts, memory, place + loop.index * width, width)
            return

        def decode(at: Ix, steps: int) -> None:
            for i, codes in enumerate(transposed_runs(f, self.source.codes, [s + at for s in starts], steps)):
                wide = f.cast(codes, i32)
                halves = (wide,) if op.bits == 8 else (f.and_(wide, 15), f.lshr(wide, op.bits))
                for half, code in enumerate(halves):
                    step = at + i + half * size
                    f.store(memory, [place + step * width], self._number(code, parts))
        with f.loop(0, size // lanes * lanes, lanes) as loop:
            decode(loop.index, lanes)
        if size % lanes:
            decode(Ix(size // lanes * lanes), size % lanes)

    def _run(self, starts: list[Ix], parts: list[Val], memory: View, place: Ix, width: int) -> None:
        """16 bytes of each row."""
        f, source = self.c.f, self.source
        for i, words in enumerate(words_across(f, source.codes, starts)):
            for k in range(2 * WORD_BYTES):
                byte, half = divmod(k, 2)
                step = i * WORD_BYTES + byte + half * source.op.block // 2
                number = number_in(f, words, k, source.op.zero, source.target)
                f.store(memory, [place + step * width], self._scaled(number, parts))

    def _number(self, code: Val, parts: list[Val]) -> Val:
        f, zero = self.c.f, self.source.op.zero
        return self._scaled(f.cast(f.sub(code, zero) if zero else code, f32), parts)

    def _scaled(self, code: Val, parts: list[Val]) -> Val:
        f = self.c.f
        y = f.mul(code, parts[0])
        return f.add(y, parts[1]) if len(parts) > 1 else y


COLUMN_PACKERS: dict[ColumnPacking, type[ColumnPacker]] = {
    ColumnPacking.PANELS: CopiedPanels, ColumnPacking.RUNS: CopiedRuns, ColumnPacking.TRANSPOSED: TransposedColumns,
    ColumnPacking.TAPS: TransposedTaps}


def column_packer(c: TiledPhase) -> ColumnPacker:
    if c.views.codes is not None:
        return DecodedColumns(c, c.views.codes)
    return COLUMN_PACKERS[column_packing(c.phase, c.schedule.lanes)](c)
