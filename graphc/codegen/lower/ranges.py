"""Index arithmetic over groups of dims: positions in the flattened group, contiguous ranges of it, walks through a
range.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.ir.dims import Dim, Dims, product_of, static_dim
from graphc.records import dataclass
from graphc.schedule.blocking import Cut
from graphc.schedule.contraction_form import LinearMap

Index = dict[int, Ix]


def unflatten(f: LoopFunction, flat: Ix | int, dims: Sequence[int],
              sizes: Sequence[Dim] | Mapping[int, Dim]) -> Index:
    """The index of each dim at a position of the flattened group; `sizes` by dim id."""
    index: Index = {}
    rest = as_ix(flat)
    for d in reversed(dims[1:]):
        rest, index[d] = f.divmod(rest, sizes[d])
    return {dims[0]: rest} | index if dims else {}


def offset(t: LinearMap[Dim], index: Index) -> Ix:
    """Where the operand has the element at `index`; dims that are missing are at 0."""
    total = Ix(t.base)
    for d, ix in index.items():
        total = total + ix * t.strides[d]
    return total


@dataclass(frozen=True)
class Range:
    """A contiguous range of a flattened group: whole inner dims, `count` of the split dim from `start` on, one of the
    outer ones.
    """
    dims: tuple[int, ...]
    sizes: Dims                     # of the dims of the group
    split: int
    outer: Index                    # dims outside the split
    start: Ix
    count: Ix
    flat: Ix                        # position of the first element in the flattened group
    inner: Dim

    @property
    def length(self) -> Ix:
        return self.count * self.inner

    @property
    def first(self) -> Index:
        """Index of the first element."""
        return self.outer | {self.dims[self.split]: self.start}


def open_range(f: LoopFunction, dims: tuple[int, ...], sizes: Dims, cut: Cut, number: Ix) -> Range:
    """Range `number` of those into which `cut` parts the group."""
    by_dim = dict(zip(dims, sizes))
    ranges = cut.per_dim(sizes)
    outer, part = f.divmod(number, ranges) if cut.split or isinstance(ranges, int) else (Ix(), number)
    start = part * cut.chunk
    whole = sizes[cut.split] % cut.chunk == 0
    count = as_ix(cut.chunk if whole else f.min_(cut.chunk, sizes[cut.split] - start))
    inner = cut.inner(sizes)
    flat = outer * (sizes[cut.split] * inner) + start * inner
    return Range(dims, sizes, cut.split, unflatten(f, outer, dims[:cut.split], by_dim), start, count, flat, inner)


def part_of(f: LoopFunction, r: Range, at: Ix, length: int) -> Range:
    """A part of a range that is cut into pieces of `length` elements, the last maybe shorter; `at` is where it
    starts. Both are whole elements of the split dim.
    """
    start, _ = f.divmod(at, r.inner)
    return replace(r, start=r.start + start, count=_count_of_part(f, r.count, start, length // static_dim(r.inner)),
                   flat=r.flat + at)


def _count_of_part(f: LoopFunction, count: Ix, start: Ix, most: int) -> Ix:
    """A number where it is the same for all parts."""
    if count.is_const and (count.const <= most or count.const % most == 0):
        return Ix(min(count.const, most))
    return f.min_(most, count - start)


@contextmanager
def walk(f: LoopFunction, r: Range, upto: int | None = None) -> Iterator[tuple[Index, Ix]]:
    """Loops over a range, outer to inner, over its dims before number `upto` (default: all): the index, and the
    position in the range.
    """
    upto = len(r.dims) if upto is None else upto
    index, at = dict(r.outer), Ix()
    with ExitStack() as stack:
        for position in range(r.split, upto):
            split = position == r.split
            trip = stack.enter_context(f.loop(0, r.count if split else r.sizes[position])).index
            index[r.dims[position]] = r.start + trip if split else trip
            at = at + trip * _inside(r, position)
        yield index, at


def _inside(r: Range, position: int) -> Dim:
    return product_of(r.sizes[position + 1:])


@contextmanager
def walk_runs(f: LoopFunction, r: Range) -> Iterator[tuple[Index, Ix, Ix, Ix]]:
    """Loops over all but the innermost dim: the index without it, the position in the range, where the run starts in
    the innermost dim, and its length.
    """
    last = len(r.dims) - 1
    with walk(f, r, last) as (index, at):
        if r.split == last:
            yield dict(r.outer), at, r.start, r.count
        else:
            yield index, at, Ix(), Ix(r.sizes[last])


def vector_run(f: LoopFunction, count: Ix, lanes: int, body: Callable[[Ix, int, Val | None], None]) -> None:
    """body(i, lanes, mask) for i = 0, lanes, … < count, the last vector masked if it is not whole."""
    whole, rest = f.divmod(count, lanes)
    with f.loop(0, whole * lanes, lanes) as loop:
        body(loop.index, lanes, None)
    if rest.is_const and isinstance(rest.const, int):
        if rest.const:
            body(whole * lanes, lanes, f.tail_mask(rest, lanes))
        return
    with f.if_(f.gt(f.value(rest), 0)):
        body(whole * lanes, lanes, f.tail_mask(rest, lanes))


def load_spaced(f: LoopFunction, memory: View, start: Ix, step: Dim, lanes: int, mask: Val | None) -> Val:
    """Elements start, start + step, … of a flat view."""
    if lanes == 1 or step == 0:
        return f.splat(f.load(memory, [start]), lanes)
    if step == 1:
        return f.load(memory, [start], lanes, mask)
    return f.load(View(memory.root, (lanes,), (step,), memory.start + start, memory.dtype), [0], lanes, mask)
