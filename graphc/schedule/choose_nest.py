"""Chooses the schedule of a loop nest: a pure function of its shape, the strides of its operands and the target."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import ceil

from graphc.ir.dims import evaluate, typical, upper
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.scan_ops import LinearScan
from graphc.ir.types import f32
from graphc.schedule.cost import Ranking
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.loop_nest import (
    AFTER, ROW_END, Nest, Stages, crosswise, leaf_of, nest_of, producer, stages_of, written_in)
from graphc.schedule.nest_facts import NestFacts, flops_of
from graphc.schedule.nest_grid import Grid, Loops, grid_ranking
from graphc.schedule.nest_schedule import Fetch, NestSchedule
from graphc.schedule.open_sizes import alone, busy_sizes
from graphc.schedule.schedule import InplacePairs
from graphc.schedule.single_op import cluster_of
from graphc.schedule.target import LINE_BYTES, Target
from graphc.schedule.view import ViewType, view_bytes

ROWS_AHEAD = 16                 # that are asked for where squares of far rows are turned
COLUMN_STEP_CYCLES = 2          # of one row in a loop that reads columns


def nest_schedule(p: KernelProblem[Op]) -> NestSchedule:
    """The schedule of a `fused` node of kind "nest", or of a single operator that runs as a nest."""
    return cluster_schedule(cluster_of(p.node), p.ins, p.outs, p.target)


@lru_cache(maxsize=4096)
def cluster_schedule(body: Graph, ins: tuple[ViewType, ...], outs: tuple[ViewType, ...],
                     target: Target) -> NestSchedule:
    """The same of a cluster."""
    nest = nest_of(body, ins, outs)
    if not nest.extents or 0 in nest.extents:
        return NestSchedule(outer=nest.kept, inner=tuple(sorted(nest.reduced)))
    facts = NestFacts(nest, ins, outs, target)
    vector = facts.best_vector()
    found = [(facts, *_ranked(facts, *order)) for order in _orders(facts, vector)]
    found += [(facts, *_ranked(facts, *order)) for order in _other_lines(facts, vector)]
    if _may_run_across(facts, vector):
        rows = NestFacts(crosswise(nest), ins, outs, target)
        found += [(rows, *_ranked(rows, *order)) for order in _orders(rows, vector)]
    facts, loops, ranking = min(found, key=lambda one: one[2].best.total)
    across, nest = facts.nest is not nest, facts.nest
    vector, outer, inner, stages, lanes = loops.vector, loops.outer, loops.inner, loops.stages, loops.lanes
    grid, along = ranking.best.schedule, vector >= 0 and vector == nest.running
    stream = () if along else facts.streamed(vector, lanes, len(inner) > 1 and inner[0] == vector)
    return NestSchedule(
        outer,
        inner,
        vector,
        lanes,
        grid.tile,
        grid.columns,
        grid.chunk,
        grid.cut,
        grid.serial,
        _stored(nest, stages, facts),
        grid.partials,
        stream,
        _inplace(nest, stages, inner, ins, outs),
        across,
        _fetch(facts, stages, outer, inner, vector, lanes, bool(stream)),
        0 if grid.serial else alone(nest.size(range(len(nest.extents))), facts.element_cycles, target.machine),
        loops.squares,
        ranking,
    )


def _orders(facts: NestFacts, vector: int) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """The dim for vectors, outer and inner dims in which the nest may loop. Recurrences whose steps reduce nothing may
    walk along their axis for one vector after another, with what they carry in registers, or for one row after another,
    with neighbouring steps as lanes."""
    nest = facts.nest
    outer, inner = facts.loops(vector)
    if nest.running >= 0 and not nest.reduced:
        yield vector, (*outer, *(d for d in inner if d != vector)), ()
        if facts.lies_along(nest.running):
            yield nest.running, (*outer, *inner), ()
    if nest.running < 0 or inner:
        yield vector, outer, inner


def _other_lines(facts: NestFacts, vector: int) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...], int]]:
    """The same of sums along rows: vectors along each dim along which something lies, or of short rows side by side,
    with squares that are transposed in registers for what lies along the last of the inner dims."""
    nest = facts.nest
    if not nest.reduced or nest.crossing or nest.running >= 0:
        return
    for d in facts.lines() if facts.lies_across(vector) else facts.side_by_side():
        outer, inner = facts.loops(d)
        if d != vector and facts.lies_across(vector):
            yield d, outer, inner, 0
        if facts.square(d, inner):
            yield d, outer, inner, facts.square(d, inner)


def _ranked(facts: NestFacts, vector: int, outer: tuple[int, ...], inner: tuple[int, ...],
            square: int = 0) -> tuple[Loops, Ranking[Grid]]:
    """square: the side of squares of a nest with sums."""
    nest, machine = facts.nest, facts.target.machine
    stages = stages_of(nest, inner)
    along = vector >= 0 and vector == nest.running
    turned = len(inner) > 1 and inner[0] == vector
    lanes = facts.step_lanes if along else facts.lanes(vector, turned, stages)
    lanes = max(square, LINE_BYTES // f32.itemsize) if square else lanes
    values = busy_sizes(nest.extents, facts.element_cycles, machine)
    columns = lanes if vector not in (*inner, nest.running) and vector >= 0 else 1
    steps = evaluate(nest.extents[nest.running], values) if nest.running >= 0 else 1
    element = facts.scalar_cycles if vector < 0 and nest.running >= 0 else facts.element_cycles
    element += facts.turned_cycles(vector) if turned else 0.0
    if nest.reduced and not nest.crossing and nest.running < 0:
        element += facts.across_cycles(vector, outer, inner, square)
    element -= facts.traffic_cycles * facts.empty_lanes(vector, lanes) if columns > 1 else 0.0
    row = element * max(1, evaluate(nest.size(inner), values)) * columns * steps    # of padding, none
    row += facts.row_cycles(vector, outer, inner, lanes, stages) if lanes > 1 else 0.0
    row += facts.crossing_cycles(vector, inner) if nest.crossing and vector >= 0 else 0.0
    row += facts.piece_cycles(vector, inner, lanes) if columns > 1 else 0.0
    if along:
        steps = ceil(steps / lanes)
        row += steps * facts.joined_lanes_cycles
    apart = facts.rows_apart(vector, inner[1], lanes) if turned else 0
    square = square or (lanes if turned else 0)
    moved = sum(map(view_bytes, (*facts.ins, *facts.outs))) if nest.running >= 0 else 0
    loops = Loops(nest, values, stages, outer, inner, vector, lanes, row, machine, steps, facts.flops, apart, square,
                  moved)
    return loops, grid_ranking(loops)


def _may_run_across(facts: NestFacts, vector: int) -> bool:
    """Whether reductions whose results no inner value reads may be taken row by row, along contiguous kept dims, too:
    the narrow matrices of a stack are read as fast column by column."""
    nest, kept = facts.nest, facts.nest.kept
    if not nest.reductions or nest.crossing or nest.running >= 0 or vector not in kept:
        return False
    steps = [facts.step(d) for d in nest.reduced]
    if max(map(facts.step, kept)) > max(steps) and min(steps) < facts.target.machine.prefetch_reach_bytes:
        return False
    return stages_of(nest, nest.reduced).count == 1


def _fetch(facts: NestFacts, stages: Stages, outer: Sequence[int], inner: Sequence[int], vector: int, lanes: int,
           stream: bool) -> Fetch | None:
    """Rows that come from memory in the first stage and stay in the caches of a core for the others: the next one, in
    the stage with the most arithmetic. Columns that lie far apart: some rows down, where these are of the same columns,
    or of those that follow soon; else the same rows of the next columns; in every stage. """
    if facts.nest.running >= 0:
        return None
    if len(inner) > 1 and inner[0] == vector:
        return Fetch(vector, ROWS_AHEAD, level=2) if _far_columns(facts, inner[1], vector) else None
    if inner and vector not in inner and _far_columns(facts, vector, inner[-1]):
        below, rows = facts.target.machine.l3_latency // COLUMN_STEP_CYCLES, facts.size(inner[-1:])
        stays = 2 * f32.itemsize * rows * facts.extents[vector] <= facts.target.machine.l2_bytes
        if rows > below or facts.size(outer) > 1 and stays:
            return Fetch(inner[-1], below, level=2)
        return Fetch(vector, lanes * ceil(below / rows), level=2)
    if not stream or stages.count < 2 or not outer or inner != (vector,):
        return None
    work = [0] * stages.count
    for node in facts.nest.body.nodes:
        if node.outputs[0] in stages.inner:
            work[stages.home[node.outputs[0]]] += flops_of(node)
    return Fetch(outer[-1], 1, level=1, stage=work.index(max(work)))


def _far_columns(facts: NestFacts, line: int, down: int) -> bool:
    """Whether inputs larger than L2 lie along one dim, and neighbours along the other far apart."""
    if line < 0:
        return False
    views = dict(zip(facts.nest.body.inputs, facts.ins))
    found = [(s, views[leaf_of(u)]) for u, s in facts.nest.leaves.items() if leaf_of(u) in views]
    machine = facts.target.machine
    return any(
        s[line] == 1
        and typical(s[down]) * t.dtype.itemsize >= machine.prefetch_reach_bytes
        and view_bytes(t) > machine.l2_bytes
        for s, t in found
    )


def _stored(nest: Nest, stages: Stages, facts: NestFacts) -> tuple[int, ...]:
    """Numbers of the body nodes whose values are kept from the stage that makes them to later ones: those dear to
    repeat."""
    if stages.count < 2:
        return ()
    work: dict[Node, int] = {}
    later = _used_later(nest, stages)
    kept: list[int] = []
    # and the load of what it is made from
    limit, cheap = facts.target.machine.l2_bytes // 2, facts.target.machine.recompute_ops + 1
    row = facts.size(nest.reduced) * (facts.target.vector_bytes if not nest.reduced else 4)
    for number, node in enumerate(nest.body.nodes):
        if not any(v in stages.inner for v in node.outputs):
            work[node] = 0
            continue
        sources = [producer(v) for v in node.inputs]
        work[node] = flops_of(node) + sum(work.get(s, 0) if s else 1 for s in sources)
        dear = work[node] > cheap and node.outputs[0] in later and not node.op.is_whole_view
        if isinstance(node.op, LinearScan) and node.outputs[0] in later or dear and (len(kept) + 1) * row <= limit:
            kept.append(number)
            work[node] = 1
    return tuple(kept)


def _used_later(nest: Nest, stages: Stages) -> set[Value]:
    """Inner values that a node, reduction or output of a later stage reads."""
    found: set[Value] = set()
    for node in nest.body.nodes:
        stage = stages.home[node.outputs[0]] - (node in nest.reductions)
        for v in node.inputs:
            while v.node is not None and v.node.op.is_whole_view:
                v = v.node.inputs[0]
            if v in stages.inner and stages.home[v] < stage:
                found.add(v)
    return found


def _inplace(nest: Nest, stages: Stages, inner: Sequence[int], ins: Sequence[ViewType],
             outs: Sequence[ViewType]) -> InplacePairs:
    """All pairs (output, input) with equal strides over all dims, where no element of the input is read once the output
    is stored in its place: neither in a stage after that, nor in another trip of a loop around the store. """
    last = _last_reads(nest, stages)
    pairs = []
    for o, strides in enumerate(nest.outputs):
        stage = written_in(nest, stages, inner, o)
        around = _loops_around(nest, inner, stage, o)
        if any(upper(nest.extents[d]) != 1 and strides[d] == 0 for d in around) or _read_after(nest, stages, inner, o):
            continue
        for i, x in enumerate(nest.body.inputs):
            rows = [s for use, s in nest.leaves.items() if leaf_of(use) is x]
            same = rows and all(s == strides for s in rows) and ins[i] == outs[o]
            if same and last.get(x, 0) <= stage:
                pairs.append((o, i))
    return tuple(pairs)


def _loops_around(nest: Nest, inner: Sequence[int], stage: int, o: int) -> Iterable[int]:
    """The dims of the loops in which output `o` is stored."""
    if stage == AFTER:
        return inner if nest.spans[o] else ()
    return set(range(len(nest.extents))) - set(inner) if stage == ROW_END else range(len(nest.extents))


def _read_after(nest: Nest, stages: Stages, inner: Sequence[int], o: int) -> bool:
    """Whether a number that is stored after all rows is followed by rows of sums, which may read what lay in its
    place."""
    ends = [nest.spans[k] for k in range(len(nest.outputs)) if written_in(nest, stages, inner, k) == AFTER]
    return not nest.spans[o] and any(ends)


def _last_reads(nest: Nest, stages: Stages) -> dict[Value, int]:
    """The last stage that may read each input: that of the last node that depends on it through inner values."""
    last: dict[Value, int] = {}
    reads: dict[Value, set[Value]] = {}
    for node in nest.body.nodes:
        mine: set[Value] = set()
        for v in node.inputs:
            mine |= reads.get(v, set()) if v.node is not None else {v}
        stage = stages.home[node.outputs[0]] - (node in nest.reductions)
        for x in mine:
            last[x] = max(last.get(x, 0), stage)
        for v in node.outputs:
            reads[v] = mine if v in stages.inner else set()
    return last
