"""Packing for the micro-kernel: rows of a as panels [k][mr], columns of b as [k][step] with panels of the register tile's width.

Vector copies where the operand is contiguous along the packed rows or columns; transposed in registers where it is contiguous along
k; element by element otherwise.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from graphc.codegen.loops.builder import LoopFunction, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.ranges import (
    Index, Range, load_spaced, offset, steps_evenly, unflatten, vector_run, walk, walk_runs)
from graphc.codegen.lower.transpose import gathered, transposed_runs
from graphc.schedule.blocking import ColumnPacking, PackingMode
from graphc.schedule.contraction_schedule import STEPS, column_packing, group_sizes, taps


@dataclass(frozen=True)
class Panels:
    """Where packed columns go: column j of a tile, step i of k: start + (j / width) * panel + i * step + j % width."""
    memory: View
    start: Ix
    width: int
    panel: int
    step: int

    def at(self, f: LoopFunction, column: Ix) -> Ix:
        """Where a column (of a tile; a whole vector starts there) begins."""
        panel, lane = f.divmod(column, self.width)
        return self.start + panel * self.panel + lane


def pack_b(job: Job, batch: Index, columns: Range, sums: Range, target: Panels) -> None:
    """Packs a range of columns and of k."""
    PACKERS[b_packing(job)](job, batch, columns, sums, target)


def b_packing(job: Job) -> ColumnPacking:
    return column_packing(job.phase, job.schedule.lanes)


def _copy_panels(job: Job, batch: Index, columns: Range, sums: Range, target: Panels) -> None:
    """b is contiguous along its only column dim: rows of vectors."""
    f, p, lanes = job.f, job.phase, job.schedule.lanes
    d, nr = p.n[0], job.schedule.blocking.nr
    ragged = job.n % nr != 0
    with walk(f, sums) as (k, at):
        source = offset(p.b, batch | k | columns.outer | {d: columns.start})
        with f.loop(0, columns.count, nr) as loop:
            place = target.at(f, loop.index) + at * target.step
            for v in range(job.schedule.vectors):
                column = loop.index + v * lanes
                mask = f.tail_mask(columns.count - column, lanes) if ragged else None
                f.store(target.memory, [place + v * lanes], f.load(job.b, [source + column], lanes, mask))


def _copy_runs(job: Job, batch: Index, columns: Range, sums: Range, target: Panels) -> None:
    """Runs along the innermost column dim, side by side.

    In thread scratch whole vectors are stored: what they write past a run is overwritten by the next one (masked stores are slow).
    """
    f, p = job.f, job.phase
    last = p.n[-1]
    stride, private = p.b.strides[last], job.schedule.b is PackingMode.PER_TILE
    with walk(f, sums) as (k, at), walk_runs(f, columns) as (n, column, first, count):
        source = offset(p.b, batch | k | n | {last: first})
        start = target.start + at * target.step + column
        vector_run(f, count, job.schedule.lanes, lambda i, lanes, mask: f.store(
            target.memory, [start + i], load_spaced(f, job.b, source + i * stride, stride, lanes, mask), None if private else mask))


def _transpose_columns(job: Job, batch: Index, columns: Range, sums: Range, target: Panels) -> None:
    """b is contiguous along k: blocks of lanes × lanes are transposed in registers."""
    f, p, lanes = job.f, job.phase, job.schedule.lanes
    last = p.k[-1]
    with f.loop(0, columns.length, lanes) as loop:
        place = target.at(f, loop.index)
        starts = [_column_start(job, columns.flat + (loop.index + c)) for c in range(lanes)]
        with walk_runs(f, sums) as (k, at, first, count):
            base = offset(p.b, batch | k | {last: first}) - p.b.base
            whole, rest = f.divmod(count, lanes)

            def block(i: Ix, steps: int) -> None:
                for step, row in enumerate(transposed_runs(f, job.b, [s + base + i for s in starts], steps)):
                    f.store(target.memory, [place + (at + i + step) * target.step], row)
            with f.loop(0, whole * lanes, lanes) as inner:
                block(inner.index, lanes)
            if rest.is_const and rest.const >= 3:
                return block(whole * lanes, rest.const)
            with f.loop(whole * lanes, count) as inner:
                row = gathered(f, job.b, [s + base + inner.index for s in starts])
                f.store(target.memory, [place + (at + inner.index) * target.step], row)


def _transpose_taps(job: Job, batch: Index, columns: Range, sums: Range, target: Panels) -> None:
    """b holds all kernel positions of a channel side by side: for each channel these are transposed. `sums` is all of k."""
    f, p, lanes = job.f, job.phase, job.schedule.lanes
    together = taps(p)
    others = tuple(d for d in p.k if d not in together)
    count = prod(p.sizes[d] for d in together)
    steps = {d: prod(p.sizes[e] for e in p.k[position + 1:]) for position, d in enumerate(p.k)}
    walks = [range(p.sizes[d]) if p.b.strides[d] > 0 else range(p.sizes[d] - 1, -1, -1) for d in together]
    places = [sum(steps[d] * i for d, i in zip(together, index)) for index in product(*walks)]       # in the order of memory
    back = sum(min(0, p.b.strides[d]) * (p.sizes[d] - 1) for d in together)
    rest = Range(others, group_sizes(p, others), 0, {}, Ix(), Ix(p.sizes[others[0]]), Ix(), 1)
    with f.loop(0, columns.length, lanes) as loop:
        place = target.at(f, loop.index)
        starts = [_column_start(job, columns.flat + (loop.index + c)) for c in range(lanes)]
        with walk(f, rest) as (k, _):
            base = offset(p.b, batch | k) - p.b.base + back
            at = sum((k[d] * steps[d] for d in others), Ix())
            for first in range(0, count, lanes):
                width = min(lanes, count - first)
                if width == 1:
                    rows = [gathered(f, job.b, [s + base + first for s in starts])]
                else:
                    rows = transposed_runs(f, job.b, [s + base + first for s in starts], width)
                for i in range(width):
                    f.store(target.memory, [place + (at + places[first + i]) * target.step], rows[i])


def _column_start(job: Job, flat: Ix) -> Ix:
    """Offset in b of a column; columns past the end repeat the last one."""
    p = job.phase
    return offset(p.b, unflatten(job.f, job.f.min_(flat, job.n - 1), p.n, p.sizes))


PACKERS = {ColumnPacking.PANELS: _copy_panels, ColumnPacking.RUNS: _copy_runs, ColumnPacking.TRANSPOSED: _transpose_columns,
           ColumnPacking.TAPS: _transpose_taps}


# --- rows of a -------------------------------------------------------------------------------------------------------------

def pack_a(job: Job, batch: Index, first_row: Ix, rows: Ix, sums: Range, memory: View, start: Ix, panel: int) -> None:
    """Panels of mr rows: row i of a panel, step k: start + number * panel + k * mr + i."""
    pack = _copy_rows if a_is_copied(job) else _gather_rows
    pack(job, batch, first_row, rows, sums, memory, start, panel)


def a_is_copied(job: Job) -> bool:
    """Whether rows of a are packed by vector copies."""
    p = job.phase
    return len(p.m) == 1 and p.a.strides[p.m[0]] == 1


def _copy_rows(job: Job, batch: Index, first_row: Ix, rows: Ix, sums: Range, memory: View, start: Ix, panel: int) -> None:
    """a is contiguous along its rows: mr elements by vectors of falling width. A few steps of k for all panels, then the next: a line of a has rows
    of several panels, and lines at such distances share few sets of a cache."""
    f, p, mr = job.f, job.phase, job.schedule.blocking.mr
    pieces, ragged, across = _powers_of_two(mr, job.schedule.lanes), job.has_row_tail, p.a.strides[p.k[-1]]

    def copy(source: Ix, step: Ix, steps: int) -> None:
        with f.loop(0, rows, mr) as loop:
            row, place = first_row + loop.index, start + f.divmod(loop.index, mr)[0] * panel + step * mr
            for at, n in pieces:
                mask = f.tail_mask(job.m - (row + at), n) if ragged and n > 1 else None
                column = f.min_(row + at, job.m - 1) if ragged and n == 1 else row + at
                for i in range(steps):
                    f.store(memory, [place + (i * mr + at)], f.load(job.a, [source + i * across + column], n, mask))
    with walk_runs(f, sums) as (k, at, first, count):
        source = offset(p.a, batch | k | {p.k[-1]: first})
        whole = f.divmod(count, STEPS)[0] * STEPS
        with f.loop(0, whole, STEPS) as loop:
            copy(source + loop.index * across, at + loop.index, STEPS)
        with f.loop(whole, count) as loop:
            copy(source + loop.index * across, at + loop.index, 1)


def _powers_of_two(count: int, limit: int) -> list[tuple[int, int]]:
    """(start, width): 6 is 4 from 0 and 2 from 4."""
    pieces, at, width = [], 0, limit
    while at < count:
        if width <= count - at:
            pieces.append((at, width))
            at += width
        else:
            width //= 2
    return pieces


def _gather_rows(job: Job, batch: Index, first_row: Ix, rows: Ix, sums: Range, memory: View, start: Ix, panel: int) -> None:
    f, p, mr = job.f, job.phase, job.schedule.blocking.mr
    with f.loop(0, rows, mr) as loop:
        place = start + f.divmod(loop.index, mr)[0] * panel
        offsets = [row_offset(job, first_row + loop.index + i, job.has_row_tail) for i in range(mr)]
        with walk(f, sums) as (k, step):
            base = offset(p.a, batch | k)
            for i, row in enumerate(offsets):
                f.store(memory, [place + step * mr + i], f.load(job.a, [base + row]))


def row_offset(job: Job, flat: Ix, clamped: bool) -> Ix:
    """Distance in a from row 0 to a row; if clamped, rows past the end repeat the last one."""
    p = job.phase
    row = job.f.min_(flat, job.m - 1) if clamped else flat
    if steps_evenly(p.a, p.m, p.sizes):             # though the output may not
        return row * p.a.strides[p.m[-1]]
    return offset(p.a, unflatten(job.f, row, p.m, p.sizes)) - p.a.base
