"""Few outputs, long sums, in many batch entries: weight gradients of depthwise convolutions above all."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import product

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.contraction.terms import Factors, MixedTerms, StridedOperand, Terms
from graphc.codegen.lower.ranges import Index, offset, unflatten
from graphc.ir.dims import Dim, ceil_div, exact_quotient, static_dim
from graphc.records import dataclass
from graphc.schedule.contraction_form import LinearMap, spread
from graphc.schedule.contraction_schedule import NarrowSchedule


@dataclass(frozen=True)
class OutputPass:
    """The outputs of an entry that are summed at a time: those at `offsets` from `first`."""
    first: Index
    offsets: tuple[dict[int, int], ...]

    def at(self, position: int) -> Index:
        """The index of one of them."""
        return {d: self.first.get(d, Ix()) + i for d, i in self.offsets[position].items()} | {
            d: ix for d, ix in self.first.items() if d not in self.offsets[position]}


class NarrowContraction(PhaseLowering[NarrowSchedule]):
    def run(self) -> None:
        """Tiles of some vectors of batch entries (or one entry) and one part of the sum; then the parts are added."""
        f, s, p = self.f, self.schedule, self.phase
        groups = s.groups(p)
        blocks = ceil_div(groups, s.block)
        around = p.extent(p.batch if s.along_k else [d for d in p.batch if d != s.dim])
        for passes, outputs in self._passes():
            with f.parallel(around * blocks * s.splits * passes, "narrow") as t:
                t, which = f.divmod(t, passes)
                number, part = f.divmod(t, s.splits)
                rest, block = f.divmod(number, blocks)
                first = block * s.block
                count = s.block if groups % s.block == 0 else f.min_(s.block, groups - first)
                self._tile(rest, (first, count), part, outputs(which))
        for passes, outputs in self._passes() if s.splits > 1 else ():
            with f.parallel(s.entries(p) * passes, "add") as t:
                number, which = f.divmod(t, passes)
                self._add_partials(number, outputs(which))

    def _passes(self) -> Iterator[tuple[int, Callable[[Ix], OutputPass]]]:
        """The outputs of an entry by pieces of equal size: how many such pieces, and what each of them is."""
        f, s, p = self.f, self.schedule, self.phase
        dims = p.m + p.n
        cut, length = s.piece or (dims[0], static_dim(p.sizes[dims[0]]))
        at, size = dims.index(cut), static_dim(p.sizes[cut])
        before, unrolled = dims[:at], dims[at:]
        around, whole = static_dim(p.extent(before)), size // length

        def piece(start: int, wide: int, count: int, which: Ix) -> OutputPass:
            outer, number = f.divmod(which, count)
            offsets = product(range(wide), *[range(p.sizes[d]) for d in unrolled[1:]])
            return OutputPass(unflatten(f, outer, before, p.sizes) | {cut: number * wide + start},
                              tuple([dict(zip(unrolled, own)) for own in offsets]))
        yield around * whole, partial(piece, 0, length, whole)
        if size % length:
            yield around, partial(piece, whole * length, size % length, 1)

    def _tile(self, rest: Ix, block: tuple[Ix, Ix | int], part: Ix, out: OutputPass) -> None:
        """Sums of a block of vectors (the number of the first, how many); `rest` counts the batch entries around."""
        f, s, p = self.f, self.schedule, self.phase
        (first, count), outputs, zero = block, len(out.offsets), f.const(0, self.dtype, s.lanes)
        sums = f.scratch("sums", self.dtype, (outputs, spread(s.block * s.lanes, s.lanes)))
        steps = p.extent(p.k[:-1])
        share = ceil_div(steps, s.splits)
        lo = part * share
        with f.loop(0, count) as loop:
            for position in range(outputs):
                f.store(sums, [position, loop.index * s.lanes], zero)
        with f.loop(lo, lo + share if exact_quotient(steps, share) is not None else f.min_(lo + share, steps)) as step:
            around = unflatten(f, step.index, p.k[:-1], p.sizes)
            for at, columns in _columns(f, p.sizes[p.k[-1]], s.columns):
                with at as start, f.loop(0, count) as loop:
                    index, mask = self._entry(rest, first + loop.index)
                    index = index | around | out.first
                    totals = self._line(index, mask, out) if s.along_k else self._terms(
                        index | {p.k[-1]: start}, static_dim(columns), mask, out)
                    for position, total in enumerate(totals):
                        where = (position, loop.index * s.lanes)
                        f.store(sums, where, f.add(f.load(sums, where, s.lanes), total))
        with f.loop(0, count) as loop:
            number = rest * s.groups(p) + first + loop.index
            index, mask = self._entry(rest, first + loop.index)
            for position in range(outputs):
                total = f.load(sums, [position, loop.index * s.lanes], s.lanes)
                total = f.reduce(total, "add") if s.along_k else total
                if s.splits == 1:
                    self._finish(index | out.at(position), total, mask)
                else:
                    place = part * s.entries(p) + number
                    f.store(self._memory(), [self._place(place, out.at(position))], total)

    def _place(self, number: Ix, output: Index) -> Ix:
        """Where the part of a sum lies: `number` counts entries, and parts."""
        for d in self.phase.m + self.phase.n:
            number = number * self.sizes[d] + output[d]
        return number * self.schedule.width

    def _memory(self) -> View:
        s = self.schedule
        return self.partials(s.splits * s.entries(self.phase) * self.m * self.n * s.width)

    def _entry(self, rest: Ix, group: Ix) -> tuple[Index, Val | None]:
        """The batch index of a vector of entries, and which of its lanes exist."""
        f, s, p = self.f, self.schedule, self.phase
        if s.along_k:
            return unflatten(f, rest, p.batch, p.sizes), None
        size, start = p.sizes[s.dim], group * s.lanes
        mask = f.tail_mask(size - start, s.lanes) if size % s.lanes != 0 else None
        return unflatten(f, rest, tuple(d for d in p.batch if d != s.dim), p.sizes) | {s.dim: start}, mask

    def _finish(self, at: Index, total: Val, mask: Val | None) -> None:
        """A finished sum to its place."""
        f, s = self.f, self.schedule
        if s.along_k:
            return self.outputs.store(at, self.phase.n[-1], total, 1, None)
        if self.outputs.takes_vectors(s.dim):
            return self.outputs.store(at, s.dim, total, s.lanes, mask)
        line = f.scratch("line", self.dtype, (s.lanes,))
        f.store(line, [0], total)
        with f.loop(0, f.min_(s.lanes, self.sizes[s.dim] - at[s.dim])) as loop:
            self.outputs.store(at | {s.dim: at[s.dim] + loop.index}, s.dim, f.load(line, [loop.index]), 1, None)

    def _add_partials(self, number: Ix, out: OutputPass) -> None:
        f, s = self.f, self.schedule
        index, mask = self._entry(*f.divmod(number, s.groups(self.phase)))
        width, step = s.width, s.entries(self.phase) * self.m * self.n * s.width
        for position in range(len(out.offsets)):
            start = self._place(number, out.at(position))
            with f.loop(1, s.splits, carry=[f.load(self._memory(), [start], width)]) as loop:
                loop.next(f.add(loop.carried[0], f.load(self._memory(), [start + loop.index * step], width)))
            self._finish(index | out.at(position), loop.results[0], mask)

    # ---- sums

    def _line(self, index: Index, mask: Val | None, out: OutputPass) -> Sequence[Val]:
        """The outputs' sums along the innermost k dim by vectors along it."""
        f, s = self.f, self.schedule
        d, size = self.phase.k[-1], self.sizes[self.phase.k[-1]]
        zero = f.const(0, self.dtype, s.lanes)
        with f.loop(0, size // s.lanes * s.lanes, s.lanes, carry=[zero] * len(out.offsets)) as loop:
            loop.next(*self._terms(index | {d: loop.index}, 1, mask, out, loop.carried))
        if size % s.lanes == 0:
            return loop.results
        rest = index | {d: Ix(size // s.lanes * s.lanes)}
        return self._terms(rest, 1, f.tail_mask(size % s.lanes, s.lanes), out, loop.results)

    def _terms(self, index: Index, columns: int, mask: Val | None, out: OutputPass,
               sums: Sequence[Val] = ()) -> list[Val]:
        """The outputs' sums over `columns` positions of the innermost k dim, added to `sums`. What outputs and
        positions share is loaded once, and used soon after: they are taken in the order of the operand that moves with
        both.
        """
        f, s, p = self.f, self.schedule, self.phase
        last, lane = p.k[-1], p.k[-1] if s.along_k else s.dim
        left, right = (Terms(f, self.dtype, StridedOperand(memory, t), offset(t, index), t.strides[lane], s.lanes, mask)
                       for memory, t in ((self.a, p.a), (self.b, p.b)))
        operands: list[Factors] = [left, MixedTerms(right, s.mixed) if s.mixed else right]
        dims = p.m + p.n
        steps = [{last: j} | own for j in range(columns) for own in out.offsets]
        totals = list(sums) or [f.const(0, self.dtype, s.lanes)] * len(out.offsets)

        def moves(t: LinearMap[Dim]) -> int:
            return sum(t.strides[d] != 0 for d in dims)
        moving = p.a if moves(p.a) >= moves(p.b) else p.b

        def place(item: tuple[int, dict[int, int]]) -> Dim:
            return sum(moving.strides[d] * item[1].get(d, 0) for d in (*dims[-1:], last))
        for number, step in sorted(enumerate(steps), key=place):
            a, b = (o.term(step) for o in operands)
            totals[number % len(totals)] = multiply_add(f, a, b, totals[number % len(totals)], self.fused)
        if not s.along_k:
            for operand in operands:
                operand.prefetch_next(p.k[-2])
        return totals


def _columns(f: LoopFunction, size: Dim, columns: int) -> Iterator[tuple[AbstractContextManager[Ix], Dim]]:
    """The innermost k dim by `columns`, then the rest: the start of each run, and its length. 0: all of it at once."""
    if not columns:
        yield nullcontext(Ix()), size
        return
    whole, rest = size // columns * columns, size % columns
    yield _starts(f, 0, whole, columns), columns
    if not isinstance(rest, int):
        yield _starts(f, whole, size, 1), 1
    elif rest:
        yield nullcontext(Ix(whole)), rest


@contextmanager
def _starts(f: LoopFunction, start: Dim, end: Dim, step: int) -> Iterator[Ix]:
    with f.loop(start, end, step) as loop:
        yield loop.index
