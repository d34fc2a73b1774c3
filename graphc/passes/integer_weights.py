"""Products with matrices of integers that stand for numbers: codes times a scale for each row or column, or for each
block of a row."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar, Protocol, Self

from graphc.errors import InternalError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.control import Scan
from graphc.ir.ops.elementwise import MUL, Cast
from graphc.ir.ops.index import Take
from graphc.ir.ops.shape import Transpose
from graphc.ir.types import f32, i8, u8
from graphc.passes.pipeline import Pass
from graphc.passes.precompute import Kind, value_kinds
from graphc.records import dataclass


class KeptWeight(Protocol):
    """A matrix of numbers as arrays of fewer bits."""

    def turned(self, w: Rewriter) -> Self:
        """The transposed matrix."""

    def numbers(self, w: Rewriter) -> Value:
        """The matrix, f32."""

    def product(self, w: Rewriter, other: Value, place: int) -> Value | None:
        """Its product with f32 numbers, of which it is operand `place`; None: best that of the numbers."""

    def rows(self, w: Rewriter, positions: Value) -> Value | None:
        """Rows of it, f32; None: best those of the numbers."""

    def captured(self, w: Rewriter) -> tuple[Value, tuple[Value, ...]]:
        """What a loop captures in the place of the numbers, f32, and besides."""

    def inside(self, v: Value, added: Sequence[Value]) -> Self:
        """The matrix in the body of a loop, of what it captures."""


@dataclass(frozen=True)
class IntegerWeight:
    """A matrix as codes * scale: the codes integers, or f32 that hold integers; scale f32, with a size of 1 where
    `axis` is not."""
    codes: Value
    scale: Value
    axis: int

    def turned(self, w: Rewriter) -> IntegerWeight:
        codes, scale = (w.transpose(v, perm=(1, 0)) for v in (self.codes, self.scale))
        return IntegerWeight(codes, scale, 1 - self.axis)

    def wide(self, w: Rewriter) -> Value:
        """The codes as f32."""
        return self.codes if self.codes.type.dtype is f32 else w.cast(self.codes, dtype=f32)

    def numbers(self, w: Rewriter) -> Value:
        return w.mul(self.wide(w), self.scale)

    def product(self, w: Rewriter, other: Value, place: int) -> Value:
        # the axis with the scales is summed over, or one of the result: its last one, or the one before
        summed, last = self.axis != place, place == 1 or other.type.rank == 1
        size = self.scale.type.shape[self.axis]
        scale = w.reshape(self.scale, shape=(size,) if last else (size, 1))
        other = w.mul(other, scale) if summed else other
        y = w.matmul(self.wide(w), other) if place == 0 else w.matmul(other, self.wide(w))
        return y if summed else w.mul(y, scale)

    def rows(self, w: Rewriter, positions: Value) -> Value | None:
        if self.axis != 0:
            return None
        rows, scale = (w.apply(Take(0), [a, positions])[0] for a in (self.codes, self.scale))
        return w.mul(w.cast(rows, dtype=f32), scale)

    def captured(self, w: Rewriter) -> tuple[Value, tuple[Value, ...]]:
        return self.wide(w), (self.scale,)

    def inside(self, v: Value, added: Sequence[Value]) -> IntegerWeight:
        return IntegerWeight(v, added[0], self.axis)


@dataclass(frozen=True)
class ScaleProducts(Pass):
    """x @ (cast(w) * scale) -> (x @ cast(w)) * scale, of lasting bytes w and scales of their rows or columns; lookups
    and loops likewise. Nothing is then made of the weights in a call, and `read_stored` lets products read the bytes.

    Needs a simplified graph. Stands before dead code is eliminated, which takes what nobody else reads, and before
    `read_stored`. Rounding changes: each sum is scaled, not each weight.
    """
    name: ClassVar[str] = "scale_products"

    def run(self, graph: Graph) -> Graph:
        captured = (v for node in graph.nodes if isinstance(node.op, Constant) for v in node.outputs)
        if not any(v.type.dtype in (i8, u8) for v in (*graph.state, *captured)):
            return graph
        kinds, found = value_kinds(graph), {}
        for node in graph.nodes:
            axis = _scaled_axis(node, kinds)
            if axis is not None:
                found[node] = axis
        return reading(Rewriter(graph), {}, found) if found else graph


def _scaled_axis(node: Node, kinds: Mapping[Value, Kind]) -> int | None:
    """Of a product cast(w) * scale, of lasting bytes with two axes, the axis along which scales differ (the last, of
    one scale); None for other nodes."""
    if node.op is not MUL or node.outputs[0].type.dtype is not f32 or node.outputs[0].type.rank != 2:
        return None
    codes, scale = _codes_and_scale(node)
    if codes is None or Kind.CHANGING in (kinds[codes], kinds[scale]):
        return None
    if codes.type.shape != node.outputs[0].type.shape or not codes.type.is_static:
        return None
    sizes = (1,) * (2 - scale.type.rank) + scale.type.shape
    return None if sizes[0] != 1 and sizes[1] != 1 else int(sizes[0] == 1)


def _codes_and_scale(node: Node) -> tuple[Value | None, Value]:
    for v, other in (node.inputs, node.inputs[::-1]):
        if v.node is not None and isinstance(v.node.op, Cast) and v.node.inputs[0].type.dtype in (i8, u8):
            return v.node.inputs[0], other
    return None, node.inputs[1]


def _integer_weight(w: Rewriter, node: Node, axis: int) -> IntegerWeight:
    """That which a node `ScaleProducts` has found computes."""
    codes, scale = _codes_and_scale(node)
    if codes is None:
        raise InternalError(f"{node} scales no bytes", "scale_products")
    shape = tuple(n if i == axis else 1 for i, n in enumerate(codes.type.shape))
    one = prod(scale.type.shape) != prod(shape)
    flat = w.reshape(w[scale], shape=(1, 1) if one else shape)
    return IntegerWeight(w[codes], w.broadcast_to(flat, shape=shape) if one else flat, axis)


def reading(w: Rewriter, kept: dict[Value, KeptWeight], scaled: Mapping[Node, int]) -> Graph:
    """The graph that `w` rewrites, with products, lookups and loops that read the integers of these of its values, of
    what the nodes `scaled` compute (with the axis of the scales), and of transposes."""
    for v, weight in kept.items():
        w.map[v] = weight.numbers(w)
    for node in w.old.nodes:
        with w.at(node.loc, node.scope):
            new = _product(w, node, kept) or _lookup(w, node, kept) or _loop(w, node, kept)
            if new is None:
                w.keep(node)
            else:
                w.replace(node, new)
            if node in scaled:
                kept[node.outputs[0]] = _integer_weight(w, node, scaled[node])
            elif isinstance(node.op, Transpose) and node.inputs[0] in kept:
                kept[node.outputs[0]] = kept[node.inputs[0]].turned(w)
    return w.done()


def _product(w: Rewriter, node: Node, kept: Mapping[Value, KeptWeight]) -> Sequence[Value] | None:
    """A product with one of the weights; None for any other node."""
    place = next((i for i, v in enumerate(node.inputs) if v in kept), None)
    if place is None or not isinstance(node.op, Matmul) or node.op.dtype not in (None, f32):
        return None
    y = kept[node.inputs[place]].product(w, w[node.inputs[1 - place]], place)
    return None if y is None else [y]


def _lookup(w: Rewriter, node: Node, kept: Mapping[Value, KeptWeight]) -> Sequence[Value] | None:
    """Rows of one of the weights; None for any other node."""
    weight = kept.get(node.inputs[0]) if isinstance(node.op, Take) and node.op.axis == 0 else None
    rows = None if weight is None else weight.rows(w, w[node.inputs[1]])
    return None if rows is None else [rows]


def _loop(w: Rewriter, node: Node, kept: Mapping[Value, KeptWeight]) -> Sequence[Value] | None:
    """A loop that captures some of the weights: it captures their integers, and their scales besides."""
    if not isinstance(node.op, Scan):
        return None
    first = node.op.carries + node.op.xs
    captured = {i: kept[v] for i, v in enumerate(node.inputs) if i >= first and v in kept}
    if not captured:
        return None
    body, operands = Rewriter(node.op.body), [w[v] for v in node.inputs]
    inside: dict[Value, KeptWeight] = {}
    added: list[Value] = []
    for i, weight in captured.items():
        v = node.op.body.inputs[i]
        operands[i], others = weight.captured(w)
        inside[v] = weight.inside(body[v], [body.input(f"{v.name}.{number}", other.type)
                                            for number, other in enumerate(others)])
        added += others
    op = node.op.replace(body=reading(body, inside, {}))
    return w.apply(op, [*operands, *added])
