"""What linear recurrences hand from one step to the next: in registers, where one vector takes all its steps before the
next one, or where steps are its lanes; else, for each recurrence in every tile, an element of scratch for all that runs
side by side."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphc.codegen.loops.builder import Ix
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.codegen.lower.recurrence_lanes import Lanes
from graphc.ir.dims import Dim, ceil_div, static_dim
from graphc.ir.graph import Node, Value
from graphc.ir.ops.scan_ops import LinearScan

if TYPE_CHECKING:
    from graphc.codegen.lower.body import NestBody, Point

Operands = tuple[Value, ...]


class Recurrences:
    """Of one nest. Without inner dims the steps are the innermost loop (`chain`), with states in registers. Else those
    of a tile are a loop around its rows (`steps`): a state in memory has an index for the row in its tile, those of the
    inner dims, and one for the column in the tile, where the vector runs over columns. Where the vector runs over the
    steps (`lanes`), states are vectors that have one number in all lanes.

    `begins`: whether the step at hand is the first; `row`: the number of the row at hand in its tile.
    """

    def __init__(self, body: NestBody, fused: bool):
        self.f, self.nest, self.s, self.body, self.fused = body.f, body.nest, body.s, body, fused
        self.states: dict[Operands, View] = {}
        nodes = (n for n in body.nest.body.nodes if isinstance(n.op, LinearScan))
        self.nodes = {n.inputs: n for n in nodes}       # of equal operands one
        self.carried: dict[Operands, Val] = {}
        self.begins: Val
        nest = body.nest
        along = self.s.vector == nest.running
        self.lanes = Lanes(body.f, nest.backward, static_dim(nest.extents[nest.running]), fused) if along else None
        self.row, self.column, self.now = Ix(), Ix(), Ix()

    @property
    def by_column(self) -> bool:
        return self.s.vector >= 0 and self.s.vector not in self.s.inner

    def allocate(self) -> None:
        """The states of a tile."""
        s, extents = self.s, self.nest.extents
        columns: tuple[Dim, ...] = ()
        if self.by_column:
            columns = (s.columns or ceil_div(extents[s.vector], s.lanes) * s.lanes,)
        for number, (operands, node) in enumerate(self.nodes.items() if s.inner else ()):
            shape = (s.tile, *(extents[d] for d in s.inner), *columns)
            self.states[operands] = self.f.scratch(f"state{number}", node.outputs[0].type.dtype, shape)

    def run(self, row: Callable[[Point], None], point: Point) -> None:
        """All steps of one row, or of one vector of columns."""
        running = self.nest.running
        if self.lanes:
            self._along(lambda mask: row(point.at(running, self.now, self.s.lanes, mask)))
            return
        with self.chain(point.lanes):
            row(point.at(running, self.now))

    def _along(self, vector: Callable[[Val | None], None]) -> None:
        """Calls `vector(mask)` for all vectors of steps, in the order of the steps."""
        f, lanes, n = self.f, self.s.lanes, static_dim(self.nest.extents[self.nest.running])
        main, backward = n // lanes * lanes, self.nest.backward
        self.carried = {i: f.const(-0.0, v.outputs[0].type.dtype, lanes) for i, v in self.nodes.items()}

        def rest() -> None:
            if main < n:
                self.now = Ix(main)
                vector(f.tail_mask(n - main, lanes))
        if backward:
            rest()
        with f.loop(0, main, step=lanes, name="step", carry=tuple(self.carried.values())) as loop:
            self.carried = dict(zip(self.nodes, loop.carried))
            self.now = loop.index * -1 + (main - lanes) if backward else loop.index
            vector(None)
            loop.next(*self.carried.values())
        self.carried = dict(zip(self.nodes, loop.results))
        if not backward:
            rest()
        self.carried = {}

    @contextmanager
    def chain(self, lanes: int) -> Iterator[None]:
        """Runs what is inside for every step of one vector."""
        f, starts = self.f, [self.f.const(-0.0, n.outputs[0].type.dtype, lanes) for n in self.nodes.values()]
        with f.loop(0, self.nest.extents[self.nest.running], name="step", carry=starts) as loop:
            self._begin(loop.index)
            self.carried = dict(zip(self.nodes, loop.carried))
            yield
            loop.next(*self.carried.values())
        self.carried = {}

    @contextmanager
    def steps(self, column: Ix | Dim) -> Iterator[None]:
        """Runs what is inside for every step; `column` is the first of the tile."""
        self.column = Ix() + column
        with self.f.loop(0, self.nest.extents[self.nest.running], name="step") as loop:
            self._begin(loop.index)
            yield

    def _begin(self, step: Ix) -> None:
        n = self.nest.extents[self.nest.running]
        self.now = step * -1 + (n - 1) if self.nest.backward else step
        self.begins = self.f.eq(self.f.value(step), 0)

    def step(self, node: Node, a: Val, x: Val, at: Point) -> tuple[Val, Val]:
        """What the step, or each of the lanes, begins with, in the first -0, and what follows."""
        if self.lanes:
            begin = self.carried[node.inputs]
            before, after, self.carried[node.inputs] = self.lanes.step(a, x, begin, self.now, at.mask)
            return before, after
        old = self.load(node, at)
        new = self.next(a, old, x)
        self.store(node, new, at)
        return old, new

    def is_first(self, lanes: int) -> Val:
        return self.lanes.is_first(self.now, lanes) if self.lanes else self.begins

    def next(self, a: Val, old: Val, x: Val) -> Val:
        """What follows the state `old`. In the first step that is x alone, whatever `a` is: one times -0 leaves x as it
        is, and of registers the step before is not asked which step it was, since all steps wait for each other."""
        f = self.f
        if self.s.inner:
            return f.select(self.begins, x, multiply_add(f, a, old, x, self.fused))
        return multiply_add(f, f.select(self.begins, f.const(1, a.dtype, a.lanes), a), old, x, self.fused)

    def load(self, node: Node, at: Point) -> Val:
        if not self.s.inner:
            return self.carried[node.inputs]
        return self.f.load(self.states[node.inputs], self._index(at), at.lanes, at.mask)

    def store(self, node: Node, value: Val, at: Point) -> None:
        if self.s.inner:
            self.f.store(self.states[node.inputs], self._index(at), value, at.mask)
        else:
            self.carried[node.inputs] = value

    def _index(self, at: Point) -> list[Ix]:
        index = [at.index.get(d, Ix()) for d in self.s.inner]
        return [self.row, *index, *([at.index[self.s.vector] + self.column * -1] if self.by_column else [])]
