"""Schedules of contractions with few outputs in each batch entry and long sums: weight gradients of depthwise
convolutions."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import prod

from graphc.ir.dims import Dim, typical
from graphc.schedule.choose_lanes import LANE_BLOCK
from graphc.schedule.contraction_context import ContractionContext, even
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_schedule import MixedChannels, NarrowSchedule
from graphc.schedule.cost import Candidate, ranked
from graphc.schedule.open_phase import at_typical, known

NARROW_COLUMNS = 7              # columns at a time of a narrow schedule, at most


def narrow_dim(p: Phase[Dim], context: ContractionContext) -> int | None:
    """The dim for vectors where a batch entry has one row or column of outputs: a batch dim along which both operands
    are contiguous, or the innermost k dim. How many outputs an entry has needs to be known, and which of the innermost
    k dim are unrolled."""
    if not known(p, p.m, p.n) or p.is_open and not known(p, p.k[-1:]):
        return None
    if min(p.extent(p.m), p.extent(p.n)) > 1 or typical(p.extent(p.batch)) < 2 or len(p.k) < 2:
        return None
    for d in (*p.batch, p.k[-1]):
        if p.a.strides[d] == 1 and (p.b.strides[d] == 1 or d == p.k[-1]) and typical(p.sizes[d]) >= context.lanes // 2:
            return d
    return None


def fits_registers(p: Phase[Dim], context: ContractionContext) -> bool:
    """Whether all outputs of a batch entry stay in registers."""
    return p.extent(p.m) * p.extent(p.n) <= _most(context)


def _most(context: ContractionContext) -> int:
    return context.target.vector_registers - 4


def narrow_schedule(p: Phase[Dim], dim: int, context: ContractionContext) -> NarrowSchedule:
    """Tiles of runs of vectors, long enough to be read as streams, and as many parts of the sum as are useful then."""
    p = at_typical(p)
    ranking = ranked([_candidate(p, context, _narrow(p, dim, context, None))])
    return replace(ranking.best.schedule, ranking=ranking)


def pieces_schedule(p: Phase[Dim], dim: int, context: ContractionContext,
                    mixed: MixedChannels | None = None) -> NarrowSchedule:
    """The same where registers hold a piece of the outputs, for each of which both operands are read again."""
    p = at_typical(p)
    ranking = ranked([_candidate(p, context, replace(_narrow(p, dim, context, piece), mixed=mixed))
                      for piece in _pieces(p, context)])
    return replace(ranking.best.schedule, ranking=ranking)


def _narrow(p: Phase[int], dim: int, context: ContractionContext, piece: tuple[int, int] | None) -> NarrowSchedule:
    one = NarrowSchedule(dim, dim == p.k[-1], context.lanes, 1, piece=piece)
    groups, steps = one.groups(p), p.extent(p.k[:-1])
    block = even(groups, min(groups, LANE_BLOCK), 1)
    tiles = one.entries(p) // groups * -(-groups // block) * _passes(p, piece)
    splits = max(
        1, min(2 * context.machine.planned_tiles, p.flops // (context.machine.small_product_flops // 2)) // tiles
    )
    splits = -(-steps // -(-steps // min(steps, splits)))
    runs = -(-p.sizes[p.k[-1]] // NARROW_COLUMNS)
    return replace(one, splits=splits, block=block, columns=0 if one.along_k else -(-p.sizes[p.k[-1]] // runs))


# --- pieces of the outputs --------------------------------------------------------------------------------------------

def _pieces(p: Phase[int], context: ContractionContext) -> Iterator[tuple[int, int]]:
    """Even parts of one output dim, with all of the dims after it."""
    dims = p.m + p.n
    for i, d in enumerate(dims):
        room = _most(context) // prod(p.sizes[e] for e in dims[i + 1:])
        yield from ((d, length) for length in
                    sorted({-(-p.sizes[d] // -(-p.sizes[d] // n)) for n in range(1, min(room, p.sizes[d]) + 1)}))


def _passes(p: Phase[int], piece: tuple[int, int] | None) -> int:
    """How many pieces the outputs of an entry have."""
    if piece is None:
        return 1
    dims, (d, length) = p.m + p.n, piece
    return prod(p.sizes[e] for e in dims[:dims.index(d)]) * -(-p.sizes[d] // length)


def _candidate(p: Phase[int], context: ContractionContext, s: NarrowSchedule) -> Candidate[NarrowSchedule]:
    """What arithmetic and loads take, the sums that are added up in L1 after each run of terms, and both operands from
    L2 for each piece."""
    machine, dims, last = context.machine, p.m + p.n, p.k[-1]
    d, length = s.piece or (dims[0], p.sizes[dims[0]])
    unrolled = (d, *dims[dims.index(d) + 1:])
    steps = list(product(range(length), *[range(p.sizes[e]) for e in unrolled[1:]]))
    columns, lane = 1 if s.along_k else s.columns, last if s.along_k else s.dim

    def vectors(t: LinearMap[int], without: int | None = None) -> int:
        """Different ones."""
        return len({j * t.strides[last] + sum(i * t.strides[e] for e, i in zip(unrolled, step) if e != without)
                    for j in range(columns) for step in steps})
    # a vector whose elements lie apart is loaded one by one
    each = [1 if t.strides[lane] in (0, 1) else s.lanes for t in (p.a, p.b)]
    loads = each[0] * vectors(p.a) + each[1] * vectors(p.b, s.mixed.channel if s.mixed else None)
    shuffles = vectors(p.b) if s.mixed else 0       # these take the place of multiply-adds
    terms = max(loads / machine.loads_per_cycle, (columns * len(steps) + shuffles) / machine.fma_per_cycle,
                columns * machine.fma_latency) + machine.step_cycles
    lines, runs = p.extent(p.k[:-1]), -(-p.sizes[last] // (s.lanes if s.along_k else columns))
    added = len(steps) * (1 / machine.loads_per_cycle + machine.vector_op_cycles + 1)
    read = 2 * s.lanes * context.itemsize * (1 if s.along_k else columns) / machine.l2_bytes_per_cycle
    passes, tiles = _passes(p, s.piece), s.entries(p) // s.groups(p) * -(-s.groups(p) // s.block) * s.splits
    times = s.entries(p) * passes * lines / min(machine.planned_cores, tiles * passes)
    return Candidate(f"{length} outputs of d{d}", s, (
        ("terms", times * runs * terms), ("sums", times * (1 if s.along_k else runs) * added),
        ("operands", times * runs * read)))
