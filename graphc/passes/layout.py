"""Chooses the storage order of images: channels last for the images of convolutions and pooling, and for values
computed with these elementwise; channels first where convolutions of few channels take fewer cycles so."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import inf
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import typical
from graphc.ir.graph import Graph, Node, Value, regions, users
from graphc.ir.image import CHANNEL_AXIS, channels_last
from graphc.ir.ops.attention import AttentionOp
from graphc.ir.ops.control import Cond, WhileLoop
from graphc.ir.ops.conv import ConvOp
from graphc.ir.ops.elementwise import COPY, Elementwise
from graphc.ir.ops.fused import Fused, core_of, members
from graphc.ir.ops.shape import Pad, Transpose
from graphc.ir.ops.window import Pooling
from graphc.ir.ops.winograd import WinogradConv2d, WinogradWeightGrad
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.choose import schedule_node
from graphc.schedule.choose_contraction import copy_cycles, form_cycles
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.cost import TOLERANCE
from graphc.schedule.kernel_families import CONTRACTIONS
from graphc.schedule.nest_facts import flops_of
from graphc.schedule.parallel_rows import GRADIENTS, takes_lines
from graphc.schedule.pool_cost import channel_cycles, line_cycles
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides
from graphc.schedule.winograd_cost import spaced_cycles

Order = tuple[int, ...]
# Bodies whose results have the layout of the node's results, and the first such result of the node. Slots of a scan are
# row-major.
GIVEN_ON: dict[tuple[type, str], int] = {(Cond, "then_body"): 0, (Cond, "else_body"): 0, (WhileLoop, "body"): 1}


@dataclass(frozen=True)
class ArrangeImages(Pass):
    """Needs fused nodes. Copies images to channels last where this program does not choose their order (arguments,
    views of other shapes) and the copy costs less than to read them as they are: those of a pooling, whose windows are
    computed element by element else, if they are not better computed line by line, and those of Winograd convolutions
    whose channels crowd each other out of the cache. Other contractions read any order as it is.
    """
    target: Target
    name: ClassVar[str] = "arrange_images"

    def run(self, graph: Graph) -> Graph:
        copied = self._copied(graph)
        if not copied:
            return graph
        w = Rewriter(graph)
        copies: dict[Value, Value] = {}
        for node in graph.nodes:
            if node not in copied:
                w.keep(node)
                continue
            with w.at(node.loc, node.scope):
                for v in copied[node]:
                    if v not in copies:
                        copies[v] = w.apply(COPY, (w[v],))[0]
                w.replace(node, w.apply(node.op, [copies[v] if v in copied[node] else w[v] for v in node.inputs]))
        return w.done()

    def _copied(self, graph: Graph) -> dict[Node, list[Value]]:
        """For each node the operands of which it reads a copy."""
        by_lines = _pools_by_lines(graph, self.target)
        found: dict[Node, list[Value]] = {}
        for node in graph.nodes:
            op = core_of(node).op
            if isinstance(op, Pooling) and node not in by_lines or isinstance(op, (WinogradConv2d, WinogradWeightGrad)):
                found[node] = [v for v in dict.fromkeys(_images(node)) if v in node.inputs and _is_foreign(v)
                               and (isinstance(op, Pooling) or self._is_crowded(v.type, op.tile))]
        return {node: values for node, values in found.items() if values}

    def _is_crowded(self, image: TensorType, tile: int) -> bool:
        """Whether tiles of a row-major image take longer to read than its copy, that made included."""
        copied = copy_cycles(typical(image.size), image.dtype, self.target.machine, True)
        return copied < spaced_cycles(image, tile, self.target)


def storage_orders(graph: Graph, target: Target) -> dict[Value, Order]:
    """The storage order of every value that is not stored row-major. Needs fused nodes; looks into loop bodies too.

    Results of attention lie as the transpose that reads them does. An image is whatever an image operator reads or
    writes, and every value of the same shape that a nest computes from an image or along with one: then no nest mixes
    orders, and no transposes are needed inside a network. Arguments and results of the graph keep the order that their
    owner gives them.

    Channels come last where they fill vectors. Where all images that are tied so have fewer, or one of fewer is
    computed from them, or some go to the graph's owner, for whom they would have to be turned, the schedules of the
    kernels that touch them say for which order these take fewer cycles.
    """
    orders: dict[Value, Order] = {}
    _collect(graph, orders, target)
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


def _collect(graph: Graph, orders: dict[Value, Order], target: Target, images: Sequence[Value] = ()) -> None:
    """Adds the orders of the graph's values; `images` are those that lie channels last because the graph around says
    so."""
    orders.update(_turned_results(graph))
    by_lines = _pools_by_lines(graph, target)
    todo = [*images, *(v for node in graph.nodes if node not in by_lines for v in _images(node))]
    neighbours = _neighbours(graph, {v.type.rank for v in todo})
    results, groups, doubtful = set(graph.results), list[list[Value]](), list[list[Value]]()
    narrowed = {v for node in graph.nodes for v in _narrowed(node, target)}
    for v in reversed(todo):
        tied = _tied(v, neighbours, orders)
        orders.update((u, channels_last(u.type.rank)) for u in tied)
        if not tied or set(images).intersection(tied):
            continue
        groups.append(tied)
        if results.intersection(tied) or narrowed.intersection(tied) or all(_is_narrow(u, target) for u in tied):
            doubtful.append(tied)
    while by_rows := [tied for tied in doubtful if _is_turned_back(tied, graph, orders, target)]:
        # kernels that read several images count for those whose others have changed
        doubtful = [tied for tied in doubtful if tied not in by_rows]
    for tied in doubtful:
        # what is dear by rows as long as the images that it is computed from lie by channels
        sources = [u for u in _sources(tied, groups) if u in orders]
        if sources and tied[0] in orders:       # else turned back as the source of others
            _is_turned_back([*tied, *sources], graph, orders, target)
    for node in graph.nodes:
        if not isinstance(node.op, Fused):
            for name, region in regions(node.op):
                first = GIVEN_ON.get((type(node.op), name), len(node.outputs))
                given = zip(region.outputs, node.outputs[first:])
                _collect(region, orders, target,
                         [v for v, outer in given if orders.get(outer) == channels_last(outer.type.rank)])


def _sources(tied: Sequence[Value], groups: Sequence[Sequence[Value]]) -> Iterator[Value]:
    """Images of other groups that the kernels read which compute some of these."""
    read = {v for u in tied if u.node is not None for v in _images(u.node)}
    for group in groups:
        if group is not tied and read.intersection(group):
            yield from group


def _is_turned_back(tied: Sequence[Value], graph: Graph, orders: dict[Value, Order], target: Target) -> bool:
    """Whether the values are cheaper row-major, which they are then."""
    if not _is_cheaper_by_rows(tied, graph, orders, target):
        return False
    for v in tied:
        del orders[v]
    return True


def _pools_by_lines(graph: Graph, target: Target) -> set[Node]:
    """The poolings that take fewer cycles on row-major images than with both copies, and that nothing ties to another
    operator on images."""
    def pays(node: Node, op: Pooling) -> bool:
        x, y = node.inputs[-1].type, node.outputs[0].type
        image, out = (y, x) if isinstance(op, GRADIENTS) else (x, y)
        return (takes_lines(op, image.shape, out.shape)
                and line_cycles(op, image, out, target) < channel_cycles(op, image, out, target))
    found = [node for node in graph.nodes if isinstance(node.op, Pooling) and pays(node, node.op)]
    readers = users(graph) if found else {}
    return {node for node in found if _is_alone(node, readers)}


def _is_alone(pool: Node, readers: Mapping[Value, list[Node]]) -> bool:
    """Whether no other operator on images is joined to the pooling by elementwise work. Images of which this program
    does not choose the order join nobody: each reads them as they lie."""
    seen, waiting = {pool}, [pool]
    while waiting:
        node = waiting.pop()
        near = [v.node for v in node.inputs if v.node is not None]
        near += [reader for v in (*node.inputs, *node.outputs) if not _is_foreign(v) for reader in readers.get(v, ())]
        for other in near:
            if other not in seen and any(True for _ in _images(other)):
                return False
            if other not in seen and isinstance(other.op, (Fused, Elementwise, Pad)):
                seen.add(other)
                waiting.append(other)
    return True


def _tied(first: Value, neighbours: Mapping[Value, list[Value]], orders: Mapping[Value, Order]) -> list[Value]:
    """The values that have to lie as `first` does, and have no order yet."""
    todo, found = [first], dict[Value, None]()
    while todo:
        v = todo.pop()
        if v not in orders and v not in found:
            found[v] = None
            todo += neighbours.get(v, ())
    return list(found)


def _is_narrow(v: Value, target: Target) -> bool:
    """Whether the channels of a pixel do not fill a vector."""
    return typical(v.type.shape[CHANNEL_AXIS]) < target.lanes(v.type.dtype.itemsize)


def _narrowed(node: Node, target: Target) -> Iterator[Value]:
    """The images from which a convolution, or its gradient, computes one of few channels: those of each group fill no
    vector, while those that it reads do."""
    op = core_of(node).op
    if not isinstance(op, ConvOp) or not op.images.result:
        return
    widths = {v: typical(v.type.shape[CHANNEL_AXIS]) // op.groups for v in _images(node)}
    if any(v.node is node and target.lanes(v.type.dtype.itemsize) > width for v, width in widths.items()):
        yield from (v for v, width in widths.items() if v.node is not node
                    and target.lanes(v.type.dtype.itemsize) <= width)


def _is_cheaper_by_rows(tied: Sequence[Value], graph: Graph, orders: Mapping[Value, Order], target: Target) -> bool:
    """Whether the kernels that read or write the values take fewer cycles where these lie row-major; what is then not
    turned for the graph's owner counts too."""
    group = set(tied)
    if all(map(_is_foreign, tied)) or not all(isinstance(n, int) for v in tied for n in v.type.shape):
        return False
    nodes = [n for n in graph.nodes if group.intersection((*n.inputs, *n.outputs)) and not n.op.is_view]
    if not all(isinstance(core_of(n).op, (*CONTRACTIONS, Fused, Pad)) for n in nodes):
        return False
    by_rows = {v: o for v, o in orders.items() if v not in group}
    turned = sum([copy_cycles(typical(v.type.size), v.type.dtype, target.machine, True)
                  for v in graph.results if v in group])
    by_channels = sum(_cycles(n, orders, target) for n in nodes) + turned
    return TOLERANCE * sum(_cycles(n, by_rows, target) for n in nodes) < by_channels


def _cycles(node: Node, orders: Mapping[Value, Order], target: Target) -> float:
    """What a kernel takes whose operands lie so; infinite where its schedule has no candidates with costs."""
    def views(values: Sequence[Value]) -> list[ViewType]:
        return [ViewType(v.type.dtype, v.type.shape,
                         contiguous_strides(v.type.shape, None if _is_foreign(v) else orders.get(v)))
                for v in values]
    schedule = schedule_node(node, views(node.inputs), views(node.outputs), target)
    if isinstance(schedule, ContractionSchedule):
        behind = [n for n in node.op.body.nodes if n is not core_of(node)] if isinstance(node.op, Fused) else []
        cycles = form_cycles(schedule, target, sum(map(flops_of, behind)))
        return inf if cycles is None else cycles
    return sum(ranking.best.total for ranking in schedule.rankings) or inf


def _is_foreign(v: Value) -> bool:
    """Whether this program does not choose the order of an image: arguments, views of other shapes."""
    return v.node is None or v.node.op.is_view


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
