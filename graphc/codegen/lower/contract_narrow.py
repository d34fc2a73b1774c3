"""Few outputs, long sums, in many batch entries: weight gradients of depthwise convolutions above all."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from graphc.codegen.index import Ix
from graphc.codegen.loops import Val, View
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_sweep import finish, vector_axis
from graphc.codegen.lower.micro import multiply_add
from graphc.codegen.lower.ranges import Index, load_spaced, offset, unflatten


def lower_narrow(job: Job) -> None:
    """Tiles of one vector of batch entries (or one entry) and one part of the sum; then the parts are added."""
    f, s = job.f, job.schedule
    with f.parallel(s.entries(job.phase) * s.splits, "narrow") as t:
        number, part = f.divmod(t, s.splits)
        index, mask = _entry(job, number)
        sums = _sums(job, index, mask, part)
        for position, total in enumerate(sums):
            if s.splits == 1:
                _finish(job, index, position, total, mask)
            else:
                place = (part * s.entries(job.phase) + number) * (job.m * job.n) + position
                f.store(_partials(job), [place * s.width], total)
    if s.splits > 1:
        with f.parallel(s.entries(job.phase), "add") as t:
            _add_parts(job, t)


def _partials(job: Job) -> View:
    s = job.schedule
    return job.packed("partials", s.splits * s.entries(job.phase) * job.m * job.n * s.width)


def _entry(job: Job, number: Ix) -> tuple[Index, Val | None]:
    """The batch index of a tile, and which lanes of its vector exist."""
    f, s, p = job.f, job.schedule, job.phase
    if s.along_k:
        return unflatten(f, number, p.batch, p.sizes), None
    size = p.sizes[s.dim]
    rest, group = f.divmod(number, -(-size // s.lanes))
    start = group * s.lanes
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
    index, mask = _entry(job, number)
    width, step = s.width, s.entries(job.phase) * job.m * job.n * s.width
    for position in range(job.m * job.n):
        start = (number * (job.m * job.n) + position) * width
        with f.loop(1, s.splits, carry=[f.load(_partials(job), [start], width)]) as loop:
            loop.next(f.add(loop.carried[0], f.load(_partials(job), [start + loop.index * step], width)))
        _finish(job, index, position, loop.results[0], mask)


# --- sums -----------------------------------------------------------------------------------------------------------------

def _sums(job: Job, index: Index, mask: Val | None, part: Ix) -> list[Val]:
    """The outputs' sums over a part of the outermost k dim; each of its steps is summed by itself first."""
    f, s, p = job.f, job.schedule, job.phase
    outermost = p.k[0]
    share = -(-p.sizes[outermost] // s.splits)
    lo = part * share
    hi = lo + share if p.sizes[outermost] % share == 0 else f.min_(lo + share, p.sizes[outermost])
    zero = [f.const(0, job.dtype, s.lanes)] * (job.m * job.n)
    with f.loop(lo, hi, carry=zero) as loop:
        block = _nest(job, index | {outermost: loop.index}, p.k[1:], mask, zero)
        loop.next(*[f.add(a, b) for a, b in zip(loop.carried, block)])
    return [f.reduce(total, "add") for total in loop.results] if s.along_k else list(loop.results)


def _nest(job: Job, index: Index, dims: Sequence[int], mask: Val | None, sums: Sequence[Val]) -> Sequence[Val]:
    """Loops over the remaining k dims; the innermost by vectors if lanes run along it."""
    f, s = job.f, job.schedule
    if not dims:
        return _step(job, index, mask, sums)
    d, size = dims[0], job.sizes[dims[0]]
    vectors = s.along_k and len(dims) == 1
    step = s.lanes if vectors else 1
    with f.loop(0, size // step * step, step, carry=sums) as loop:
        loop.next(*_nest(job, index | {d: loop.index}, dims[1:], mask, loop.carried))
    if not size % step:
        return loop.results
    return _step(job, index | {d: Ix(size // step * step)}, f.tail_mask(size % step, s.lanes), loop.results)


def _step(job: Job, index: Index, mask: Val | None, sums: Sequence[Val]) -> list[Val]:
    """One vector of terms for each output; an operand that outputs share is loaded once."""
    f, s, p = job.f, job.schedule, job.phase
    lane = p.k[-1] if s.along_k else s.dim
    loaded: dict[tuple, Val] = {}

    def term(name: str, t, memory: View, own: Index) -> Val:
        key = (name, *[own[d].const for d in own if t.strides[d]])
        if key not in loaded:
            loaded[key] = load_spaced(f, memory, offset(t, index | own), t.strides[lane], s.lanes, mask)
        return loaded[key]
    return [multiply_add(f, term("a", p.a, job.a, own), term("b", p.b, job.b, own), total, job.fused)
            for own, total in zip(_outputs(job), sums)]
