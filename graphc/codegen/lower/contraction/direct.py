"""Sums without reuse along the rows, depthwise convolutions above all: vectors along one dim, terms unrolled for a few
positions of another, whose windows overlap and whose factors are the same.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contraction.micro_kernel import multiply_add, store_as
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.contraction.terms import Factors, MixedTerms, StridedOperand, Terms
from graphc.codegen.lower.ranges import Index, load_spaced, offset, unflatten, vector_run
from graphc.codegen.lower.transpose import transposed_runs, turned_square
from graphc.ir.dims import Dim, ceil_div, product_of, static_dim
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.blocking import at_most
from graphc.schedule.contraction_form import LinearMap
from graphc.schedule.contraction_schedule import LaneSchedule, MixedChannels


@dataclass(frozen=True)
class TermRun:
    """The operands of some vectors of sums, which of their lanes exist, and where each is, from the first on."""
    operands: Sequence[StridedOperand]
    lanes: int
    mask: Val | None
    places: Sequence[dict[int, int]]

    def zeros(self, f: LoopFunction, dtype: DType) -> list[Val]:
        """Sums of nothing."""
        return [f.const(0, dtype, self.lanes)] * len(self.places)

    def terms(self, f: LoopFunction, dtype: DType, operand: StridedOperand, index: Index, dim: int) -> Terms:
        """The factors from `index` on, vectors along `dim`."""
        linear = operand.linear
        return Terms(f, dtype, operand, offset(linear, index), linear.strides[dim], self.lanes, self.mask)


class DirectContraction(PhaseLowering[LaneSchedule]):
    def run(self) -> None:
        """Tiles over blocks of `dim` and ranges of the dims around; in a tile, positions of `inner` by the few, vectors
        along the block.
        """
        f, s, p = self.f, self.schedule, self.phase
        outer, sizes = s.outer(p), list(p.sizes)
        if s.lines > 1:
            sizes[outer[-1]] = sizes[outer[-1]] // s.lines
        count, size = product_of(sizes[d] for d in outer), p.sizes[s.dim]
        per_tile, blocks = at_most(s.tile, count), ceil_div(size, s.block)
        operands = [self._operand(role) for role in "ab"]
        with f.parallel(ceil_div(count, per_tile) * blocks, "lanes") as t:
            part, block = f.divmod(t, blocks)
            width = s.block if size % s.block == 0 else f.min_(s.block, size - block * s.block)
            with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - part * per_tile)) as loop:
                index = unflatten(f, part * per_tile + loop.index, outer, sizes)
                if s.lines > 1:
                    index[outer[-1]] = index[outer[-1]] * s.lines
                whole = p.sizes[s.inner] // s.columns * s.columns
                with f.loop(0, whole, s.columns) as along:
                    self._positions(operands, index | {s.inner: along.index}, s.columns, block * s.block, width)
                self._rest(operands, index, whole, block * s.block, width)

    def _rest(self, operands: list[StridedOperand], index: Index, whole: Dim, first: Ix, width: Ix | int) -> None:
        """The last positions of the inner dim, all together; one by one if their number is not known."""
        s, size = self.schedule, self.phase.sizes[self.schedule.inner]
        rest = size - whole
        if rest == 0:
            return
        if isinstance(rest, int):
            return self._positions(operands, index | {s.inner: Ix(whole)}, rest, first, width)
        with self.f.loop(whole, size) as along:
            self._positions(operands, index | {s.inner: along.index}, 1, first, width)

    def prepack(self) -> None:
        self._pack(self.contraction.prepacked_role, once=True)

    def _unpacked(self, role: str) -> StridedOperand:
        return {"a": StridedOperand(self.a, self.phase.a), "b": StridedOperand(self.b, self.phase.b)}[role]

    def _operand(self, role: str) -> StridedOperand:
        """An operand in place, or its packed factors."""
        s, p, source = self.schedule, self.phase, self._unpacked(role)
        if not s.packs(p, source.linear):
            return source
        if self.contraction.prepacked_role != role:
            self._pack(role)
        steps = {d: s.line(p) * product_of(p.sizes[e] for e in p.k[i + 1:]) for i, d in enumerate(p.k)} | {s.dim: 1}
        return StridedOperand(self._memory(role), LinearMap(0, tuple(steps.get(d, 0) for d in range(len(p.sizes)))))

    def _memory(self, role: str) -> View:
        return self.packed(role, self.k * self.schedule.line(self.phase))

    def _pack(self, role: str, once: bool = False) -> None:
        """Factors that lie apart along the vectors are copied side by side, one line for each term of the sum. once:
        before all calls, where little code takes less time than fast code."""
        f, s, p, operand = self.f, self.schedule, self.phase, self._unpacked(role)
        linear, copy, line = operand.linear, self._memory(role), s.line(p)
        if s.mixed and s.mixed.apart != s.mixed.width * linear.strides[s.dim]:
            return self._copy_groups(s.mixed, operand, copy)
        if s.terms:
            return self._copy_each(operand, copy, line)
        terms = list(product(*[range(p.sizes[d]) for d in p.k]))
        sources = [static_dim(linear.base + sum(i * linear.strides[d] for d, i in zip(p.k, k))) for k in terms]
        in_memory = range(min(sources), min(sources) + len(terms))
        size = p.sizes[s.dim]
        wide = isinstance(size, int) and min(len(terms), size) >= s.lanes
        if wide and sorted(sources) == list(in_memory) and (not once or sources == list(in_memory)):
            return self._transpose(operand, copy, [sources.index(at) for at in in_memory], line)
        if once:
            return self._copy_each(operand, copy, line)
        step = linear.strides[s.dim]
        for term, start in enumerate(sources):
            vector_run(f, Ix(size), s.lanes, lambda j, lanes, mask: store_as(
                f, copy, [term * line + j], load_spaced(f, operand.memory, start + j * step, step, lanes, mask), mask))

    def _copy_groups(self, mixed: MixedChannels, operand: StridedOperand, copy: View) -> None:
        """The same where the factors of two groups are further apart than those of their channels."""
        f, s, p, step = self.f, self.schedule, self.phase, operand.linear.strides[self.schedule.dim]
        with f.loop(0, self.k) as term, f.loop(0, p.sizes[s.dim] // mixed.width) as group:
            start = offset(operand.linear, unflatten(f, term.index, p.k, p.sizes)) + group.index * mixed.apart
            factors = load_spaced(f, operand.memory, start, step, mixed.width, None)
            store_as(f, copy, [term.index * s.line(p) + group.index * mixed.width], factors)

    def _copy_each(self, operand: StridedOperand, copy: View, line: Dim) -> None:
        """The same in a loop over the terms, which are many."""
        f, s, p, step = self.f, self.schedule, self.phase, operand.linear.strides[self.schedule.dim]
        with f.loop(0, self.k) as term:
            start = offset(operand.linear, unflatten(f, term.index, p.k, p.sizes))
            vector_run(f, Ix(p.sizes[s.dim]), s.lanes, lambda j, lanes, mask: store_as(
                f, copy, [term.index * line + j], load_spaced(f, operand.memory, start + j * step, step, lanes, mask),
                mask))

    def _transpose(self, operand: StridedOperand, copy: View, terms: list[int], line: Dim) -> None:
        """The terms lie side by side, in the order `terms`: blocks of lanes × lanes are transposed in registers, by a
        function where their rows are evenly apart, since that is much code. The last ones overlap those before.
        """
        f, s, linear = self.f, self.schedule, operand.linear
        step, size = linear.strides[s.dim], self.phase.sizes[s.dim]
        start = linear.base + sum(min(0, linear.strides[d]) * (self.phase.sizes[d] - 1) for d in self.phase.k)
        even = operand.memory.dtype is copy.dtype and terms == list(range(len(terms)))
        with f.loop(0, size, s.lanes) as loop:
            place = f.min_(loop.index, size - s.lanes)
            for first in range(0, len(terms), s.lanes):
                first = min(first, len(terms) - s.lanes)
                if even:
                    places = (operand.memory, place * step + (start + first)), (copy, place + first * line)
                    f.call(turned_square(copy.dtype, s.lanes),
                           [*[view.view_at([at], (1,), (1,)) for view, at in places], as_ix(step), as_ix(line)])
                    continue
                starts = [(place + i) * step + (start + first) for i in range(s.lanes)]
                for i, column in enumerate(transposed_runs(f, operand.memory, starts)):
                    store_as(f, copy, [place + terms[first + i] * line], column)

    def _positions(self, operands: list[StridedOperand], index: Index, columns: int, first: Ix,
                   width: Ix | int) -> None:
        """`columns` positions of the inner dim, from `index` on, for each vector of the block."""
        f, s = self.f, self.schedule
        lanes = s.lanes if self.outputs.takes_vectors(s.dim) else 1

        def body(j: Ix, count: int, mask: Val | None) -> None:
            self._sums(operands, index | {s.dim: first + j}, columns, count, mask)
        if self.phase.sizes[s.dim] % lanes != 0:
            return vector_run(f, Ix() + width, lanes, body)
        with f.loop(0, width, lanes) as loop:
            body(loop.index, lanes, None)

    def _sums(self, operands: list[StridedOperand], index: Index, columns: int, lanes: int, mask: Val | None) -> None:
        f, s, p = self.f, self.schedule, self.phase
        places = [dict(zip((s.inner, *s.outer(p)[-1:]), (j, i))) for i in range(s.lines) for j in range(columns)]
        run = TermRun(operands, lanes, mask, places)
        zeros = run.zeros(f, self.dtype)
        if s.terms:
            totals = self._looped(run, index, p.k, zeros)
        else:
            sources, totals = self._unrolled(run, index, [static_dim(p.sizes[d]) for d in p.k], zeros)
            for dim in s.outer(p)[-1:]:
                for source in sources:
                    source.prefetch_next(dim, s.lines)
        self.outputs.store_several([index | {d: index[d] + i for d, i in place.items()} for place in places], s.dim,
                                   totals, mask)

    def _looped(self, run: TermRun, index: Index, dims: tuple[int, ...], totals: Sequence[Val]) -> Sequence[Val]:
        """`totals` and the terms of the sum over `dims`, the innermost by the few. Each line is added up for itself:
        long sums in one register lose digits.
        """
        f, p, terms = self.f, self.phase, self.schedule.terms
        dim, *inner = dims
        if inner:
            with f.loop(0, p.sizes[dim], carry=totals) as loop:
                line = self._looped(run, index | {dim: loop.index}, tuple(inner), run.zeros(f, self.dtype))
                loop.next(*map(f.add, loop.carried, line))
            return loop.results
        ones, (whole, rest) = [1] * len(p.k[:-1]), divmod(static_dim(p.sizes[dim]), terms)
        with f.loop(0, whole * terms, terms, carry=totals) as loop:
            loop.next(*self._unrolled(run, index | {dim: loop.index}, [*ones, terms], loop.carried)[1])
        if not rest:
            return loop.results
        return self._unrolled(run, index | {dim: Ix(whole * terms)}, [*ones, rest], loop.results)[1]

    def _unrolled(self, run: TermRun, index: Index, sizes: Sequence[int],
                  totals: Sequence[Val]) -> tuple[list[Factors], list[Val]]:
        """`totals` and so many terms along each dim of the sum, from `index` on, for as many positions as there are
        totals; and the vectors that they were made of."""
        f, s, p = self.f, self.schedule, self.phase
        sums, terms = list(totals), [run.terms(f, self.dtype, o, index, s.dim) for o in run.operands]
        sources: list[Factors] = [MixedTerms(terms[0], s.mixed) if s.mixed else terms[0], terms[1]]
        for k in product(*map(range, sizes)):
            for j, place in enumerate(run.places):
                a, b = (source.term(dict(zip(p.k, k)) | place) for source in sources)
                sums[j] = multiply_add(f, a, b, sums[j], self.fused)
        return sources, sums
