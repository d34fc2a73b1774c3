"""Products of a few numbers in loops, and products without reuse, become sums of elementwise products, which are fused
with what is around them: the tiles and packed operands of a kernel for products would cost more than the product."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import ClassVar

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.dims import Dim, ceil_div, typical
from graphc.ir.graph import Graph, Node, Value, regions, users
from graphc.ir.op import Op
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.fused import Fused
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.choose import schedule_node
from graphc.schedule.contraction_schedule import ContractionSchedule, LaneSchedule, StreamSchedule, TileSchedule
from graphc.schedule.machine import Machine
from graphc.schedule.nest_schedule import NestSchedule
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import LINE_BYTES, Target
from graphc.schedule.view import ViewType, contiguous_strides

# beyond what the model of loop nests has for rows that overlap: to wait for the lanes of one sum, and for a loop around
# such sums, what is loaded and stored being short and masked
FOLD_CYCLES, ROW_CYCLES = 8, 10
MOST = 1 << 14                  # products of which the costs are compared: beyond, kernels of tiles have won long since

Labels = Sequence[str]


@dataclass(frozen=True)
class SpellProducts(Pass):
    """In the bodies of loops, matmul and einsum are spelled out where the cycles of a loop nest are fewer than those of
    the best kernel for products, both by their schedules for dense operands. Elsewhere products without reuse.

    Needs static sizes; what can be moved out of loops has been. Gives broadcasts, products and sums.
    Stands before fusion, which takes these into its loop nests; after all passes that know products.
    """
    target: Target
    name: ClassVar[str] = "spell_products"
    known: dict[tuple[Op, tuple[TensorType, ...]], bool] = field(default_factory=dict, compare=False, repr=False)
    plain: dict[tuple[Op, tuple[TensorType, ...]], bool] = field(default_factory=dict, compare=False, repr=False)

    def run(self, graph: Graph) -> Graph:
        """Loops of this graph; those of its bodies have been seen to before. And products that a loop nest need not
        wait for."""
        loops = {node: op for node in graph.nodes if isinstance(node.op, (Scan, WhileLoop))
                 and (op := self._in_bodies(node.op)) is not node.op}
        streams = self._streams(graph)
        if not loops and not streams:
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            with w.at(node.loc, node.scope):
                if node in loops:
                    w.replace(node, w.apply(loops[node], [w[v] for v in node.inputs]))
                elif node in streams:
                    w.replace(node, [spelled(w, streams[node], *(w[v] for v in node.inputs))])
                else:
                    w.keep(node)
        return w.done()

    def _streams(self, graph: Graph) -> dict[Node, LabelledProduct]:
        """Products that use each element of an operand once, which is computed element by element for them alone: a
        loop nest with both never stores it. And products without reuse."""
        readers, results, found = users(graph), set(graph.results), dict[Node, LabelledProduct]()
        for node in graph.nodes:
            if not isinstance(node.op, LabelledProduct):
                continue
            if self._is_plain(node, node.op):
                found[node] = node.op
                continue
            for v in node.inputs:
                alone = (v.node is not None and isinstance(v.node.op, Elementwise) and readers[v] == [node]
                         and v not in results)
                x, y = (u.type for u in node.inputs)
                if (alone and v.node and _points(node.op, x, y, node.outputs[0].type) == typical(v.type.size) > 0
                        and self._is_cheaper(node, node.op, x, y, self.target, self._alone(v.node))):
                    found[node] = node.op
        return found

    def _is_plain(self, node: Node, op: LabelledProduct) -> bool:
        """Whether a loop nest is cheaper for a product of which tiles in registers use nothing twice: without sums, of
        two operands element by element, or of matrices by vectors whose elements are gathered as lanes."""
        x, y = (v.type for v in node.inputs)
        points = _points(op, x, y, node.outputs[0].type)
        if not points:
            return False
        if (op, (x, y)) in self.plain:
            return self.plain[op, (x, y)]
        sizes = [typical(t.size) for t in (x, y, node.outputs[0].type)]
        bare = points == sizes[2] or sizes[0] == sizes[1] == points
        plain = bare or points in sizes and _gathers(_whole(node, self.target))
        moved = sum(n * t.dtype.itemsize for n, t in zip(sizes, (x, y, node.outputs[0].type)))
        machine = self.target.machine
        # the model of nests counts all that a product reads and writes for each of its terms
        twice = points * 3 * x.dtype.itemsize - moved
        saved = twice / machine.l3_bytes_per_cycle / machine.planned_cores
        self.plain[op, (x, y)] = plain and self._is_cheaper(node, op, x, y, self.target, saved)
        return self.plain[op, (x, y)]

    def _alone(self, node: Node) -> float:
        """Cycles of an elementwise operator's own kernel, for dense operands."""
        ins, outs = ([ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape)) for v in values]
                     for values in (node.inputs, node.outputs))
        return _cycles(schedule_node(node, ins, outs, self.target))

    def _in_bodies(self, op: Op) -> Op:
        old = dict(regions(op))
        new = {name: self._spelled(body) for name, body in old.items()}
        return op.replace(**new) if any(new[name] is not old[name] for name in old) else op

    def _spelled(self, body: Graph) -> Graph:
        branches = {node: self._in_bodies(node.op) for node in body.nodes if isinstance(node.op, Cond)}
        changed = {node: op for node, op in branches.items() if op is not node.op}
        products = {node: node.op for node in body.nodes
                    if isinstance(node.op, LabelledProduct) and self._pays(node, node.op)}
        if not changed and not products:
            return body
        w = Rewriter(body)
        for node in body.nodes:
            with w.at(node.loc, node.scope):
                if node in products:
                    w.replace(node, [spelled(w, products[node], *(w[v] for v in node.inputs))])
                elif node in changed:
                    w.replace(node, w.apply(changed[node], [w[v] for v in node.inputs]))
                else:
                    w.keep(node)
        return w.done()

    def _pays(self, node: Node, op: LabelledProduct) -> bool:
        x, y = (v.type for v in node.inputs)
        key = op, (x, y)
        if key not in self.known:
            self.known[key] = (_is_small(op, x, y, node.outputs[0].type)
                               and self._is_cheaper(node, op, x, y, _near(self.target)))
        return self.known[key]

    @staticmethod
    def _is_cheaper(node: Node, op: LabelledProduct, x: TensorType, y: TensorType, target: Target,
                    saved: float = 0.0) -> bool:
        """By the cycles of both kernels for dense operands; saved: those of other kernels that are not needed then."""
        dense, whole = _dense(node), _whole(node, target)
        left, right, order, kept = _axes(op, x, y)
        ins = [_expanded(view, labels, order) for view, labels in zip(dense, (left, right))]
        b = Builder("body")
        a, c = (b.input(f"x{k}", TensorType(v.dtype, v.shape)) for k, v in enumerate(ins))
        cluster = Node(Fused(b.finish([_summed(b, a, c, kept)])), (a, c), (node.outputs[0].type,), None, "")
        nest = schedule_node(cluster, ins, dense[2:], target)
        folding = _folding(nest, node) if any(n != 1 for v in ins for n in v.shape[kept:]) else 0.0
        return _cycles(nest) + folding < _cycles(whole) + _calls(whole, target.machine) + saved


def _dense(node: Node) -> list[ViewType]:
    """The operands and the result as they lie where nothing else is known."""
    return [ViewType(v.type.dtype, v.type.shape, contiguous_strides(v.type.shape))
            for v in (*node.inputs, *node.outputs)]


def _whole(node: Node, target: Target) -> Schedule:
    """The best kernel for products."""
    dense = _dense(node)
    return schedule_node(node, dense[:2], dense[2:], target)


def _gathers(s: Schedule) -> bool:
    """Whether lanes are elements that lie apart in an operand."""
    return isinstance(s, ContractionSchedule) and any(
        isinstance(lanes, LaneSchedule) and t.strides[lanes.dim] not in (0, 1) and not lanes.packs(p, t)
        for p, lanes in zip(s.form.phases, s.phases) for t in (p.a, p.b))


def _near(target: Target) -> Target:
    """The CPU as a loop over little work sees it: one core has made all operands, and bytes cost in all kernels what
    they cost in loop nests."""
    rate = target.machine.l3_bytes_per_cycle
    near = replace(target.machine, remote_line_cycles=LINE_BYTES / rate, memory_bytes_per_cycle=rate)
    return replace(target, machine=near)


def _calls(s: Schedule, machine: Machine) -> float:
    """Cycles of the calls of micro-kernels, which the model of tiles leaves out, since products have long sums as a
    rule."""
    if not isinstance(s, ContractionSchedule):
        return 0.0
    tiled = [(p, tiles) for p, tiles in zip(s.form.phases, s.phases)
             if isinstance(tiles, TileSchedule) and not isinstance(tiles, StreamSchedule)]
    return machine.call_cycles * sum([typical(p.extent(p.batch) * ceil_div(p.extent(p.m), tiles.blocking.mr)
                                              * ceil_div(p.extent(p.n), tiles.blocking.nr)) for p, tiles in tiled])


def _folding(nest: Schedule, node: Node) -> float:
    """Cycles of waiting for the lanes of each sum, where the vector runs along it: in the model of loop nests other
    rows are computed meanwhile, since these are many as a rule."""
    along = isinstance(nest, NestSchedule) and nest.vector in nest.inner and nest.lanes > 1
    rows = typical(node.outputs[0].type.size)
    return FOLD_CYCLES * rows + ROW_CYCLES * (rows if rows > 1 else 0) if along else 0.0


def _cycles(schedule: Schedule) -> float:
    return sum(ranking.best.total for ranking in schedule.rankings)


def _is_small(op: LabelledProduct, x: TensorType, y: TensorType, result: TensorType) -> bool:
    """Few products."""
    return 0 < _points(op, x, y, result) <= MOST


def _points(op: LabelledProduct, x: TensorType, y: TensorType, result: TensorType) -> int:
    """How many products, of sizes that are known, in one type in which is computed, each operand having every axis
    once; 0 of others."""
    dtype = result.dtype
    if not (x.dtype == y.dtype == dtype and dtype.is_float and not dtype.is_storage):
        return 0
    left, right, _ = op.labels(x.rank, y.rank)
    sizes: dict[str, Dim] = {}
    for label, n in (*zip(left, x.shape), *zip(right, y.shape)):
        sizes[label] = n if sizes.get(label, 1) == 1 else sizes[label]
    count = 1
    for n in sizes.values():
        if not isinstance(n, int):
            return 0
        count *= n
    return count if len({*left}) == len(left) and len({*right}) == len(right) else 0


def spelled(b: Builder, op: LabelledProduct, x: Value, y: Value) -> Value:
    """The product as a sum over the axes that it does not keep."""
    left, right, order, kept = _axes(op, x.type, y.type)
    return _summed(b, _over(b, x, left, order), _over(b, y, right, order), kept)


def _axes(op: LabelledProduct, x: TensorType, y: TensorType) -> tuple[Labels, Labels, Labels, int]:
    """The labels of the operands, and those of the products: first the axes of the result, so many."""
    left, right, out = op.labels(x.rank, y.rank)
    return left, right, (*out, *dict.fromkeys(label for label in (*left, *right) if label not in out)), len(out)


def _summed(b: Builder, x: Value, y: Value, kept: int) -> Value:
    product = b.mul(x, y)
    gone = tuple(range(kept, product.type.rank))
    return b.sum(product, axes=gone) if gone else product


def _over(b: Builder, v: Value, labels: Labels, order: Labels) -> Value:
    """The operand with an axis for each label of `order`, of size 1 where it has none."""
    perm = _turned(labels, order)
    v = v if perm == tuple(range(len(perm))) else b.transpose(v, perm=perm)
    sizes = iter(v.type.shape)
    shape = tuple(next(sizes) if label in labels else 1 for label in order)
    return v if shape == v.type.shape else b.reshape(v, shape=shape)


def _expanded(view: ViewType, labels: Labels, order: Labels) -> ViewType:
    """What `_over` shows of a view."""
    axes = iter(_turned(labels, order))
    at = [next(axes) if label in labels else -1 for label in order]
    return ViewType(view.dtype, tuple(view.shape[i] if i >= 0 else 1 for i in at),
                    tuple(view.strides[i] if i >= 0 else 0 for i in at))


def _turned(labels: Labels, order: Labels) -> tuple[int, ...]:
    return tuple(labels.index(label) for label in order if label in labels)
