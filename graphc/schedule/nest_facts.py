"""Figures about a loop nest that the choice of its schedule rests on: cost of an element, the dim for vectors, the
order of loops."""
from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import ceil, log2, prod

from graphc.ir.graph import Node, Value
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.reduce import ArgExtremum, Sum
from graphc.ir.ops.scan_ops import LinearScan
from graphc.ir.types import f32
from graphc.records import dataclass
from graphc.schedule.column_cost import crossing_sources, lost_bytes
from graphc.schedule.cost import TOLERANCE
from graphc.schedule.loop_nest import Nest, Stages, leaf_of, stages_evaluating
from graphc.schedule.nest_grid import STATE_CYCLES
from graphc.schedule.nest_schedule import last_lanes
from graphc.schedule.open_sizes import typical_sizes
from graphc.schedule.target import LINE_BYTES, Target
from graphc.schedule.view import ViewType, view_bytes

MANY_FLOPS = 64                 # mathematical functions of more than this together fill the registers with one vector
FAR_BYTES = 256                 # of columns whose rows lie far apart, each piece of which is waited for
FAR_PIECE_CYCLES = 130          # for such a piece, however short it is
MASKED_STATE_CYCLES = 30        # until a masked vector that was stored is loaded: from L1, as the store hands none over
SEEN_ROWS = 48                  # side by side, of which the hardware sees the next pieces coming
MATH_FLOPS = 8                  # from which an operator is a mathematical function
MAY_BE_LARGER = 8               # times its typical size: how large an output is prepared to be
ROW_CYCLES = 2.5                # of a loop along a row: its beginning, and its end, which is short and masked
EXTREMUM_OPS = 3                # of a maximum of two numbers, which is NaN where one is
JOIN_OPS, CHECK_OPS = 6, 10     # of lanes with those before them, once; of what follows, and whether it is finite
SPLIT_CYCLES = 6                # of a store that reaches into two lines; so many operations hide it
INNER_ELEMENTS = 1024           # the least of a row without reductions, where the dims allow


@dataclass
class NestFacts:
    """Figures about a nest that the choices rest on; of sizes that come with the call, the typical ones."""
    nest: Nest
    ins: tuple[ViewType, ...]
    outs: tuple[ViewType, ...]
    target: Target

    def __post_init__(self) -> None:
        body = self.nest.body
        self.extents = typical_sizes(self.nest.extents)
        self.flops = sum(flops_of(n) for n in body.nodes)
        lanes, nbytes = self.target.lanes(f32.itemsize), sum(t.dtype.itemsize for t in (*self.ins, *self.outs))
        # with the shared cache: what a nest reads was mostly written by other cores
        self.traffic_cycles = nbytes / self.target.machine.l3_bytes_per_cycle
        self.element_cycles, self.scalar_cycles = (self._element_cycles(n) for n in (lanes, 1))
        views = dict(zip(body.inputs, self.ins))
        self.rows = [(typical_sizes(s), views[leaf_of(u)].dtype.itemsize) for u, s in self.nest.leaves.items()
                     if leaf_of(u) in views]
        self.rows += [(typical_sizes(s), 2 * t.dtype.itemsize) for s, t in zip(self.nest.outputs, self.outs)]
        often = stages_evaluating(self.nest)
        # in so many stages each is read
        self.reads = [often.get(u[0], 1) for u in self.nest.leaves if leaf_of(u) in views] + [1] * len(self.outs)

    def size(self, dims: Iterable[int]) -> int:
        return prod(self.extents[d] for d in dims)

    def _element_cycles(self, lanes: int) -> float:
        """Arithmetic of so many lanes at once, and traffic."""
        return self.flops * self.target.machine.vector_op_cycles / lanes + self.traffic_cycles

    def empty_lanes(self, vector: int, lanes: int) -> float:
        """The part of the vectors of a row of columns that is behind its end, and moves nothing."""
        return 1 - self.extents[vector] / (ceil(self.extents[vector] / lanes) * lanes)

    def best_vector(self) -> int:
        """The dim along which most traffic is contiguous; a reduced one when equal, then the larger."""
        nest = self.nest
        if not nest.extents:
            return -1
        found = max(
            (d for d in range(len(nest.extents)) if d not in nest.crossed and d != nest.running),
            key=lambda d: (self._score(d), d in nest.reduced, self.extents[d]), default=-1,
        )
        return found if nest.running < 0 or found < 0 or self._score(found) > 0 else -1

    def _score(self, d: int) -> int:
        """Elements that are read or written side by side, less those that are not. What steps of a recurrence share
        each of them reads again."""
        score, again = 0, (self.nest.running,)
        for strides, weight in self.rows:
            elements = prod(n for k, (n, s) in enumerate(zip(self.extents, strides)) if s or k in again)
            score += weight * elements * (1 if abs(strides[d]) == 1 else 0 if strides[d] == 0 else -1)
        return score if self.extents[d] > 3 else score - abs(score) // 2

    def lies_along(self, d: int) -> bool:
        """Whether most of what is read and written is contiguous along the dim, whose size is known and fills a vector.
        """
        fills = isinstance(self.nest.extents[d], int) and self.extents[d] >= self.step_lanes > 1
        return fills and self._score(d) > 0

    @property
    def step_lanes(self) -> int:
        """Of a vector of steps of recurrences."""
        return self.target.lanes(max(n.outputs[0].type.dtype.itemsize for n in self._recurrences))

    @property
    def joined_lanes_cycles(self) -> float:
        """To combine the steps in the lanes of a vector, of all recurrences."""
        ops = JOIN_OPS * log2(self.step_lanes) + CHECK_OPS
        return len(self._recurrences) * ops * self.target.machine.vector_op_cycles

    @property
    def _recurrences(self) -> list[Node]:
        return [n for n in self.nest.body.nodes if isinstance(n.op, LinearScan)]

    def loops(self, vector: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """outer and inner dims, each in loop order; the vector dim last in inner, or in neither."""
        nest = self.nest
        order = sorted(range(len(nest.extents)), key=self._reach, reverse=True)
        order = [d for d in order if d not in (vector, nest.running)]
        if nest.crossing:
            inner = [d for d in order if d not in nest.crossed] + [vector]
            return tuple(d for d in order if d in nest.crossed), tuple(inner)
        if nest.reduced:
            inner = [d for d in order if d in nest.reduced] + [vector] * (vector in nest.reduced)
            return tuple(d for d in order if d not in nest.reduced), tuple(inner)
        turned = self._turned(vector)
        if turned >= 0:
            return tuple(d for d in order if d != turned), (vector, turned)
        inner = [vector] * (vector >= 0)
        shared = frozenset.intersection(*nest.spans)
        while order and self.size(inner) < INNER_ELEMENTS and order[-1] in shared:
            inner.insert(0, order.pop())
        return tuple(order), tuple(inner)

    def _turned(self, vector: int) -> int:
        """A dim other than the vector along which a large input is contiguous; -1 if there is none."""
        shared = frozenset.intersection(*self.nest.spans)
        if self.nest.running >= 0:
            return -1
        for strides, _ in self.rows[:len(self.rows) - len(self.outs)]:
            if abs(strides[vector]) > 1 and self.extents[vector] > 3:
                found = [d for d, s in enumerate(strides) if abs(s) == 1 and d in shared and self.extents[d] > 3]
                if found:
                    return found[0]
        return -1

    def row_cycles(self, vector: int, outer: tuple[int, ...], inner: tuple[int, ...], lanes: int,
                   stages: Stages) -> float:
        """Of a row of sums along which the vectors run, beside its elements: lanes are folded, and what there is once
        in a row is computed by itself. Other rows are computed meanwhile."""
        sums = self.nest.reductions
        if vector not in inner or not sums:
            return 0.0
        width = min(lanes, self.target.lanes(f32.itemsize))
        single = sum(flops_of(n) for n in self.nest.body.nodes if n not in sums and n.outputs[0] not in stages.inner)
        loops = stages.count if self.size(outer) > 1 else 0
        folds = sum(1 if isinstance(n.op, Sum) else EXTREMUM_OPS for n in sums)
        return log2(width) * folds + ROW_CYCLES * loops + single * self.target.machine.vector_op_cycles

    def crossing_cycles(self, vector: int, inner: tuple[int, ...]) -> float:
        """Of a row that is added to a row of accumulators, beside its elements: these are loaded and stored, and so is
        what all rows share; the last vector of each line is as dear as a whole one, each sum waits for that of the row
        before by way of memory, and accumulators that half of L1 does not hold come from L2."""
        machine, width, line = self.target.machine, self.target.lanes(f32.itemsize), self.extents[vector]
        elements, filled = self.size(inner), line / (ceil(line / width) * width)
        held = len(self.nest.wide) * f32.itemsize * elements
        moved = 2 * held / machine.l2_bytes_per_cycle if held > machine.l1_bytes // 2 else 0.0
        early = crossing_sources(self.nest)
        own = sum(map(flops_of, early)) * machine.vector_op_cycles / width
        operations = 2 * len(self.nest.wide) + self._shared_loads(vector, early)
        more = elements * ((1 / filled - 1) * own + operations * machine.vector_op_cycles / width / filled)
        more += moved + ROW_CYCLES
        waits = STATE_CYCLES if filled == 1 else MASKED_STATE_CYCLES
        return more + max(0.0, waits - more - elements * own)

    def _shared_loads(self, vector: int, early: Collection[Node]) -> int:
        """Of vectors that all rows of crossing sums read."""
        uses = [use for use in self.nest.leaves if leaf_of(use) in self.nest.body.inputs]
        return sum(node in early and bool(strides[vector]) and not any(strides[d] for d in self.nest.crossed)
                   for (node, _), (strides, _) in zip(uses, self.rows))

    def piece_cycles(self, vector: int, inner: tuple[int, ...], lanes: int) -> float:
        """Of sums along rows for a vector of columns, beside their elements: what is fetched in vain behind each piece
        of a row that comes from beyond L2."""
        machine = self.target.machine
        if not self.nest.reductions or vector in inner or self.nest.running >= 0 or lanes >= self.extents[vector]:
            return 0.0
        rows = [(abs(strides[vector]) == 1, size, size * self.size(d for d, s in enumerate(strides) if s))
                for strides, size in self.rows[:len(self.rows) - len(self.outs)]]
        byte = machine.shared_byte_cycles(sum(nbytes for _, _, nbytes in rows))
        lost = sum(lost_bytes(self.extents[vector], lanes, size) for lies, size, nbytes in rows
                   if lies and nbytes > machine.l2_bytes)
        return lost * self.size(inner) * byte

    def turned_cycles(self, vector: int) -> float:
        """Of an element of all inputs that are transposed in registers, as others along the vectors are their
        neighbours."""
        turned = [abs(strides[vector]) > 1 for strides, _ in self.rows[:len(self.rows) - len(self.outs)]]
        return sum(turned) * self.target.machine.transpose_cycles

    def lies_across(self, vector: int) -> bool:
        """Whether something is not contiguous along the vectors."""
        return vector >= 0 and any(abs(strides[vector]) > 1 for strides, _ in self.rows)

    def lines(self) -> list[int]:
        """The dims along which something is contiguous, and which fill vectors."""
        return [d for d, n in enumerate(self.extents)
                if n > 3 and any(abs(strides[d]) == 1 for strides, _ in self.rows)]

    def side_by_side(self) -> list[int]:
        """The kept dim whose neighbours are nearest in memory, of those that fill vectors."""
        width = self.target.lanes(f32.itemsize)
        return sorted([d for d in self.nest.kept if self.extents[d] >= width], key=self._reach)[:1]

    def square(self, vector: int, inner: tuple[int, ...]) -> int:
        """The side of squares for what is contiguous along the last inner dim; 0: nothing is."""
        turned = vector not in inner and any(abs(strides[inner[-1]]) == 1 < abs(strides[vector])
                                             for strides, _ in self.rows)
        fixed = all(isinstance(self.nest.extents[d], int) for d in (vector, inner[-1]))
        widest = max(f32.itemsize, *(t.dtype.itemsize for t in (*self.ins, *self.outs)))
        return self.target.lanes(widest) if turned and fixed else 0

    def across_cycles(self, vector: int, outer: tuple[int, ...], inner: tuple[int, ...], square: int) -> float:
        """Of an element, of all that is not contiguous along the vectors: gathered and scattered, or transposed in
        registers where there are squares for what lies along the last inner dim."""
        machine, total, cycles = self.target.machine, self.size(range(len(self.extents))), 0.0
        for (strides, _), reads in zip(self.rows, self.reads):
            if vector < 0 or abs(strides[vector]) <= 1:
                continue
            part = self.size(d for d, s in enumerate(strides) if s) / total
            if square and abs(strides[inner[-1]]) == 1:
                near = abs(strides[vector]) * f32.itemsize < machine.prefetch_reach_bytes
                each = self._square_cycles(square) if near else machine.transpose_cycles
            else:
                each = machine.scalar_element_cycles + self._line_cycles(strides, vector, outer, inner)
            cycles += part * reads * each
        return cycles

    def _square_cycles(self, side: int) -> float:
        """Of an element of a square of short rows: vectors are loaded, exchange halves, quarters, … with others, one in
        a cycle, and are stored."""
        return (1 / self.target.machine.loads_per_cycle + log2(side) + 1) / side

    def _line_cycles(self, strides: Sequence[int], vector: int, outer: tuple[int, ...],
                     inner: tuple[int, ...]) -> float:
        """To have the line of an element in L1, of elements that lie along another dim than the vectors: its other
        elements are used in the next trips of the loop of that dim."""
        machine = self.target.machine
        along = next((d for d, s in enumerate(strides) if abs(s) == 1), -1)
        if along in inner:
            return 0.0
        between = LINE_BYTES * self.size(d for d in (*inner, vector) if strides[d])
        if along not in outer[-1:] or between > machine.l2_bytes // 2:
            return machine.remote_line_cycles
        return 0.0 if between <= machine.l1_bytes // 2 else LINE_BYTES / machine.l2_bytes_per_cycle

    def _reach(self, d: int) -> tuple[int, int]:
        """How far apart in memory neighbours along `d` are, outputs first."""
        outputs = self.rows[len(self.rows) - len(self.outs):]
        strides = [s[d] for s, _ in outputs if s[d]] or [s[d] for s, _ in self.rows if s[d]]
        return max(map(abs, strides), default=0), -d

    def step(self, d: int) -> int:
        """How many bytes apart in an input neighbours along `d` are, at most."""
        return max((abs(s[d]) * size for s, size in self.rows[:len(self.rows) - len(self.outs)]), default=0)

    def lanes(self, vector: int, turned: bool, stages: Stages) -> int:
        """Lanes of the loop body: several registers wide when the body is light, no wider than the extent needs."""
        if vector < 0:
            return 1
        body = self.nest.body
        size = max([v.type.dtype.itemsize for n in body.nodes for v in n.outputs if not isinstance(n.op, ArgExtremum)]
                   + [t.dtype.itemsize for t in self.ins if t.dtype.is_float], default=4)
        width = self.target.lanes(size)
        if turned and size == 1:        # no instruction moves bytes between parts of 16 that a vector has
            width = min(width, 16)
        if turned and self._splits(vector, width, width * size):
            width //= 2
        draws = any(n.op.is_generator for n in body.nodes)
        vectors = (
            4 if draws else 1 if turned else min([_vectors(work) for work in _stage_work(self.nest, stages)], default=4)
        )
        far = self._far_rows(vector)
        registers = self.target.vector_registers
        held = 1 << max(1, registers // (1 + len(self.ins))).bit_length() - 1       # of each input, and of a sum
        most = min(vectors * registers // 8, FAR_BYTES // (width * size), held)
        wide = width * (max(vectors, most) if far else vectors)
        while wide > 2 and wide // 2 >= self.extents[vector]:
            wide //= 2
        if self.nest.extents[vector] == 1:
            return 1
        fixed = vector in self.nest.reduced or turned or not isinstance(self.nest.extents[vector], int)
        return wide if fixed else self._least_waste(vector, width, wide, stages, far)

    def _far_rows(self, vector: int) -> float:
        """How many pieces of rows are waited for in a step of a nest that walks over rows for a vector of columns: of
        arrays that are more than L2 holds, whose rows lie too far apart, and are too many, to be seen coming."""
        inner, machine = self.loops(vector)[1], self.target.machine
        if not inner or vector in inner or self.nest.running >= 0 or not isinstance(self.nest.extents[vector], int):
            return 0.0
        sizes = [size * self.size(d for d, s in enumerate(strides) if s) for strides, size in self.rows]
        far = sum(abs(strides[vector]) == 1 and abs(strides[inner[-1]]) * size >= machine.prefetch_reach_bytes
                  and nbytes > machine.l2_bytes for (strides, size), nbytes in zip(self.rows, sizes))
        return far * max(0.0, 1 - SEEN_ROWS / max(1, self.size(inner)))

    def _splits(self, vector: int, width: int, nbytes: int) -> bool:
        """Whether stores of whole lines, which mostly reach into two, cost more than to compute in vectors of half."""
        return nbytes >= LINE_BYTES and not self.streamed(vector, width, True) and self.flops < SPLIT_CYCLES

    def rows_apart(self, vector: int, d: int, lanes: int) -> int:
        """Bytes between neighbours along `d` in results whose vectors go through the caches."""
        written = [s[d] * t.dtype.itemsize for s, t in zip(map(typical_sizes, self.nest.outputs), self.outs)]
        return 0 if self.streamed(vector, lanes, True) else max(map(abs, written), default=0)

    def _least_waste(self, vector: int, width: int, wide: int, stages: Stages, far: float) -> int:
        """The widest vectors with which a row of columns takes about the fewest cycles: the last vector of a row may be
        mostly empty; many narrow ones each wait for sums along the row, and for the control of loops."""
        extent, machine = self.extents[vector], self.target.machine
        flops = [sum(map(flops_of, work)) for work in _stage_work(self.nest, stages)] or [0]
        sums = len(self.nest.reductions) > 0

        def once(lanes: int) -> float:
            """Of so many lanes, in all stages."""
            units = max(1, lanes // width)
            return far * FAR_PIECE_CYCLES + sum(
                max(units * (n * machine.vector_op_cycles + 1 / machine.loads_per_cycle),
                    machine.fma_latency if sums else machine.step_cycles) for n in flops)

        def row(lanes: int) -> float:
            whole, rest = divmod(extent, lanes)
            return whole * once(lanes) + (once(last_lanes(rest, lanes)) if rest else 0)
        candidates = [wide >> k for k in range(wide.bit_length()) if wide >> k >= min(width, wide)]
        least = min(map(row, candidates))
        return next(lanes for lanes in candidates if row(lanes) <= TOLERANCE * least)

    def streamed(self, vector: int, lanes: int, turned: bool = False) -> tuple[int, ...]:
        """Outputs too large to be still in a cache when they are read, every vector of which is aligned if the first
        one is; where sizes come with the call, those that may be. turned: what comes after a vector is not what lies
        behind it, so that it must be whole lines."""
        unit = LINE_BYTES if turned else self.target.vector_bytes
        larger = MAY_BE_LARGER if self.nest.is_open else 1
        total = sum(view_bytes(t) for t in (*self.ins, *self.outs))
        if larger * total <= self.target.machine.l3_bytes:
            return ()
        return tuple(
            k
            for k, (s, t) in enumerate(zip(self.nest.outputs, self.outs))
            if vector >= 0
            and s[vector] == 1
            and 4 * larger * view_bytes(t) > self.target.machine.l3_bytes
            and lanes * t.dtype.itemsize % unit == 0
            and all(
                step * t.dtype.itemsize % (lanes * t.dtype.itemsize) == 0 for d, step in enumerate(s) if d != vector
            )
        )


def _vectors(work: list[Node]) -> int:
    """How many vectors of each value the loop of a stage holds at once: enough to hide latency, few enough for the
    registers."""
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
            if not v.node.op.is_whole_view:
                found[v.node] = None
            todo += v.node.inputs
    return list(found)


def flops_of(node: Node) -> int:
    """Arithmetic of one element of a body node."""
    counts = isinstance(node.op, (Elementwise, LinearScan)) or node.op.is_generator or node.op.is_reduction
    return node.op.element_flops if counts else 0
