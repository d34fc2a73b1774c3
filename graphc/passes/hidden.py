"""Gradients that are zero by choice: what `where` hides stays hidden, whatever the slope of what it hides.

The gradient of where(c, sqrt(x), x) towards the root is where(c, g, 0). Were that multiplied by the root's slope, infinite at 0 and NaN below,
0 * inf and 0 * NaN would bring back what the condition hides. So the choice is made last: where(c, g * slope, 0), as often as before.

An operator whose slopes are constants passes zeros on as they are; then only the condition is remembered, for operators further on.
It is followed as long as it stands for whole elements of what the operator reads: through elementwise functions, reductions and norms of rows that
are hidden whole, and movements; a condition that is one bool through everything. At other products of two arrays it ends: there a zero meets
the other operand.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.activation import Activation
from graphc.ir.ops.constant import Constant, number
from graphc.ir.ops.elementwise import Cast, Elementwise
from graphc.ir.ops.loss import CrossEntropy, CrossEntropySoft, ElementLoss
from graphc.ir.ops.norm import LayerNorm, RMSNorm, SoftmaxLike, last_axes
from graphc.ir.ops.reduce import Mean, Reduction, Sum
from graphc.ir.ops.scan_ops import CumProd, CumSum, LinearScan
from graphc.ir.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Slice, Stack, Transpose
from graphc.ir.ops.sort import Sort
from graphc.ir.ops.trig import Atan2
from graphc.ir.types import normalize_axis

CONSTANT_SLOPES = frozenset(("add", "sub", "neg", "copy", "where", "cast", "minimum", "maximum", "relu", "leaky_relu", "clip"))
MOVES = (Reshape, Transpose, Slice, Pad, Flip, Concat, Stack)       # their vjp only moves elements: it moves conditions, too


@dataclass(frozen=True)
class Choice:
    """An array is zero wherever `condition`, which broadcasts to its shape, is not `kept`."""
    condition: Value
    kept: bool = True

    @property
    def scalar(self) -> bool:
        return self.condition.type.size == 1

    def over(self, b: Builder, x: Value) -> Value:
        zero = number(b, 0, x)
        return b.where(self.condition, x, zero) if self.kept else b.where(self.condition, zero, x)

    def shaped(self, b: Builder, shape: tuple) -> "Choice":
        return self if self.condition.type.shape == shape else Choice(b.reshape(self.condition, shape=shape), self.kept)


@dataclass(frozen=True)
class Later:
    """A choice that is worked out when an operator needs it; `scalar`: it is one bool."""
    scalar: bool
    make: Callable[[], Choice | None]


class Choices:
    """The choices by which the gradients of one graph are zero. Nothing is built for those that no operator needs."""

    def __init__(self, b: Builder):
        self.b = b
        self._known: dict[Value, Later | Choice | None] = {}

    def of(self, g: Value) -> tuple[Choice, Value] | None:
        """The choice by which `g` is zero and what it is elsewhere."""
        found = _selected(g)
        if found is not None:
            return found
        choice = self._known.get(g)
        if isinstance(choice, Later):
            choice = self._known[g] = choice.make()
        return choice and (choice, g)

    def of_operands(self, node: Node, g: Value) -> tuple[Choice, Value] | None:
        """The choice by which the gradients of the operands of `node` are zero, given that of its result, and what `g` is elsewhere. None where
        there is none, or zeros pass the operator anyway."""
        rule = _follow(node)
        if rule and _constant_slopes(node) or not (rule or self._scalar(g)):
            return None
        found = self.of(g)
        if found is None:
            return None
        choice = found[0].shaped(self.b, ()) if found[0].scalar else rule and rule(self.b, found[0])
        return choice and (choice, found[1])

    def passed(self, node: Node, g: Value, results: Sequence[Value | None]) -> None:
        """Notes that `results`, made of `g` by constant slopes, are zero where `g` is."""
        rule = _follow(node)
        if rule is None or not _constant_slopes(node) or not self._may_be(g):
            return
        for i, r in enumerate(results):
            if r is not None and r is not g and not self._may_be(r):
                self._known[r] = Later(self._scalar(g), lambda i=i: self._moved(node, g, rule, i))

    def summed(self, g: Value, total: Value, axes: tuple[int, ...]) -> None:
        """Notes that `total`, `g` summed over `axes` and without leading axes, is zero where `g` is, if a whole sum is hidden or not."""
        if self._may_be(g):
            self._known[total] = Later(self._scalar(g), lambda: self._of_sum(g, total, axes))

    def added(self, g1: Value, g2: Value, total: Value) -> None:
        """Notes that a sum is zero where both its terms are."""
        if self._may_be(g1) and self._may_be(g2):
            self._known[total] = Later(self._scalar(g1) and self._scalar(g2), lambda: self._both(g1, g2))

    def _may_be(self, g: Value) -> bool:
        return bool(self._known.get(g)) or _selected(g) is not None

    def _scalar(self, g: Value) -> bool:
        found = _selected(g)
        choice = found[0] if found else self._known.get(g)
        return choice is not None and choice.scalar

    def _moved(self, node: Node, g: Value, rule: Callable, i: int) -> Choice | None:
        found = self.of(g)
        if found is None or not isinstance(node.op, MOVES) or found[0].scalar:
            return found and (found[0] if found[0].scalar else rule(self.b, found[0]))
        choice = found[0]
        full = choice.condition if choice.condition.type.shape == g.type.shape else self.b.broadcast_to(choice.condition, shape=g.type.shape)
        full = full if choice.kept else self.b.bitnot(full)             # what a vjp fills up with zeros is hidden
        return Choice(node.op.vjp(self.b, (full,), node.inputs, node.outputs)[i])

    def _of_sum(self, g: Value, total: Value, axes: tuple[int, ...]) -> Choice | None:
        found = self.of(g)
        if found is None or not _whole(found[0], g.type.rank, axes):
            return None
        shape = _aligned(found[0].condition.type.shape, g.type.rank)
        return found[0].shaped(self.b, shape[g.type.rank - total.type.rank:])

    def _both(self, g1: Value, g2: Value) -> Choice | None:
        first, second = self.of(g1), self.of(g2)
        if first is None or second is None:
            return None
        if first[0] == second[0]:
            return first[0]
        return Choice(self.b.bitor(*(c.condition if c.kept else self.b.bitnot(c.condition) for c, _ in (first, second))))


def _selected(g: Value) -> tuple[Choice, Value] | None:
    """The choice of a `where` one side of which is 0."""
    if g.node is None or g.node.op.name != "where":
        return None
    condition, yes, no = g.node.inputs
    if _is_zero(no) and yes.type == g.type:
        return Choice(condition), yes
    return (Choice(condition, False), no) if _is_zero(yes) and no.type == g.type else None


def _number(v: Value) -> float | None:
    """The number that a scalar constant is, broadcast or not."""
    while v.node is not None and type(v.node.op) is BroadcastTo:
        v = v.node.inputs[0]
    if v.node is None or type(v.node.op) is not Constant or v.type.rank:
        return None
    return v.node.op.value.array.item()


def _is_zero(v: Value) -> bool:
    return _number(v) == 0


def _constant_slopes(node: Node) -> bool:
    """Whether the gradients of the operands are that of the result times finite numbers."""
    op = node.op
    if op.name in ("mul", "div"):
        numbers = [n for n in map(_number, node.inputs) if n is not None and isfinite(n)]
        return bool(numbers) and (op.name == "mul" or _number(node.inputs[1]) not in (None, 0))
    return op.name in CONSTANT_SLOPES or isinstance(op, (Sum, Mean, CumSum, Sort, BroadcastTo, *MOVES))


def _follow(node: Node) -> Callable[[Builder, Choice], Choice | None] | None:
    """How a choice over the result of `node` is one over the gradients of its operands, before these are summed; None where it is not."""
    return next((rule(node) for kinds, rule in FOLLOW.items() if isinstance(node.op, kinds)), None)


def _elementwise(node: Node) -> Callable:
    return lambda b, choice: choice


def _element_loss(node: Node) -> Callable | None:
    return _elementwise(node) if node.op.reduction == "none" else None


def _row_loss(node: Node) -> Callable | None:
    return _over_rows(node, (normalize_axis(node.op.axis, node.inputs[0].type.rank),)) if node.op.reduction == "none" else None


def _reduction(node: Node) -> Callable:
    return _over_rows(node, node.op.axes, node.op.keepdims)


def _over_rows(node: Node, axes: tuple[int, ...], keepdims: bool = False) -> Callable:
    """A choice over what rows along `axes` give is one over the rows."""
    def rule(b: Builder, choice: Choice) -> Choice:
        shape = _aligned(choice.condition.type.shape, node.outputs[0].type.rank)
        rest = iter(shape)
        full = shape if keepdims else tuple(1 if i in axes else next(rest) for i in range(node.inputs[0].type.rank))
        return choice.shaped(b, full)
    return rule


def _rows(axes_of: Callable[[Node], tuple[int, ...]]) -> Callable:
    """An operator on rows along some axes: whole rows are hidden or none."""
    def of(node: Node) -> Callable:
        rank, axes = node.outputs[0].type.rank, axes_of(node)
        return lambda b, choice: choice if _whole(choice, rank, axes) else None
    return of


def _whole(choice: Choice, rank: int, axes: tuple[int, ...]) -> bool:
    """Whether the choice, over an array of `rank` axes, is the same all along `axes`."""
    shape = _aligned(choice.condition.type.shape, rank)
    return all(shape[a] == 1 for a in axes)


def _aligned(shape: tuple, rank: int) -> tuple:
    return (1,) * (rank - len(shape)) + shape


FOLLOW: dict[tuple[type[Op], ...], Callable] = {
    (Elementwise, Cast, Activation, Atan2, BroadcastTo, *MOVES): _elementwise,
    (ElementLoss,): _element_loss,
    (CrossEntropy, CrossEntropySoft): _row_loss,
    (Reduction,): _reduction,
    (SoftmaxLike, CumSum, CumProd, LinearScan, Sort): _rows(lambda node: (normalize_axis(node.op.axis, node.outputs[0].type.rank),)),
    (LayerNorm, RMSNorm): _rows(lambda node: last_axes(node.outputs[0], node.op.axes))}
