"""Where finished sums go: through the epilogue, if there is one, and into the outputs, whatever their layout."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.ranges import Index, offset, unflatten
from graphc.ir.contraction import AxisMap, Maps
from graphc.ir.dims import Dim, Dims, product_of
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.contraction_form import Phase
from graphc.schedule.target import LINE_BYTES
from graphc.schedule.view import contiguous_strides


class EpilogueFunction(Protocol):
    """(function, sums, index in the outputs, lanes, mask, axis of the lanes) -> what is stored in each output"""

    def __call__(self, f: LoopFunction, sums: Val, index: Sequence[Ix], lanes: int, mask: Val | None,
                 axis: int) -> list[Val]:
        ...

    def exact(self, f: LoopFunction, sums: Val, index: Sequence[Ix], lanes: int, mask: Val | None,
              axis: int) -> list[Val]:
        """The same before results are rounded to fewer bits, where that is the last step."""

    def prefetch(self, f: LoopFunction, index: Sequence[Ix], axis: int, column: int = 0) -> None:
        """What it reads beside the sum at `index`, which is `column` behind the first of its row."""

    def run_together(self, strides: Dims) -> "EpilogueFunction | None":
        """The same with as many last axes as there are strides taken as one; None unless they have these strides, or
        none, in all operands.
        """


class GateEpilogueFunction(Protocol):
    """The same with the sums of all gates of a vector of units."""

    def __call__(self, f: LoopFunction, sums: Sequence[Val], index: Sequence[Ix], lanes: int, mask: Val | None,
                 axis: int) -> list[Val]:
        ...

    def prefetch(self, f: LoopFunction, index: Sequence[Ix], axis: int) -> None:
        """What it reads beside the sums of one gate."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a contraction, as one phase of it sees them. Without an epilogue there is one, the sums.

    axes: of each output, as the contraction's dims index them.
    """
    f: LoopFunction
    views: tuple[View, ...]
    epilogue: EpilogueFunction | None
    axes: Maps
    phase: Phase[Dim]

    @property
    def flat(self) -> View:
        """The memory of the first output."""
        return flat(self.f, self.views[0])

    def store(self, index: Index, last: int, sums: Val, lanes: int, mask: Val | None) -> None:
        """Stores sums along dim `last`, after the epilogue if there is one."""
        if self.epilogue is None:
            out, step = self.flat, self.phase.out.strides[last] if lanes > 1 else 1
            line = View(out.root, (lanes,), (step,), out.start + offset(self.phase.out, index))
            return self.f.store(line, [0], sums, mask)
        axis = self._axis(last)
        at = self.index_of(index)
        self._store_at(at, axis, self.epilogue(self.f, sums, at, lanes, mask, axis), mask)

    def prefetch(self, index: Index, last: int, columns: range) -> None:
        """The lines that are read and written beside the sums `columns` behind `index` along dim `last`; what lies
        otherwise is not far from one sum to the next."""
        axis = self.vector_axis(last)
        if self.epilogue is None or axis is None:
            return
        for column in columns:
            at = self.index_of(index | {last: index[last] + column})
            self.epilogue.prefetch(self.f, at, axis, column)
            for out in self.views:
                if begins_line(out.dtype, column):
                    self.f.prefetch(out, at, level=2)

    def store_several(self, indices: Sequence[Index], last: int, sums: Sequence[Val], mask: Val | None) -> None:
        """The same of several vectors, in order. Their results are rounded to fewer bits together: where an instruction
        rounds some numbers otherwise, code looks for these once, and no branch stands between vectors of sums."""
        if self.epilogue is None or len(sums) == 1:
            for index, each in zip(indices, sums, strict=True):
                self.store(index, last, each, each.lanes, mask)
            return
        axis, places = self._axis(last), [self.index_of(index) for index in indices]
        exact = [self.epilogue.exact(self.f, each, at, each.lanes, mask, axis) for at, each in zip(places, sums)]
        stored = [cast_together(self.f, values, out.dtype) for out, values in zip(self.views, zip(*exact))]
        for at, values in zip(places, zip(*stored, strict=True), strict=True):
            self._store_at(at, axis, values, mask)

    def _axis(self, last: int) -> int:
        found = self.vector_axis(last)
        return max(0, len(self.views[0].shape) - 1) if found is None else found

    def _store_at(self, at: list[Ix], axis: int, values: Sequence[Val], mask: Val | None) -> None:
        for out, value in zip(self.views, values, strict=True):
            view, place = along(out, at, axis)
            self.f.store(view, place, value, mask)

    def joined(self, dims: Sequence[int]) -> "Outputs | None":
        """The same with the axes of these dims as one, the last, in which the index of the last dim goes on beyond its
        size. None unless elements along the dims lie side by side in all outputs, and whatever the epilogue reads has
        these axes as they have, or none of them.
        """
        wanted = {dim for d in dims for _, dim, _, _ in self.phase.parts[d]}
        first = next((x for x, m in enumerate(self.axes) if wanted & {*m.dims}), len(self.axes))
        out = self.phase.out
        if out.strides[dims[-1]] != 1 or not out.steps_evenly(dims, self.phase.sizes):
            return None
        return self.together(len(self.axes) - first)

    def together(self, count: int) -> "Outputs | None":
        """The same with so many last axes as one; None where they are not one in all outputs and operands of the
        epilogue, or there is none."""
        first = len(self.axes) - count
        axes, shape = self.axes[first:], self.views[0].shape[first:]
        strides = contiguous_strides(shape)
        steps = [step for step in strides if isinstance(step, int)]
        if len(axes) < 2 or len(steps) < len(axes) or any(v.strides[first:] != strides for v in self.views):
            return None
        epilogue = self.epilogue and self.epilogue.run_together(strides)
        if epilogue is None:
            return None
        one = AxisMap(tuple([(c * step, d) for m, step in zip(axes, steps) for c, d in m.terms]),
                      sum(m.offset * step for m, step in zip(axes, steps)))
        views = tuple([self.f.reinterpret(v, (*v.shape[:first], product_of(shape)), (*v.strides[:first], 1))
                       for v in self.views])
        return replace(self, views=views, epilogue=epilogue, axes=(*self.axes[:first], one))

    def vector_axis(self, last: int) -> int | None:
        """The output axis along which dim `last` steps by one, or None."""
        parts = self.phase.parts[last]
        if not parts:
            return len(self.views[0].shape) - 1 if self.views[0].shape else None
        _, d, step, _ = parts[-1]
        for x, m in enumerate(self.axes):
            for coefficient, dim in m.terms:
                if dim == d:
                    return x if coefficient * step == 1 else None
        return None

    def takes_vectors(self, last: int) -> bool:
        """Whether sums along dim `last` may be stored a vector at a time."""
        return self.epilogue is None or self.vector_axis(last) is not None

    def index_of(self, index: Index) -> list[Ix]:
        """The index on each output axis of an element of the phase."""
        without_loop = (part for parts in self.phase.parts for part in parts if part[0] == 1)
        original: Index = {dim: Ix(start) for _, dim, _, start in without_loop}
        for d, ix in index.items():
            parts = self.phase.parts[d]
            positions = unflatten(self.f, ix, range(len(parts)), [part[0] for part in parts])
            for i, (_, dim, step, start) in enumerate(parts):
                original[dim] = positions[i] * step + start
        return [sum((original.get(dim, Ix()) * c for c, dim in m.terms), Ix(m.offset)) for m in self.axes]


def begins_line(dtype: DType, column: int) -> bool:
    """Whether the element `column` behind one that begins a line of the caches does so, too."""
    return column * dtype.itemsize % LINE_BYTES == 0


def cast_together(f: LoopFunction, values: Sequence[Val], dtype: DType) -> list[Val]:
    """Vectors of equal length in another type; to one in which numbers are only stored as one long vector."""
    lanes = values[0].lanes
    if len(values) == 1 or values[0].dtype is dtype or not dtype.is_storage or lanes & (lanes - 1):
        return [f.cast(v, dtype) for v in values]
    half = 1 << (len(values) - 1).bit_length() - 1
    if half == len(values) or len(values) & (len(values) - 1):
        return [*cast_together(f, values[:half], dtype), *cast_together(f, values[half:], dtype)]
    whole = f.cast(_joined(f, values), dtype)
    return [f.shuffle(whole, None, range(i * lanes, (i + 1) * lanes)) for i in range(len(values))]


def _joined(f: LoopFunction, values: Sequence[Val]) -> Val:
    """A power of two of vectors, one after the other."""
    while len(values) > 1:
        values = [f.shuffle(a, b, range(2 * a.lanes)) for a, b in zip(values[::2], values[1::2])]
    return values[0]


def flat(f: LoopFunction, view: View) -> View:
    """The memory of a view, from its first element to its last."""
    extent = 1 + sum(s * (n - 1) for n, s in zip(view.shape, view.strides)) if 0 not in view.shape else 0
    return f.reinterpret(view, (extent,), (1,))


def along(view: View, index: Sequence[Ix], axis: int) -> tuple[View, list[Ix]]:
    """The view and the index with `axis` moved last."""
    order = [x for x in range(len(index)) if x != axis] + [axis] * bool(index)
    moved = View(view.root, tuple(view.shape[x] for x in order), tuple(view.strides[x] for x in order), view.start)
    return moved, [index[x] for x in order]


def load_along(f: LoopFunction, view: View, index: Sequence[Ix], axis: int, lanes: int, mask: Val | None) -> Val:
    """Loads lanes along output axis `axis` from a view of the output's rank; axes of size 1 broadcast."""
    if not index:
        return f.load(view, [])
    index = [Ix() if n == 1 else as_ix(ix) for n, ix in zip(view.shape, index, strict=True)]
    if view.shape[axis] == 1:
        return f.splat(f.load(view, index), lanes)
    moved, place = along(view, index, axis)
    return f.load(moved, place, lanes, mask)
