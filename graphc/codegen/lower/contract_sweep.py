"""The last step of a tile: finished sums, vector by vector, through the epilogue and into the outputs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.ranges import Index, Range, offset, steps_evenly, unflatten, vector_run, walk, walk_runs
from graphc.codegen.lower.transpose import transposed

Source = Callable[[Ix, Ix, int, Val | None], Val]       # (row in tile, column in tile, lanes, mask) -> sums


@dataclass(frozen=True)
class Block:
    """A part of a tile: `rows` rows from `row` of the tile on, and a range of columns, from `column` of the tile on."""
    row: Ix
    rows: Ix
    column: Ix
    columns: Range


def whole_tile(tile) -> Block:
    return Block(Ix(), tile.rows, Ix(), tile.columns)


def sums_in(job: Job, scratch: View, row: Ix = Ix(), column: Ix = Ix()) -> Source:
    """Sums in scratch, of which the first is that of a row and a column of the tile."""
    return lambda i, j, lanes, mask: job.f.load(scratch, [i - row, j - column], lanes, mask)


def sweep(job: Job, tile, block: Block, source: Source) -> None:
    """The sums of a block of a tile. Vectors run along the innermost column dim."""
    f, p = job.f, job.phase
    line = _sweep_gates if job.gates else _sweep_line
    with f.loop(0, block.rows) as loop:
        row = block.row + loop.index
        index = tile.batch | unflatten(f, tile.row + row, p.m, p.sizes)
        line(job, index, block.columns, lambda j, lanes, mask: source(row, block.column + j, lanes, mask))


def _sweep_gates(job: Job, index: Index, columns: Range, source: "Line") -> None:
    """A vector of units at a time, with the sums of all gates."""
    f, lanes = job.f, job.schedule.lanes
    axis = len(job.outs[0].shape) - 1
    at = output_index(job, index)
    with f.loop(0, columns.count) as units:
        sums = [source((units.index * job.gates + gate) * lanes, lanes, None) for gate in range(job.gates)]
        at[axis] = (columns.start + units.index) * lanes
        for out, value in zip(job.outs, job.epilogue(f, sums, at, lanes, None, axis), strict=True):
            f.store(out, at, value)


def ask_for_gates(job: Job, tile, row: Ix, rows: Ix, column: Ix) -> None:
    """Prefetches the values that the sweep reads beside the sums of a micro-tile. The gates of a unit are far apart in memory, single lines that the
    hardware's prefetchers do not predict."""
    f, p, s = job.f, job.phase, job.schedule
    axis, units = len(job.outs[0].shape) - 1, p.sizes[p.n[0]] * s.lanes
    with f.loop(0, rows) as loop:
        at = output_index(job, tile.batch | unflatten(f, tile.row + row + loop.index, p.m, p.sizes))
        for v in range(s.vectors):
            unit, gate = f.divmod(f.divmod(column, s.lanes)[0] + v, job.gates)
            at[axis] = gate * units + (tile.columns.start + unit) * s.lanes
            job.epilogue.ask(f, at, axis)


def sweep_turned(job: Job, tile, sums: View) -> None:
    """The same with vectors along the innermost row dim: the tile's sums are transposed first."""
    f, _p, lanes = job.f, job.phase, job.schedule.lanes
    turned = f.scratch("turned", job.dtype, sums.shape[::-1])
    with f.loop(0, tile.rows, lanes) as down, f.loop(0, tile.columns.length, lanes) as across:
        for j, column in enumerate(transposed(f, sums, down.index, across.index, lanes)):
            f.store(turned, [across.index + j, down.index], column)
    with walk(f, tile.columns) as (columns, at):
        _sweep_line(job, tile.batch | columns, tile.row_range, lambda i, lanes, mask: f.load(turned, [at, i], lanes, mask))


Line = Callable[[Ix, int, Val | None], Val]             # (position in the line, lanes, mask) -> sums


def _sweep_line(job: Job, index: Index, line: Range, source: Line) -> None:
    """Sums along a range of row or column dims; `index` has the others."""
    if job.epilogue is None and steps_evenly(job.phase.out, line.dims[line.split:], job.sizes):
        return _store_run(job, index | line.first, line.dims[-1], line.length, Ix(), source)
    with walk_runs(job.f, line) as (outer, at, first, count):
        _sweep_run(job, index | outer, line.dims[-1], first, count, at, source)


def _sweep_run(job: Job, index: Index, last: int, first: Ix, count: Ix, at: Ix, source: Line) -> None:
    """`count` sums along dim `last` from `first` on, which are at `at` of the line."""
    f = job.f
    if job.epilogue is None:
        return _store_run(job, index | {last: first}, last, count, at, source)
    lanes = job.schedule.lanes if vector_axis(job, last) is not None else 1

    def body(j: Ix, width: int, mask: Val | None) -> None:
        finish(job, index | {last: first + j}, last, source(at + j, width, mask), width, mask)
    if lanes > 1:
        return vector_run(f, count, lanes, body)
    with f.loop(0, count) as loop:
        body(loop.index, 1, None)


def _store_run(job: Job, index: Index, last: int, count: Ix, at: Ix, source: Line) -> None:
    f = job.f
    out, stride = flat(f, job.outs[0]), job.phase.out.strides[last]
    start = offset(job.phase.out, index)
    vector_run(f, count, job.schedule.lanes, lambda j, lanes, mask: f.store(
        View(out.root, (lanes,), (stride,), out.start + start + j * stride), [0], source(at + j, lanes, mask), mask))


def flat(f: LoopFunction, view: View) -> View:
    size = 1 + sum(s * (n - 1) for n, s in zip(view.shape, view.strides))
    return f.reinterpret(view, (size,), (1,))


def add_partials(job: Job, tile, row: Ix, column: Ix, lanes: int, mask: Val | None) -> Val:
    """The parts of a sum, added in order."""
    f = job.f
    size = job.batches * job.m * job.n
    memory = job.packed("partials", job.schedule.splits * size)
    start = (tile.batch_number * job.m + tile.row + row) * job.n + tile.columns.flat + column
    total = f.load(memory, [start], lanes, mask)
    with f.loop(1, job.schedule.splits, carry=[total]) as loop:
        loop.next(f.add(loop.carried[0], f.load(memory, [start + loop.index * size], lanes, mask)))
    return loop.results[0]


# --- epilogue ----------------------------------------------------------------------------------------------------------------

def vector_axis(job: Job, last: int) -> int | None:
    """The output axis along which dim `last` steps by one, or None."""
    parts = job.phase.parts[last]
    if not parts:
        return len(job.outs[0].shape) - 1 if job.outs[0].shape else None
    _, d, step, _ = parts[-1]
    for x, m in enumerate(job.whole.form.c.out):
        for coefficient, dim in m.terms:
            if dim == d:
                return x if coefficient * step == 1 else None
    return None


def finish(job: Job, index: Index, last: int, acc: Val, lanes: int, mask: Val | None) -> None:
    """Stores sums along dim `last`, after the epilogue if there is one."""
    if job.epilogue is not None:
        return _apply(job, index, last, acc, lanes, mask)
    out = flat(job.f, job.outs[0])
    step = job.phase.out.strides[last] if lanes > 1 else 1
    job.f.store(View(out.root, (lanes,), (step,), out.start + offset(job.phase.out, index)), [0], acc, mask)


def _apply(job: Job, index: Index, last: int, acc: Val, lanes: int, mask: Val | None) -> None:
    """Gives sums to the epilogue and stores what comes back."""
    f = job.f
    axis = vector_axis(job, last)
    axis = max(0, len(job.outs[0].shape) - 1) if axis is None else axis
    at = output_index(job, index)
    values = job.epilogue(f, acc, at, lanes, mask, axis)
    for out, value in zip(job.outs, values, strict=True):
        view, place = along(out, at, axis)
        f.store(view, place, value, mask)


def output_index(job: Job, index: Index) -> list[Ix]:
    """The index on each output axis of an element of the phase."""
    original: Index = {dim: Ix(start) for parts in job.phase.parts for n, dim, _, start in parts if n == 1}     # dims without a loop
    for d, ix in index.items():
        parts = job.phase.parts[d]
        positions = unflatten(job.f, ix, range(len(parts)), [part[0] for part in parts])
        for i, (_, dim, step, start) in enumerate(parts):
            original[dim] = positions[i] * step + start
    return [sum((original.get(dim, Ix()) * c for c, dim in m.terms), Ix(m.offset)) for m in job.whole.form.c.out]


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
