"""The micro-kernel of contractions: MR rows × some vectors of columns in registers, one fma each for every step of k.

One function for each (types, micro-tile, layout of the operands); sizes and addresses are arguments, so that equal
kernels are compiled once for all shapes. Equal specs give the same object.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import prod

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import ELEMENTS, Ix, Sym, as_ix
from graphc.ir.dims import Dim, Poly
from graphc.ir.types import DType, bool_
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import MAX_TAPS, STEPS
from graphc.schedule.machine import Machine
from graphc.schedule.register_tiles import APART_SUMS
from graphc.schedule.target import LINE_BYTES

ANY = ELEMENTS << 8             # extent of a view whose size only the caller knows
Taps = Sequence[tuple[int, Dim]]


@dataclass(frozen=True)
class ProductTypes:
    """The types in which factors are stored, and that of the sums, to which factors are converted when loaded."""
    a: DType
    b: DType
    c: DType

    @property
    def named(self) -> tuple[tuple[str, DType], ...]:
        return ("a", self.a), ("b", self.b), ("c", self.c)

    def __str__(self) -> str:
        return f"{self.c}" if self.a is self.b is self.c else f"{self.a}x{self.b}_{self.c}"


@dataclass(frozen=True)
class RowLayout:
    """How the micro-kernel reads rows of a; distances in elements.

    step: between two steps of k.
    scattered: each row has an offset of its own; otherwise row i is at i (a is packed).
    even: the offsets are those of the first row and equal distances from one to the next.
    taps: where the steps of k are not evenly spaced: counts of steps and their distances, the outermost first; the sum
        has these steps and no others.
    packs: rows are also packed as they are read, row i of step k at k * packs + i, for other micro-tiles; 0: not.
    ends: rows behind the last one are that one; where rows are even, or packed, it has an offset of its own.
    """
    step: Dim
    scattered: bool = False
    taps: tuple[tuple[int, Dim], ...] = ()
    packs: int = 0
    even: bool = False
    ends: bool = False


@dataclass(frozen=True)
class ColumnLayout:
    """How the micro-kernel reads columns of b.

    step: elements between two steps of k.
    masked: only some of the columns may be read.
    prefetch_lines: cache lines of b that are prefetched every STEPS steps. last_lines: the same by a kernel for the
        last rows, of any number.
    """
    step: Dim
    masked: bool = False
    prefetch_lines: int = 0
    last_lines: int = 0


@dataclass(frozen=True)
class MicroTileShape:
    """MR rows × `vectors` vectors of `lanes` columns (NR); fused: the target multiplies and adds in one instruction;
    busy: vectors of sums that keep its units busy, from which on unrolled steps gain nothing."""
    mr: int
    vectors: int
    lanes: int
    fused: bool = True
    busy: int = Machine().busy_sums


@dataclass(frozen=True)
class MicroKernelSpec:
    """Which micro-kernel. scaled: c is multiplied by a factor for each column before the sums are added; brief: as
    little code as does not make it slower, of kernels of which there are several for numbers of rows; ends: rows of c
    behind the last one are that one.
    """
    types: ProductTypes
    shape: MicroTileShape
    a: RowLayout
    b: ColumnLayout
    scaled: bool = False
    brief: bool = False
    ends: bool = False

    @property
    def name(self) -> str:
        a, b, shape = self.a, self.b, self.shape
        taps = "_".join([f"{count}of{distance}" for count, distance in a.taps])
        rows = f"taps{taps}x" if a.taps else "rows" if a.scattered else "panel"
        forms = {"even": a.even, "masked": b.masked, "unfused": not shape.fused,
                 f"ahead{b.prefetch_lines}": b.prefetch_lines, "scaled": self.scaled, f"keeps{a.packs}": a.packs,
                 "brief": self.brief, "ends": a.ends, "within": self.ends}
        suffix = "".join(f"_{form}" for form, holds in forms.items() if holds)
        return f"tile_{self.types}_{shape.mr}x{shape.vectors * shape.lanes}_{rows}{a.step}_b{b.step}{suffix}"

    @property
    def in_brief(self) -> MicroKernelSpec:
        """The same with little code, if its sums are as many as units work on at once: then a trip of one step hides
        its jump."""
        return replace(self, brief=self.shape.mr * self.shape.vectors >= self.shape.busy and not self.a.taps)


@dataclass(frozen=True)
class RowPanel:
    """MR rows of a from some step of k on. offsets: of the rows, if they are scattered, or of the first and then the
    distance to the next, if they are even; and of the last, if they end; packed: where they are packed on the way.
    """
    memory: View
    layout: RowLayout
    offsets: tuple[Ix, ...] = ()
    packed: View | None = None


@dataclass(frozen=True)
class ColumnPanel:
    """NR columns of b from some step of k on. count: how many may be read, if masked; next: what is prefetched, from
    `memory` on; row: the first row of the micro-tile, in its tile, where last rows may be alone there.
    """
    memory: View
    layout: ColumnLayout
    count: Ix | None = None
    next: Ix | None = None
    row: Ix | None = None


@dataclass(frozen=True)
class MicroTileSums:
    """MR × NR elements of c, row by row. accumulate: 1: the sums are added to them; 0: the sums replace them.

    factors: of the columns, by which c is multiplied before the sums are added, whatever `accumulate` says. bounded:
    there is no memory behind the last row. last: where that is, for kernels that store it again and again.
    """
    memory: View
    row_step: Ix | Dim
    accumulate: Ix | int = 0
    factors: View | None = None
    bounded: bool = False
    last: Ix | None = None


def call_micro_kernel(f: LoopFunction, shape: MicroTileShape, a: RowPanel, b: ColumnPanel, c: MicroTileSums,
                      steps: Ix | int, brief: bool = False) -> None:
    """c (+)= a b over `steps` steps of k. brief: with little code, if that makes it no slower."""
    spec = spec_of(shape, a, b, c)
    f.call(micro_kernel(spec.in_brief if brief else spec), arguments_of(a, b, c, steps))


def spec_of(shape: MicroTileShape, a: RowPanel, b: ColumnPanel, c: MicroTileSums) -> MicroKernelSpec:
    """The micro-kernel for such operands."""
    types = ProductTypes(a.memory.dtype, b.memory.dtype, c.memory.dtype)
    layout = replace(b.layout, last_lines=0)
    return MicroKernelSpec(types, shape, a.layout, layout, scaled=c.factors is not None, ends=c.last is not None)


def arguments_of(a: RowPanel, b: ColumnPanel, c: MicroTileSums, steps: Ix | int) -> list[View | Ix]:
    """What a micro-kernel is called with."""
    views = [view for view in (a.memory, b.memory, c.memory, c.factors, a.packed) if view is not None]
    counts = [as_ix(steps), as_ix(c.row_step), *([] if c.factors is not None else [as_ix(c.accumulate)])]
    return [*views, *counts, *a.offsets, *(ix for ix in (b.count, c.last, b.next) if ix is not None)]


@cache
def micro_kernel(spec: MicroKernelSpec) -> LoopFunction:
    """c[i, j] = (accumulate ? c[i, j] : 0) + the sum over k of a[i, k] * b[k, j]; scaled: c[i, j] * factors[j] + it.

    Views: a, b, c, factors (if scaled), where rows are packed (if they are). Integers: k, row step of c, accumulate (0
    or 1; not if scaled), the row offsets of a (if scattered; if even the first and the distance), that of the last (if
    they end), the columns (if masked), where the last row of c is (if it ends), what is prefetched, from b on (if
    anything is).
    """
    if spec.a.even:
        return _of_even_rows(spec)
    kernel = _MicroKernel(spec)
    kernel.write()
    return kernel.f


def _of_even_rows(spec: MicroKernelSpec) -> LoopFunction:
    """By the kernel that is told where each row is, which is the same code for rows of any kind: with its parameters,
    but for the rows."""
    f, rows = LoopFunction(spec.name, noalias=True), spec.shape.mr
    kernel = micro_kernel(replace(spec, a=replace(spec.a, even=False, ends=False)))
    before = next(n for n, symbol in enumerate(kernel.params) if symbol.name == "row0")
    views = [f.view(view.root.name, view.dtype, (ANY,), (1,)) for view in kernel.views]
    counts = [_same(f, symbol) for symbol in kernel.params[:before]]
    first, distance = f.param("first", 0, ELEMENTS), f.param("distance", 0, ELEMENTS)
    last = f.param("last", 0, ELEMENTS) if spec.a.ends else None
    places = [first, *[_up_to(f, first + distance * i, last) for i in range(1, rows)]]
    others = [_same(f, symbol) for symbol in kernel.params[before + rows:]]
    f.call(kernel, [*views, *counts, *places, *others])
    return f


def _same(f: LoopFunction, symbol: Sym) -> Ix:
    """A parameter as that of another function."""
    (low, _), (high, _) = symbol.lowers[0], symbol.uppers[0]
    return f.param(symbol.name, low.const, high.const)


class _MicroKernel:
    """The function while it is written: `rows`: where each row of a begins; `masks`: of each vector of columns."""

    def __init__(self, spec: MicroKernelSpec):
        f, shape, types = LoopFunction(spec.name, noalias=True), spec.shape, spec.types
        self.f, self.spec, self.shape = f, spec, shape
        self.a, self.b, self.c = (f.view(name, dtype, (ANY,), (1,)) for name, dtype in types.named)
        self.steps, self.row_step = f.param("k", 0, ELEMENTS), f.param("row_step", 0, ELEMENTS)
        self.factors = f.view("factors", types.c, (ANY,), (1,)) if spec.scaled else None
        add = f.const(True, bool_) if spec.scaled else f.cast(f.value(f.param("add", 0, 1)), bool_)
        self.accumulate = f.splat(add, shape.lanes)
        self.rows = self._row_offsets()
        self.masks = self._column_masks()
        self.last = f.param("last_of_c", 0, ELEMENTS) if spec.ends else None
        self.packed = f.view("kept", types.a, (ANY,), (1,)) if spec.a.packs else None

    def _row_offsets(self) -> list[Ix]:
        f, a, rows = self.f, self.spec.a, range(self.shape.mr)
        if a.scattered:
            return [f.param(f"row{i}", 0, ELEMENTS) for i in rows]
        last = f.param("last", 0, ELEMENTS) if a.ends else None
        return [Ix(), *[_up_to(f, Ix(i), last) for i in rows[1:]]]

    def _column_masks(self) -> list[Val | None]:
        f, lanes, vectors = self.f, self.shape.lanes, self.shape.vectors
        if not self.spec.b.masked:
            return [None] * vectors
        columns = f.param("columns", 0, vectors * lanes)
        return [f.tail_mask(columns - v * lanes, lanes) for v in range(vectors)]

    def write(self) -> None:
        zero = self.f.const(0, self.c.dtype, self.shape.lanes)
        sums: Sequence[Val] = (zero,) * (self.shape.mr * self.shape.vectors)
        taps = self.spec.a.taps
        self._store(self._tap_steps(taps, Ix(), Ix(), sums) if taps else self._even_steps(sums))

    def _tap_steps(self, taps: Taps, k: Ix, at: Ix, sums: Sequence[Val]) -> Sequence[Val]:
        """Written out; or as rounds of loops around the innermost taps, where their distances come with the call, which
        would be computed for each row and step, and where a round takes long enough to hide a jump. Many are loops."""
        (count, distance), *inner = taps
        following = prod([n for n, _ in inner])
        hides = following >= STEPS and self.shape.mr * self.shape.vectors >= self.shape.busy
        many = prod([n for n, _ in self.spec.a.taps]) > MAX_TAPS
        if many and not inner and count > STEPS:
            with self.f.loop(0, count, carry=sums, unroll=STEPS) as loop:
                i = loop.index
                loop.next(*self._step(k + i, [row + at + i * distance for row in self.rows], loop.carried))
            return loop.results
        if inner and (hides or many or any(isinstance(d, Poly) for _, d in taps)):
            with self.f.loop(0, count, carry=sums) as loop:
                i = loop.index
                loop.next(*self._tap_steps(inner, k + i * following, at + i * distance, loop.carried))
            return loop.results
        for number in range(count):
            here = k + number * following, at + number * distance
            sums = self._tap_steps(inner, *here, sums) if inner else self._step(
                here[0], [row + here[1] for row in self.rows], sums)
        return sums

    def _even_steps(self, sums: Sequence[Val]) -> Sequence[Val]:
        ahead = self.f.param("ahead", -ELEMENTS, ELEMENTS) if self.spec.b.prefetch_lines else None
        if self.spec.types.c.is_int and len(sums) <= APART_SUMS:
            return self._steps_apart(ahead, sums)
        if ahead is not None:
            return self._prefetching_steps(ahead, sums)
        return self._steps(Ix(), self.steps, sums, None if self.spec.brief else STEPS)

    def _steps_apart(self, ahead: Ix | None, sums: Sequence[Val]) -> Sequence[Val]:
        """Of integers, in any order: STEPS beside each other have sums of their own, which do not wait for each other.
        """
        f, count = self.f, len(sums)
        groups, _ = f.divmod(self.steps, STEPS)
        with f.loop(0, groups * STEPS, STEPS, carry=[*sums] * STEPS) as loop:
            if ahead is not None:
                self._prefetch(ahead, f.divmod(loop.index, STEPS)[0], self.spec.b.prefetch_lines)
            parts = [loop.carried[i * count:(i + 1) * count] for i in range(STEPS)]
            loop.next(*[new for i, own in enumerate(parts)
                        for new in self._step(loop.index + i, self._rows_at(loop.index + i), own)])
        total = [*loop.results[:count]]
        for i in range(1, STEPS):
            total = [f.add(a, b) for a, b in zip(total, loop.results[i * count:(i + 1) * count])]
        return self._steps(groups * STEPS, self.steps, total, None)

    def _prefetch(self, ahead: Ix, group: Ix, lines: int) -> None:
        """The lines of b from `ahead` on that come with a group of steps."""
        line = LINE_BYTES // self.b.dtype.itemsize
        for i in range(lines):
            self.f.prefetch(self.b, [ahead + (group * lines + i) * line], level=2)

    def _prefetching_steps(self, ahead: Ix, sums: Sequence[Val]) -> Sequence[Val]:
        """STEPS at a time, and with them, one after the other, the lines of b from `ahead` on: a burst of requests
        would keep loads waiting, and so many lines come step by step. Each group of steps is a loop of its own: written
        out, it takes many times the code and no less time.
        """
        f = self.f
        each, rest = divmod(self.spec.b.prefetch_lines, STEPS)
        if each > 1 and not rest:
            with f.loop(0, self.steps, carry=sums, unroll=None if self.spec.brief else STEPS) as loop:
                self._prefetch(ahead, loop.index, each)
                loop.next(*self._step(loop.index, self._rows_at(loop.index), loop.carried))
            return loop.results
        with f.loop(0, self.steps, STEPS, carry=sums) as loop:
            self._prefetch(ahead, f.divmod(loop.index, STEPS)[0], self.spec.b.prefetch_lines)
            end = f.min_(loop.index + STEPS, self.steps)
            loop.next(*self._steps(loop.index, end, loop.carried, None))
        return loop.results

    def _steps(self, first: Ix, end: Ix, sums: Sequence[Val], unroll: int | None) -> Sequence[Val]:
        with self.f.loop(first, end, carry=sums, unroll=unroll) as loop:
            loop.next(*self._step(loop.index, self._rows_at(loop.index), loop.carried))
        return loop.results

    def _rows_at(self, k: Ix) -> list[Ix]:
        return [row + k * self.spec.a.step for row in self.rows]

    def _step(self, k: Ix, rows: list[Ix], sums: Sequence[Val]) -> list[Val]:
        """Step k of the sums; `rows`: where it finds the rows of a."""
        f, spec, lanes, dtype = self.f, self.spec, self.shape.lanes, self.c.dtype
        columns = [load_as(f, dtype, self.b, [k * spec.b.step + v * lanes], lanes, mask)
                   for v, mask in enumerate(self.masks)]
        following = []
        for i, row in enumerate(rows):
            value = f.load(self.a, [row])
            if self.packed is not None:
                f.store(self.packed, [k * spec.a.packs + i], value)
            factor = f.splat(as_factor(f, value, dtype), lanes)
            following += [multiply_add(f, factor, column, sums[i * self.shape.vectors + v], self.shape.fused)
                          for v, column in enumerate(columns)]
        return following

    def _store(self, sums: Sequence[Val]) -> None:
        """What c holds is added at the end, not at the start: sums are blocked."""
        f, lanes, vectors = self.f, self.shape.lanes, self.shape.vectors
        for i in range(self.shape.mr):
            row = _up_to(f, self.row_step * i, self.last if i else None)
            for v in range(vectors):
                at = [row + v * lanes]
                f.store(self.c, at, self._merged(v, f.load(self.c, at, lanes), sums[i * vectors + v]))

    def _merged(self, v: int, before: Val, new: Val) -> Val:
        """What c will hold in vector v of a row."""
        f, lanes = self.f, self.shape.lanes
        if self.factors is None:
            return f.select(self.accumulate, f.add(before, new), new)
        return multiply_add(f, before, f.load(self.factors, [v * lanes], lanes), new, self.shape.fused)


def _up_to(f: LoopFunction, place: Ix, last: Ix | None) -> Ix:
    """The place, but not one behind the last."""
    return place if last is None else f.min_(place, last)


def load_as(f: LoopFunction, dtype: DType, view: View, index: Sequence[Ix], lanes: int = 1,
            mask: Val | None = None) -> Val:
    """Loads a factor from storage, as sums of this type take it."""
    return as_factor(f, f.load(view, index, lanes, mask), dtype)


def as_factor(f: LoopFunction, value: Val, dtype: DType) -> Val:
    """In the type in which sums are computed; what is packed stays so, for `multiply_add`."""
    return value if value.dtype.is_packed else f.cast(value, dtype)


def store_as(f: LoopFunction, view: View, index: Sequence[Ix], value: Val, mask: Val | None = None) -> None:
    """Converts to what the memory holds, and stores."""
    f.store(view, index, f.cast(value, view.dtype), mask)


def multiply_add(f: LoopFunction, a: Val, b: Val, c: Val, fused: bool) -> Val:
    """a * b + c in one rounding where the target can, else in two; integers wrap. Of packed factors all products."""
    if a.dtype.is_packed:
        return f.dot(a, b, c)
    return f.fma(a, b, c) if fused and c.dtype.is_float else f.add(f.mul(a, b), c)
