"""One operator for all steps of a loop: the same operator on operands that carry the steps as a new leading axis.

A table keyed by operator class; a class that is not in it is not taken out of loops. A rule gets operands of which at
least one is stacked ([steps, *shape]); the others are the same for every step.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.contract import Einsum, Matmul, parse_equation
from graphc.ir.ops.elementwise import BitCast, Cast, Elementwise, ShardSum, StopGradient
from graphc.ir.ops.remat import Hold
from graphc.ir.ops.reduce import Max, Min, Prod, Reduction, Sum
from graphc.ir.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Slice, Transpose
from graphc.ir.walk import resolve
from graphc.records import dataclass


@dataclass(frozen=True)
class OuterOperand:
    """A value outside the loop: `stacked` over the steps, or the same in each."""
    value: Value
    stacked: bool

    def step_shape(self) -> tuple[Dim, ...]:
        return self.value.type.shape[1:] if self.stacked else self.value.type.shape


# of nodes with the operator of its key (`NodeOf`), which the type of a table cannot say
Rule = Callable[[Builder, Any, Sequence[OuterOperand], Dim], Value]


class Batcher:
    """Builds values of a loop's body outside of it, from operands known outside."""

    def __init__(self, b: Builder, made: Mapping[Value, Node], known: Mapping[Value, OuterOperand], steps: Dim):
        self.b, self.made, self.known, self.steps = b, made, dict(known), steps

    def of(self, v: Value) -> OuterOperand:
        """v outside the loop; everything it needs must be known or have a rule (see `can_batch`)."""
        return resolve(v, self.known, lambda v: self.made[v].inputs, self._made)

    def _made(self, v: Value) -> OuterOperand:
        node = self.made[v]
        operands = [self.known[i] for i in node.inputs]
        with self.b.at(node.loc, node.scope):
            if any(o.stacked for o in operands):
                return OuterOperand(RULES[type(node.op)](self.b, node, operands, self.steps), True)
            outs = self.b.apply(node.op, [o.value for o in operands])
        self.known.update(zip(node.outputs, (OuterOperand(o, False) for o in outs)))
        return self.known[v]

    def stacked(self, v: Value) -> Value:
        """v with one slice per step, also when it is the same in all of them."""
        operand = self.of(v)
        if operand.stacked:
            return operand.value
        return self.b.broadcast_to(operand.value, shape=(self.steps, *operand.value.type.shape))


def can_batch(node: Node) -> bool:
    """There is a rule, and it covers the node."""
    if type(node.op) not in RULES:
        return False
    return not isinstance(node.op, Einsum) or "..." not in node.op.equation


def _elementwise(b: Builder, node: Node, ins: Sequence[OuterOperand], steps: Dim) -> Value:
    rank = node.outputs[0].type.rank
    return b.apply(node.op, [_ranked(b, o, rank) for o in ins])[0]


def _ranked(b: Builder, o: OuterOperand, rank: int) -> Value:
    """A stacked operand with ones after the axis of the steps, so that numpy aligns the axes of a step."""
    shape = o.step_shape()
    if not o.stacked or len(shape) == rank:
        return o.value
    return b.reshape(o.value, shape=(o.value.type.shape[0], *(1,) * (rank - len(shape)), *shape))


def _matmul(b: Builder, node: NodeOf[Matmul], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    x, y = ins
    if len(x.step_shape()) == 1 and len(y.step_shape()) == 2 and not y.stacked:
        return b.matmul(x.value, y.value)
    if len(y.step_shape()) == 1 and len(x.step_shape()) == 2 and not x.stacked:
        return b.matmul(y.value, b.transpose(x.value, perm=(1, 0)))
    x, y = (_as_matrix(b, o, column) for o, column in zip(ins, (False, True)))
    rank = max(len(x.step_shape()), len(y.step_shape()))
    out = b.matmul(_ranked(b, x, rank), _ranked(b, y, rank))
    shape = (steps, *node.outputs[0].type.shape)
    return out if out.type.shape == shape else b.reshape(out, shape=shape)


def _as_matrix(b: Builder, o: OuterOperand, column: bool) -> OuterOperand:
    shape = o.step_shape()
    if len(shape) > 1:
        return o
    matrix = (*shape, 1) if column else (1, *shape)
    return OuterOperand(b.reshape(o.value, shape=(*o.value.type.shape[:1], *matrix) if o.stacked else matrix),
                        o.stacked)


def _einsum(b: Builder, node: NodeOf[Einsum], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    a, c, out = parse_equation(node.op.equation, *(len(o.step_shape()) for o in ins))
    step = next(letter for letter in "TUVWXYZ" + "ABCDEFGHIJKLMNOPQRSabcdefghijklmnopqrstuvwxyz" if letter not in a + c)
    terms = [step * o.stacked + "".join(labels) for o, labels in zip(ins, (a, c))]
    return b.einsum(*(o.value for o in ins), equation=f"{terms[0]},{terms[1]}->{step}{''.join(out)}")


def _reshape(b: Builder, node: NodeOf[Reshape], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    return b.reshape(ins[0].value, shape=(steps, *node.op.shape))


def _transpose(b: Builder, node: NodeOf[Transpose], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    return b.transpose(ins[0].value, perm=(0, *(p + 1 for p in node.op.perm)))


def _broadcast_to(b: Builder, node: NodeOf[BroadcastTo], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    return b.broadcast_to(_ranked(b, ins[0], len(node.op.shape)), shape=(steps, *node.op.shape))


def _slice(b: Builder, node: NodeOf[Slice], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    op = node.op
    return b.slice(ins[0].value, start=(0, *op.start), stop=(steps, *op.stop), step=(1, *op.step))


def _pad(b: Builder, node: NodeOf[Pad], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    return b.apply(node.op.replace(low=(0, *node.op.low), high=(0, *node.op.high)), [ins[0].value])[0]


def _concat(b: Builder, node: NodeOf[Concat], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    parts = [o.value if o.stacked else b.broadcast_to(o.value, shape=(steps, *o.value.type.shape)) for o in ins]
    return b.concat(*parts, axis=node.op.axis + 1)


def _hold(b: Builder, node: NodeOf[Hold], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    held, after = (o.value for o in ins)
    return b.hold(held if ins[0].stacked else b.broadcast_to(held, shape=(steps, *held.type.shape)), after)


def _along_axes(b: Builder, node: NodeOf[Flip] | NodeOf[Reduction], ins: Sequence[OuterOperand], steps: Dim) -> Value:
    return b.apply(node.op.replace(axes=tuple(a + 1 for a in node.op.axes)), [ins[0].value])[0]


RULES: dict[type[Op], Rule] = {
    Elementwise: _elementwise, Hold: _hold, Cast: _elementwise, BitCast: _elementwise,
    StopGradient: _elementwise, ShardSum: _elementwise,
    Matmul: _matmul, Einsum: _einsum,
    Reshape: _reshape, Transpose: _transpose, BroadcastTo: _broadcast_to, Slice: _slice, Pad: _pad, Concat: _concat,
    Flip: _along_axes, Sum: _along_axes, Prod: _along_axes, Max: _along_axes, Min: _along_axes,
}
