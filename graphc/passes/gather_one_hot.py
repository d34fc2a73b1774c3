"""Products with one_hot(ids): reading or adding at ids instead."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.dims import Dim, typical
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.constant import Constant, full
from graphc.ir.ops.contract import LabelledProduct, Labels
from graphc.ir.ops.elementwise import COPY, Cast
from graphc.ir.ops.index import OneHot
from graphc.ir.ops.shape import Reshape, Transpose
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class GatherOneHot(Pass):
    """one_hot(ids) @ W is take(W, ids), and one_hot(ids)ᵀ @ g, its gradient towards W, is scatter_add(0, ids, g);
    einsums likewise.

    Needs composites as they are: stands before they are decomposed. An id outside of the classes gives zeros, as the
    product does. Where every number is finite the lookup gives the same bits, but for the sign of a zero, and the
    gradient the same terms in the order of ids. Otherwise they differ: 0 * inf in rows that were not looked up makes
    NaN in the product and none here.
    """
    name: ClassVar[str] = "gather_one_hot"

    def run(self, graph: Graph) -> Graph:
        if not any(isinstance(node.op, OneHot) for node in graph.nodes):
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            with w.at(node.loc, node.scope):
                simpler = _cheaper(w, node, tuple(w[v] for v in node.inputs))
            if simpler is None:
                w.keep(node)
            else:
                w.replace(node, [simpler])
        return w.done()


@dataclass(frozen=True)
class Hot:
    """An array that is one_hot(ids) with the classes on `axis`."""
    ids: Value
    axis: int
    depth: Dim


def hot(b: Builder, v: Value) -> Hot | None:
    """How v is a one_hot, seen through casts, transposes and reshapes that leave the classes together; nodes for ids
    are appended to `b`."""
    passed: list[Node] = []
    while v.node is not None and type(v.node.op) in THROUGH:
        passed.append(v.node)
        v = v.node.inputs[0]
    if v.node is None or not isinstance(v.node.op, OneHot):
        return None
    found: Hot | None = Hot(v.node.inputs[0], v.node.inputs[0].type.rank, v.node.op.depth)
    for node in reversed(passed):
        found = THROUGH[type(node.op)](b, node, found) if found else None
    return found


def _transposed(b: Builder, node: NodeOf[Transpose], inner: Hot) -> Hot:
    kept = tuple(p - (p > inner.axis) for p in node.op.perm if p != inner.axis)
    return Hot(_in_order(b, inner.ids, kept), node.op.perm.index(inner.axis), inner.depth)


def _reshaped(b: Builder, node: Node, inner: Hot) -> Hot | None:
    old, new = node.inputs[0].type.shape, node.outputs[0].type.shape
    before, after = prod(old[:inner.axis]), prod(old[inner.axis + 1:])
    for axis, size in enumerate(new):
        if (size, prod(new[:axis]), prod(new[axis + 1:])) == (inner.depth, before, after):
            return Hot(b.reshape(inner.ids, shape=new[:axis] + new[axis + 1:]), axis, size)
    return None


# of nodes with the operator of its key (`NodeOf`), which the type of a table cannot say
THROUGH: dict[type[Op], Callable[[Builder, Any, Hot], Hot | None]] = {
    Cast: lambda b, node, inner: inner,
    Transpose: _transposed,
    Reshape: _reshaped,
}


def _cheaper(b: Builder, node: Node, ins: Sequence[Value]) -> Value | None:
    """The product without its one_hot, if it has one and is of a form that is a lookup."""
    labels = _labels(node)
    if labels is None:
        return None
    *operands, out = labels
    for one, other in ((0, 1), (1, 0)):
        found = hot(b, ins[one])
        if found is not None and found.depth:
            ids = tuple(i for i in operands[one] if i != operands[one][found.axis])
            made = _contracted(b, found, operands[one][found.axis], ids, ins[other], operands[other], out)
            if made is not None:
                return made
    return None


def _contracted(b: Builder, found: Hot, classes: str, ids: Labels, x: Value, axes: Labels, out: Labels) -> Value | None:
    """The product of a one_hot with axes `ids` and `classes`, and x with `axes`, summed down to `out`."""
    rest = tuple(i for i in axes if i != classes and i not in ids)
    if sorted(out) == sorted(rest + ids) and sorted(axes) == sorted((classes, *rest)):
        return _read(b, found, classes, ids, x, axes, out)
    if sorted(out) == sorted((classes, *rest)) and sorted(axes) == sorted(ids + rest):
        return _added(b, found, (classes, *rest), ids, x, axes, out)
    return None


def _read(b: Builder, found: Hot, classes: str, ids: Labels, x: Value, axes: Labels, out: Labels) -> Value:
    """x at ids along the classes."""
    at = axes.index(classes)
    safe, inside = _clamped(b, found)
    if x.node is not None and isinstance(x.node.op, Transpose) and typical(found.ids.type.size) >= typical(found.depth):
        x, = b.apply(COPY, (x,))         # as its rows are read several times, they shall lie together
    rows = _where(b, inside, b.take(x, safe, axis=at), len(axes) - at - 1)
    made = axes[:at] + ids + axes[at + 1:]
    return _in_order(b, rows, tuple(made.index(i) for i in out))


def _added(b: Builder, found: Hot, made: Labels, ids: Labels, x: Value, axes: Labels, out: Labels) -> Value:
    """x added up by class."""
    safe, inside = _clamped(b, found)
    rows = _in_order(b, x, tuple(axes.index(i) for i in (*ids, *made[1:])))
    zeros = full(b, 0, TensorType(x.type.dtype, (found.depth, *rows.type.shape[len(ids):])))
    total = b.scatter_add(zeros, safe, _where(b, inside, rows, len(made) - 1), axis=0)
    return _in_order(b, total, tuple(made.index(i) for i in out))


def _clamped(b: Builder, found: Hot) -> tuple[Value, Value | None]:
    """ids inside of the classes, and which of them were; None: all of them, known now."""
    node = found.ids.node
    if node is not None and isinstance(node.op, Constant):
        ids = node.op.value.array
        if np.all((0 <= ids) & (ids < found.depth)):
            return found.ids, None
    safe = b.minimum(b.maximum(found.ids, 0), found.depth - 1)
    return safe, b.eq(safe, found.ids)


def _where(b: Builder, inside: Value | None, rows: Value, behind: int) -> Value:
    """`rows` where `inside`, else 0; `behind` axes follow those of ids."""
    if inside is None:
        return rows
    return b.where(b.reshape(inside, shape=inside.type.shape + (1,) * behind), rows, b.constant(0, rows.type.dtype))


def _in_order(b: Builder, x: Value, perm: tuple[int, ...]) -> Value:
    return x if perm == tuple(range(len(perm))) else b.transpose(x, perm=perm)


def _labels(node: Node) -> tuple[Labels, ...] | None:
    """A label for each axis of the two operands and of the result of a product without broadcasting; None for anything
    else."""
    if not isinstance(node.op, LabelledProduct):
        return None
    found = node.op.labels(*(v.type.rank for v in node.inputs))
    sizes: dict[str, Dim] = {}
    if any(sizes.setdefault(i, d) != d for term, v in zip(found, node.inputs) for i, d in zip(term, v.type.shape)):
        return None
    return found
