"""Operands that are packed once, by a parallel loop before all tiles."""
from __future__ import annotations

from math import prod

from graphc.codegen.loops.builder import View
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.lower.contract_job import Job
from graphc.codegen.lower.contract_pack import Panels, a_is_copied, b_packing, pack_a, pack_b
from graphc.codegen.lower.ranges import Range, open_range, unflatten
from graphc.schedule.blocking import ColumnPacking, Cut
from graphc.schedule.contraction_schedule import round_up

PACK_PIECES, PACK_WORK = 8, 4096        # most pieces into which packing is divided, and the least elements of one
PACK_STEPS = 16                 # steps of k that are packed together: their source lines stay in cache while panel after panel is cut from them


def pack_shared(job: Job, operand: str) -> None:
    """Packs all of an operand, "a" or "b", into the shared scratch."""
    {"a": _pack_shared_a, "b": _pack_shared_b}[operand](job)


def _pack_shared_a(job: Job) -> None:
    """All of a, one panel after the other; a tile packs a few steps of k of all panels, or all steps of some panels."""
    f, s = job.f, job.schedule
    panels = -(-job.m // s.blocking.mr)
    memory = job.packed("a", job.batches * panels * s.blocking.mr * job.k)
    steps = fine_cut(job.k_sizes, PACK_STEPS) if a_is_copied(job) else Cut(0, job.k_sizes[0])
    blocks = steps.count(job.k_sizes)
    group = panels if blocks >= 8 else -(-panels // 8)
    groups = -(-panels // group)
    with f.parallel(job.batches * groups * blocks, "pack_a") as t:
        rest, block = f.divmod(t, blocks)
        batch_number, number = f.divmod(rest, groups)
        batch = unflatten(f, batch_number, job.phase.batch, job.sizes)
        row = number * (group * s.blocking.mr)
        rows = group * s.blocking.mr if panels % group == 0 else f.min_(group * s.blocking.mr, panels * s.blocking.mr - row)
        sums = open_range(f, job.phase.k, job.k_sizes, steps, block)
        start = (batch_number * panels + number * group) * (s.blocking.mr * job.k) + sums.flat * s.blocking.mr
        pack_a(job, batch, row, as_ix(rows), sums, memory, start, s.blocking.mr * job.k)


def fine_cut(sizes: tuple[int, ...], length: int) -> Cut:
    """Ranges of at most about `length` elements."""
    for split in range(len(sizes)):
        inner = prod(sizes[split + 1:])
        if inner <= length:
            return Cut(split, max(1, min(sizes[split], length // inner)))
    return Cut(len(sizes) - 1, length)


def _pack_shared_b(job: Job) -> None:
    """All of b: some steps of k for the columns of one tile after the other, or (in_runs) a few steps for those of all tiles."""
    f, s = job.f, job.schedule
    cut = _packing_steps(job)
    tiles, blocks = 1 if s.packed_in_runs else s.blocking.nc.count(job.n_sizes), cut.count(job.k_sizes)
    memory = shared_b(job)
    with f.parallel(job.batches * tiles * blocks, "pack_b") as t:
        number, block = f.divmod(t, blocks)
        batch_number, across = f.divmod(number, tiles)
        batch = unflatten(f, batch_number, job.phase.batch, job.sizes)
        columns = open_range(f, job.phase.n, job.n_sizes, Cut(0, job.n) if s.packed_in_runs else s.blocking.nc, across)
        sums = open_range(f, job.phase.k, job.k_sizes, cut, block)
        pack_b(job, batch, columns, sums, shared_panels(job, memory, batch_number * s.blocking.nc.count(job.n_sizes) + across, sums))


def _packing_steps(job: Job) -> Cut:
    """A block of k; fewer steps in runs, or where blocks would be too few pieces for the threads; by taps, all of k."""
    s = job.schedule
    if b_packing(job) is ColumnPacking.TAPS:
        return Cut(0, job.k_sizes[0])
    if s.packed_in_runs:
        return fine_cut(job.k_sizes, round_up(-(-PACK_WORK // job.n), PACK_STEPS))
    tiles = job.batches * s.blocking.nc.count(job.n_sizes)
    pieces = -(-min(PACK_PIECES, job.batches * job.n * job.k // PACK_WORK) // tiles)
    return s.blocking.kc if pieces <= s.blocking.kc.count(job.k_sizes) else fine_cut(job.k_sizes, round_up(-(-job.k // pieces), PACK_STEPS))


def shared_b(job: Job) -> View:
    s = job.schedule
    return job.packed("b", job.batches * s.blocking.nc.count(job.n_sizes) * s.width(job.phase) * job.k)


def shared_panels(job: Job, memory: View, number: Ix, sums: Range) -> Panels:
    """Where a tile (number: counted over batches) has its columns, from step `sums.flat` of k on."""
    width = job.schedule.width(job.phase)
    step = b_step(job)
    start = number * (width * job.k) + sums.flat * step
    return Panels(memory, start, step, step * job.k, step)


def b_step(job: Job) -> int:
    """Distance in packed b of two steps of k."""
    return job.schedule.width(job.phase) if b_packing(job) is ColumnPacking.RUNS else job.schedule.blocking.nr
