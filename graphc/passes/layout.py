"""Chooses the storage order of images: channels last for the images of convolutions and pooling, and for values
computed with these elementwise."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, regions, users
from graphc.ir.image import channels_last
from graphc.ir.ops.attention import AttentionOp
from graphc.ir.ops.control import Cond, WhileLoop
from graphc.ir.ops.elementwise import COPY
from graphc.ir.ops.fused import Fused, members
from graphc.ir.ops.shape import Pad, Transpose
from graphc.ir.ops.window import Pooling
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

Order = tuple[int, ...]
# Bodies whose results have the layout of the node's results, and the first such result of the node. Slots of a scan are
# row-major.
GIVEN_ON: dict[tuple[type, str], int] = {(Cond, "then_body"): 0, (Cond, "else_body"): 0, (WhileLoop, "body"): 1}


@dataclass(frozen=True)
class ArrangeImages(Pass):
    """Needs fused nodes. Copies the images of a pooling to channels last where this program does not choose their order
    (arguments, views of other shapes): the copy costs less than windows that are computed element by element.
    Contractions read any order as it is.
    """
    name: ClassVar[str] = "arrange_images"

    def run(self, graph: Graph) -> Graph:
        pooling = [node for node in graph.nodes if isinstance(node.op, Pooling)]
        foreign = {v for node in pooling for v in _images(node) if v.node is None or v.node.op.is_view}
        if not foreign:
            return graph
        w = Rewriter(graph)
        copies: dict[Value, Value] = {}
        for node in graph.nodes:
            if node not in pooling:
                w.keep(node)
                continue
            with w.at(node.loc, node.scope):
                for v in node.inputs:
                    if v in foreign and v not in copies:
                        copies[v] = w.apply(COPY, (w[v],))[0]
                w.replace(node, w.apply(node.op, [copies.get(v, w[v]) for v in node.inputs]))
        return w.done()


def storage_orders(graph: Graph) -> dict[Value, Order]:
    """The storage order of every value that is not stored row-major. Needs fused nodes; looks into loop bodies too.

    Results of attention lie as the transpose that reads them does. An image is whatever an image operator reads or
    writes, and every value of the same shape that a nest computes from an image or along with one: then no nest mixes
    orders, and no transposes are needed inside a network. Arguments and results of the graph keep the order that their
    owner gives them.
    """
    orders: dict[Value, Order] = {}
    _collect(graph, orders)
    return orders


def _turned_results(graph: Graph) -> dict[Value, Order]:
    """Results of attention that are read transposed (heads side by side again), and by its gradient, lie in the order
    of the transpose, which may then be reshaped without a copy."""
    readers, results = users(graph), set(graph.results)
    found = {}
    # of any order, as operands are
    for v in (v for node in graph.nodes if isinstance(node.op, AttentionOp) for v in node.outputs):
        others = [node.op for node in readers[v] if not isinstance(node.op, AttentionOp)]
        perms = {op.perm if isinstance(op, Transpose) else None for op in others}
        perm = perms.pop() if len(perms) == 1 else None
        if perm and perm[-1] == v.type.rank - 1 and v not in results:
            found[v] = perm
    return found


def _collect(graph: Graph, orders: dict[Value, Order], images: Sequence[Value] = ()) -> None:
    """Adds the orders of the graph's values; `images` are those that lie channels last because the graph around says
    so."""
    orders.update(_turned_results(graph))
    todo = [*images, *(v for node in graph.nodes for v in _images(node))]
    neighbours = _neighbours(graph, {v.type.rank for v in todo})
    while todo:
        v = todo.pop()
        if v not in orders:
            orders[v] = channels_last(v.type.rank)
            todo += neighbours.get(v, ())
    for node in graph.nodes:
        if not isinstance(node.op, Fused):
            for name, region in regions(node.op):
                first = GIVEN_ON.get((type(node.op), name), len(node.outputs))
                given = zip(region.outputs, node.outputs[first:])
                _collect(region, orders,
                         [v for v, outer in given if orders.get(outer) == channels_last(outer.type.rank)])


def _images(node: Node) -> Iterator[Value]:
    """The images that an image operator, alone or in a cluster, reads and writes."""
    for inner, outer in members(node):
        roles = inner.op.images
        if roles:
            yield from (outer[v] for v in (inner.inputs[i] for i in roles.operands) if v in outer)
            if roles.result:
                yield from node.outputs


def _neighbours(graph: Graph, ranks: Collection[int]) -> dict[Value, list[Value]]:
    """Values of these ranks and equal shape that one cluster reads or writes; an image and the padded one."""
    table: dict[Value, list[Value]] = {}
    for node in graph.nodes:
        if not isinstance(node.op, (Fused, Pad)):
            continue
        values = [v for v in (*node.inputs, *node.outputs) if v.type.rank in ranks]
        for v in values:
            table.setdefault(v, []).extend(u for u in values if u is not v
                                           and (isinstance(node.op, Pad) or u.type.shape == v.type.shape))
    return table
