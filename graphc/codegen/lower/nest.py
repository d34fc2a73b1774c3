"""A cluster and its schedule to one loop function: tiles of rows; in a row, one loop over the inner dims per stage."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial, reduce
from math import prod

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.body import Env, NestBody, Point
from graphc.codegen.lower.column_reduction import COMBINE_COLUMNS, COMBINE_ROWS, COMBINE_SERIAL, ColumnReduction
from graphc.codegen.lower.reduce import Accumulator, merged, reducer, regroup
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import at_most, divided, function
from graphc.codegen.lower.trips import Trips
from graphc.codegen.lower.turned import Turned
from graphc.ir.dims import Dim, Poly, ceil_div, static_dim
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.ops.reduce import Sum
from graphc.ir.types import bool_
from graphc.schedule.loop_nest import ROW_END, Nest, crosswise, leaf_of, nest_of, stages_of, written_in
from graphc.schedule.nest_schedule import Fetch, NestSchedule, last_lanes
from graphc.schedule.single_op import cluster_of
from graphc.schedule.target import LINE_BYTES
from graphc.schedule.view import contiguous_strides

Trip = Callable[[Ix, Accumulator], Accumulator]         # index, carried -> carried
Work = Callable[[Point, Accumulator], Accumulator]      # the same at a point
Finish = Callable[[Point], None]                        # what is done for a row, or for a vector of rows
Ends = tuple[Ix | Dim, Ix | Dim]                        # the first index, and one past the last


def lower_nest(r: KernelRequest[NestSchedule, Op]) -> LoopFunction:
    """The loop function of a cluster: parameters are the inputs, the outputs, and the schedule's partial buffers."""
    f, xs, ys = function(r)
    nest = nest_of(cluster_of(r.node), r.ins, r.outs)
    nest = crosswise(nest) if r.schedule.crosswise else nest
    partials = [f.view(f"partial{k}", dtype, (size,)) for k, (dtype, size) in enumerate(r.schedule.partials)]
    if nest.size(nest.kept):
        NestLowering(f, nest, r.schedule, xs, ys, partials, r.target.has_fma).run(r.target.machine.l3_bytes)
    return f


class NestLowering:
    """Writes the loops of one nest."""

    def __init__(self, f: LoopFunction, nest: Nest, schedule: NestSchedule, xs: list[View], ys: list[View],
                 partials: list[View], fused: bool):
        self.f, self.nest, self.s, self.ys = f, nest, schedule, ys
        self.stages = stages_of(nest, schedule.inner)
        self.body = NestBody(f, nest, self.stages, schedule, xs, fused)
        self.counter = nest.counter(nest.reduced)
        self.by_column = schedule.vector >= 0 and schedule.vector not in (*schedule.inner, nest.running)
        self.order = schedule.outer + ((schedule.vector,) if self.by_column else ())
        self.partials = partials
        self.streams: tuple[int, ...] = ()
        self.width = schedule.lanes             # of a vector of columns; that of the last one may be less
        # the reductions of the loops being written, if a float sum is among them
        self.summing: list[Node] = []
        self.ranges: dict[int, Ends] = {}
        self.chunks = ceil_div(nest.extents[schedule.cut], schedule.chunk) if schedule.chunk else 1
        self.reductions = [n for n in nest.body.nodes if n in nest.reductions]
        self.sums = ColumnReduction(self) if nest.crossing else None
        self.turned = Turned(f, nest, schedule, self.body, ys) if schedule.squares else None

    # ---- tiles
    def run(self, cache: int) -> None:
        """The whole function; twice when outputs that lie well, and are larger than the cache, are to be streamed."""
        f = self.f
        if not self.s.stream:
            return self._all_tiles()
        suits = [f.is_aligned(self.ys[k], self.s.lanes * self.ys[k].dtype.itemsize) for k in self.s.stream]
        if self.nest.is_open:
            views = *self.body.inputs.values(), *self.ys
            fits = at_most(f, sum(prod(v.shape) * v.dtype.itemsize for v in views), cache)
            suits.append(f.not_(fits) if isinstance(fits, Val) else f.const(not fits, bool_))
        with f.if_(reduce(f.and_, suits)):
            self.streams = self.s.stream
            self._all_tiles()
        with f.else_():
            self.streams = ()
            self._all_tiles()

    def _all_tiles(self) -> None:
        f, s, nest = self.f, self.s, self.nest
        rows = nest.size(s.outer)
        serial = at_most(f, nest.size(range(len(nest.extents))), s.alone) if s.alone else s.serial
        with self._tiles(rows, s.tile, s.columns, self.chunks, "rows", serial) as (row_range, column_range, chunk):
            if s.chunk:
                first = chunk * s.chunk
                self.ranges = {s.cut: (first, first + s.chunk)}
            self.body.allocate()
            if self.turned:
                self.turned.allocate()
            if self.sums:
                self.sums.start(row_range)
            finish: Finish = partial(self._partial_row, chunk) if s.chunk and s.partials else self._row
            recurrences = self.body.recurrences
            if recurrences and not s.inner:
                self._rows(row_range, column_range, partial(recurrences.run, self._row))
            else:
                with recurrences.steps(column_range[0]) if recurrences else nullcontext():
                    self._rows(row_range, column_range, finish)
        self.ranges = {}
        if self.sums:
            self.sums.combine()
        elif s.partials:
            self._combine(rows)

    @contextmanager
    def _tiles(self, rows: Dim, tile: Dim, columns: int, chunks: Dim, label: str,
               serial: bool | Val) -> Iterator[tuple[Ends, Ends, Ix]]:
        """A parallel loop over blocks of rows × blocks of columns × chunks."""
        f = self.f
        extent = self.nest.extents[self.s.vector] if self.by_column else 1
        blocks = ceil_div(extent, columns) if columns else 1
        count = (1 if tile == rows else ceil_div(rows, static_dim(tile))) * blocks * chunks
        with f.parallel(count, label, serial=serial) as t:
            t, chunk = divided(f, t, count, chunks)
            t, block = divided(f, t, count, blocks)
            first = block * columns
            yield ((t * tile, f.min_(t * tile + tile, rows)), (first, first + columns if columns else extent), chunk)

    def _rows(self, row_range: Ends, column_range: Ends, finish: Finish) -> None:
        """Calls `finish(point)` in loops over rows and, when the vector runs over a kept dim, over its columns."""
        f = self.f
        lo, hi = row_range
        if self.s.outer and self.nest.size(self.s.outer) != 1:
            with f.loop(lo, hi, name="row") as L:
                if self.body.recurrences:
                    self.body.recurrences.row = L.index + Ix() + lo * -1 if self.s.tile != 1 else Ix()
                self._columns(self._unflatten(L.index), column_range, finish)
        else:
            self._columns(Point(self._step() | {d: Ix() for d in self.s.outer}), column_range, finish)

    def _step(self) -> dict[int, Ix]:
        """The index of the step at hand, where recurrences run."""
        return {self.nest.running: self.body.recurrences.now} if self.body.recurrences else {}

    def _unflatten(self, row: Ix) -> Point:
        index = self._step()
        for d in reversed(self.s.outer[1:]):
            row, index[d] = self.f.divmod(row, self.nest.extents[d])
        index[self.s.outer[0]] = row
        return Point(index)

    def _columns(self, point: Point, column_range: Ends, finish: Finish) -> None:
        if not self.by_column:
            finish(point)
            return

        def work(at: Point, carried: Accumulator) -> Accumulator:
            finish(at)
            return ()
        self._vector_loop(point, column_range, (), work)

    # ---- loops
    def sweep(self, dims: tuple[int, ...], point: Point, carried: Accumulator, work: Work) -> Accumulator:
        """`work(point, carried) -> carried` in loops over `dims`."""
        if not dims:
            return tuple(work(point, carried))
        d = dims[0]
        lo, hi = self.ranges.get(d, (0, self.nest.extents[d]))
        if self.nest.extents[d] == 0:
            return carried
        if d == self.s.vector:
            return self._vector_loop(point, (lo, hi), carried, lambda at, c: self.sweep(dims[1:], at, c, work))
        if self.turned and len(dims) == 1 and self.turned.serves(point):
            return self.turned.run(point, (lo, hi), carried, work, self._counted)

        def trip(index: Ix, c: Accumulator) -> Accumulator:
            if len(dims) == 1 or not self.summing:
                return self.sweep(dims[1:], point.at(d, index), c, work)
            inner = self.sweep(dims[1:], point.at(d, index), self._starts(), work)
            return tuple(merged(self.f, self.summing, c, inner))
        extent = self.nest.extents[d]
        return self._counted(Trips(f"i{d}", lo, self.f.min_(hi, extent), 1, extent), carried, trip)

    def _counted(self, trips: Trips, carried: Accumulator, trip: Trip) -> Accumulator:
        """The trips of a loop; long float sums in blocks."""
        f, step = self.f, trips.step
        if not self.summing or trips.are_few:
            with f.loop(trips.lo, trips.hi, step=step, carry=carried, name=trips.name) as L:
                L.next(*trip(L.index, L.carried))
            return L.results
        with f.loop(trips.lo, trips.hi, step=trips.block * step, carry=carried, name="block") as B:
            end = f.min_(B.index + trips.block * step, trips.hi)
            with f.loop(B.index, end, step=step, carry=self._starts(), name=trips.name) as L:
                L.next(*trip(L.index, L.carried))
            B.next(*merged(f, self.summing, B.carried, L.results))
        return B.results

    def _starts(self) -> Accumulator:
        return tuple(a for node in self.summing for a in self._start(node))

    def _vector_loop(self, point: Point, bounds: Ends, carried: Accumulator, work: Work) -> Accumulator:
        """Whole vectors, then one masked vector if the extent leaves a rest, no wider than that needs where nothing is
        carried. Bounds end at whole vectors or beyond the extent."""
        f, d, lanes = self.f, self.s.vector, self.s.lanes
        lo, hi = bounds
        extent = self.nest.extents[d]
        main = extent // lanes * lanes
        if isinstance(extent, Poly):
            return self._open_vector_loop(point, bounds, carried, work)
        if main:
            trips = Trips(f"i{d}", lo, f.min_(hi, main), lanes, main // lanes)
            carried = self._counted(trips, carried, lambda i, c: work(point.at(d, i, lanes), c))
        if main == extent:
            return carried
        rest = static_dim(extent - main)
        width = lanes if carried else last_lanes(rest, lanes)
        mask = f.tail_mask(rest, width) if width != rest else None
        before, self.width = self.width, width
        if isinstance(lo, int) and isinstance(hi, int):
            carried = tuple(work(point.at(d, Ix(main), width, mask), carried))
        else:                                               # once, in the last tile
            with f.loop(f.max_(lo, main), f.min_(hi, main + 1), step=lanes, carry=carried, name="rest") as L:
                L.next(*work(point.at(d, L.index, width, mask), L.carried))
            carried = L.results
        self.width = before
        return carried

    def _open_vector_loop(self, point: Point, bounds: Ends, carried: Accumulator, work: Work) -> Accumulator:
        """The same for an extent that comes with the call. In a long sum the rest belongs to the last block, so that a
        row gives the same bits where zeros follow its end."""
        f, d, lanes = self.f, self.s.vector, self.s.lanes
        (lo, hi), extent = bounds, self.nest.extents[d]
        main = extent // lanes * lanes
        trips = Trips(f"i{d}", lo, f.min_(hi, main), lanes, main // lanes)

        def trip(index: Ix, c: Accumulator) -> Accumulator:
            return work(point.at(d, index, lanes), c)
        blocks = bool(self.summing) and not trips.are_few
        if blocks:
            carried, last = self._blocks(trips, f.min_(hi, extent), carried, trip)
        else:
            last = self._counted(trips, carried, trip)
        if main != extent:
            with f.loop(f.max_(lo, main), f.min_(hi, main + 1), step=lanes, carry=last, name="rest") as R:
                first = R.index if isinstance(lo, Ix) else Ix(main)
                R.next(*work(point.at(d, first, lanes, f.tail_mask(extent - main, lanes)), R.carried))
            last = R.results
        return tuple(merged(f, self.summing, carried, last)) if blocks else last

    def _blocks(self, trips: Trips, end: Ix | Dim, carried: Accumulator, trip: Trip) -> tuple[Accumulator, Accumulator]:
        """What was carried and all blocks but the last, and the last: of those that begin before `end`."""
        f, step = self.f, trips.step
        block = trips.block * step
        with f.loop(trips.lo, end, step=block, carry=(*carried, *self._starts()), name="block") as B:
            before = merged(f, self.summing, B.carried[:len(carried)], B.carried[len(carried):])
            inner = replace(trips, lo=B.index, hi=f.min_(B.index + block, trips.hi), most=trips.block)
            B.next(*before, *self._counted(inner, self._starts(), trip))
        return B.results[:len(carried)], B.results[len(carried):]

    # ---- a row
    def _row(self, point: Point) -> None:
        """All stages of one row (or of one vector of rows), then the outputs that do not change within it."""
        self.body.start_row(point)
        for stage in range(self.stages.count):
            for node, acc in self._stage(point, stage).items():
                self.body.set_row_value(node.outputs[0], reducer(node).finish(self.f, acc))
        if self.sums:
            self.sums.take_row()
        self._row_outputs(point)

    def _stage(self, point: Point, stage: int) -> dict[Node, Accumulator]:
        """The loop of one stage: outputs and scratch rows written; the stage's reductions, lanes folded."""
        body = self.body
        nodes = [n for n in self.reductions if self.stages.home[n.outputs[0]] == stage + 1]
        outs = [k for k in range(len(self.nest.outputs)) if self.written_in(k) == stage]
        crossing = self.sums.in_stage(stage) if self.sums else []
        targets = [n.inputs[0] for n in nodes + crossing] + [self.nest.body.outputs[k] for k in outs]
        plan = body.plan(stage, targets)
        body.hoist(plan, point)
        if self.turned:
            self.turned.start([*plan.nodes, *nodes, *crossing], outs)
        fetch = self.s.fetch if self.s.fetch and self.s.fetch.stage in (stage, -1) else None

        def work(at: Point, carried: Accumulator) -> Accumulator:
            if fetch and at.mask is None:
                self._ask_ahead(at, fetch)
            env = body.evaluate(plan, at)
            ends = [(k, env.value(self.nest.body.outputs[k])) for k in outs]
            carried = self._steps(nodes, env, at, carried)
            if self.sums and crossing:
                self.sums.take(crossing, env, at)
            for k, value in ends:           # after every load: an output may lie where an input lies
                self.store(k, value, at)
            return carried
        self.summing = nodes if any(type(n.op) is Sum and n.inputs[0].type.dtype.is_float for n in nodes) else []
        flat = self.sweep(self.s.inner, point, tuple(a for n in nodes for a in self._start(n)), work)
        self.summing = []
        return {n: self._fold(n, acc) for n, acc in zip(nodes, regroup(flat, nodes))}

    def _ask_ahead(self, at: Point, fetch: Fetch) -> None:
        for v, strides in {(leaf_of(use), strides): None for use, strides in self.nest.leaves.items()}:
            if v in self.body.inputs and strides[fetch.dim] != 0 and strides[self.s.vector] == 1:
                view, index = self.body.address(self.body.inputs[v], strides,
                                                at.at(fetch.dim, at.index[fetch.dim] + fetch.distance))
                for first in range(0, at.lanes, LINE_BYTES // v.type.dtype.itemsize):
                    self.f.prefetch(view, [*index[:-1], index[-1] + first], fetch.level)

    def written_in(self, k: int) -> int:
        """See `nest.written_in`."""
        return written_in(self.nest, self.stages, self.s.inner, k)

    def _start(self, node: Node) -> Accumulator:
        r, element = reducer(node), node.inputs[0].type.dtype
        return tuple(self.f.const(c, t, self.width)
                     for c, t in zip(r.start(element), r.dtypes(element, self.counter)))

    def _steps(self, nodes: list[Node], env: Env, at: Point, carried: Accumulator) -> Accumulator:
        f, result = self.f, list[Val]()
        for node in nodes:
            r = reducer(node)
            width = len(r.start(node.inputs[0].type.dtype))
            acc, carried = carried[:width], carried[width:]
            number = self.body.number(self.nest.counters[node], at, self.counter) if r.counts else None
            value = f.splat(env.operand(node, 0), self.width)
            new = r.step(f, acc, value, number)
            if at.mask is not None and not self.by_column:
                new = tuple(f.select(at.mask, n, old) for n, old in zip(new, acc))
            result += new
        return tuple(result)

    def _fold(self, node: Node, acc: Accumulator) -> Accumulator:
        return acc if self.by_column else reducer(node).fold(self.f, acc)

    def _row_outputs(self, point: Point) -> None:
        outputs = enumerate(self.nest.body.outputs)
        ends = [(k, self.body.row_value(v)) for k, v in outputs if self.written_in(k) == ROW_END]
        for k, value in ends:                   # all values first: an output may lie where another one's operand does
            self.store(k, value, point)

    def store(self, k: int, value: Val, at: Point) -> None:
        strides, vector = self.nest.outputs[k], self.s.vector
        lanes = at.lanes if vector in self.nest.spans[k] else 1
        if self.turned and self.turned.take(k, value, lanes):
            return
        view, index = self.body.address(self.ys[k], strides, at)
        whole = lanes > 1 and at.mask is None
        hint = "nontemporal" if k in self.streams and whole else None
        if self.turned and whole and not hint and strides[vector] == 1:
            self.turned.claim(view, index)
        self.f.store(view, index, self.f.splat(value, lanes), at.mask if lanes > 1 else None, hint)

    # ---- reductions cut into chunks
    def _partial_views(self, partials: list[View]) -> list[View]:
        """[chunk, kept dims in loop order]."""
        shape = self.chunks, *(self.nest.extents[d] for d in self.order)
        return [self.f.reinterpret(view, shape, contiguous_strides(shape)) for view in partials]

    def _partial_row(self, chunk: Ix, point: Point) -> None:
        self.body.start_row(point)
        found = self._stage(point, 0)
        flat = [a for n in self.reductions for a in found[n]]
        for view, value in zip(self._partial_views(self.partials), flat, strict=True):
            self.f.store(view, [chunk, *(point.index[d] for d in self.order)], value, point.mask)

    def _combine(self, rows: Dim) -> None:
        """Merges the partial results of all chunks in order and finishes every row."""
        s = self.s
        serial = s.serial or at_most(self.f, self.chunks * self.nest.size(self.order), COMBINE_SERIAL - 1)
        columns = 0 if serial is True or not self.by_column else ceil_div(COMBINE_COLUMNS, s.lanes) * s.lanes
        tile = rows if serial is True else 1 if columns else COMBINE_ROWS
        with self._tiles(rows, tile, columns, 1, "combine", serial) as (row_range, column_range, _):
            self._rows(row_range, column_range, self._combined_row)

    def _combined_row(self, point: Point) -> None:
        f, body = self.f, self.body
        lanes = self.width if self.by_column else 1
        body.start_row(point)
        place, views = [point.index[d] for d in self.order], self._partial_views(self.partials)

        def found(chunk: Ix | int) -> Accumulator:
            return tuple(f.load(view, [chunk, *place], lanes, point.mask) for view in views)
        with f.loop(1, self.chunks, carry=found(0), name="chunk") as L:
            L.next(*merged(f, self.reductions, L.carried, found(L.index)))
        for node, acc in zip(self.reductions, regroup(L.results, self.reductions)):
            body.set_row_value(node.outputs[0], reducer(node).finish(f, acc))
        self._row_outputs(point)
