"""What linear recurrences hand from one step to the next: in registers, where one vector takes all its steps before the
next one; else, for each recurrence in every tile, an element of scratch for all that runs side by side."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphc.codegen.loops.builder import Ix
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower.contraction.micro_kernel import multiply_add
from graphc.ir.dims import Dim, ceil_div
from graphc.ir.graph import Node, Value
from graphc.ir.ops.scan_ops import LinearScan

if TYPE_CHECKING:
    from graphc.codegen.lower.body import NestBody, Point

Operands = tuple[Value, ...]


class Recurrences:
    """Of one nest. Without inner dims the steps are the innermost loop (`chain`), with states in registers. Else those
    of a tile are a loop around its rows (`steps`): a state in memory has an index for the row in its tile, those of the
    inner dims, and one for the column in the tile, where the vector runs over columns.

    `begins`: whether the step at hand is the first; `row`: the number of the row at hand in its tile.
    """

    def __init__(self, body: NestBody, fused: bool):
        self.f, self.nest, self.s, self.body, self.fused = body.f, body.nest, body.s, body, fused
        self.states: dict[Operands, View] = {}
        nodes = (n for n in body.nest.body.nodes if isinstance(n.op, LinearScan))
        self.nodes = {n.inputs: n for n in nodes}       # of equal operands one
        self.carried: dict[Operands, Val] = {}
        self.begins: Val
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
