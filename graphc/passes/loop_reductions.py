"""Sums of a value over all steps of a loop, computed after the loop from stacked values: sum over t of a_t @ b_t is one
product of two stacks."""
from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from graphc.analysis.profitability import summing_gains
from graphc.errors import InternalError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dims
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.constant import splat
from graphc.ir.ops.contract import Einsum, Matmul, parse_equation
from graphc.ir.ops.conv import ConvWeightGrad
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.index import ScatterAdd
from graphc.ir.ops.reduce import Sum
from graphc.ir.ops.shape import BroadcastTo, Concat, Pad, Reshape, Slice, Transpose
from graphc.ir.walk import resolve
from graphc.passes.batching_rules import Batcher
from graphc.records import dataclass

MOST_STACKED = 256          # values to stack for one sum: for more, the values computed from them are stacked instead


@dataclass(frozen=True)
class ReductionPlan:
    """How to make the sum of a value: values of a step whose stacking pays, values that must be stacked for other
    reasons, and the maker.

    `terms` are the values whose own sums the maker starts from. Stacking pays for the factors of small products. What
    is only summed may be as large as the carried sum itself.
    """
    products: frozenset[Value]
    summed: frozenset[Value]
    build: Callable[..., Value]         # of the batcher and the sum of each of `terms`
    terms: tuple[Value, ...] = ()

    @property
    def stacked(self) -> frozenset[Value]:
        return self.products | self.summed

    def pays(self, free: Set[Value]) -> bool:
        """Whether to make the sum after the loop when the values `free` are stacked anyway."""
        return self.summed <= free | self.products


class LoopReductions:
    """Plans sums over the steps of a loop. `sources(v)` are the values that must be stacked to have v outside;
    `varying` differ from step to step."""

    def __init__(self, made: dict[Value, Node], varying: set[Value], sources: Callable[[Value], frozenset[Value]]):
        self.made, self.varying, self.sources = made, varying, sources
        self._plans: dict[Value, ReductionPlan | None] = {}
        self._origins: dict[Value, frozenset[Value]] = {}

    def plan(self, v: Value) -> ReductionPlan | None:
        """None: v is the same in every step, or part of it is; not worth a rule."""
        return resolve(v, self._plans, self._operands, self._planned)

    def build(self, v: Value, batcher: Batcher, built: dict[Value, Value]) -> Value:
        """Appends the sum of v as planned; `built` remembers the sums of its terms, which other values may share."""
        def make(v: Value) -> Value:
            plan = self._certain(v)
            return plan.build(batcher, *(built[t] for t in plan.terms))
        return resolve(v, built, lambda v: self._certain(v).terms, make)

    def _certain(self, v: Value) -> ReductionPlan:
        """The plan of a value that has one, and so have its terms."""
        plan = self._plans[v]
        if plan is None:
            raise InternalError(f"the sum of {v!r} over the steps was not planned", "loop_reductions")
        return plan

    def _operands(self, v: Value) -> tuple[Value, ...]:
        node = self.made.get(v)
        return node.inputs if v in self.varying and node is not None and type(node.op) in LINEAR else ()

    def _planned(self, v: Value) -> ReductionPlan | None:
        if v not in self.varying:
            return None
        node = self.made.get(v)
        rule = LINEAR.get(type(node.op)) if node else None
        plan = rule(self, node) if node is not None and rule is not None else None
        return plan if plan is not None and len(plan.stacked) <= MOST_STACKED else self._leaf(v)

    def _leaf(self, v: Value) -> ReductionPlan:
        return ReductionPlan(frozenset(), self.origin(v), lambda t: t.b.sum(t.stacked(v), axes=(0,)))

    def origin(self, v: Value) -> frozenset[Value]:
        """What v is a view of, when that varies: it has to be stacked whole to be summed."""
        return resolve(v, self._origins, self._viewed, self._origin)

    def _viewed(self, v: Value) -> tuple[Value, ...]:
        node = self.made.get(v)
        return node.inputs if node is not None and node.op.is_whole_view else ()

    def _origin(self, v: Value) -> frozenset[Value]:
        viewed = self._viewed(v)
        if viewed:
            return frozenset().union(*(self._origins[i] for i in viewed))
        return frozenset((v,)) if v in self.varying else frozenset()

    def both(self, node: Node, build: Callable[[Batcher, Value, Value], Value]) -> ReductionPlan | None:
        """A product of two operands that both vary; a large one only of values that are stacked anyway."""
        x, y = node.inputs
        if x not in self.varying or y not in self.varying:
            return None
        stacks, none = self.sources(x) | self.sources(y), frozenset[Value]()
        products, summed = (stacks, none) if summing_gains(node) else (none, stacks)
        return ReductionPlan(products, summed, lambda t: build(t, x, y))


def _elementwise(totals: LoopReductions, node: NodeOf[Elementwise]) -> ReductionPlan | None:
    """Linear functions; operands broadcast after the sum as before it."""
    if node.op.is_linear:
        return _termwise(totals, node)
    return _scaled(totals, node) if len(node.inputs) == 2 and (0,) in node.op.linear_in else None


def _termwise(totals: LoopReductions, node: Node) -> ReductionPlan | None:
    """f(sum of x, sum of y) for a linear f of operands that all vary."""
    plans = [p for v in node.inputs if (p := totals.plan(v)) is not None]
    if len(plans) < len(node.inputs):
        return None
    return ReductionPlan(frozenset().union(*(p.products for p in plans)), frozenset().union(*(p.summed for p in plans)),
                lambda t, *sums: t.b.apply(node.op, sums)[0], node.inputs)


def _scaled(totals: LoopReductions, node: Node) -> ReductionPlan | None:
    """x * c or x / c, c the same in every step."""
    x, y = node.inputs
    x, c, order = (x, y, 1) if y not in totals.varying else (y, x, -1)
    inner = totals.plan(x)
    if c in totals.varying or inner is None or (node.inputs.index(x),) not in node.op.linear_in:
        return None
    return ReductionPlan(inner.products, inner.summed,
                         lambda t, total: t.b.apply(node.op, [total, t.of(c).value][::order])[0], (x,))


def _sum(totals: LoopReductions, node: NodeOf[Sum]) -> ReductionPlan | None:
    """Over axes and steps at once."""
    x, = node.inputs
    inner = totals.plan(x)
    if inner is None or inner.products:
        return _termwise(totals, node)

    def build(t: Batcher) -> Value:
        total = t.b.sum(t.stacked(x), axes=(0, *(a + 1 for a in node.op.axes)))
        return _shaped(t.b, total, node.outputs[0].type.shape)
    return ReductionPlan(frozenset(), totals.origin(x), build)


def _pad(totals: LoopReductions, node: NodeOf[Pad]) -> ReductionPlan | None:
    return _termwise(totals, node) if node.op.value == 0 else None


def _matmul(totals: LoopReductions, node: Node) -> ReductionPlan | None:
    x, y = (v.type for v in node.inputs)
    if x.rank < 2 or x.rank != y.rank or x.shape[:-2] != y.shape[:-2]:
        return None
    return totals.both(node, _product_of_matrices if x.rank == 2 else _product_of_batches)


def _product_of_matrices(t: Batcher, x: Value, y: Value) -> Value:
    """x_t = s_t^T, as in a weight's gradient: steps and rows of s and y are merged, and it is one matmul of two stacks.
    Else an einsum."""
    if x not in t.made or x in t.known or type(t.made[x].op) is not Transpose:
        return t.b.einsum(t.stacked(x), t.stacked(y), equation="tmk,tkn->mn")
    source = t.made[x].inputs[0]
    left, right = (t.b.reshape(v, shape=(v.type.shape[0] * v.type.shape[1], v.type.shape[2]))
                   for v in (t.stacked(source), t.stacked(y)))
    return t.b.matmul(t.b.transpose(left, perm=(1, 0)), right)


def _product_of_batches(t: Batcher, x: Value, y: Value) -> Value:
    lead = "abcdefghij"[:x.type.rank - 2]
    return t.b.einsum(t.stacked(x), t.stacked(y), equation=f"t{lead}mk,t{lead}kn->{lead}mn")


def _einsum(totals: LoopReductions, node: NodeOf[Einsum]) -> ReductionPlan | None:
    if "..." in node.op.equation:
        return None
    terms = parse_equation(node.op.equation, *(v.type.rank for v in node.inputs))
    step = next(c for c in "TSUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in terms[0] + terms[1])
    a, c, out = map("".join, terms)
    equation = f"{step}{a},{step}{c}->{out}"
    return totals.both(node, lambda t, x, y: t.b.einsum(t.stacked(x), t.stacked(y), equation=equation))


def _scatter_add(totals: LoopReductions, node: NodeOf[ScatterAdd]) -> ReductionPlan | None:
    """Gradient of a table: all steps' rows are added at once."""
    base, index, updates = node.inputs
    if node.op.axis != 0 or base in totals.varying or splat(base) != 0 or updates not in totals.varying:
        return None
    return ReductionPlan(totals.sources(index) | totals.sources(updates), frozenset(),
                lambda t: t.b.apply(node.op, [t.of(base).value, t.stacked(index), t.stacked(updates)])[0])


def _conv_weight_grad(totals: LoopReductions, node: Node) -> ReductionPlan | None:
    """The steps count as further images of the batch."""
    def build(t: Batcher, x: Value, y: Value) -> Value:
        images = [t.b.reshape(v, shape=(v.type.shape[0] * v.type.shape[1], *v.type.shape[2:]))
                  for v in (t.stacked(x), t.stacked(y))]
        return t.b.apply(node.op, images)[0]
    return totals.both(node, build)


def _shaped(b: Builder, v: Value, shape: Dims) -> Value:
    return v if v.type.shape == shape else b.reshape(v, shape=shape)


# of nodes with the operator of its key (`NodeOf`), which the type of a table cannot say
LINEAR: dict[type[Op], Callable[[LoopReductions, Any], ReductionPlan | None]] = {
    Elementwise: _elementwise, Sum: _sum, Pad: _pad,
    Reshape: _termwise, Transpose: _termwise, Slice: _termwise, BroadcastTo: _termwise, Concat: _termwise,
    Matmul: _matmul, Einsum: _einsum, ScatterAdd: _scatter_add,
    **dict.fromkeys(ConvWeightGrad.every(), _conv_weight_grad),
}
