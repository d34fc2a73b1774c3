"""Short sums without reuse along the rows, depthwise convolutions above all: vectors along one dim, every term unrolled for a few
positions of another, whose windows overlap and whose factors are the same.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_sweep import finish, vector_axis
from graphc.codegen.lower.micro import multiply_add
from graphc.codegen.lower.ranges import Index, load_spaced, offset, unflatten, vector_run
from graphc.codegen.lower.transpose import transposed_runs
from graphc.schedule.contraction_form import LinearMap


@dataclass(frozen=True)
class LaneOperand:
    memory: View
    linear: LinearMap


def lower_lanes(job: Job) -> None:
    """Tiles over blocks of `dim` and ranges of the dims around; in a tile, positions of `inner` by the few, vectors along the block."""
    f, s, p = job.f, job.schedule, job.phase
    outer = s.outer(p)
    count, size = p.extent(outer), p.sizes[s.dim]
    per_tile, blocks = min(count, s.tile), -(-size // s.block)
    operands = [_operand(job, which) for which in "ab"]
    with f.parallel(-(-count // per_tile) * blocks, "lanes") as t:
        part, block = f.divmod(t, blocks)
        width = s.block if size % s.block == 0 else f.min_(s.block, size - block * s.block)
        with f.loop(0, per_tile if count % per_tile == 0 else f.min_(per_tile, count - part * per_tile)) as loop:
            index = unflatten(f, part * per_tile + loop.index, outer, p.sizes)
            whole = p.sizes[s.inner] // s.columns * s.columns
            with f.loop(0, whole, s.columns) as along:
                _run(job, operands, index | {s.inner: along.index}, s.columns, block * s.block, width)
            if whole < p.sizes[s.inner]:
                _run(job, operands, index | {s.inner: Ix(whole)}, p.sizes[s.inner] - whole, block * s.block, width)


def _as_it_lies(job: Job, which: str) -> LaneOperand:
    return {"a": LaneOperand(job.a, job.phase.a), "b": LaneOperand(job.b, job.phase.b)}[which]


def _operand(job: Job, which: str) -> LaneOperand:
    """An operand as it lies, or its packed factors."""
    s, p, source = job.schedule, job.phase, _as_it_lies(job, which)
    if not s.packs(p, source.linear):
        return source
    if job.whole.ready != which:
        pack_factors(job, which)
    steps = {d: s.line(p) * prod(p.sizes[e] for e in p.k[i + 1:]) for i, d in enumerate(p.k)} | {s.dim: 1}
    return LaneOperand(_packed(job, which), LinearMap(0, tuple(steps.get(d, 0) for d in range(len(p.sizes)))))


def _packed(job: Job, which: str) -> View:
    return job.packed(which, job.k * job.schedule.line(job.phase))


def pack_factors(job: Job, which: str) -> None:
    """Factors that lie apart along the vectors are copied side by side, one line for each term of the sum."""
    f, s, p, operand = job.f, job.schedule, job.phase, _as_it_lies(job, which)
    linear, copy, line = operand.linear, _packed(job, which), s.line(p)
    terms = list(product(*[range(p.sizes[d]) for d in p.k]))
    sources = [linear.base + sum(i * linear.strides[d] for d, i in zip(p.k, k)) for k in terms]
    if min(len(terms), p.sizes[s.dim]) >= s.lanes and sorted(sources) == list(range(min(sources), min(sources) + len(terms))):
        return _turn(job, operand, copy, [sources.index(min(sources) + i) for i in range(len(terms))], line)
    for term, source in enumerate(sources):
        vector_run(f, Ix(p.sizes[s.dim]), s.lanes, lambda j, lanes, mask, to=term * line, start=source: f.store(
            copy, [to + j], load_spaced(f, operand.memory, start + j * linear.strides[s.dim], linear.strides[s.dim], lanes, mask), mask))


def _turn(job: Job, operand: LaneOperand, copy: View, terms: list[int], line: int) -> None:
    """The terms lie side by side, in the order `terms`: blocks of lanes × lanes are transposed in registers. The last ones overlap those before."""
    f, s, linear = job.f, job.schedule, operand.linear
    step, size = linear.strides[s.dim], job.phase.sizes[s.dim]
    start = linear.base + sum(min(0, linear.strides[d]) * (job.phase.sizes[d] - 1) for d in job.phase.k)
    with f.loop(0, size, s.lanes) as loop:
        place = f.min_(loop.index, size - s.lanes)
        for first in range(0, len(terms), s.lanes):
            first = min(first, len(terms) - s.lanes)
            starts = [(place + i) * step + (start + first) for i in range(s.lanes)]
            for i, column in enumerate(transposed_runs(f, operand.memory, starts)):
                f.store(copy, [place + terms[first + i] * line], column)


def _run(job: Job, operands: list[LaneOperand], index: Index, columns: int, first: Ix, width: Ix | int) -> None:
    """`columns` positions of the inner dim, from `index` on, for each vector of the block."""
    f, s = job.f, job.schedule
    lanes = s.lanes if job.epilogue is None or vector_axis(job, s.dim) is not None else 1

    def body(j: Ix, count: int, mask: Val | None) -> None:
        _outputs(job, operands, index | {s.dim: first + j}, columns, count, mask)
    if job.phase.sizes[s.dim] % lanes:
        return vector_run(f, Ix() + width, lanes, body)
    with f.loop(0, width, lanes) as loop:
        body(loop.index, lanes, None)


def _outputs(job: Job, operands: list[LaneOperand], index: Index, columns: int, lanes: int, mask: Val | None) -> None:
    f, s, p = job.f, job.schedule, job.phase
    sources = [Terms(f, o, offset(o.linear, index), o.linear.strides[s.dim], lanes, mask, {}) for o in operands]
    totals = [f.const(0, job.dtype, lanes)] * columns
    for k in product(*[range(p.sizes[d]) for d in p.k]):
        for j in range(columns):
            a, b = (source.at(sum(i * source.operand.linear.strides[d] for d, i in zip((*p.k, s.inner), (*k, j)))) for source in sources)
            totals[j] = multiply_add(f, a, b, totals[j], job.fused)
    for dim in s.outer(p)[-1:]:
        for source in sources:
            source.fetch_ahead(dim)
    for j, total in enumerate(totals):
        finish(job, index | {s.inner: index[s.inner] + j}, s.dim, total, lanes, mask)


@dataclass(frozen=True)
class Terms:
    """Vectors of an operand, each loaded once."""
    f: LoopFunction
    operand: LaneOperand
    start: Ix
    step: int
    lanes: int
    mask: Val | None
    loaded: dict[int, Val]

    def at(self, distance: int) -> Val:
        if distance not in self.loaded:
            self.loaded[distance] = load_spaced(self.f, self.operand.memory, self.start + distance, self.step, self.lanes, self.mask)
        return self.loaded[distance]

    def fetch_ahead(self, dim: int) -> None:
        """Asks for what was not loaded here but will be at the next position of a dim, a line of memory further on, say: vectors of many positions
        are read side by side, which the processor does not take for streams."""
        ahead = {distance + self.operand.linear.strides[dim] for distance in self.loaded}
        for distance in sorted(ahead - self.loaded.keys() if self.step == 1 else ()):
            self.f.prefetch(self.operand.memory, [self.start + distance])
