"""Gradients that are zero by choice: what `where` hides stays hidden, whatever the slope of what it hides.

The gradient of where(c, sqrt(x), x) towards the root is where(c, g, 0). Were that multiplied by the root's slope,
infinite at 0 and NaN below, 0 * inf and 0 * NaN would bring back what the condition hides. So the choice is made last:
where(c, g * slope, 0), as often as before.

An operator whose slopes are constants passes zeros on as they are; then only the condition is remembered,
for operators further on. It is followed as long as it stands for whole elements of what the operator reads: through
elementwise functions, reductions, norms and products of rows that are hidden whole, and movements;
a condition that is one bool through everything. At other products of two arrays it ends: there a zero meets the other
operand.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import isfinite

from graphc.ir.builder import Builder
from graphc.ir.dims import Dims
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.activation import Clip, LeakyRelu, Relu
from graphc.ir.ops.constant import Constant, number
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.elementwise import DIV, MAXIMUM, MINIMUM, MUL, WHERE, Cast
from graphc.ir.ops.loss import CrossEntropy, CrossEntropySoft, ElementLoss
from graphc.ir.ops.norm import LayerNorm, RMSNorm, SoftmaxLike, last_axes
from graphc.ir.ops.reduce import Reduction
from graphc.ir.ops.scan_ops import CumProd, CumSum, LinearScan
from graphc.ir.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Slice, Transpose
from graphc.ir.ops.shape_composites import Stack
from graphc.ir.ops.sort import Sort
from graphc.ir.types import normalize_axis
from graphc.records import dataclass

# Linear in parts, each with finite slopes; what is linear as a whole says so itself.
CONSTANT_SLOPES = frozenset((WHERE, MINIMUM, MAXIMUM, Cast, Relu, LeakyRelu, Clip, Sort, Pad))
MOST_LATER, MOST_PARTS = 64, 16
# their vjp only moves elements: it moves conditions, too
MOVES = (Reshape, Transpose, Slice, Pad, Flip, Concat, Stack)


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

    def shaped(self, b: Builder, shape: Dims) -> Choice:
        return self if self.condition.type.shape == shape else Choice(b.reshape(self.condition, shape=shape), self.kept)


@dataclass(frozen=True)
class Later:
    """A choice that is worked out when an operator needs it; `scalar`: it is one bool; `depth`: of how many others it
    is made, one after another."""
    scalar: bool
    depth: int
    make: Callable[[], Choice | None]


# a choice over a result as one over the gradients of its operands
Rule = Callable[[Builder, Choice], Choice | None]


class Choices:
    """The choices by which the gradients of one graph are zero. Nothing is built for those that no operator needs."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self._known: dict[Value, Later | Choice | None] = {}            # of gradients that are no `where` themselves
        # of those that are: all choices in one, and what is chosen from
        self._found: dict[Value, tuple[Choice, Value]] = {}

    def of(self, g: Value) -> tuple[Choice, Value] | None:
        """The choice by which `g` is zero and what it is elsewhere."""
        nest, inner = [], g
        while inner not in self._found and (outermost := selected(inner)):
            nest.append((inner, outermost[0]))
            inner = outermost[1]
        found = self._found.get(inner)
        choice, shown = found if found else (self._resolved(inner), inner)
        for value, outer in reversed(nest):
            choice = self._merged([outer, choice] if choice else [outer])
            self._found[value] = choice, shown
        return (choice, shown) if choice else None

    def of_operands(self, node: Node, g: Value) -> tuple[Choice, Value] | None:
        """The choice by which the gradients of the operands of `node` are zero, given that of its result, and a
        gradient to work them out from. None where there is none, or zeros pass the operator anyway."""
        rule = _follow(node)
        if rule and _constant_slopes(node) or not self._may_be(g):
            return None
        if rule and not isinstance(node.op, Matmul):
            found = self.of(g)
            followed = self._followed(found[0], rule) if found else None
            if found and followed:
                return followed, found[1]
        # what was to be one bool is none where it came to be one with others on its way
        choice = self._of_parts(g, lambda c: c.shaped(self.b, ()) if c.scalar else None, scalar=True)
        if choice is None and rule:
            choice = self._of_parts(g, lambda c: rule(self.b, c))
        return (choice, g) if choice else None

    def _followed(self, choice: Choice, rule: Rule) -> Choice | None:
        return choice.shaped(self.b, ()) if choice.scalar else rule(self.b, choice)

    def shown_operands(self, node: Node, choice: Choice) -> tuple[tuple[Value, ...], tuple[bool, ...]]:
        """What the gradients of the operands of `node` are worked out from, and which of them `choice` is over. In a
        product whole rows are hidden: they are 0 in what the right operand's gradient is a product of,
        both the left operand and the gradient of the result."""
        if not isinstance(node.op, Matmul) or choice.scalar:
            return node.inputs, (True,) * len(node.inputs)
        x, y = node.inputs
        return (choice.over(self.b, x), y), (True, False)

    def passed(self, node: Node, g: Value, results: Sequence[Value | None]) -> None:
        """Notes that `results`, made of `g` by constant slopes, are zero where `g` is."""
        rule = _follow(node)
        if rule is None or not _constant_slopes(node) or not self._may_be(g):
            return
        for i, r in enumerate(results):
            if r is not None and r is not g and not self._may_be(r):
                self._note(r, (g,), partial(self._moved, node, g, rule, i))

    def summed(self, g: Value, total: Value, axes: tuple[int, ...]) -> None:
        """Notes that `total`, `g` summed over `axes` and without leading axes, is zero where `g` is, if a whole sum is
        hidden or not."""
        if self._may_be(g):
            self._note(total, (g,), lambda: self._of_sum(g, total, axes))

    def added(self, g1: Value, g2: Value, total: Value) -> None:
        """Notes that a sum is zero where both its terms are."""
        if self._may_be(g1) and self._may_be(g2):
            self._note(total, (g1, g2), lambda: self._both(g1, g2))

    def _note(self, r: Value, sources: Sequence[Value], make: Callable[[], Choice | None]) -> None:
        """What is made of too many others, one after another, is worked out at once: nothing here walks a long chain by
        recursion."""
        depth = 1 + max(c.depth for parts in map(self._parts, sources) for c in parts)
        scalar = all(any(c.scalar for c in self._parts(g)) for g in sources)
        self._known[r] = make() if depth > MOST_LATER else Later(scalar, depth, make)

    def _may_be(self, g: Value) -> bool:
        return self._known.get(g) is not None or selected(g) is not None

    def _resolved(self, g: Value) -> Choice | None:
        known = self._known.get(g)
        if isinstance(known, Later):
            known = self._known[g] = known.make()
        return known

    def _parts(self, g: Value) -> list[Later]:
        """The choices of a `where` of a `where` …, the outermost first, and of what they choose from."""
        parts: list[Later] = []
        while (found := selected(g)) and len(parts) < MOST_PARTS:
            parts.append(Later(found[0].scalar, 0, partial(_itself, found[0])))
            g = found[1]
        known = self._known.get(g)
        if known is not None:
            parts.append(Later(known.scalar, known.depth if isinstance(known, Later) else 0, lambda: self._resolved(g)))
        return parts

    def _of_parts(self, g: Value, rule: Callable[[Choice], Choice | None], scalar: bool = False) -> Choice | None:
        """Those choices of a nest that the rule follows, as one."""
        made = [part.make() for part in self._parts(g) if part.scalar or not scalar]
        return self._all([c for choice in made if choice and (c := rule(choice))])

    def _moved(self, node: Node, g: Value, rule: Rule, i: int) -> Choice | None:
        found = self.of(g)
        if found is None or found[0].scalar:
            return found[0] if found else None
        if not isinstance(node.op, MOVES):
            return rule(self.b, found[0])
        condition = self._condition(found[0])                           # what a vjp fills up with zeros is hidden
        full = condition if condition.type.shape == g.type.shape else self.b.broadcast_to(condition, shape=g.type.shape)
        moved = node.op.vjp(self.b, (full,), node.inputs, node.outputs)[i]
        return Choice(moved) if moved else None

    def _of_sum(self, g: Value, total: Value, axes: tuple[int, ...]) -> Choice | None:
        rank = g.type.rank

        def rule(choice: Choice) -> Choice | None:
            return (choice.shaped(self.b, _aligned(choice, rank)[rank - total.type.rank:]) if _whole(choice, rank, axes)
                    else None)
        return self._of_parts(g, rule)

    def _both(self, g1: Value, g2: Value) -> Choice | None:
        first, second = self.of(g1), self.of(g2)
        if first is None or second is None:
            return None
        return (first[0] if first[0] == second[0]
                else Choice(self.b.bitor(*(self._condition(c) for c, _ in (first, second)))))

    def _all(self, choices: Sequence[Choice]) -> Choice | None:
        return self._merged(choices) if choices else None

    def _merged(self, choices: Sequence[Choice]) -> Choice:
        """Zero wherever one of them, of which there is one at least, says so."""
        distinct = list(dict.fromkeys(choices))
        if len(distinct) == 1:
            return distinct[0]
        return Choice(reduce(self.b.bitand, map(self._condition, distinct)))

    def _condition(self, choice: Choice) -> Value:
        return choice.condition if choice.kept else self.b.bitnot(choice.condition)


def _itself(choice: Choice) -> Choice:
    return choice


def selected(g: Value) -> tuple[Choice, Value] | None:
    """The choice of a `where` one side of which is 0."""
    if g.node is None or g.node.op is not WHERE:
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
    if op in (MUL, DIV):
        numbers = [n for n in map(_number, node.inputs) if n is not None and isfinite(n)]
        return bool(numbers) and (op is MUL or _number(node.inputs[1]) not in (None, 0))
    return op.is_linear or op.opcode in CONSTANT_SLOPES


def _follow(node: Node) -> Rule | None:
    """How a choice over the result of `node` is one over the gradients of its operands, before these are summed; None
    where it is not.
    """
    if node.op.is_elementwise or isinstance(node.op, MOVES):
        return _elementwise(node)
    return next((rule(node) for kinds, rule in FOLLOW.items() if isinstance(node.op, kinds)), None)


def _elementwise(node: Node) -> Rule:
    return lambda b, choice: choice


def _element_loss(node: NodeOf[ElementLoss]) -> Rule | None:
    return _elementwise(node) if node.op.reduction == "none" else None


def _row_loss(node: NodeOf[CrossEntropy | CrossEntropySoft]) -> Rule | None:
    return (_over_rows(node, (normalize_axis(node.op.axis, node.inputs[0].type.rank),)) if node.op.reduction == "none"
            else None)


def _reduction(node: NodeOf[Reduction]) -> Rule:
    return _over_rows(node, node.op.axes, node.op.keepdims)


def _over_rows(node: Node, axes: tuple[int, ...], keepdims: bool = False) -> Rule:
    """A choice over what rows along `axes` give is one over the rows."""
    def rule(b: Builder, choice: Choice) -> Choice:
        shape = _aligned(choice, node.outputs[0].type.rank)
        rest = iter(shape)
        full = shape if keepdims else tuple(1 if i in axes else next(rest) for i in range(node.inputs[0].type.rank))
        return choice.shaped(b, full)
    return rule


def _rows(axes_of: Callable[..., tuple[int, ...]]) -> Callable[[Node], Rule]:
    """An operator on rows along some axes: whole rows are hidden or none."""
    def of(node: Node) -> Rule:
        rank, axes = node.outputs[0].type.rank, axes_of(node)
        return lambda b, choice: choice if _whole(choice, rank, axes) else None
    return of


def _along_axis(node: NodeOf[SoftmaxLike | CumSum | CumProd | LinearScan | Sort]) -> tuple[int, ...]:
    return (normalize_axis(node.op.axis, node.outputs[0].type.rank),)


def _last_axes(node: NodeOf[LayerNorm | RMSNorm]) -> tuple[int, ...]:
    return last_axes(node.outputs[0], node.op.axes)


def _product(node: Node) -> Rule | None:
    """Of a product of matrices the rows of the result are those of the left operand; the right one is shared by all."""
    (x, y), out = (v.type for v in node.inputs), node.outputs[0].type
    column = () if y.rank > 1 else (1,)

    def rule(b: Builder, choice: Choice) -> Choice | None:
        shape = (*_aligned(choice, out.rank), *column)
        return choice.shaped(b, shape) if shape[-1] == 1 else None
    return rule if x.rank > 1 and x.shape[:-1] == (out.shape if column else out.shape[:-1]) else None


def _whole(choice: Choice, rank: int, axes: tuple[int, ...]) -> bool:
    """Whether the choice, over an array of `rank` axes, is the same all along `axes`."""
    shape = _aligned(choice, rank)
    return all(shape[a] == 1 for a in axes)


def _aligned(choice: Choice, rank: int) -> Dims:
    """The shape of the condition with as many axes as the array of `rank` axes that it is over."""
    shape = choice.condition.type.shape
    return (1,) * (rank - len(shape)) + shape


FOLLOW: dict[tuple[type[Op], ...], Callable[..., Rule | None]] = {
    (ElementLoss,): _element_loss,
    (CrossEntropy, CrossEntropySoft): _row_loss,
    (Reduction,): _reduction,
    (Matmul,): _product,
    (SoftmaxLike, CumSum, CumProd, LinearScan, Sort): _rows(_along_axis),
    (LayerNorm, RMSNorm): _rows(_last_axes)}
