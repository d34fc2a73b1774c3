"""Sums of gradients of which most is zero: what a lookup or a slice in a loop gives to an array is added where it
belongs, so that a step costs as much as what it read, not as much as the array."""
from __future__ import annotations

from graphc.ir.graph import Value
from graphc.ir.op import Op, OpBuilder
from graphc.ir.ops.constant import splat
from graphc.ir.ops.elementwise import ADD
from graphc.ir.ops.index import ScatterAdd, ScatterAddAlongAxis
from graphc.ir.ops.shape import DynamicUpdateSlice, Reshape


SLICES = (DynamicUpdateSlice,)
LOOKUPS = (ScatterAdd, ScatterAddAlongAxis)


def added(b: OpBuilder, x: Value, y: Value, lookups: bool = True) -> Value:
    """x + y. Where one of them is slices or (if `lookups`) rows in an array of zeros, they are added to the other.

    Elements that get nothing keep their bits: -0 stays -0.
    """
    kinds = SLICES + LOOKUPS if lookups else SLICES
    for total, g in ((x, y), (y, x)):
        parts = _parts(g, kinds)
        for part in parts:
            total = _placed(b, total, part)
        if parts:
            return total
    return b.add(x, y)


def _parts(g: Value, kinds: tuple[type[Op], ...]) -> list[Value]:
    """Arrays of zeros, apart from one slice or some rows, whose sum is g; none if it is no such sum."""
    found, waiting = [], [g]
    while waiting:
        v = waiting.pop()
        if v.node is not None and v.node.op is ADD:
            waiting += v.node.inputs
        elif _is_sparse(v, kinds):
            found.append(v)
        else:
            return []
    return found[::-1]


def _is_sparse(g: Value, kinds: tuple[type[Op], ...]) -> bool:
    node = g.node
    while node is not None and isinstance(node.op, Reshape):
        node = node.inputs[0].node
    return node is not None and isinstance(node.op, kinds) and splat(node.inputs[0]) == 0


def _placed(b: OpBuilder, total: Value, g: Value) -> Value:
    views: list[Value] = []
    node = g.maker
    while isinstance(node.op, Reshape):
        views.append(g)
        g, = node.inputs
        node = g.maker
    total = b.reshape(total, shape=g.type.shape) if views else total
    _, *operands = node.inputs
    if isinstance(node.op, DynamicUpdateSlice):
        part, *starts = operands
        operands = [b.add(b.dynamic_slice(total, *starts, sizes=part.type.shape), part), *starts]
    total, = b.apply(node.op, [total, *operands])
    return b.reshape(total, shape=views[0].type.shape) if views else total


