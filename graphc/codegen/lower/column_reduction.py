"""Reductions across the rows of a nest: every tile of rows has accumulators of its own in shared memory, merged in
order at the end.
"""
from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from graphc.codegen.loops.builder import Ix
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower.body import Env, Point
from graphc.codegen.lower.reduce import Accumulator, merged, reducer, regroup
from graphc.codegen.lower.rows import at_most
from graphc.ir.dims import Dim, ceil_div, static_dim, typical
from graphc.ir.graph import Node
from graphc.schedule.loop_nest import AFTER
from graphc.schedule.view import contiguous_strides

if TYPE_CHECKING:
    from graphc.codegen.lower.nest import NestLowering

COMBINE_COLUMNS = 512           # elements of a tile that combines partial results
COMBINE_ROWS = 64
COMBINE_SERIAL = 1 << 15        # partial results that one thread combines alone


class ColumnReduction:
    """The crossing reductions of a nest. Wide ones reduce rows to a row; narrow ones a value of each row, to a scalar.
    """

    def __init__(self, nest: "NestLowering"):
        self.n, self.f, self.s, self.body = nest, nest.f, nest.s, nest.body
        self.nodes = [n for n in nest.nest.body.nodes if n in nest.nest.crossing]
        self.extents = tuple(nest.nest.extents[d] for d in nest.s.inner)
        self.tiles = ceil_div(nest.nest.size(nest.s.outer), nest.s.tile)
        self.wide = [n for n in self.nodes if n in nest.nest.wide]
        self.narrow = [n for n in self.nodes if n not in self.wide]
        self.views = dict(zip(self.nodes, map(list, regroup(nest.partials, self.nodes))))
        self.tile: Ix                           # the number of the tile at hand (`start`)

    # ---- in a tile
    def start(self, row_range: tuple[Ix | Dim, Ix | Dim]) -> None:
        """Fills the tile's accumulators."""
        self.tile, _ = self.f.divmod(row_range[0], self.s.tile)
        for node in self.narrow:
            for view, value in zip(self.views[node], self._starts(node, 1)):
                self.f.store(self._flat(view), [self.tile], value)

        def fill(at: Point, carried: Accumulator) -> Accumulator:
            for node in self.wide:
                for view, value in zip(self.views[node], self._starts(node, at.lanes)):
                    self.f.store(self._rows(view), self._in_row(at, self.tile), value, at.mask)
            return carried
        if self.wide:
            self.n.sweep(self.s.inner, Point(), (), fill)

    def in_stage(self, stage: int) -> list[Node]:
        """The wide reductions whose operand is made in this stage."""
        return [n for n in self.wide if self.n.stages.home.get(n.inputs[0], 0) == stage]

    def take(self, nodes: list[Node], env: Env, at: Point) -> None:
        """Takes the values at a point into the tile's row of accumulators."""
        f = self.f
        for node in nodes:
            views = [self._rows(view) for view in self.views[node]]
            acc = tuple(f.load(view, self._in_row(at, self.tile), at.lanes, at.mask) for view in views)
            new = self._step(node, acc, env, at)
            for view, value in zip(views, new):
                f.store(view, self._in_row(at, self.tile), value, at.mask)

    def take_row(self) -> None:
        """Takes the values of a finished row."""
        for node in self.narrow:
            views = [self._flat(view) for view in self.views[node]]
            acc = tuple(self.f.load(view, [self.tile]) for view in views)
            for view, value in zip(views, self._step(node, acc, self.body.row, self.body.row.at)):
                self.f.store(view, [self.tile], value)

    def _step(self, node: Node, acc: Accumulator, env: Env, at: Point) -> Accumulator:
        r = reducer(node)
        number = self.body.number(self.n.nest.counters[node], at, acc[1].dtype) if r.counts else None
        return r.step(self.f, acc, self.f.splat(env.operand(node, 0), acc[0].lanes), number)

    def _starts(self, node: Node, lanes: int) -> Accumulator:
        r, dtypes = reducer(node), [view.dtype for view in self.views[node]]
        return tuple(self.f.const(c, t, lanes) for c, t in zip(r.start(node.inputs[0].type.dtype), dtypes))

    # ---- after all rows
    def combine(self) -> None:
        """Merges the accumulators of all tiles; then the outputs that do not change from row to row."""
        total = Env(self.body, Point())
        self._merge(self.narrow, total)
        self._store([k for k in self._outputs() if not self.n.nest.spans[k]], total)
        wide = [k for k in self._outputs() if self.n.nest.spans[k]]
        if not wide:
            return
        f, s, first = self.f, self.s, self.s.inner[0]
        extent, size = self.extents[0], self.n.nest.size(s.inner)
        step = s.lanes if first == s.vector else 1
        serial = s.serial or at_most(f, self.tiles * size, COMBINE_SERIAL - 1)
        block = extent if serial is True else ceil(COMBINE_COLUMNS * typical(extent) / typical(size) / step) * step
        whole = block == extent or isinstance(extent, int) and block >= extent

        def finish(at: Point, carried: Accumulator) -> Accumulator:
            env = Env(self.body, at, total)
            self._merge(self.wide, env)
            self._store(wide, env)
            return carried
        with f.parallel(1 if whole else ceil_div(extent, static_dim(block)), "combine", serial=serial) as t:
            self.n.ranges = {} if whole else {first: (t * block, t * block + block)}
            self.n.sweep(s.inner, Point(), (), finish)
        self.n.ranges = {}

    def _outputs(self) -> list[int]:
        return [k for k in range(len(self.n.nest.outputs)) if self.n.written_in(k) == AFTER]

    def _merge(self, nodes: list[Node], env: Env) -> None:
        """Sets the results of the reductions in `env`."""
        f, at = self.f, env.at

        def partial(tile: Ix | int) -> Accumulator:
            if nodes is self.narrow:
                return tuple(f.load(self._flat(v), [tile]) for n in nodes for v in self.views[n])
            return tuple(f.load(self._rows(v), self._in_row(at, tile), at.lanes, at.mask) for n in nodes
                         for v in self.views[n])
        if not nodes:
            return
        with f.loop(1, self.tiles, carry=partial(0), name="tile") as L:
            L.next(*merged(f, nodes, L.carried, partial(L.index)))
        for node, acc in zip(nodes, regroup(L.results, nodes)):
            env.values[node.outputs[0]] = reducer(node).finish(f, acc)

    def _store(self, outputs: list[int], env: Env) -> None:
        ends = [(k, env.value(self.n.nest.body.outputs[k])) for k in outputs]
        for k, value in ends:
            self.n.store(k, value, env.at)

    # ---- memory: [tile, inner dims] of wide reductions, [tile] of narrow ones
    def _rows(self, view: View) -> View:
        shape = self.tiles, *self.extents
        return self.f.reinterpret(view, shape, contiguous_strides(shape))

    def _flat(self, view: View) -> View:
        return self.f.reinterpret(view, (self.tiles,), (1,))

    def _in_row(self, at: Point, tile: Ix | int) -> list[Ix | int]:
        return [tile, *(at.index[d] for d in self.s.inner)]
