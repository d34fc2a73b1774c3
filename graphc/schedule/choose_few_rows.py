"""Schedules of contractions with few rows, whose operands are read once, unpacked: dot products, and rows of a matrix
that are scaled and added."""
from __future__ import annotations

from dataclasses import replace
from itertools import product

from graphc.ir.dims import Dim, typical
from graphc.schedule.blocking import Blocking, Cut, PackingMode
from graphc.schedule.contraction_context import DOT_ROWS, ContractionContext, even, stream_steps
from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.contraction_schedule import DotSchedule, LaneSchedule, StreamSchedule, round_up
from graphc.schedule.cost import Candidate, Ranking, ranked
from graphc.schedule.open_phase import at_typical, is_closed, known
from graphc.schedule.tile_cost import TileCost, TiledProblem, Tiling

STREAM_BYTES = (8192, 4096, 2048)       # of one row of b in a tile
STREAM_STEPS = 256              # of a sum that a tile adds up in L1
STREAM_WORK = 64 << 10          # elements of b that a tile reads, at least
MAX_PARTIALS = 4 << 20          # elements of partial results


def few_rows_schedules(p: Phase[Dim], context: ContractionContext) -> list[DotSchedule | StreamSchedule]:
    """Those that suit the operands as they lie."""
    found: list[DotSchedule | StreamSchedule] = [dot_schedule(p, context)] if may_dot(p, context) else []
    return [*found, stream_schedule(p, context)] if is_closed(p) and may_stream(p) else found


def reads_once(p: Phase[Dim], context: ContractionContext) -> bool:
    """Whether so few rows read each of the columns about once that no kernel needs a copy of these."""
    return may_dot(p, context) or may_stream(p)


# --- dot products -----------------------------------------------------------------------------------------------------

def may_dot(p: Phase[Dim], context: ContractionContext) -> bool:
    """Few rows, or columns, and both operands contiguous along a k of a vector or more."""
    inner = p.k[-1]
    few = any(isinstance(n, int) and n <= DOT_ROWS for n in (p.extent(p.m), p.extent(p.n)))
    sized = is_closed(p) or known(p, p.k, p.m) and p.extent(p.m) <= DOT_ROWS
    return few and sized and len(p.k) == 1 and _lie_along(p, inner) and p.sizes[inner] >= context.lanes


def _lie_along(p: Phase[Dim], d: int) -> bool:
    return p.a.strides[d] == 1 and p.b.strides[d] == 1


def dot_schedule(phase: Phase[Dim], context: ContractionContext, name: str = "dots") -> DotSchedule:
    """The same for all numbers of columns. Tiles have the work of a small product, or each core has one."""
    p = at_typical(phase)
    rows = min(p.extent(p.m), 2)
    columns = min(p.extent(p.n), 4 if rows == 1 else 3)
    vectors = 2 if rows * columns <= 4 and p.sizes[p.k[-1]] >= 4 * context.lanes else 1
    cost = 2 * p.extent(p.k) * p.extent(p.m)
    shares = p.extent(p.n) / context.machine.planned_cores
    tiles = [max(columns, round_up(n, columns)) for n in (context.machine.small_product_flops // 2 // cost, shares)]
    candidates = [DotSchedule(rows, columns, vectors, context.lanes, tile) for tile in dict.fromkeys(tiles)]
    ranking = ranked([Candidate(name, s, _dot_terms(p, s, context)) for s in candidates])
    return replace(ranking.best.schedule, ranking=ranking)


def runs_schedule(p: Phase[Dim], context: ContractionContext) -> DotSchedule | None:
    """Dot products of few rows over sums that lie in runs (channels of the lines of a window); None where no vector
    fits into a run, or the rows or runs are not known."""
    inner = p.k[-1]
    if not known(p, p.k, p.m) or not 0 < p.extent(p.m) <= DOT_ROWS or p.extent(p.k) == 0:
        return None
    if not _lie_along(p, inner) or typical(p.sizes[inner]) < context.lanes:
        return None
    return dot_schedule(p, context, "dots of runs")


def _dot_terms(p: Phase[int], s: DotSchedule, context: ContractionContext) -> tuple[tuple[str, float], ...]:
    """Cycles on the planned cores. Windows that overlap bring few new elements for each column; each element comes once
    from where it was written, and is read again by the next rows of a tile."""
    machine, inner, n = context.machine, p.k[-1], p.extent(p.n)
    columns, runs, passes = p.extent(p.batch) * n, p.extent(p.k[:-1]), -(-p.extent(p.m) // s.rows)
    tiles = p.extent(p.batch) * -(-n // s.tile)
    cores = min(machine.planned_cores, tiles)
    step = max(s.rows * s.columns / context.sums_per_cycle, (s.rows + s.columns) / machine.loads_per_cycle,
               machine.fma_latency / s.vectors)
    blocks = passes * p.extent(p.batch) * -(-n // s.columns)
    added = (s.lanes.bit_length() - 1) * (1 + 1 / machine.fma_per_cycle)    # a shuffle in each cycle, and a sum
    new = runs * min(p.sizes[inner], abs(p.b.strides[p.n[-1]]) or 1)
    again = max(0, passes * columns * new - _touched(p, p.b))
    first_a, first_b = (_first(p, t, old, context)
                        for t, old in zip((p.a, p.b), context.old))
    return (("sums", blocks * runs * (-(-p.sizes[inner] // s.lanes) * step + machine.step_cycles) / cores),
            ("lanes", blocks * s.rows * s.columns * added / cores), ("calls", blocks * machine.call_cycles / cores),
            ("load a", first_a / cores), ("load b", first_b / cores),
            ("again", again * context.itemsize / machine.l2_bytes_per_cycle / cores),
            ("hand-over", machine.handover_cycles * (cores > 1)))


# --- rows of a matrix -------------------------------------------------------------------------------------------------

def may_stream(p: Phase[Dim]) -> bool:
    """Few rows times matrices that lie along n."""
    straight = is_closed(p) and len(p.n) == 1 and len(p.k) == 1 and p.b.strides[p.n[0]] == 1
    return straight and p.extent(p.m) <= DOT_ROWS


def stream_schedule(p: Phase[int], context: ContractionContext) -> StreamSchedule:
    """Tiles of some KB of columns and of enough steps that each reads some 100 KB of b, or one for each core."""
    candidates = [_streamed(p, context, *draft) for draft in product(STREAM_BYTES, (STREAM_WORK, 0))]
    ranking = ranked({c.schedule: c for c in candidates}.values())
    return replace(ranking.best.schedule, ranking=ranking)


def _streamed(p: Phase[int], context: ContractionContext, nbytes: int, work: int) -> Candidate[StreamSchedule]:
    """Of so many bytes of columns. work: elements of b that a tile reads at least; 0: as many as give all cores one."""
    m, n, k, machine = p.extent(p.m), p.extent(p.n), p.extent(p.k), context.machine
    columns = Cut(0, even(n, min(n, nbytes // context.itemsize), context.lanes))
    across = p.extent(p.batch) * columns.count((n,))
    wanted = 2 * machine.planned_tiles // across if work else -(-machine.planned_cores // across)
    sums = Cut(0, min(k, STREAM_STEPS) if work else -(-k // max(wanted, -(-k // STREAM_STEPS))))
    blocks = sums.count((k,))
    most = blocks // -(-work // (columns.chunk * sums.chunk)) if work else blocks
    splits = max(1, min(most, wanted, MAX_PARTIALS // (p.extent(p.batch) * m * n)))
    splits = -(-blocks // -(-blocks // splits))
    s = StreamSchedule(Blocking(m, context.lanes, m, columns, sums), context.lanes, PackingMode.UNPACKED,
                       PackingMode.UNPACKED, splits)
    cost = _StreamCost(TiledProblem(p, context), Tiling(m, columns, splits=splits))
    return Candidate("streamed", s, cost.terms(stream_steps(m), blocks))


def beside_few_rows(p: Phase[int], s: LaneSchedule, context: ContractionContext) -> LaneSchedule:
    """The same with what its rivals count, too: the first reads of all elements."""
    machine, tiles = context.machine, -(-p.sizes[s.dim] // s.block) * -(-p.extent(s.outer(p)) // s.tile)
    cores = min(machine.planned_cores, tiles)
    reads = tuple([(f"load {name}", _first(p, t, old, context) / cores)
                   for name, t, old in zip("ab", (p.a, p.b), context.old)])
    added = (*reads, ("hand-over", machine.handover_cycles * (cores > 1)))
    candidates = s.ranking.candidates if s.ranking else ()
    return replace(s, ranking=Ranking(tuple([Candidate(c.name, c.schedule, (*c.terms, *added)) for c in candidates])))


class _StreamCost(TileCost):
    """The same where whole lines of columns are scaled and added to sums in L1."""

    def terms(self, steps: int, blocks: int) -> tuple[tuple[str, float], ...]:
        """Sums are loaded and stored for each few steps, and once more for each block of the sum."""
        problem, machine, context = self.problem, self.machine, self.problem.context
        vectors = problem.batch * self.across * -(-self.columns // context.lanes)
        moved = 2 * problem.m / machine.loads_per_cycle
        each = problem.m * steps / context.sums_per_cycle + steps / machine.loads_per_cycle + moved
        sums = vectors * (-(-problem.k // steps) * each + 2 * blocks * moved)
        part = min(1.0, problem.b_span / (problem.n * problem.k))      # windows overlap
        touched = self._touched(self.down, self.across, not self.tiling.by_rows)
        shared = dict(self.shared_terms()) | {
            "sums": sums / self.cores, "imbalance": sums * (self._share() - 1 / self.cores),
            "last tile": sums / self.tiles * (1 - 1 / self.cores) / 2,
            "calls": problem.batch * self.across * blocks * machine.call_cycles / self.cores}
        return (*shared.items(), self.a_terms(PackingMode.UNPACKED)[0],
                ("load b", self._loads(part * self.columns, touched, context.old[1])))


# --- first reads ------------------------------------------------------------------------------------------------------

def _touched(p: Phase[int], operand: LinearMap[int]) -> int:
    """How many different elements there are."""
    low, high = operand.span(p.sizes)
    return min(high - low + 1, p.extent([d for d, step in enumerate(operand.strides) if step]))


def _first(p: Phase[int], operand: LinearMap[int], old: bool, context: ContractionContext) -> float:
    """Cycles of the first read of each."""
    machine = context.machine
    return _touched(p, operand) * context.itemsize * (machine.old_byte_cycles if old else machine.remote_byte_cycles)
