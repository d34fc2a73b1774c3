"""Evaluates the operators of a cluster at a point of its nest: what is loaded, repeated, or read back from a scratch
row.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from graphc.codegen.loops.builder import Ix, LoopFunction
from graphc.codegen.loops.loop_ir import Val, View
from graphc.codegen.lower import elementwise
from graphc.codegen.lower.random import random_value
from graphc.codegen.lower.recurrence import Recurrences
from graphc.codegen.lower.rows import clamped
from graphc.ir.dims import largest
from graphc.ir.graph import Node, Value
from graphc.ir.ops.constant import Constant, Dimension
from graphc.ir.ops.elementwise import ADD, MUL, Cast
from graphc.ir.ops.embedding_gradients import PickRows
from graphc.ir.ops.random import RandomBits
from graphc.ir.ops.reduce import ArgExtremum
from graphc.ir.ops.scan_ops import LinearScan
from graphc.ir.types import DType, f16, f32, i8, i16, i64, u8, u16
from graphc.records import dataclass
from graphc.schedule.loop_nest import Nest, Stages, Strides, leaf_of
from graphc.schedule.nest_schedule import NestSchedule

DIGITS = {i8: 8, u8: 8, i16: 16, u16: 16, f16: f16.mantissa + 1}


@dataclass(frozen=True)
class Point:
    """Where code runs: the index along each dim known so far; with lanes > 1, of the first lane along the vector dim.
    """
    index: dict[int, Ix] = field(default_factory=dict)
    lanes: int = 1
    mask: Val | None = None

    def at(self, dim: int, index: Ix, lanes: int = 0, mask: Val | None = None) -> "Point":
        """The point with one more dim; lanes: that dim is the vector."""
        return Point({**self.index, dim: index}, lanes or self.lanes, mask if lanes else self.mask)


@dataclass(frozen=True)
class StagePlan:
    """What the loop of one stage evaluates, in order; `reads`: values it reads back; `writes`: values it keeps for
    later stages.
    """
    nodes: tuple[Node, ...]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]


class NestBody:
    """The cluster's operators as code. Values that do not change inside a row are made once, before the loops that need
    them.
    """

    def __init__(self, f: LoopFunction, nest: Nest, stages: Stages, schedule: NestSchedule, xs: Sequence[View],
                 fused: bool = False):
        """fused: the target multiplies and adds in one instruction."""
        self.f, self.nest, self.stages, self.s, self.fused = f, nest, stages, schedule, fused
        self.inputs = dict(zip(nest.body.inputs, xs))
        self.kept = {nest.body.nodes[k].outputs[0] for k in schedule.stored}
        self.scratch: dict[Value, View] = {}
        self.row: Env                           # of the row at hand (`start_row`)
        self.recurrences = Recurrences(self, fused) if nest.running >= 0 else None
        extents = nest.extents
        self.order = [d
                      for d in range(len(extents)) if d != schedule.vector] + [schedule.vector] * (schedule.vector >= 0)

    # ---- rows
    def allocate(self) -> None:
        """Scratch rows of a tile."""
        s = self.s
        shape = tuple(self.nest.extents[d] for d in s.inner) + (() if s.vector in s.inner else (s.lanes,))
        for k in self.s.stored:
            v = self.nest.body.nodes[k].outputs[0]
            self.scratch[v] = self.f.scratch(f"row{k}", v.type.dtype, shape)
        if self.recurrences:
            self.recurrences.allocate()

    def start_row(self, point: Point) -> None:
        self.row = Env(self, point)

    def set_row_value(self, v: Value, value: Val) -> None:
        self.row.values[v] = value

    def row_value(self, v: Value) -> Val:
        """A value that does not change within the row."""
        return self.row.value(v)

    # ---- stages
    def plan(self, stage: int, targets: Sequence[Value]) -> StagePlan:
        """The nodes that the loop of `stage` must evaluate for `targets` and for the values kept in it."""
        stages = self.stages
        writes = tuple(v for v in self.kept if stages.home[v] == stage)
        needed: set[Node] = set()
        reads: dict[Value, None] = {}
        todo = [*targets, *writes]
        while todo:
            v = todo.pop()
            if v not in stages.inner or v.node is None or v.node in needed:
                continue
            if v in self.kept and stages.home[v] < stage:
                reads[v] = None
                continue
            needed.add(v.node)
            todo += v.node.inputs
        return StagePlan(tuple(n for n in self.nest.body.nodes if n in needed), tuple(reads), writes)

    def hoist(self, plan: StagePlan, point: Point) -> None:
        """Makes whatever the plan needs and does not change within the row."""
        inner = set(self.s.inner)
        for node in plan.nodes:
            for k, v in enumerate(node.inputs):
                if v in self.nest.deps:
                    if v not in self.stages.inner:
                        self.row.value(v)
                elif (node, k) in self.nest.leaves and all(self.nest.leaves[node, k][d] == 0 for d in inner):
                    self.row.leaf(node, k)

    def evaluate(self, plan: StagePlan, at: Point) -> "Env":
        """All values of the plan at one point of the loop; keeps those that later stages read."""
        env = Env(self, at, self.row)
        for v in plan.reads:
            env.values[v] = self.f.load(self.scratch[v], self._scratch_index(at), at.lanes, at.mask)
        for node in plan.nodes:
            env.value(node.outputs[0])
        for v in plan.writes:
            self.f.store(self.scratch[v], self._scratch_index(at), self.f.splat(env.value(v), at.lanes), at.mask)
        return env

    def _scratch_index(self, at: Point) -> list[Ix | int]:
        return [at.index[d] for d in self.s.inner] + ([] if self.s.vector in self.s.inner else [0])

    # ---- memory
    def address(self, view: View, strides: Strides, at: Point) -> tuple[View, list[Ix | int]]:
        """The view over the dims of the nest, the vector dim last, and the index of the point in it."""
        flat = self.f.reinterpret(view, [self.nest.extents[d] for d in self.order], [strides[d] for d in self.order])
        return flat, [at.index.get(d, Ix()) for d in self.order]

    def load(self, view: View, strides: Strides, at: Point) -> Val:
        flat, index = self.address(view, strides, at)
        wide = at.lanes > 1 and strides[self.s.vector] != 0
        return self.f.load(flat, index, at.lanes if wide else 1, at.mask if wide else None)

    def number(self, strides: Strides, at: Point, dtype: DType) -> Val:
        """sum of index * stride as a value; a vector when it changes along the vector dim."""
        f, total = self.f, Ix()
        for d, step in enumerate(strides):
            total = total + at.index.get(d, Ix()) * step
        base = f.cast(f.value(total), dtype)
        apart = strides[self.s.vector] if self.s.vector >= 0 else 0
        if at.lanes == 1 or apart == 0:
            return base
        factor = apart if isinstance(apart, int) else f.splat(f.cast(f.value(Ix(apart)), dtype), at.lanes)
        return f.add(base, f.mul(f.iota(at.lanes, dtype), factor))


def exact_product(node: Node) -> Node | None:
    """The product that is an operand of an f32 sum, of numbers of so few bits that it is never rounded: one instruction
    then gives what two give. None: there is none, or it is no sum. """
    if node.op is not ADD or node.outputs[0].type.dtype is not f32:
        return None
    return next((v.node for v in node.inputs if v.node is not None and v.node.op is MUL
                 and sum(map(_digits, v.node.inputs)) <= f32.mantissa + 1), None)


def _digits(v: Value) -> int:
    """Binary digits of the numbers that an f32 value can be, all far from the ends of f32's range; all digits, if
    nothing is known."""
    while v.node is not None and v.node.op.is_whole_view:
        v = v.node.inputs[0]
    if v.node is not None and isinstance(v.node.op, Cast):
        return DIGITS.get(v.node.inputs[0].type.dtype, f32.mantissa + 1)
    return f32.mantissa + 1


class Env:
    """Values at one point; what is not found there and does not change within the row is looked up in `outer`."""

    def __init__(self, body: NestBody, at: Point, outer: "Env | None" = None):
        self.body, self.at, self.outer = body, at, outer
        self.values: dict[object, Val] = {}

    def value(self, v: Value) -> Val:
        """The value of a node's output."""
        found = self._find(v)
        if found is None:
            found = self.values[v] = self._made(v.maker)
        return found

    def operand(self, node: Node, k: int) -> Val:
        """The value of an operand, a leaf or a node's output."""
        return self.leaf(node, k) if (node, k) in self.body.nest.leaves else self.value(node.inputs[k])

    def leaf(self, node: Node, k: int) -> Val:
        """An operand that no node of the cluster makes: loaded, counted or constant."""
        v, strides = leaf_of((node, k)), self.body.nest.leaves[node, k]
        key = (v, strides)
        found = self._find(key)
        if found is None:
            found = self.values[key] = self._leaf(v, strides)
        return found

    def _find(self, key: object) -> Val | None:
        found = self.values.get(key)
        return found if found is not None or self.outer is None else self.outer.values.get(key)

    def _leaf(self, v: Value, strides: Strides) -> Val:
        body = self.body
        if v in body.inputs:
            return body.load(body.inputs[v], strides, self.at)
        op = v.maker.op
        if isinstance(op, Constant):
            return body.f.const(op.value.array.reshape(())[()].item(), v.type.dtype)
        if isinstance(op, Dimension):
            return body.f.cast(body.f.value(Ix(largest(op.size, 0))), v.type.dtype)
        return body.f.cast(body.number(strides, self.at, i64), v.type.dtype)

    def _made(self, node: Node) -> Val:
        if node.op.is_leaf:
            return self.leaf(node, -1)
        if node.op.is_whole_view:
            return self.operand(node, 0)
        if node.op.is_reduction:         # over axes of size 1; others are set by the loops
            return self.body.f.const(0, i64) if isinstance(node.op, ArgExtremum) else self.operand(node, 0)
        if isinstance(node.op, RandomBits):
            return random_value(self.body, node, node.op, self)
        if isinstance(node.op, PickRows):
            return self._picked(node)
        if isinstance(node.op, LinearScan):
            return self._recurrence(node, node.op)
        product = exact_product(node) if self.body.fused else None
        if product is not None:
            x, y = (self.operand(product, k) for k in range(2))
            return self.body.f.fma(x, y, self.operand(node, 1 - node.inputs.index(product.outputs[0])))
        return elementwise.emit(self.body.f, node, [self.operand(node, k) for k in range(len(node.inputs))])

    def _recurrence(self, node: Node, op: LinearScan) -> Val:
        """The next value of a recurrence, or the one before. Recurrences of equal operands are one."""
        f, recurrences = self.body.f, self.body.recurrences
        a, x = (f.splat(self.operand(node, k), self.at.lanes) for k in range(2))
        if recurrences is None:                         # of one step
            return f.const(0, x.dtype, x.lanes) if op.exclusive else x
        before, after = self._find((node.inputs, 0)), self._find((node.inputs, 1))
        if before is None or after is None:
            before, after = recurrences.step(node, a, x, self.at)
            self.values |= {(node.inputs, 0): before, (node.inputs, 1): after}
        return f.select(recurrences.is_first(x.lanes), f.const(0, x.dtype, x.lanes), before) if op.exclusive else after

    def _picked(self, node: Node) -> Val:
        """An element, or neighbours, of the row at a position; of several rows, where the vector runs over positions.
        """
        f, at = self.body.f, self.operand(node, 1)
        if at.lanes == 1:
            return self._in_row(node, at)
        result = f.const(0, node.outputs[0].type.dtype, at.lanes)
        for lane in range(at.lanes):
            result = f.insert(result, lane, self._in_row(node, f.extract(at, lane)))
        return result

    def _in_row(self, node: Node, position: Val) -> Val:
        f, x = self.body.f, self.body.inputs[node.inputs[0]]
        row = clamped(f, position, x.shape[0])
        return self.body.load(View(x.root, x.shape, x.strides, x.start + row * x.strides[0]),
                              self.body.nest.leaves[node, 0], self.at)
