"""Short sums without reuse, depthwise convolutions above all: vectors along one dim, every term unrolled."""
from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from graphc.codegen.index import Ix
from graphc.codegen.loops import Val, View
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_sweep import finish, vector_axis
from graphc.codegen.lower.micro import multiply_add
from graphc.codegen.lower.ranges import Index, load_spaced, offset, unflatten, vector_run
from graphc.ir.contract_form import Linear

HOISTED = 12                    # values that stay in registers


def lower_lanes(job: Job) -> None:
    """Tiles over all dims but two; vectors along one of these, a loop along the other."""
    f, s, p = job.f, job.schedule, job.phase
    outer = tuple(d for d in p.batch + p.m + p.n if d not in (s.dim, s.inner))
    count = p.extent(outer)
    per_tile = min(count, s.tile)
    lanes = s.lanes if job.epilogue is None or vector_axis(job, s.dim) is not None else 1
    with f.parallel(-(-count // per_tile), "lanes") as t:
        with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - t * per_tile)) as loop:
            index = unflatten(f, t * per_tile + loop.index, outer, p.sizes)
            if lanes == 1:
                with f.loop(0, p.sizes[s.dim]) as line:
                    _line(job, index | {s.dim: line.index}, 1, None)
            else:
                vector_run(f, Ix(p.sizes[s.dim]), lanes, lambda j, width, mask: _line(job, index | {s.dim: j}, width, mask))


def _line(job: Job, index: Index, lanes: int, mask: Val | None) -> None:
    """One vector of outputs for each position of the inner dim."""
    f, s, p = job.f, job.schedule, job.phase
    hoist_a, hoist_b = (t.strides[s.inner] == 0 and job.k <= HOISTED for t in (p.a, p.b))
    first = list(_terms(job, p.a, job.a, index, lanes, mask)) if hoist_a else None
    second = list(_terms(job, p.b, job.b, index, lanes, mask)) if hoist_b else None
    with f.loop(0, p.sizes[s.inner]) as loop:
        at = index | {s.inner: loop.index}
        total = f.const(0, job.dtype, lanes)
        for x, y in zip(first or _terms(job, p.a, job.a, at, lanes, mask), second or _terms(job, p.b, job.b, at, lanes, mask)):
            total = multiply_add(f, x, y, total, job.fused)
        finish(job, at, s.dim, total, lanes, mask)


def _terms(job: Job, t: Linear, memory: View, index: Index, lanes: int, mask: Val | None) -> Iterator[Val]:
    """The operand's vector for each term of the sum."""
    p = job.phase
    step = t.strides[job.schedule.dim]
    start = offset(t, index)
    for k in product(*[range(p.sizes[d]) for d in p.k]):
        at = start + sum(i * t.strides[d] for d, i in zip(p.k, k))
        yield load_spaced(job.f, memory, at, step, lanes, mask)
