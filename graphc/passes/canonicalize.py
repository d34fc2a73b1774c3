"""Algebraic simplification: one table of small rules, each a list of conditions and a cheaper equal value."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from graphc.ir.bits import number_key
from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dims
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.match import Is, match
from graphc.ir.op import Opcode, Values
from graphc.ir.ops import conv
from graphc.ir.ops.constant import Constant, splat
from graphc.ir.ops.control import Scan, WhileLoop
from graphc.ir.ops.elementwise import (
    BITNOT, DIV, MAXIMUM, MINIMUM, MUL, NEG, POW, SUB, BitCast, Cast, Elementwise, ShardSum, StopGradient)
from graphc.ir.ops.reduce import Max, Min, Prod, Reduction, Sum
from graphc.ir.ops.shape import BroadcastTo, Reshape, Transpose
from graphc.ir.types import bool_
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

# of nodes with the operator of its key (`NodeOf`), which the type of a table cannot say
Rule = Callable[[Rewriter, Any, Values], Value | None]


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Needs bound dimensions and finished differentiation (it drops stop_gradient).

    Gives a graph that computes the same bits: a rule may not change rounding, NaN or infinity, so x*0 stays.
    """
    name: ClassVar[str] = "canonicalize"

    def run(self, graph: Graph) -> Graph:
        w = Rewriter(graph)
        changed = False
        for node in graph.nodes:
            simpler = _no_steps(w, node) or _nothing(w, node) or self._simplify(w, node)
            if simpler is not None:
                w.replace(node, simpler if isinstance(simpler, tuple) else (simpler,))
            else:
                w.keep(node)
            changed |= simpler is not None
        return w.done() if changed else graph

    def _simplify(self, w: Rewriter, node: Node) -> Value | None:
        ins = tuple(w[v] for v in node.inputs)
        w.loc, w.scope = node.loc, node.scope
        if isinstance(node.op, Elementwise):
            dropped = _drop_broadcasts(ins, node.outputs[0].type.shape)
            if dropped != ins:
                return w.apply(node.op, dropped)[0]
        for rule in RULES.get(node.op.opcode, ()):
            value = rule(w, node, ins)
            if value is not None:
                return value
        return None


def _nothing(w: Rewriter, node: Node) -> tuple[Value, ...] | None:
    """Constants for results that have no elements: no kernel has to know how to compute nothing. What checks indices
    stays."""
    if any(v.type.size != 0 for v in node.outputs) or isinstance(node.op, Constant) or node.op.may_fail:
        return None
    with w.at(node.loc, node.scope):
        return tuple(w.constant(np.zeros(v.type.shape), v.type.dtype) for v in node.outputs)


def _no_steps(w: Rewriter, node: Node) -> tuple[Value, ...] | None:
    """The results of a loop that takes no step: its carries as they were. What is moved out of a loop (a factor of all
    that it adds up) would be computed though no step asks for it, and may be NaN.
    """
    op, ins = node.op, [w[v] for v in node.inputs]
    with w.at(node.loc, node.scope):
        if isinstance(op, Scan) and op.length == 0:
            return (*ins[:op.carries],
                    *(w.constant(np.zeros(v.type.shape), v.type.dtype) for v in node.outputs[op.carries:]))
        if isinstance(op, WhileLoop) and op.max_trips == 0:
            return (w.constant(np.zeros((), np.int64), node.outputs[0].type.dtype), *ins[:op.carries])
    return None


def _drop_broadcasts(ins: Values, shape: Dims) -> Values:
    """Operands without a broadcast_to that numpy broadcasting does anyway, as long as one operand keeps the full shape.
    """
    result = list(ins)
    for i, v in enumerate(ins):
        others = (u for j, u in enumerate(result) if j != i)
        if v.node is not None and v.node.op.opcode is BroadcastTo and any(u.type.shape == shape for u in others):
            result[i] = v.node.inputs[0]
    return tuple(result)


def _neutral(position: int, number: float) -> Rule:
    def rule(w: Rewriter, node: Node, ins: Values) -> Value | None:
        other = ins[1 - position]
        return other if number_key(splat(ins[position])) == number and other.type == node.outputs[0].type else None
    return rule


def _same_type(w: Rewriter, node: Node, ins: Values) -> Value | None:
    return ins[0] if ins[0].type == node.outputs[0].type else None


def _of_same(function: Opcode) -> Rule:
    """f(f(x)) -> x."""
    def rule(w: Rewriter, node: Node, ins: Values) -> Value | None:
        inner = match(ins[0], Is(function, "x"))
        return None if inner is None else inner["x"]
    return rule


def _reshape_reshape(w: Rewriter, node: NodeOf[Reshape], ins: Values) -> Value | None:
    inner = match(ins[0], Is(Reshape, "x"))
    return None if inner is None else w.reshape(inner["x"], shape=node.op.shape)


def _saturating(w: Rewriter, node: NodeOf[Cast], ins: Values) -> Value | None:
    """Integers of clamped floats: the conversion clamps to their range itself, and makes 0 of NaN."""
    to, x = node.op.dtype, ins[0]
    if not to.is_int or not x.type.dtype.is_float:
        return None
    low, high = to.range
    while x.node is not None and x.node.op in (MINIMUM, MAXIMUM):
        (inside, limit), bound = x.node.inputs, x.node.op is MINIMUM
        number = splat(limit)
        if number is None or inside.type != x.type or not (number >= high if bound else number <= low):
            break
        x = inside
    return None if x is ins[0] else w.cast(x, dtype=to)


def _bitcast_bitcast(w: Rewriter, node: NodeOf[BitCast], ins: Values) -> Value | None:
    """But by way of bool, which has one bit."""
    inner = match(ins[0], Is(BitCast, "x"))
    if inner is None or ins[0].type.dtype is bool_:
        return None
    x = inner["x"]
    return x if x.type.dtype is node.op.dtype else w.bitcast(x, dtype=node.op.dtype)


def _bitcast_broadcast(w: Rewriter, node: NodeOf[BitCast], ins: Values) -> Value | None:
    """Of one number, which is folded then: loops do not keep which NaN a constant is."""
    inner = match(ins[0], Is(BroadcastTo, "x"))
    return None if inner is None else w.broadcast_to(w.bitcast(inner["x"], dtype=node.op.dtype),
                                                     shape=ins[0].type.shape)


def _transpose_identity(w: Rewriter, node: NodeOf[Transpose], ins: Values) -> Value | None:
    return ins[0] if node.op.perm == tuple(range(len(node.op.perm))) else None


def _transpose_transpose(w: Rewriter, node: NodeOf[Transpose], ins: Values) -> Value | None:
    inner = ins[0].node
    if inner is None or not isinstance(inner.op, Transpose):
        return None
    first = inner.op.perm
    return w.transpose(inner.inputs[0], perm=tuple(first[p] for p in node.op.perm))


def _operand(w: Rewriter, node: Node, ins: Values) -> Value | None:
    return ins[0]


def _times_minus_one(w: Rewriter, node: Node, ins: Values) -> Value | None:
    return w.neg(ins[0]) if splat(ins[1]) == -1 and ins[0].type == node.outputs[0].type else None


def _power(w: Rewriter, node: Node, ins: Values) -> Value | None:
    x, exponent = ins[0], splat(ins[1])
    if x.type != node.outputs[0].type or not x.type.dtype.is_float or exponent not in (1, 2):
        return None
    return w.mul(x, x) if exponent == 2 else x


def _sum_of_one(w: Rewriter, node: NodeOf[Reduction], ins: Values) -> Value | None:
    """A sum over axes of size 1 is a reshape."""
    if any(ins[0].type.shape[a] != 1 for a in node.op.axes):
        return None
    return w.reshape(ins[0], shape=node.outputs[0].type.shape)


def _of_nothing(w: Rewriter, node: Node, ins: Values) -> Value | None:
    """A convolution of an image without elements sees zeros alone, if anything; its loops count on rows to copy."""
    out = node.outputs[0].type
    if not out.size or all(v.type.size for v in ins):
        return None
    return w.broadcast_to(w.constant(0, out.dtype), shape=out.shape)


RULES: dict[Opcode, tuple[Rule, ...]] = {
    SUB: (_neutral(1, 0),),
    MUL: (_neutral(0, 1), _neutral(1, 1), _times_minus_one),
    DIV: (_neutral(1, 1),),
    POW: (_power,),
    NEG: (_of_same(NEG),),
    BITNOT: (_of_same(BITNOT),),
    Cast: (_same_type, _saturating),
    BitCast: (_same_type, _bitcast_bitcast, _bitcast_broadcast),
    Reshape: (_same_type, _reshape_reshape),
    BroadcastTo: (_same_type,),
    Transpose: (_transpose_identity, _transpose_transpose),
    **dict.fromkeys((StopGradient, ShardSum), (_operand,)),
    **dict.fromkeys((op for op in conv.OPS if op.is_contraction), (_of_nothing,)),
    **dict.fromkeys((Sum, Max, Min, Prod), (_sum_of_one,)),
}
