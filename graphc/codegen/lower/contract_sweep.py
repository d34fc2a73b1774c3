"""The last step of a tile: finished sums, vector by vector, through the epilogue and into the outputs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphc.codegen.index import Ix, as_ix
from graphc.codegen.loops import Function, Val, View
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.ranges import Index, Range, offset, unflatten, vector_run, walk_runs

Source = Callable[[Ix, Ix, int, Val | None], Val]       # (row in tile, column in tile, lanes, mask) -> sums


def sweep(job: Job, tile, source: Source) -> None:
    """All sums of a tile. Vectors run along the innermost column dim."""
    f, p = job.f, job.phase
    with f.loop(0, tile.rows) as loop:
        rows = tile.batch | unflatten(f, tile.row + loop.index, p.m, p.sizes)
        if job.epilogue is None and _steps_evenly(job, tile.columns):
            return _store_run(job, rows | tile.columns.first, p.out.strides[p.n[-1]], tile.columns.length, Ix(), loop.index, source)
        with walk_runs(f, tile.columns) as (columns, at, first, count):
            _sweep_run(job, rows | columns, first, count, at, loop.index, source)


def _steps_evenly(job: Job, columns: Range) -> bool:
    """Whether the output's columns in the range are one run."""
    p = job.phase
    dims = p.n[columns.split:]
    return all(p.out.strides[x] == p.out.strides[y] * p.sizes[y] for x, y in zip(dims, dims[1:]))


def _sweep_run(job: Job, index: Index, first: Ix, count: Ix, at: Ix, row: Ix, source: Source) -> None:
    f, p = job.f, job.phase
    last = p.n[-1]
    if job.epilogue is None:
        return _store_run(job, index | {last: first}, p.out.strides[last], count, at, row, source)
    lanes = job.schedule.lanes if vector_axis(job) is not None else 1

    def body(j: Ix, width: int, mask: Val | None) -> None:
        finish(job, index | {last: first + j}, source(row, at + j, width, mask), width, mask)
    if lanes > 1:
        return vector_run(f, count, lanes, body)
    with f.loop(0, count) as loop:
        body(loop.index, 1, None)


def _store_run(job: Job, index: Index, stride: int, count: Ix, at: Ix, row: Ix, source: Source) -> None:
    f = job.f
    out = flat(f, job.outs[0])
    start = offset(job.phase.out, index)
    vector_run(f, count, job.schedule.lanes, lambda j, lanes, mask: f.store(
        View(out.root, (lanes,), (stride,), out.start + start + j * stride), [0], source(row, at + j, lanes, mask), mask))


def flat(f: Function, view: View) -> View:
    size = 1 + sum(s * (n - 1) for n, s in zip(view.shape, view.strides))
    return f.reinterpret(view, (size,), (1,))


def sweep_partials(job: Job, tile, row: Ix, column: Ix, lanes: int, mask: Val | None) -> Val:
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

def vector_axis(job: Job) -> int | None:
    """The output axis along which the innermost column dim steps by one, or None."""
    parts = job.phase.parts[job.phase.n[-1]]
    if not parts:
        return len(job.outs[0].shape) - 1 if job.outs[0].shape else None
    _, d, step, _ = parts[-1]
    for x, m in enumerate(job.whole.form.c.out):
        for coefficient, dim in m.terms:
            if dim == d:
                return x if coefficient * step == 1 else None
    return None


def finish(job: Job, index: Index, acc: Val, lanes: int, mask: Val | None) -> None:
    """Gives sums to the epilogue and stores what comes back."""
    f = job.f
    axis = vector_axis(job)
    axis = max(0, len(job.outs[0].shape) - 1) if axis is None else axis
    at = output_index(job, index)
    values = job.epilogue(f, acc, at, lanes, mask, axis) if job.epilogue else [acc]
    for out, value in zip(job.outs, values, strict=True):
        view, place = along(out, at, axis)
        f.store(view, place, value, mask)


def output_index(job: Job, index: Index) -> list[Ix]:
    """The index on each output axis of an element of the phase."""
    original: Index = {}
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


def load_along(f: Function, view: View, index: Sequence[Ix], axis: int, lanes: int, mask: Val | None) -> Val:
    """Loads lanes along output axis `axis` from a view of the output's rank; axes of size 1 broadcast."""
    if not index:
        return f.load(view, [])
    index = [Ix() if n == 1 else as_ix(ix) for n, ix in zip(view.shape, index, strict=True)]
    if view.shape[axis] == 1:
        return f.splat(f.load(view, index), lanes)
    moved, place = along(view, index, axis)
    return f.load(moved, place, lanes, mask)
