"""Padded copies of operands: made once, so that the loops that read them need no tests."""
from __future__ import annotations


from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contraction.micro_kernel import store_as
from graphc.codegen.lower.ranges import unflatten, vector_run
from graphc.codegen.lower.transpose import transposed
from graphc.errors import Unsized
from graphc.ir.dims import Dim, ceil_div, largest, lower, product_of, smallest, typical
from graphc.ir.size_proofs import is_nonnegative
from graphc.records import dataclass
from graphc.schedule.contraction_form import PaddedCopy

TILE_BYTES = 64 << 10           # copied by one tile


def pad_copy(f: LoopFunction, source: View, copy: PaddedCopy, target: View, lanes: int) -> View:
    """Fills `target` (flat): zeros outside the source."""
    _PadCopy(f, source, copy, target, lanes).run()
    return target


@dataclass(frozen=True)
class _PadCopy:
    """The copy, row after row: a row is the innermost padded axis (of a copy with its channels last at least the axis
    around the channels) with all that lies inside it.
    """
    f: LoopFunction
    source: View
    copy: PaddedCopy
    target: View
    lanes: int

    def run(self) -> None:
        f, copy = self.f, self.copy
        # of equal strides are those of a single channel and of the axis around it
        order = {x: (-copy.strides[x], x == copy.channels, x) for x in range(len(copy.shape))}
        axes = tuple(sorted(order, key=order.__getitem__))
        padded = [p for p, x in enumerate(axes) if copy.low[x] != 0 or copy.shape[x] != self.source.shape[x]]
        start = min(padded[-1:] + [len(axes) - 2] * (copy.channels is not None))
        rows, row = axes[:start], axes[start:]
        count = product_of(copy.shape[x] for x in rows)
        row_bytes = typical(product_of(copy.shape[x] for x in row)) * self.source.dtype.itemsize
        per_tile = max(1, min(typical(count), TILE_BYTES // row_bytes, -(-typical(count) // 32)))
        with f.parallel(ceil_div(count, per_tile), "pad") as tile:
            with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - tile * per_tile)) as loop:
                self._row(rows, row, tile * per_tile + loop.index)

    def _row(self, rows: tuple[int, ...], row: tuple[int, ...], number: Ix) -> None:
        """One row: the source's row between zeros when the row lies inside the source, else all zeros."""
        f = self.f
        size = product_of(self.copy.shape[x] for x in row)
        inside, origin = self._source_position(unflatten(f, number, rows, self.copy.shape))
        if inside is None:
            return self._copy_row(row, origin, number * size)
        with f.if_(inside):
            self._copy_row(row, origin, number * size)
        with f.else_():
            self._fill(number * size, size)

    def _source_position(self, index: dict[int, Ix]) -> tuple[Val | None, list[Ix]]:
        """Whether the row is inside the source (None: always), and where it is there (clamped to be somewhere)."""
        f, source, copy = self.f, self.source, self.copy
        inside, origin = None, [Ix()] * len(copy.shape)
        for x, ix in index.items():
            at = ix + copy.low[x]
            if not is_nonnegative(copy.low[x]):
                inside = _both(f, inside, f.ge(f.value(at), 0))
                at = f.max_(at, 0)
            size = source.shape[x]
            if not is_nonnegative(size - copy.low[x] - copy.shape[x]):
                end = size if isinstance(size, int) else f.value(size)
                inside = _both(f, inside, f.lt(f.value(ix + copy.low[x]), end))
                at = f.min_(at, size - 1)
            origin[x] = at
        return inside, origin

    def _copy_row(self, row: tuple[int, ...], origin: list[Ix], start: Ix) -> None:
        """Zeros before, the source's elements, zeros after."""
        source, copy, x = self.source, self.copy, row[0]
        inner = product_of(copy.shape[y] for y in row[1:])
        before = largest(0, -copy.low[x])
        first = largest(0, copy.low[x])
        count = smallest(source.shape[x], copy.low[x] + copy.shape[x]) - first
        after = copy.shape[x] - before - largest(0, count)
        self._fill(start, before * inner)
        if not isinstance(count, int) and not is_nonnegative(count - 1):
            raise Unsized(f"a padded copy may have no element of a row of {source.shape[x]}", condition=count - 1)
        if count > 0:
            begin: list[Ix | Dim] = list(origin)
            begin[x] = first
            # the copy may have room between its lines
            counts = [count, *[smallest(copy.shape[y], source.shape[y]) for y in row[1:]]]
            steps = [product_of(copy.shape[z] for z in row[place + 1:]) for place in range(len(row))]
            self._copy_axes(source.view_at(begin), row, counts, steps, start + before * inner)
        self._fill(start + (copy.shape[x] - after) * inner, after * inner)

    def _copy_axes(self, source: View, axes: tuple[int, ...], counts: list[Dim], steps: list[Dim], start: Ix) -> None:
        """Copies a block of the source, `counts` elements of its axes `axes` from its start, to memory in which these
        are `steps` apart."""
        f, lanes = self.f, self.lanes
        if len(axes) > 1 and (source.strides[axes[-2]], steps[-2]) == (source.strides[axes[-1]] * counts[-1],
                                                                      steps[-1] * counts[-1]):
            return self._copy_axes(source, axes[:-2] + axes[-1:], counts[:-2] + [counts[-2] * counts[-1]],
                                   steps[:-2] + steps[-1:], start)
        if len(axes) == 2 and lower(counts[1]) >= lanes and source.strides[axes[0]] == 1:
            block = f.reinterpret(source, (counts[1], counts[0]), (source.strides[axes[1]], 1))
            return self._transpose(block, start, steps[0])
        if len(axes) == 1:
            run = f.reinterpret(source, (counts[0],), (source.strides[axes[0]],))
            return copy_run(f, run, self.target, start, counts[0], lanes)
        with f.loop(0, counts[0]) as loop:
            shifted = source.view_at([loop.index if x == axes[0] else Ix() for x in range(len(source.shape))])
            self._copy_axes(shifted, axes[1:], counts[1:], steps[1:], start + loop.index * steps[0])

    def _transpose(self, source: View, start: Ix, step: Dim) -> None:
        """target[start + j * step + i] = source[i, j], by square blocks; the last rows overlap those before them."""
        f, lanes = self.f, self.lanes
        rows, columns = source.shape
        with f.loop(0, ceil_div(rows, lanes)) as loop:
            i = f.min_(loop.index * lanes, rows - lanes)

            def block(j: Ix, count: int) -> None:
                for number, column in enumerate(transposed(f, source, i, j, lanes, count)):
                    store_as(f, self.target, [start + (j + number) * step + i], column)
            with f.loop(0, columns // lanes * lanes, lanes) as inner:
                block(inner.index, lanes)
            rest = columns % lanes
            if not isinstance(rest, int):
                with f.loop(columns // lanes * lanes, columns) as inner:
                    block(inner.index, 1)
            elif rest:
                block(Ix(columns // lanes * lanes), rest)

    def _fill(self, start: Ix, count: Dim) -> None:
        f, target, lanes = self.f, self.target, self.lanes
        zero = f.const(0, target.dtype, lanes)
        if not isinstance(count, int):
            return vector_run(f, Ix(count), lanes, lambda i, _, mask: f.store(target, [start + i], zero, mask))
        with f.loop(0, count // lanes * lanes, lanes) as loop:
            f.store(target, [start + loop.index], zero)
        for at, width in _halves(count % lanes, lanes):
            f.store(target, [start + (count // lanes * lanes + at)], f.const(0, target.dtype, width))


def _both(f: LoopFunction, a: Val | None, b: Val) -> Val:
    return b if a is None else f.and_(a, b)


def copy_run(f: LoopFunction, source: View, target: View, start: Ix, count: Dim, lanes: int) -> None:
    """target[start + i] = source[i]"""
    if not isinstance(count, int):
        return vector_run(f, Ix(count), lanes, lambda i, width, mask: store_as(
            f, target, [start + i], f.load(source, [i], width, mask), mask))
    with f.loop(0, count // lanes * lanes, lanes) as loop:
        store_as(f, target, [start + loop.index], f.load(source, [loop.index], lanes))
    for at, width in _halves(count % lanes, lanes):
        first = count // lanes * lanes + at
        store_as(f, target, [start + first], f.load(source, [first], width))


def _halves(rest: int, lanes: int) -> list[tuple[int, int]]:
    """(start, width) of the parts of a tail of less than `lanes` elements: 7 are 4, 2 and 1."""
    parts, at, width = [], 0, lanes // 2
    while rest - at > 0:
        if width <= rest - at:
            parts.append((at, width))
            at += width
        width //= 2
    return parts
