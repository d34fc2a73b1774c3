"""Chooses the schedule of a loop nest: a pure function of its shape, the strides of its operands and the target."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.types import i32, i64
from graphc.schedule.choose_plain import TILE_NS, tile_ns
from graphc.schedule.iteration_space import CROSS_LIMIT, GENERATORS, REDUCTIONS, VIEWS
from graphc.schedule.kernel_problem import KernelProblem
from graphc.schedule.loop_nest import (
    AFTER, ARG, ROW_END, Nest, Stages, crosswise, leaf_of, nest_of, producer, stages_of, written_in)
from graphc.schedule.nest_schedule import Fetch, NestSchedule, Partial
from graphc.schedule.single_op import cluster_of
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

SERIAL_NS = 12_000              # less work than this is not worth waking other threads
FLOP_NS = 0.045                 # of one element in vector code of 8 lanes
BYTE_NS = 0.05                  # of memory traffic of one thread
MANY_FLOPS = 64                 # mathematical functions of more than this together fill the registers with one vector
MATH_FLOPS = 8                  # from which an operator is a mathematical function
CHEAP = 5                       # flops and loads that are repeated rather than kept in a scratch row
TURN = 32                       # indices of the contiguous dim of an input that is read in another order (blocked transpose)
INNER_ELEMENTS = 1024           # the least of a row without reductions, where the dims allow
MAX_CHUNKS = 192                # of a reduction that is cut
MAX_TILES = 128                 # of a nest with sums across rows: each has a row of accumulators
MIN_ACROSS = 32                 # elements of a row, and rows, from which sums across rows are taken row by row
FAR_BYTES = 1024                # distance between two rows of a column beyond which the hardware does not prefetch
ROWS_AHEAD = 32                 # of a column that are prefetched, to hide the latency of L3
LANE_SUMS = 1024                # additions into one lane of an f32 sum before it is cut


def nest_schedule(p: KernelProblem) -> NestSchedule:
    """The schedule of a `fused` node of kind "nest", or of a single operator that runs as a nest."""
    return _schedule(cluster_of(p.node), p.ins, p.outs, p.target)


@lru_cache(maxsize=4096)
def _schedule(body: Graph, ins: tuple[ViewType, ...], outs: tuple[ViewType, ...], target: Target) -> NestSchedule:
    nest = nest_of(body, ins, outs)
    if not nest.extents or 0 in nest.extents:
        return NestSchedule(outer=nest.kept, inner=tuple(sorted(nest.reduced)))
    facts = NestFacts(nest, ins, outs, target)
    vector = facts.best_vector()
    across = _runs_across(facts, vector)
    if across:
        nest = crosswise(nest)
        facts = NestFacts(nest, ins, outs, target)
    outer, inner = facts.loops(vector)
    stages = stages_of(nest, inner)
    lanes = facts.lanes(vector, len(inner) > 1 and inner[0] == vector, stages)
    row_ns = facts.element_ns * nest.size(inner) * (lanes if vector not in inner and vector >= 0 else 1)
    grid = _grid(facts, stages, outer, inner, vector, lanes, row_ns)
    stream = facts.streamed(vector, lanes)
    return NestSchedule(outer, inner, vector, lanes, **grid, stored=_stored(nest, stages, facts), stream=stream, crosswise=across,
                        inplace=_inplace(nest, stages, inner, ins, outs), fetch=_fetch(facts, stages, outer, inner, vector, bool(stream)))


@dataclass
class NestFacts:
    """Figures about a nest that the choices rest on."""
    nest: Nest
    ins: tuple[ViewType, ...]
    outs: tuple[ViewType, ...]
    target: Target

    def __post_init__(self):
        body = self.nest.body
        self.flops = sum(flops_of(n) for n in body.nodes)
        self.element_ns = self.flops * FLOP_NS + sum(t.dtype.itemsize for t in (*self.ins, *self.outs)) * BYTE_NS
        views = dict(zip(body.inputs, self.ins))
        self.rows = [(s, views[leaf_of(u)].dtype.itemsize) for u, s in self.nest.leaves.items() if leaf_of(u) in views]
        self.rows += [(s, 2 * t.dtype.itemsize) for s, t in zip(self.nest.outputs, self.outs)]

    def best_vector(self) -> int:
        """The dim along which most traffic is contiguous; a reduced one when equal, then the larger."""
        nest = self.nest
        if not nest.extents:
            return -1
        return max((d for d in range(len(nest.extents)) if d not in nest.crossed), key=lambda d: (self._score(d), d in nest.reduced, nest.extents[d]))

    def _score(self, d: int) -> int:
        score = 0
        for strides, weight in self.rows:
            elements = prod(n for n, s in zip(self.nest.extents, strides) if s)
            score += weight * elements * (1 if strides[d] == 1 else 0 if strides[d] == 0 else -1)
        return score if self.nest.extents[d] > 3 else score - abs(score) // 2

    def loops(self, vector: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """outer and inner dims, each in loop order; the vector dim last in inner, or in neither."""
        nest = self.nest
        order = sorted(range(len(nest.extents)), key=self._reach, reverse=True)
        order = [d for d in order if d != vector]
        if nest.crossing:
            inner = [d for d in order if d not in nest.crossed] + [vector]
            return tuple(d for d in order if d in nest.crossed), tuple(inner)
        if nest.reduced:
            inner = [d for d in order if d in nest.reduced] + [vector] * (vector in nest.reduced)
            return tuple(d for d in order if d not in nest.reduced), tuple(inner)
        turned = self._turned(vector)
        if turned >= 0:
            return tuple(d for d in order if d != turned), (vector, turned)
        inner = [vector]
        shared = frozenset.intersection(*nest.spans)
        while order and nest.size(inner) < INNER_ELEMENTS and order[-1] in shared:
            inner.insert(0, order.pop())
        return tuple(order), tuple(inner)

    def _turned(self, vector: int) -> int:
        """A dim other than the vector along which a large input is contiguous; -1 if there is none."""
        shared = frozenset.intersection(*self.nest.spans)
        for strides, _ in self.rows[:len(self.rows) - len(self.outs)]:
            if strides[vector] > 1 and self.nest.extents[vector] > 3:
                found = [d for d, s in enumerate(strides) if s == 1 and d in shared and self.nest.extents[d] > 3]
                if found:
                    return found[0]
        return -1

    def _reach(self, d: int) -> tuple:
        """How far apart in memory neighbours along `d` are, outputs first."""
        strides = [s[d] for s in self.nest.outputs if s[d]] or [s[d] for s, _ in self.rows if s[d]]
        return max(map(abs, strides), default=0), -d

    def lanes(self, vector: int, turned: bool, stages: Stages) -> int:
        """Lanes of the loop body: several registers wide when the body is light, no wider than the extent needs."""
        if vector < 0:
            return 1
        body = self.nest.body
        size = max([v.type.dtype.itemsize for n in body.nodes for v in n.outputs if type(n.op) not in ARG]
                   + [t.dtype.itemsize for t in self.ins if t.dtype.is_float], default=4)
        width = self.target.lanes(size)
        draws = any(type(n.op) in GENERATORS for n in body.nodes)
        vectors = 4 if draws else 1 if turned else min([_vectors(work) for work in _stage_work(self.nest, stages)], default=4)
        wide = width * vectors
        extent = self.nest.extents[vector]
        while wide > 2 and wide // 2 >= extent:
            wide //= 2
        return wide if extent > 1 else 1

    def streamed(self, vector: int, lanes: int) -> tuple[int, ...]:
        """Outputs too large to be still in a cache when they are read, every vector of which is aligned if the first one is."""
        width = self.target.vector_bytes
        total = sum(_bytes(t) for t in (*self.ins, *self.outs))
        if total <= self.target.l3:
            return ()
        return tuple(k for k, (s, t) in enumerate(zip(self.nest.outputs, self.outs))
                     if vector >= 0 and s[vector] == 1 and 4 * _bytes(t) > self.target.l3 and lanes * t.dtype.itemsize % width == 0
                     and all(step * t.dtype.itemsize % (lanes * t.dtype.itemsize) == 0 for d, step in enumerate(s) if d != vector))


def _fetch(facts: NestFacts, stages: Stages, outer, inner, vector: int, stream: bool) -> Fetch | None:
    """Rows that come from memory in the first stage and stay in the caches of a core for the others: the next one, in the stage with the most
    arithmetic. Columns that lie far apart: some rows down, in every stage.
    """
    if _far_columns(facts, inner, vector):
        return Fetch(inner[-1], ROWS_AHEAD, level=2)
    if not stream or stages.count < 2 or not outer or inner != (vector,):
        return None
    work = [0] * stages.count
    for node in facts.nest.body.nodes:
        if node.outputs[0] in stages.inner:
            work[stages.home[node.outputs[0]]] += flops_of(node)
    return Fetch(outer[-1], 1, level=1, stage=work.index(max(work)))


def _far_columns(facts: NestFacts, inner, vector: int) -> bool:
    """Whether loops over inner dims read columns, of inputs larger than half of L2, whose elements lie far apart."""
    if not inner or vector in inner or vector < 0:
        return False
    views = dict(zip(facts.nest.body.inputs, facts.ins))
    found = [(s, views[leaf_of(u)]) for u, s in facts.nest.leaves.items() if leaf_of(u) in views]
    return any(s[vector] == 1 and s[inner[-1]] * t.dtype.itemsize >= FAR_BYTES and _bytes(t) > facts.target.l2 // 2 for s, t in found)


def _vectors(work: list[Node]) -> int:
    """How many vectors of each value the loop of a stage holds at once: enough to hide latency, few enough for the registers."""
    flops = [flops_of(n) for n in work]
    if max(flops, default=0) >= MATH_FLOPS:
        return 2 if sum(flops) <= MANY_FLOPS else 1
    return 4 if len(work) <= 6 else 2 if len(work) <= 16 else 1


def _stage_work(nest: Nest, stages: Stages) -> list[list[Node]]:
    """Per stage, the nodes that its loop evaluates when nothing is kept from stage to stage."""
    ends: dict[int, list[Value]] = {}
    for node in nest.body.nodes:
        if node in nest.reductions | nest.crossing:
            ends.setdefault(stages.home[node.outputs[0]] - (node in nest.reductions), []).append(node.inputs[0])
    for v in nest.body.outputs:
        if v in stages.inner:
            ends.setdefault(stages.home[v], []).append(v)
    return [_leading(todo, stages) for todo in ends.values()]


def _leading(todo: list[Value], stages: Stages) -> list[Node]:
    """The nodes inside the row that lead to the values."""
    found: dict[Node, None] = {}
    while todo:
        v = todo.pop()
        if v in stages.inner and v.node is not None and v.node not in found:
            if type(v.node.op) not in VIEWS:
                found[v.node] = None
            todo += v.node.inputs
    return list(found)


def flops_of(node: Node) -> int:
    """Arithmetic of one element of a body node."""
    if isinstance(node.op, Elementwise):
        return node.op.row.flops
    if type(node.op) in GENERATORS:
        return 30
    return 1 if type(node.op) in REDUCTIONS else 0


def _grid(facts: NestFacts, stages: Stages, outer, inner, vector: int, lanes: int, row_ns: float) -> dict:
    """tile, columns, chunk, serial, partials."""
    nest = facts.nest
    if nest.crossing:
        return _crossing_grid(nest, outer, inner, row_ns)
    if inner[0] == vector and len(inner) > 1:           # transposing: blocks of the other dim, along which an input is contiguous
        rows, extent = nest.size(outer), nest.extents[inner[1]]
        whole = row_ns * rows < SERIAL_NS
        return {"tile": max(rows, 1) if whole else 1, "chunk": TURN if extent > TURN else 0, "cut": inner[1], "serial": whole}
    columns_total = 0 if vector in inner or vector < 0 else ceil(nest.extents[vector] / lanes)
    rows = nest.size(outer)
    total_ns = row_ns * rows * max(columns_total, 1)
    if total_ns < SERIAL_NS and not _long_sums(nest, inner, vector, lanes):
        return {"tile": max(rows, 1)}
    line_ns = row_ns * max(columns_total, 1)            # one outer row
    chunk, chunks = _chunk(facts, stages, inner, vector, lanes, row_ns, total_ns)
    partials = _partials(nest, chunks) if chunk and nest.reduced else ()
    serial = total_ns < SERIAL_NS
    if chunk:
        return {"tile": 1, "chunk": chunk, "cut": inner[0], "serial": serial, "partials": partials, "columns": _columns(columns_total, lanes, row_ns / chunks)}
    if line_ns > 2 * TILE_NS and columns_total > 1:
        return {"tile": 1, "columns": _columns(columns_total, lanes, row_ns), "serial": serial}
    tile = max(1, min(round(tile_ns(total_ns) / line_ns), ceil(rows / 8)))
    return {"tile": tile, "serial": serial}


def _crossing_grid(nest: Nest, outer, inner, row_ns: float) -> dict:
    """Tiles of rows, each with a row of accumulators of its own."""
    rows = nest.size(outer)
    serial = rows * row_ns < SERIAL_NS
    tile = max(1, round(TILE_NS / row_ns), ceil(rows / MAX_TILES))
    tile = min(rows if serial else tile, LANE_SUMS)
    tiles = ceil(rows / tile)
    partials = _accumulators(nest, nest.crossing, nest.crossed, lambda n: tiles * (nest.size(inner) if n in nest.wide else 1))
    return {"tile": tile, "serial": serial, "partials": partials}


def _runs_across(facts: "NestFacts", vector: int) -> bool:
    """Whether reductions whose results no inner value reads are best taken row by row, along contiguous kept dims."""
    nest, kept = facts.nest, facts.nest.kept
    if not nest.reductions or nest.crossing or vector not in kept or stages_of(nest, nest.reduced).count > 1:
        return False
    size, rows = nest.size(kept), nest.size(nest.reduced)
    traffic = sum(_bytes(t) for t in facts.ins)
    return MIN_ACROSS <= size <= CROSS_LIMIT and rows >= MIN_ACROSS and traffic > facts.target.l2 // 2


def _columns(total: int, lanes: int, block_ns: float) -> int:
    """Elements of the vector dim per tile; 0 when one tile takes all."""
    blocks = max(1, round(TILE_NS / block_ns))
    return 0 if blocks >= total else blocks * lanes


def _long_sums(nest: Nest, inner, vector: int, lanes: int) -> bool:
    return bool(nest.reduced) and nest.size(inner) // (lanes if vector in inner else 1) > 64 * LANE_SUMS


def _chunk(facts: NestFacts, stages: Stages, inner, vector: int, lanes: int, row_ns: float, total_ns: float) -> tuple[int, int]:
    """(indices of inner[0] per tile, number of chunks), (0, 1) when rows stay whole."""
    nest = facts.nest
    if not inner or stages.count > 1:
        return 0, 1
    others = total_ns / row_ns                          # rows and column blocks
    part_ns = TILE_NS if nest.reduced else tile_ns(total_ns)
    wanted = ceil(row_ns / part_ns) if row_ns > 2 * part_ns and (others < 64 or not nest.reduced) else 1
    if nest.reduced and others * TILE_NS > total_ns / 4:
        wanted = max(wanted, ceil(total_ns / TILE_NS / max(others / 4, 1)) if others < 16 else 1)
    if _long_sums(nest, inner, vector, lanes):
        wanted = max(wanted, ceil(nest.size(inner) / LANE_SUMS / (lanes if vector in inner else 1)))
    if nest.reduced:
        wanted = min(wanted, MAX_CHUNKS)
    step = lanes if inner[0] == vector else 1
    chunk = ceil(nest.extents[inner[0]] / max(wanted, 1) / step) * step
    chunks = ceil(nest.extents[inner[0]] / chunk)
    return (chunk, chunks) if chunks > 1 else (0, 1)


def _partials(nest: Nest, chunks: int) -> tuple[Partial, ...]:
    return _accumulators(nest, nest.reductions, nest.reduced, lambda n: chunks * nest.size(nest.kept))


def _accumulators(nest: Nest, reductions, dims, size: Callable[[Node], int]) -> tuple[Partial, ...]:
    """Buffers of so many elements for the accumulators of reductions over `dims`, in order of the body."""
    result: list[Partial] = []
    for node in nest.body.nodes:
        if node in reductions:
            counter = i32 if nest.size(dims) < 1 << 31 else i64
            dtypes = (node.inputs[0].type.dtype, counter) if type(node.op) in ARG else (node.outputs[0].type.dtype,)
            result += [(d, size(node)) for d in dtypes]
    return tuple(result)


def _stored(nest: Nest, stages: Stages, facts: NestFacts) -> tuple[int, ...]:
    """Numbers of the body nodes whose values are kept from the stage that makes them to later ones: those dear to repeat."""
    if stages.count < 2:
        return ()
    work: dict[Node, int] = {}
    later = _used_later(nest, stages)
    kept: list[int] = []
    limit = facts.target.l2 // 2
    row = nest.size(nest.reduced) * (facts.target.vector_bytes if not nest.reduced else 4)
    for number, node in enumerate(nest.body.nodes):
        if not any(v in stages.inner for v in node.outputs):
            work[node] = 0
            continue
        sources = [producer(v) for v in node.inputs]
        work[node] = flops_of(node) + sum(work.get(s, 0) if s else 1 for s in sources)
        dear = work[node] > CHEAP and node.outputs[0] in later and type(node.op) not in VIEWS
        if dear and (len(kept) + 1) * row <= limit:
            kept.append(number)
            work[node] = 1
    return tuple(kept)


def _used_later(nest: Nest, stages: Stages) -> set[Value]:
    """Inner values that a node, reduction or output of a later stage reads."""
    found: set[Value] = set()
    for node in nest.body.nodes:
        stage = stages.home[node.outputs[0]] - (node in nest.reductions)
        for v in node.inputs:
            while v.node is not None and type(v.node.op) in VIEWS:
                v = v.node.inputs[0]
            if v in stages.inner and stages.home[v] < stage:
                found.add(v)
    return found


def _inplace(nest: Nest, stages: Stages, inner, ins, outs) -> tuple[tuple[int, int], ...]:
    """All pairs (output, input) with equal strides over all dims, where no element of the input is read once the output is stored in its place:
    neither in a stage after that, nor in another trip of a loop around the store.
    """
    last = _last_reads(nest, stages)
    pairs = []
    for o, strides in enumerate(nest.outputs):
        stage = written_in(nest, stages, inner, o)
        around = _loops_around(nest, inner, stage, o)
        if any(nest.extents[d] > 1 and not strides[d] for d in around) or _read_after(nest, stages, inner, o):
            continue
        for i, x in enumerate(nest.body.inputs):
            rows = [s for use, s in nest.leaves.items() if leaf_of(use) is x]
            same = rows and all(s == strides for s in rows) and ins[i] == outs[o]
            if same and last.get(x, 0) <= stage:
                pairs.append((o, i))
    return tuple(pairs)


def _loops_around(nest: Nest, inner, stage: int, o: int) -> Iterable[int]:
    """The dims of the loops in which output `o` is stored."""
    if stage == AFTER:
        return inner if nest.spans[o] else ()
    return set(range(len(nest.extents))) - set(inner) if stage == ROW_END else range(len(nest.extents))


def _read_after(nest: Nest, stages: Stages, inner, o: int) -> bool:
    """Whether a number that is stored after all rows is followed by rows of sums, which may read what lay in its place."""
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


def _bytes(t: ViewType) -> int:
    return prod(n for n, s in zip(t.shape, t.strides) if s) * t.dtype.itemsize
