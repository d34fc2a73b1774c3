"""Few outputs, long sums, in many batch entries: weight gradients of depthwise convolutions above all."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_lanes import LaneOperand, Terms
from graphc.codegen.lower.contract_sweep import finish, vector_axis
from graphc.codegen.lower.micro import multiply_add
from graphc.codegen.lower.ranges import Index, offset, unflatten
from graphc.schedule.contraction_form import spread


def lower_narrow(job: Job) -> None:
    """Tiles of some vectors of batch entries (or one entry) and one part of the sum; then the parts are added."""
    f, s, p = job.f, job.schedule, job.phase
    groups = s.groups(p)
    blocks = -(-groups // s.block)
    with f.parallel(s.entries(p) // groups * blocks * s.splits, "narrow") as t:
        number, part = f.divmod(t, s.splits)
        rest, block = f.divmod(number, blocks)
        first = block * s.block
        _tile(job, rest, first, s.block if groups % s.block == 0 else f.min_(s.block, groups - first), part)
    if s.splits > 1:
        with f.parallel(s.entries(p), "add") as t:
            _add_parts(job, t)


def _tile(job: Job, rest: Ix, first: Ix, count: Ix | int, part: Ix) -> None:
    """Sums of `count` vectors, from number `first` on; `rest` counts the batch entries around."""
    f, s, p = job.f, job.schedule, job.phase
    outputs, zero = job.m * job.n, f.const(0, job.dtype, s.lanes)
    sums = f.scratch("sums", job.dtype, (outputs, spread(s.block * s.lanes, s.lanes)))
    steps = p.extent(p.k[:-1])
    share = -(-steps // s.splits)
    lo = part * share
    with f.loop(0, count) as loop:
        for position in range(outputs):
            f.store(sums, [position, loop.index * s.lanes], zero)
    with f.loop(lo, lo + share if steps % share == 0 else f.min_(lo + share, steps)) as step:
        around = unflatten(f, step.index, p.k[:-1], p.sizes)
        for at, columns in _columns(f, p.sizes[p.k[-1]], s.columns):
            with at as start, f.loop(0, count) as loop:
                index, mask = _entry(job, rest, first + loop.index)
                for position, total in enumerate(_line(job, index | around, mask) if s.along_k else _terms(job, index | around | {p.k[-1]: start}, columns, mask)):
                    where = [position, loop.index * s.lanes]
                    f.store(sums, where, f.add(f.load(sums, where, s.lanes), total))
    with f.loop(0, count) as loop:
        number = rest * s.groups(p) + first + loop.index
        index, mask = _entry(job, rest, first + loop.index)
        for position in range(outputs):
            total = f.load(sums, [position, loop.index * s.lanes], s.lanes)
            _leave(job, index, number, position, f.reduce(total, "add") if s.along_k else total, mask, part)


def _columns(f: LoopFunction, size: int, columns: int) -> Iterator[tuple[AbstractContextManager[Ix], int]]:
    """The innermost k dim by `columns`, then the rest: the start of each run, and its length. 0: all of it at once."""
    if not columns:
        yield nullcontext(Ix()), size
        return
    yield _starts(f, size // columns * columns, columns), columns
    if size % columns:
        yield nullcontext(Ix(size // columns * columns)), size % columns


@contextmanager
def _starts(f: LoopFunction, end: int, step: int) -> Iterator[Ix]:
    with f.loop(0, end, step) as loop:
        yield loop.index


def _leave(job: Job, index: Index, number: Ix, position: int, total: Val, mask: Val | None, part: Ix) -> None:
    """A finished sum to its place, or a part of one to where parts are added."""
    f, s = job.f, job.schedule
    if s.splits == 1:
        return _finish(job, index, position, total, mask)
    place = (part * s.entries(job.phase) + number) * (job.m * job.n) + position
    f.store(_partials(job), [place * s.width], total)


def _partials(job: Job) -> View:
    s = job.schedule
    return job.packed("partials", s.splits * s.entries(job.phase) * job.m * job.n * s.width)


def _entry(job: Job, rest: Ix, group: Ix) -> tuple[Index, Val | None]:
    """The batch index of a vector of entries, and which of its lanes exist."""
    f, s, p = job.f, job.schedule, job.phase
    if s.along_k:
        return unflatten(f, rest, p.batch, p.sizes), None
    size, start = p.sizes[s.dim], group * s.lanes
    mask = f.tail_mask(size - start, s.lanes) if size % s.lanes else None
    return unflatten(f, rest, tuple(d for d in p.batch if d != s.dim), p.sizes) | {s.dim: start}, mask


def _outputs(job: Job) -> list[Index]:
    dims = job.phase.m + job.phase.n
    return [dict(zip(dims, map(Ix, index))) for index in product(*[range(job.sizes[d]) for d in dims])]


def _finish(job: Job, index: Index, position: int, total: Val, mask: Val | None) -> None:
    f, s = job.f, job.schedule
    at = index | _outputs(job)[position]
    if s.along_k:
        return finish(job, at, job.phase.n[-1], total, 1, None)
    if job.epilogue is None or vector_axis(job, s.dim) is not None:
        return finish(job, at, s.dim, total, s.lanes, mask)
    line = f.scratch("line", job.dtype, (s.lanes,))
    f.store(line, [0], total)
    with f.loop(0, f.min_(s.lanes, job.sizes[s.dim] - index[s.dim])) as loop:
        finish(job, at | {s.dim: index[s.dim] + loop.index}, s.dim, f.load(line, [loop.index]), 1, None)


def _add_parts(job: Job, number: Ix) -> None:
    f, s = job.f, job.schedule
    index, mask = _entry(job, *f.divmod(number, s.groups(job.phase)))
    width, step = s.width, s.entries(job.phase) * job.m * job.n * s.width
    for position in range(job.m * job.n):
        start = (number * (job.m * job.n) + position) * width
        with f.loop(1, s.splits, carry=[f.load(_partials(job), [start], width)]) as loop:
            loop.next(f.add(loop.carried[0], f.load(_partials(job), [start + loop.index * step], width)))
        _finish(job, index, position, loop.results[0], mask)


# --- sums -----------------------------------------------------------------------------------------------------------------

def _line(job: Job, index: Index, mask: Val | None) -> Sequence[Val]:
    """The outputs' sums along the innermost k dim by vectors along it."""
    f, s = job.f, job.schedule
    d, size = job.phase.k[-1], job.sizes[job.phase.k[-1]]
    with f.loop(0, size // s.lanes * s.lanes, s.lanes, carry=[f.const(0, job.dtype, s.lanes)] * (job.m * job.n)) as loop:
        loop.next(*_terms(job, index | {d: loop.index}, 1, mask, loop.carried))
    if not size % s.lanes:
        return loop.results
    return _terms(job, index | {d: Ix(size // s.lanes * s.lanes)}, 1, f.tail_mask(size % s.lanes, s.lanes), loop.results)


def _terms(job: Job, index: Index, columns: int, mask: Val | None, sums: Sequence[Val] = ()) -> list[Val]:
    """The outputs' sums over `columns` positions of the innermost k dim, added to `sums`. What outputs and positions share is loaded once, and used
    soon after: they are taken in the order of the operand that moves with both.
    """
    f, s, p = job.f, job.schedule, job.phase
    last, lane = p.k[-1], p.k[-1] if s.along_k else s.dim
    operands = [Terms(f, LaneOperand(memory, t), offset(t, index), t.strides[lane], s.lanes, mask, {}) for memory, t in ((job.a, p.a), (job.b, p.b))]
    dims = p.m + p.n
    steps = [{last: j} | dict(zip(dims, own)) for j in range(columns) for own in product(*[range(job.sizes[d]) for d in dims])]
    totals = list(sums) or [f.const(0, job.dtype, s.lanes)] * (job.m * job.n)
    moving = max((p.a, p.b), key=lambda t: sum(t.strides[d] != 0 for d in dims))
    for number, step in sorted(enumerate(steps), key=lambda item: sum(moving.strides[d] * item[1][d] for d in (*dims[-1:], last))):
        a, b = (o.at(sum(o.operand.linear.strides[d] * i for d, i in step.items())) for o in operands)
        totals[number % len(totals)] = multiply_add(f, a, b, totals[number % len(totals)], job.fused)
    if not s.along_k:
        for operand in operands:
            operand.fetch_ahead(p.k[-2])
    return totals
