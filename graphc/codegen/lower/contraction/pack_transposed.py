"""Functions that pack vectors of columns which lie along k: squares of elements are transposed in registers. That is
much code, so all packing of a form shares one function, as products share micro-kernels: offsets and counts are
arguments.
"""
from __future__ import annotations

from functools import cache
from typing import Any

from graphc.codegen.loops.builder import LoopFunction, Val
from graphc.codegen.loops.index import ELEMENTS, Ix
from graphc.codegen.loops.index_proofs import at_least, at_most
from graphc.codegen.lower.contraction.micro_kernel import ANY, store_as
from graphc.codegen.lower.contraction.phase import PhaseLowering
from graphc.codegen.lower.ranges import Range, offset, unflatten
from graphc.codegen.lower.transpose import transposed_runs
from graphc.ir.dims import Dim
from graphc.ir.size_proofs import is_nonnegative
from graphc.ir.types import DType
from graphc.records import dataclass


@dataclass(frozen=True)
class ColumnStarts:
    """Where a vector of columns begins in b: `offsets` of each; or, if `even`, of the first, the distance to the next,
    and the last, which those past it repeat."""
    offsets: tuple[Ix, ...]
    even: bool

    def moved(self, by: Ix) -> ColumnStarts:
        first, *others = self.offsets
        if self.even:
            distance, last = others
            return ColumnStarts((first + by, distance, last + by), True)
        return ColumnStarts(tuple([start + by for start in self.offsets]), False)

    def each(self, f: LoopFunction, lanes: int) -> list[Ix]:
        """Where each column begins."""
        if not self.even:
            return list(self.offsets)
        first, distance, last = self.offsets
        return _evenly(f, lanes, first, distance.const, last)

    @property
    def are_known(self) -> bool:
        """Whether all are known to lie in memory, as arguments must."""
        return all(at_least(start, 0) for start in self.offsets)


def _evenly(f: LoopFunction, count: int, first: Ix, distance: Ix | Dim, last: Ix) -> list[Ix]:
    """So many places, those past the last one there."""
    steps = [first + distance * i for i in range(count)]
    return steps if at_most(steps[-1] - last, 0) else [first, *[f.min_(place, last) for place in steps[1:]]]


def column_starts(c: PhaseLowering[Any], columns: Range, first: Ix, lanes: int) -> ColumnStarts:
    """Of the columns of a range from `first` on; those past the end repeat the last one."""
    f, p, last = c.f, c.phase, c.n - 1
    flat, step = columns.flat + first, p.b.strides[p.n[-1]]
    if p.b.steps_evenly(p.n, p.sizes) and is_nonnegative(step):
        return ColumnStarts((flat * step + p.b.base, Ix(step), Ix(last * step) + p.b.base), even=True)
    places = [offset(p.b, unflatten(f, f.min_(flat + i, last), p.n, p.sizes)) for i in range(lanes)]
    return ColumnStarts(tuple(places), even=False)


@dataclass(frozen=True)
class PackedForm:
    """Which function packs a vector of `lanes` columns. even: as of their starts."""
    source: DType
    target: DType
    lanes: int
    even: bool

    @property
    def name(self) -> str:
        return f"{self.source}_{self.target}_{self.lanes}{'_even' if self.even else ''}"


@dataclass(frozen=True)
class TapsForm(PackedForm):
    """Of `taps` neighbours in memory of some channels, which are `channel` apart; `reverse`: the last is packed first.
    """
    taps: int
    channel: int
    reverse: bool


class _Packing:
    """A function while it is written: views of b and of where it is packed; integers: how many of what it packs (at
    least `least`), how far apart these are packed, where the last of them begins there, and the starts in b."""

    def __init__(self, name: str, form: PackedForm, least: int) -> None:
        self.f = f = LoopFunction(f"pack_{name}_{form.name}", noalias=True)
        self.b, self.y = f.view("b", form.source, (ANY,), (1,)), f.view("y", form.target, (ANY,), (1,))
        self.count = f.param("count", least, ELEMENTS)
        self.distance, self.last = f.param("distance", 0, ELEMENTS), f.param("last", 0, ELEMENTS)
        names = ("first", "step", "final") if form.even else [f"row{i}" for i in range(form.lanes)]
        given = [f.param(each, 0, ELEMENTS) for each in names]
        self.rows = _evenly(f, form.lanes, *given) if form.even else given

    def columns(self, at: Ix, width: int | None = None) -> list[Val]:
        """The first `width` (all) steps from `at` on, as vectors across columns."""
        return transposed_runs(self.f, self.b, [row + at for row in self.rows], width)

    def place(self, number: Ix) -> Ix:
        """Where one of what is packed begins. The minimum is for whoever proves that it is inside."""
        return self.f.min_(self.f.product(number, self.distance), self.last)


@cache
def packed_runs(form: PackedForm) -> LoopFunction:
    """Packs steps of k, at any of which a column may start. The last square overlaps the one before."""
    p, lanes = _Packing("runs", form, form.lanes), form.lanes
    with p.f.loop(0, p.count, lanes) as loop:
        at, place = p.f.min_(loop.index, p.count - lanes), p.place(loop.index)
        for step, row in enumerate(p.columns(at)):
            store_as(p.f, p.y, [place + p.distance * step], row)
    return p.f


@cache
def packed_taps(form: TapsForm) -> LoopFunction:
    """Packs all taps of some channels; one more integer: how far apart taps are packed."""
    taps, lanes = form.taps, form.lanes
    p = _Packing(f"{taps}_taps_{'reversed_' if form.reverse else ''}of{form.channel}", form, 1)
    tap_distance = p.f.param("tap", 0, ELEMENTS)
    with p.f.loop(0, p.count) as loop:
        place = p.place(loop.index)
        for first in range(0, taps, lanes):
            rows = p.columns(loop.index * form.channel + first, min(lanes, taps - first))
            for tap, row in enumerate(rows, first):
                store_as(p.f, p.y, [place + tap_distance * (taps - 1 - tap if form.reverse else tap)], row)
    return p.f
