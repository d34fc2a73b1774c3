"""Chooses how a contraction runs: a pure function of shapes, strides and target (no thread count: how a sum is split
must not depend on it). An analytical model in cycles of the register tile and bytes of the caches; nothing is measured.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from graphc.errors import InternalError
from graphc.ir.contraction import Contraction
from graphc.ir.dims import Dim, largest, typical
from graphc.ir.types import DType, bf16x2
from graphc.schedule.blocking import PackingMode
from graphc.schedule.choose_groups import mixed_gradient, mixed_phase, mixed_schedule
from graphc.schedule.choose_lanes import is_short, lane_dim, lane_schedule
from graphc.schedule.choose_narrow import fits_registers, narrow_dim, narrow_schedule, pieces_schedule
from graphc.schedule.choose_few_rows import (
    beside_few_rows, dot_schedule, few_rows_schedules, may_dot, reads_once, runs_schedule)
from graphc.schedule.choose_rows import open_tile_schedule
from graphc.schedule.choose_shifted import shifted_schedule
from graphc.schedule.choose_tiles import tile_schedule
from graphc.schedule.contraction_form import Form, LinearMap, Phase, normal_form
from graphc.schedule.contraction_schedule import (
    ContractionSchedule, DotSchedule, LaneSchedule, LoopSchedule, NarrowSchedule, PhaseSchedule, RowsSchedule,
    ShiftedSchedule, TileSchedule, group_sizes, packed_row_panels, round_up)
from graphc.schedule.contraction_context import DOT_ROWS, ContractionContext
from graphc.schedule.cost import SHOWN, TOLERANCE, Ranking
from graphc.schedule.machine import Machine
from graphc.schedule.open_phase import at_typical, is_closed
from graphc.schedule.operand_roles import Copies, Tensor, turned_axes
from graphc.schedule.target import Target

Costed = TileSchedule | DotSchedule | LaneSchedule | NarrowSchedule | ShiftedSchedule

COPY_SAVES = 1.3                # times as long, at most, few rows take that read weights as they lie, instead of a copy
ALIGN = 16                      # elements: parts of the shared scratch start on cache lines


def contraction_schedule(
    c: Contraction,
    a_shape: Sequence[Dim],
    a_strides: Sequence[Dim],
    b_shape: Sequence[Dim],
    b_strides: Sequence[Dim],
    out_strides: Sequence[Dim],
    dtype: DType,
    target: Target,
    fused: bool = False,
    invariant: tuple[bool, bool] = (False, False),
    gates: int = 0,
    factors: Sequence[DType] = (),
    together: int = 0,
) -> ContractionSchedule:
    """The schedule for operands that lie as given (strides in elements). fused: the sums go through an epilogue.

    invariant: operands that do not change in the loop around the kernel, so that packing them, once before it, costs
    nothing. gates: in how many parts the epilogue reads the columns (0: as they are), each some whole vectors wide.
    factors: the types of the operands, where they may differ from that of the sums. together: as of `Form`. """
    lanes = target.lanes(dtype.itemsize)
    matrices = bool(factors) and all(f.is_packed and target.multiplies_matrices(f.element.name) for f in factors)
    pairs = bool(factors) and all(f is bf16x2 for f in factors)
    out_shape = tuple(m.span(c.sizes)[1] + 1 for m in c.out)
    a, b = Tensor(tuple(a_shape), tuple(a_strides)), Tensor(tuple(b_shape), tuple(b_strides))
    out = Tensor(out_shape, tuple(out_strides))
    base = ContractionContext(target, dtype.itemsize, lanes, (False, False), matrices=matrices,
                              fused=fused and not gates, exact=dtype.is_int, pairs=pairs)
    if gates:
        form = normal_form(c, a, b, out, lanes, fused, (True, True), target.machine)
        return _gated(form, replace(base, widened=_short(form, factors, dtype)), invariant, gates, dtype)

    def of_form(copies: Copies) -> ContractionSchedule:
        form = normal_form(c, a, b, out, lanes, fused, invariant, target.machine, copies, together)
        own = replace(base, widened=_short(form, factors, dtype))
        if copies is Copies.RUNS:
            dots = runs_schedule(form.phases[0], replace(own, free=_free(form, invariant)))
            return placed(form, () if dots is None else (dots,), dtype, None)
        context, phases = _copied_or_not(form, own, invariant, reads_once,
                                         lambda context: [_phase_schedule(p, dtype, context) for p in form.phases])
        chosen = [_with_groups(p, s, context) for p, s in zip(form.phases, phases)]
        form, phases = replace(form, phases=tuple([p for p, _ in chosen])), tuple([s for _, s in chosen])
        return placed(form, phases, dtype, _prepacked(form, phases, context.free))
    straight = of_form(Copies.CHANNELS)
    plain = all(f is dtype for f in factors)
    if plain and _has_few_rows(straight) and (dots := of_form(Copies.RUNS)).phases:
        straight = min((straight, dots), key=lambda s: _usual_cycles(s, target))
    turned = turned_axes(c, (a, b), lanes, invariant) != [None, None]
    return _with_other_copies(straight, of_form, turned, plain, target)


def _with_other_copies(straight: ContractionSchedule, of_form: Callable[[Copies], ContractionSchedule], turned: bool,
                       plain: bool, target: Target) -> ContractionSchedule:
    """The form, or one with images that are copied otherwise, if that is cheaper. turned: groups may be innermost.
    plain: factors have the type of the sums; others may be multiplied by matrix registers, which need the channels."""
    cycles = form_cycles(straight, target)
    if cycles is None:
        return straight
    if turned:
        return min((straight, of_form(Copies.GROUPS)), key=lambda s: form_cycles(s, target) or inf)
    # only micro-tiles, whose terms are counted alike, say which of two copies of an image is better
    copied = plain and any(copy is not None and copy.channels is not None for copy in straight.form.copies)
    if copied and _is_tiled(straight):
        same = of_form(Copies.SAME)
        return same if _is_tiled(same) and TOLERANCE * (form_cycles(same, target) or inf) < cycles else straight
    return straight


def _is_tiled(s: ContractionSchedule) -> bool:
    """Whether all phases run by micro-tiles."""
    return all(isinstance(phase, TileSchedule) for phase in s.phases)


def _copied_or_not(
    form: Form, base: ContractionContext, invariant: tuple[bool, bool],
    once: Callable[[Phase[Dim], ContractionContext], bool],
    choose: Callable[[ContractionContext], list[PhaseSchedule]],
) -> tuple[ContractionContext, tuple[PhaseSchedule, ...]]:
    """The phases, and what of them costs nothing to pack. What few rows read `once` is packed where that saves more
    than a second copy is worth, which nothing is of what is stored in few bits. Integers are four to an element of a
    packed one, and their sums have the same bits in any order: theirs is packed where it saves anything."""
    free = _free(form, invariant)
    copied = replace(base, free=free)
    packed = choose(copied)
    if not free[1] or base.exact or not once(form.phases[0], base):
        return copied, tuple(packed)
    kept = replace(base, free=(free[0], False), kept=True)
    found = choose(kept)
    costed = all(s.ranking is not None for s in (*found, *packed))
    slower = costed and not base.widened[1] and _cycles(found[0]) > COPY_SAVES * _cycles(packed[0])
    return (copied, tuple(packed)) if slower else (kept, tuple(found))


def _free(form: Form, invariant: tuple[bool, bool]) -> tuple[bool, ...]:
    """The operands, after the swap, that cost nothing to pack."""
    return tuple(invariant[i ^ form.swap] and len(form.phases) == 1 and form.copies[i] is None for i in range(2))


def _short(form: Form, factors: Sequence[DType], dtype: DType) -> tuple[bool, ...]:
    """Which operands, after the swap, have fewer bits than the sums."""
    return tuple([bool(factors) and factors[i ^ form.swap].bits < dtype.bits for i in range(2)])


def _has_few_rows(s: ContractionSchedule) -> bool:
    """Whether it has one phase, by micro-tiles, whose few rows dot products may suit better."""
    rows = [p.extent(p.m) for p in s.form.phases]
    return (len(rows) == 1 and isinstance(rows[0], int) and rows[0] <= DOT_ROWS and not s.dtype.is_int
            and type(s.phases[0]) in (TileSchedule, RowsSchedule))


def _usual_cycles(s: ContractionSchedule, target: Target) -> float:
    """What a form of one phase costs with the typical sizes of all names."""
    (p,), (phase,) = s.form.phases, s.phases
    if phase.ranking is None:
        free = (s.prepacked_role == "a", s.prepacked_role == "b")
        phase = tile_schedule(at_typical(p), ContractionContext(
            target, s.dtype.itemsize, target.lanes(s.dtype.itemsize), free))
    return _copies_cycles(s, target.machine) + _cycles(phase)


def _copies_cycles(s: ContractionSchedule, machine: Machine) -> float:
    return sum([copy_cycles(typical(copy.size), s.dtype, machine, copy.channels is not None)
                for copy in s.form.copies if copy is not None])


def form_cycles(s: ContractionSchedule, target: Target, epilogue: int = 0) -> float | None:
    """What the copies of a form and its phases cost; None where a phase has no other candidates, or sizes are open.
    epilogue: operations of one element of it, which vectors that are not full take for all of their lanes."""
    pairs = list(zip(s.form.phases, s.phases))
    if any(phase.ranking is None and not _is_empty(p) for p, phase in pairs) or any(p.is_open for p, _ in pairs):
        return None
    vectors = sum([_stored_vectors(p, tiles) for p, tiles in pairs if isinstance(tiles, TileSchedule)])
    stored = vectors * epilogue * target.machine.vector_op_cycles / target.machine.planned_cores
    zeros = sum([typical(p.extent(p.batch + p.m + p.n)) for p, _ in pairs if _is_empty(p)])
    filled = zeros * target.machine.scalar_element_cycles / target.machine.planned_cores
    sums = sum([_cycles(phase) for p, phase in pairs if not _is_empty(p)])
    return _copies_cycles(s, target.machine) + sums + stored + filled


def _is_empty(p: Phase[Dim]) -> bool:
    """Whether all sums are of nothing: positions of a strided gradient that no window has."""
    return p.extent(p.k) == 0


def _stored_vectors(p: Phase[Dim], s: TileSchedule) -> float:
    """Vectors along lines of finished sums; the last of each line may not be full."""
    line = typical(p.sizes[(p.m if s.transposed_store else p.n)[-1]])
    return typical(p.extent(p.batch) * p.extent(p.m) * p.extent(p.n)) / line * -(-line // s.lanes)


def copy_cycles(size: int, dtype: DType, machine: Machine, turned: bool) -> float:
    """What a copy of so many elements takes; turned: as their neighbours are others in it."""
    each = 2 * dtype.itemsize / machine.l3_bytes_per_cycle + (machine.transpose_cycles if turned else 0)
    return size * each / machine.planned_cores + machine.handover_cycles


def _with_groups(p: Phase[Dim], s: PhaseSchedule, context: ContractionContext) -> tuple[Phase[Dim], PhaseSchedule]:
    """The phase and its schedule, or with groups and features as one dim, if that is cheaper."""
    found = _mixed(p, context) if type(s) in (TileSchedule, RowsSchedule) else None
    if found is None:
        return p, s
    tiles = tile_schedule(at_typical(p), context) if p.is_open else s
    return found if _cycles(found[1]) < _cycles(tiles) else (p, s)


def _mixed(p: Phase[Dim], context: ContractionContext) -> tuple[Phase[Dim], PhaseSchedule] | None:
    if found := mixed_phase(p, context.lanes):
        mixed = mixed_schedule(*found, context)
        return (found[0], mixed) if mixed else None
    if found := mixed_gradient(p, context.lanes):
        dim = narrow_dim(found[0], context)
        return None if dim is None else (found[0], pieces_schedule(found[0], dim, context, found[1]))
    return None


def _prepacked(form: Form, phases: tuple[PhaseSchedule, ...], free: tuple[bool, ...]) -> int | None:
    """The operand, after the swap, that is packed for nothing (b, if both are)."""
    sizes = _shared_sizes(form.phases[0], phases[0]) if phases else ()
    return next((i for i in (1, 0) if phases and free[i] and sizes[i] != 0), None)


def _phase_schedule(p: Phase[Dim], dtype: DType, context: ContractionContext) -> PhaseSchedule:
    if dtype.bits < 32 or p.extent(p.k) == 0:
        return LoopSchedule(max(1, context.machine.small_product_flops // max(1, 16 * typical(p.extent(p.k)))))
    lane, few = lane_dim(p, context), few_rows_schedules(p, context)
    if lane is not None and is_short(p) and not few:
        return lane_schedule(p, lane, context)
    narrow = narrow_dim(p, context)
    if narrow is not None and fits_registers(p, context):
        return narrow_schedule(p, narrow, context)
    others: list[Costed] = [*few]
    if lane is not None:
        lanes = lane_schedule(p, lane, context)
        others.append(beside_few_rows(at_typical(p), lanes, context) if few else lanes)
    others += [] if narrow is None else [pieces_schedule(p, narrow, context)]
    shifted = shifted_schedule(p, context)
    others += [] if shifted is None else [shifted]
    if p.is_open and not others:
        return open_tile_schedule(p, context)
    best = _cheapest((tile_schedule(at_typical(p), context), *others))
    return open_tile_schedule(p, context) if p.is_open and isinstance(best, TileSchedule) else best


def _cheapest(found: Sequence[Costed]) -> Costed:
    """The first of those that cost least. Its ranking has the best of each other kind, too."""
    best = min(found, key=_cycles)
    rivals = [_ranking(s).best for s in found if s is not best]
    chosen, *others = _ranking(best).candidates
    others = sorted([*rivals, *others[:max(0, SHOWN - 1 - len(rivals))]], key=lambda c: c.total)
    return replace(best, ranking=Ranking((chosen, *others)))


def _ranking(s: PhaseSchedule) -> Ranking[object]:
    if s.ranking is None:
        raise InternalError("schedules are compared by their rankings", "schedule")
    return s.ranking


def _cycles(s: PhaseSchedule) -> float:
    """What the best of a kind of schedules costs: the same cycles for all kinds."""
    return _ranking(s).best.total


# --- gates ------------------------------------------------------------------------------------------------------------

def _interleaved(p: Phase[Dim], gates: int, lanes: int) -> Phase[Dim]:
    """The columns as vectors of units × gates × lanes: what an epilogue needs of all gates for some units is side by
    side."""
    (n,), first = p.n, len(p.sizes)
    width = p.sizes[n] // gates
    steps = (lanes, width, 1)

    def linear(t: LinearMap[Dim]) -> LinearMap[Dim]:
        return LinearMap(t.base, t.strides + tuple(t.strides[n] * step for step in steps))
    sizes = tuple(1 if d == n else size for d, size in enumerate(p.sizes)) + (width // lanes, gates, lanes)
    return replace(
        p,
        sizes=sizes,
        n=(first, first + 1, first + 2),
        a=linear(p.a),
        b=linear(p.b),
        out=linear(p.out),
        parts=p.parts + ((),) * 3,
    )


def _gated(form: Form, base: ContractionContext, invariant: tuple[bool, bool], gates: int,
           dtype: DType) -> ContractionSchedule:
    form = replace(form, phases=(_interleaved(form.phases[0], gates, base.lanes),))
    context, phases = _copied_or_not(form, base, invariant, may_dot,
                                     lambda context: [_gate_schedule(p, context, gates) for p in form.phases])
    return replace(placed(form, phases, dtype, _prepacked(form, phases, context.free)), gates=gates)


def _gate_schedule(p: Phase[Dim], context: ContractionContext, gates: int) -> PhaseSchedule:
    if not is_closed(p):
        return open_tile_schedule(p, context, gates)
    tiles = tile_schedule(p, context, gates)
    return _cheapest((dot_schedule(p, context), tiles)) if may_dot(p, context) else tiles


# --- where the shared scratch lies ------------------------------------------------------------------------------------

def placed(form: Form, phases: tuple[PhaseSchedule, ...], dtype: DType, ready: int | None) -> ContractionSchedule:
    first, second = (0 if copy is None else round_up(copy.size + ALIGN, ALIGN) for copy in form.copies)
    copies = None if form.copies[0] is None else 0, None if form.copies[1] is None else first
    end = top = first + second
    packed_size: Dim = 0
    packed_a: list[Dim | None] = []
    packed_b: list[Dim | None] = []
    partials: list[Dim | None] = []
    for p, s in zip(form.phases, phases):
        sizes = _shared_sizes(p, s)
        if ready is not None:
            packed_size, sizes[ready] = sizes[ready], 0
        offsets = [end + sum(sizes[:i]) for i in range(3)]
        for target, offset, size in zip((packed_a, packed_b, partials), offsets, sizes):
            target.append(None if size == 0 else offset)
        top = largest(top, end + sum(sizes))
    prepacked = None if ready is None else ready ^ form.swap
    return ContractionSchedule(form, phases, copies, tuple(packed_a), tuple(packed_b), tuple(partials), top,
                               dtype,
                               prepacked, packed_size)


def _shared_sizes(p: Phase[Dim], s: PhaseSchedule) -> list[Dim]:
    """Elements of packed a, packed b and partial results."""
    if isinstance(s, RowsSchedule):
        return [largest(*sizes) for sizes in zip(*[_shared_sizes(p, regime) for regime in s.regimes])]
    if isinstance(s, NarrowSchedule) and s.splits > 1:
        return [0, 0, round_up(s.splits * s.entries(p) * p.extent(p.m + p.n) * s.width, ALIGN)]
    batches, k = p.extent(p.batch), p.extent(p.k)
    if isinstance(s, ShiftedSchedule):
        return [round_up(s.packed_rows(p), ALIGN), 0, 0]
    if isinstance(s, LaneSchedule):
        return [round_up(k * s.line(p), ALIGN) if s.packs(p, operand) else 0 for operand in (p.a, p.b)] + [0]
    if not isinstance(s, TileSchedule):
        return [0, 0, 0]
    a = batches * packed_row_panels(p.extent(p.m), s) * s.blocking.mr * k if s.a is PackingMode.ONCE else 0
    b = batches * s.blocking.nc.count(group_sizes(p, p.n)) * s.width(p) * k if s.b is PackingMode.ONCE else 0
    partial = s.splits * batches * p.extent(p.m) * p.extent(p.n) if s.is_split else 0
    return [round_up(size, ALIGN) for size in (a, b, partial)]
