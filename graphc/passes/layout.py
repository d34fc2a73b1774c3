"""Chooses the storage order of images: channels last for the images of convolutions and pooling, and for values computed with these elementwise."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, regions, users
from graphc.ir.ops.attention import Attention, AttentionGrad
from graphc.ir.ops.control import Cond, WhileLoop
from graphc.ir.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.fused import Fused, members
from graphc.ir.ops.shape import Pad
from graphc.ir.ops.window import AvgPool2d, AvgPool2dGrad, MaxPool2d, MaxPool2dGrad, MaxPool2dPick
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad
from graphc.ir.traits import VIEWS
from graphc.passes.pipeline import Pass

Order = tuple[int, ...]
CHANNELS_LAST: Order = (0, 2, 3, 1)

# Which operands and results of an operator are images [N, C, H, W]; the others are weights.
IMAGES: dict[type, tuple[tuple[int, ...], bool]] = {
    Conv2d: ((0,), True), Conv2dInputGrad: ((1,), True), Conv2dWeightGrad: ((0, 1), False),
    MaxPool2d: ((0,), True), MaxPool2dGrad: ((0, 1), True), MaxPool2dPick: ((0, 1), True),
    AvgPool2d: ((0,), True), AvgPool2dGrad: ((0,), True), WinogradConv2d: ((0,), True),
    WinogradWeightGrad: ((0, 1), False),
}
ATTENTION = (Attention, AttentionGrad)           # read and write any order
# Bodies whose results have the layout of the node's results, and the first such result of the node. Slots of a scan are row-major.
GIVEN_ON: dict[tuple[type, str], int] = {(Cond, "then_body"): 0, (Cond, "else_body"): 0, (WhileLoop, "body"): 1}
POOLING = (MaxPool2d, MaxPool2dGrad, MaxPool2dPick, AvgPool2d, AvgPool2dGrad)


@dataclass(frozen=True)
class ArrangeImages(Pass):
    """Needs fused nodes. Copies the images of a pooling to channels last where this program does not choose their order (arguments, views of other
    shapes): the copy costs less than windows that are computed element by element. Contractions read any order as it is.
    """
    name: ClassVar[str] = "arrange_images"

    def run(self, graph: Graph) -> Graph:
        pooling = [node for node in graph.nodes if isinstance(node.op, POOLING)]
        foreign = {v for node in pooling for v in _images(node) if v.node is None or v.node.op.name in VIEWS}
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
                        copies[v] = w.apply(Elementwise("copy"), (w[v],))[0]
                w.replace(node, w.apply(node.op, [copies.get(v, w[v]) for v in node.inputs]))
        return w.done()


def storage_orders(graph: Graph) -> dict[Value, Order]:
    """The storage order of every value that is not stored row-major. Needs fused nodes; looks into loop bodies too.

    Results of attention lie as the transpose that reads them does. An image is whatever an image operator reads or writes, and every value
    of the same shape that a nest computes from an image or along with one: then no nest mixes orders, and no transposes are needed inside a
    network. Arguments and results of the graph keep the order that their owner gives them.
    """
    orders: dict[Value, Order] = {}
    _collect(graph, orders)
    return orders


def _turned_results(graph: Graph) -> dict[Value, Order]:
    """Results of attention that are read transposed (heads side by side again), and by its gradient, lie in the order of the transpose, which may
    then be reshaped without a copy."""
    readers, results = users(graph), set(graph.results)
    found = {}
    for v in (v for node in graph.nodes if isinstance(node.op, ATTENTION) for v in node.outputs):
        perms = {getattr(node.op, "perm", None) for node in readers[v] if not isinstance(node.op, ATTENTION)}
        perm = perms.pop() if len(perms) == 1 else None
        if perm and perm[-1] == v.type.rank - 1 and v not in results:
            found[v] = perm
    return found


def _collect(graph: Graph, orders: dict[Value, Order], images: Sequence[Value] = ()) -> None:
    """Adds the orders of the graph's values; `images` are those that lie channels last because the graph around says so."""
    orders.update(_turned_results(graph))
    neighbours = _neighbours(graph)
    todo = [*images, *(v for node in graph.nodes for v in _images(node))]
    while todo:
        v = todo.pop()
        if v not in orders:
            orders[v] = CHANNELS_LAST
            todo += neighbours.get(v, ())
    for node in graph.nodes:
        if not isinstance(node.op, Fused):
            for name, region in regions(node.op):
                first = GIVEN_ON.get((type(node.op), name), len(node.outputs))
                _collect(region, orders, [v for v, outer in zip(region.outputs, node.outputs[first:]) if orders.get(outer) == CHANNELS_LAST])


def _images(node: Node) -> Iterator[Value]:
    """The images that an image operator, alone or in a cluster, reads and writes."""
    for inner, outer in members(node):
        if type(inner.op) in IMAGES:
            operands, result = IMAGES[type(inner.op)]
            for i in operands:
                if inner.inputs[i] in outer:
                    yield outer[inner.inputs[i]]
            if result:
                yield from node.outputs


def _neighbours(graph: Graph) -> dict[Value, list[Value]]:
    """Values of rank 4 and equal shape that one cluster reads or writes; an image and the padded one."""
    table: dict[Value, list[Value]] = {}
    for node in graph.nodes:
        if not isinstance(node.op, (Fused, Pad)):
            continue
        values = [v for v in (*node.inputs, *node.outputs) if v.type.rank == 4]
        for v in values:
            table.setdefault(v, []).extend(u for u in values if u is not v and (isinstance(node.op, Pad) or u.type.shape == v.type.shape))
    return table
