"""Dot products of few rows of numbers with rows of codes in blocks. Codes are taken a vector of words at a time, of
several blocks where these are short, so that conversions and scales fill whole vectors; the numbers are arranged once,
before all tiles, in the order in which codes come out of their words."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import cached_property

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.codegen.lower.nibbles import WORD_BYTES, number_in
from graphc.codegen.lower.rows import nested
from graphc.ir.dims import Dims, round_up, static_dim
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.types import f32, i32
from graphc.records import dataclass
from graphc.schedule.target import AHEAD_BYTES, LINE_BYTES, Target

Place = list[Ix]                    # the index of a row of the numbers
GROUP_VECTORS = 8                   # vectors of numbers, of bytes of codes that are taken in one trip
MOST_TOGETHER = 4                   # groups that are taken in one trip


@dataclass(frozen=True)
class BlockDots(ABC):
    """The rows of numbers x [*extents, K], the matrix of codes, views of scales (and minima), and how many lanes are
    taken. A *group* is what fills vectors of a row: `blocks` whole blocks, or one of the `parts` of a long one. A trip
    of the loop takes the `together` groups whose scales are converted together."""
    f: LoopFunction
    op: BlockProduct
    target: Target
    lanes: int
    x: View
    codes: View
    scales: tuple[View, ...]
    _memory: list[View] = field(default_factory=list)

    # ---- sizes
    @property
    @abstractmethod
    def blocks(self) -> int:
        """Of a group."""

    @property
    def parts(self) -> int:
        return 1

    @property
    def together(self) -> int:
        """Groups of a trip."""
        return 1

    @property
    @abstractmethod
    def vectors(self) -> int:
        """Of numbers in a group."""

    @cached_property
    def count(self) -> int:
        """Blocks of a row."""
        return static_dim(self.scales[0].shape[1])

    @cached_property
    def added(self) -> tuple[tuple[View, float], ...]:
        """What is added to all numbers of a block: views of a number for each block, and what to multiply it by."""
        minima = ((view, 1.0) for view in self.scales[1:])
        return (*((self.scales[0], -float(self.zero)),) * (self.zero != 0), *minima)

    @property
    def zero(self) -> int:
        """What the codes that `add` multiplies are too large by."""
        return self.op.zero

    @property
    def extents(self) -> Dims:
        return self.x.shape[:-1]

    @cached_property
    def trips(self) -> tuple[int, int]:
        """Whole groups of a row, and the blocks of the last, shorter one."""
        return (self.count * self.parts, 0) if self.parts > 1 else divmod(self.count, self.blocks)

    # ---- numbers
    def arrange(self) -> None:
        """Before all tiles: the rows of numbers, as trips take them, and the sums of their blocks, of which each is
        multiplied by what is added to all codes of a block."""
        f, (whole, rest) = self.f, self.trips
        self._memory.append(f.scratch("arranged", f32, (*self.extents, whole + (rest > 0), self.vectors, self.lanes)))
        if self.added:
            self._memory.append(f.scratch("totals", f32, (*self.extents, round_up(self.count, self.lanes))))

        def row(index: Place) -> None:
            with f.loop(0, whole, name="group") as loop:
                self._arrange_group(index, loop.index, self.blocks)
            if rest:
                self._arrange_group(index, Ix(whole), rest)
            if self.added:
                self._add_up_blocks(index)
        nested(f, self.extents, row)

    def _arrange_group(self, index: Place, group: Ix, blocks: int) -> None:
        for i, v in enumerate(self._ordered(self._numbers(index, group, blocks))):
            self.f.store(self._memory[0], [*index, group, i, 0], v)

    def _ordered(self, numbers: list[Val]) -> list[Val]:
        """A group's numbers, zeros behind the last block, in the order of its codes."""
        return numbers

    def _add_up_blocks(self, index: Place) -> None:
        f, size, lanes = self.f, self.op.block, self.lanes
        while size % lanes:
            lanes //= 2
        if rest := self.count % self.lanes:
            f.store(self._memory[1], [*index, self.count - rest], f.const(0, f32, self.lanes))
        with f.loop(0, self.count, name="block") as loop:
            total = f.load(self.x, [*index, loop.index * size], lanes)
            for at in range(lanes, size, lanes):
                total = f.add(total, f.load(self.x, [*index, loop.index * size + at], lanes))
            f.store(self._memory[1], [*index, loop.index], f.reduce(total, "add"))

    def _numbers(self, index: Place, group: Ix, blocks: int) -> list[Val]:
        """The columns of a group, in order."""
        start, end = group * (self.blocks * self.op.block), blocks * self.op.block
        return [self._some(index, start + at, min(max(end - at, 0), self.lanes))
                for at in range(0, self.vectors * self.lanes, self.lanes)]

    def _some(self, index: Place, column: Ix, count: int) -> Val:
        """So many numbers, then zeros."""
        if count == 0:
            return self.f.const(0, f32, self.lanes)
        return self._padded(self.f.load(self.x, [*index, column], count), range(count), self.lanes)

    def _padded(self, v: Val, order: Sequence[int], lanes: int) -> Val:
        """These lanes of v, then zeros."""
        f = self.f
        if len(order) == lanes:
            return v if list(order) == list(range(v.lanes)) else f.shuffle(v, None, order)
        return f.shuffle(v, f.const(0, v.dtype, v.lanes), [*order, *[v.lanes] * (lanes - len(order))])

    # ---- products
    def of(self, places: list[Place], columns: list[Ix]) -> list[list[Val]]:
        """The products of each of the rows of numbers at `places` with these rows of codes."""
        f, (whole, rest) = self.f, self.trips
        zero, together = f.const(0, f32, self.lanes), self.together
        trips, left = divmod(whole, together)
        with f.loop(0, trips, carry=[zero] * (len(places) * len(columns)), name="trip") as loop:
            first, sums = loop.index * together, list(loop.carried)
            scales = [self._scales(n, first, self.blocks, together) for n in columns]
            self._prefetch(columns, first, together)
            for i in range(together):
                own, has_more = [groups[i] for groups in scales], bool(left or rest or i + 1 < together)
                sums = self._group(places, columns, first + i, self.blocks, own, sums, has_more)
            loop.next(*sums)
        sums = list(loop.results)
        for group in range(whole - left, whole + (rest > 0)):
            blocks = self.blocks if group < whole else rest
            self._prefetch(columns, Ix(group), 1)
            own = [self._scales(n, Ix(group), blocks, 1)[0] for n in columns]
            sums = self._group(places, columns, Ix(group), blocks, own, sums, group + (rest == 0) < whole)
        if self.added:
            sums = self._with_added(places, columns, sums)
        found = [f.reduce(acc, "add") for acc in sums]
        return [found[i:i + len(columns)] for i in range(0, len(found), len(columns))]

    def _group(self, places: list[Place], columns: list[Ix], group: Ix, blocks: int, scales: list[list[Val]],
               sums: list[Val], has_more: bool) -> list[Val]:
        """The sums and the products of a group: each number is loaded, and each code converted, once. `has_more`: rows
        have codes behind the group."""
        f, fused = self.f, self.target.has_fma
        codes = [self._codes(n, group, blocks, has_more) for n in columns]
        for b, run in enumerate(self._runs(blocks)):
            found = [f.const(0, f32, self.lanes)] * len(sums)
            for k in run:
                rows = [f.load(self._memory[0], [*place, group, k, 0], self.lanes) for place in places]
                for j, code_at in enumerate(codes):
                    code, own = code_at(k), slice(j, None, len(columns))
                    found[own] = [multiply_add(f, x, code, acc, fused) for x, acc in zip(rows, found[own])]
            for j, own_scales in enumerate(scales):
                own = slice(j, None, len(columns))
                sums[own] = self._scaled(found[own], own_scales[b], sums[own])
        return sums

    def _prefetch(self, columns: list[Ix], group: Ix, groups: int) -> None:
        """What comes later in these rows and those after them: a row is short, and the hardware alone would fetch too
        little of so many streams. For so many groups, from this one on."""
        f, size = self.f, self.vectors * self.lanes * self.op.bits // 8
        blocks = AHEAD_BYTES // (self.op.block * self.op.bits // 8)
        for n in columns:
            for at in range(0, groups * size, LINE_BYTES):
                f.prefetch(self.codes, [n, group * size + (at + AHEAD_BYTES)])
            for view in self.scales:
                block = group * self.blocks if self.parts == 1 else f.divmod(group, self.parts)[0]
                f.prefetch(view, [n, block + blocks])

    def _runs(self, blocks: int) -> list[range]:
        """The vectors of a group that are added up before the sum is multiplied by scales."""
        return [range(self.vectors)]

    @abstractmethod
    def _codes(self, n: Ix, group: Ix, blocks: int, has_more: bool) -> Callable[[int], Val]:
        """What gives vector number k of the codes of a group of row n of the matrix, f32, less `zero`."""

    @abstractmethod
    def _scales(self, n: Ix, group: Ix, blocks: int, groups: int) -> list[list[Val]]:
        """Of so many groups, from this one on, that of each of the runs, f32."""

    def _scaled(self, found: list[Val], scale: Val, sums: list[Val]) -> list[Val]:
        return [multiply_add(self.f, a, scale, acc, self.target.has_fma) for a, acc in zip(found, sums)]

    def _with_added(self, places: list[Place], columns: list[Ix], sums: list[Val]) -> list[Val]:
        """The sums, and what is added to codes, times the sums of blocks: many blocks a vector."""
        f, lanes, (whole, rest) = self.f, self.lanes, divmod(self.count, self.lanes)

        def add(at: Ix, count: int, sums: Sequence[Val]) -> list[Val]:
            totals, sums = [f.load(self._memory[1], [*place, at], lanes) for place in places], list(sums)
            for view, by in self.added:
                own = totals if by == 1 else [f.mul(total, by) for total in totals]
                for j, n in enumerate(columns):
                    parts = self._padded(f.cast(f.load(view, [n, at], count), f32), range(count), lanes)
                    sums[j::len(columns)] = self._scaled(own, parts, sums[j::len(columns)])
            return sums
        with f.loop(0, whole * lanes, lanes, carry=sums, name="block") as loop:
            loop.next(*add(loop.index, lanes, loop.carried))
        return add(Ix(whole * lanes), rest, loop.results) if rest else list(loop.results)


class NibbleDots(BlockDots):
    """Codes of four bits: a word of each lane has eight, which belong to one block, those of neighbouring lanes to it
    or the next ones."""

    @cached_property
    def word(self) -> int:
        """Bytes of a word."""
        return WORD_BYTES if self.op.block % (2 * WORD_BYTES) == 0 else 1

    @property
    def words(self) -> int:
        """Of a block."""
        return self.op.block // (2 * self.word)

    @property
    def blocks(self) -> int:
        return max(1, self.lanes // self.words)

    @property
    def parts(self) -> int:
        return max(1, self.words // self.lanes)

    @property
    def together(self) -> int:
        """As fill a vector of scales."""
        return max(1, min(MOST_TOGETHER, self.lanes // self.blocks)) if self.parts == 1 else 1

    @property
    def vectors(self) -> int:
        return 2 * self.word

    @property
    def zero(self) -> int:
        """A table has subtracted it."""
        return 0 if self.target.has_lookup(self.lanes) else self.op.zero

    def _numbers(self, index: Place, group: Ix, blocks: int) -> list[Val]:
        if self.parts == 1:
            return super()._numbers(index, group, blocks)
        block, part = self.f.divmod(group, self.parts)
        start, run = block * self.op.block, self.lanes * self.word
        return [self._some(index, start + part * run + (half * self.op.block // 2 + at), self.lanes)
                for half in range(2) for at in range(0, run, self.lanes)]

    def _ordered(self, numbers: list[Val]) -> list[Val]:
        return [self._picked(numbers, [self._column(nibble, lane) for lane in range(self.lanes)])
                for nibble in range(self.vectors)]

    def _column(self, nibble: int, lane: int) -> int:
        """Where in a group's numbers that is which meets this nibble of the word of a lane."""
        byte, half = divmod(nibble, 2)
        if self.parts > 1:
            return (half * self.lanes + lane) * self.word + byte
        block, word = divmod(lane, self.words)
        return block * self.op.block + half * self.op.block // 2 + word * self.word + byte

    def _picked(self, numbers: list[Val], columns: list[int]) -> Val:
        """A vector of these."""
        places = [divmod(column, self.lanes) for column in columns]
        first, *others = sorted({vector for vector, _ in places})
        picked = numbers[first]
        if self.lanes == 1:
            return picked
        second = others[0] if others else first
        order = [lane + self.lanes * (vector == second and second != first) for vector, lane in places]
        picked = self.f.shuffle(picked, numbers[second], order)
        for other in others[1:]:
            order = [self.lanes + lane if vector == other else i for i, (vector, lane) in enumerate(places)]
            picked = self.f.shuffle(picked, numbers[other], order)
        return picked

    def _codes(self, n: Ix, group: Ix, blocks: int, has_more: bool) -> Callable[[int], Val]:
        """The first code of a byte, and what lies behind it, is the word that begins there: to load it again costs
        less than to shift it, as loads wait for none of the units that compute."""
        words = self._words(n, group, blocks)

        def code_at(k: int) -> Val:
            byte, half = divmod(k, 2)
            again = has_more and byte > 0 and half == 0
            own, place = (self._words(n, group, blocks, byte), 0) if again else (words, k)
            return number_in(self.f, own, place, self.op.zero - self.zero, self.target)
        return code_at

    def _words(self, n: Ix, group: Ix, blocks: int, byte: int = 0) -> Val:
        """i32, from this byte of each on."""
        f, size = self.f, self.lanes * self.word
        count = size if self.parts > 1 else blocks * self.op.block // 2
        loaded = f.load(self.codes, [n, group * size + byte], count)
        padded = self._padded(loaded, range(count), size)
        return f.words(padded) if self.word > 1 else f.cast(padded, i32)

    def _scales(self, n: Ix, group: Ix, blocks: int, groups: int) -> list[list[Val]]:
        """That of each lane's block."""
        f, view = self.f, self.scales[0]
        if groups * blocks == 1:
            block = f.divmod(group, self.parts)[0] if self.parts > 1 else group * self.blocks
            return [[f.splat(f.cast(f.load(view, [n, block]), f32), self.lanes)]]
        parts = f.cast(f.load(view, [n, group * self.blocks], groups * blocks), f32)
        lanes = range(blocks * self.words)
        return [[self._padded(parts, [i * blocks + lane // self.words for lane in lanes], self.lanes)]
                for i in range(groups)]


class ByteDots(BlockDots):
    """Codes of eight bits, widened as they are loaded."""

    @property
    def blocks(self) -> int:
        return max(1, GROUP_VECTORS * self.lanes // self.op.block)

    @property
    def vectors(self) -> int:
        return self.blocks * self.in_block

    @property
    def in_block(self) -> int:
        """Vectors of a block."""
        return self.op.block // self.lanes

    def _runs(self, blocks: int) -> list[range]:
        return [range(b * self.in_block, (b + 1) * self.in_block) for b in range(blocks)]

    def _codes(self, n: Ix, group: Ix, blocks: int, has_more: bool) -> Callable[[int], Val]:
        f, start = self.f, group * (self.blocks * self.op.block)
        return lambda k: f.cast(f.cast(f.load(self.codes, [n, start + k * self.lanes], self.lanes), i32), f32)

    def _scales(self, n: Ix, group: Ix, blocks: int, groups: int) -> list[list[Val]]:
        """That of each block in all lanes, f32; converted together, if they are not f32. Of one group."""
        f, view, first = self.f, self.scales[0], group * self.blocks
        if view.dtype is f32 or blocks == 1:
            return [[f.splat(f.cast(f.load(view, [n, first + b]), f32), self.lanes) for b in range(blocks)]]
        parts = f.cast(f.load(view, [n, first], blocks), f32)
        return [[f.splat(f.extract(parts, b), self.lanes) for b in range(blocks)]]


def block_dots(f: LoopFunction, op: BlockProduct, target: Target, lanes: int, views: Sequence[View]) -> BlockDots:
    """Of views [x, codes, scale, perhaps minimum], with as many of these lanes as fill blocks or are filled by them."""
    x, codes, *scales = views
    kind: type[BlockDots] = NibbleDots if op.bits == 4 else ByteDots
    while True:
        dots = kind(f, op, target, lanes, x, codes, tuple(scales))
        size = dots.words if isinstance(dots, NibbleDots) else op.block
        if size % lanes == 0 or op.bits == 4 and lanes % size == 0:
            return dots
        lanes //= 2
