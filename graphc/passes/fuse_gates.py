"""Gates: if a product is only read through equal slices of its columns, the elementwise operators on these become its
epilogue."""
from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import typical
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.fused import Fused, contraction_in
from graphc.ir.ops.shape import Slice
from graphc.passes.fuse_emit import body_of
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.iteration_space import Misfit, Space
from graphc.schedule.parallel_rows import is_few
from graphc.schedule.register_tiles import gates_cost
from graphc.schedule.target import Target

LOSS = 1.02                     # limit of the time of the fused product, relative to that of the product alone


@dataclass(frozen=True)
class Gates:
    """A product (alone or with its epilogue), the slices into which its columns are cut, the cluster that reads them
    all, and those slices that other nodes read too.
    """
    product: Node
    slices: tuple[Node, ...]
    reader: Node
    shared: tuple[Value, ...]


@dataclass(frozen=True)
class FuseGates(Pass):
    """Merges a product of matrices, slices of its result and the elementwise cluster that reads them: the gates of an
    LSTM or GRU, a gated linear unit.

    Needs: clusters, so that each step of a recurrence is a product, its slices and one nest. Gives: one contraction,
    whose body slices its result; each slice is some whole vectors wide. Slices that others read too are outputs of it.
    Stands right after fuse. Not applied when the fused kernel would write more values than the product has columns
    (training keeps every gate of a recurrence): narrow scattered stores cost more than writing the product once.
    """
    target: Target
    name: ClassVar[str] = "fuse_gates"

    def run(self, graph: Graph) -> Graph:
        readers, places = users(graph), {node: i for i, node in enumerate(graph.nodes)}
        results = set(graph.results)
        merged: dict[Node, Gates] = {}
        for node in graph.nodes:
            gates = self._gates(node, readers, places, results)
            if gates is not None:
                merged.setdefault(gates.reader, gates)          # the parts of two products: those of the first
        if not merged:
            return graph
        gone = {n for g in merged.values() for n in (g.product, *g.slices)}
        w = Rewriter(graph)
        for node in graph.nodes:
            if node in merged:
                _merge(w, merged[node])
            elif node not in gone:
                w.keep(node)
        return w.done()

    def _gates(self, product: Node, readers: Mapping[Value, list[Node]], places: Mapping[Node, int],
               results: set[Value]) -> Gates | None:
        if not _is_product(product) or product.outputs[0] in results:
            return None
        v = product.outputs[0]
        slices = tuple(readers[v])
        if len(slices) < 2 or not all(_is_part(s, v) for s in slices):
            return None
        width, columns = slices[0].outputs[0].type.shape[-1], v.type.shape[-1]
        lanes = self.target.lanes(v.type.dtype.itemsize)
        starts = [s.op.start[-1] for s in slices if isinstance(s.op, Slice)]
        if not isinstance(width, int) or not isinstance(columns, int):
            return None
        if (width % lanes or sorted(starts) != list(range(0, columns, width))
                or any(s.outputs[0].type.shape[-1] != width for s in slices)):
            return None
        parts = [s.outputs[0] for s in slices]
        reader = next((n for n in readers[parts[0]] if all(n in readers[p] for p in parts)
                       and _is_elementwise(n, parts[0])), None)
        # others may lead to the reader
        if reader is None or any(places[n] < places[reader] for p in parts for n in readers[p]):
            return None
        shared = tuple(p for p in parts if p in results or any(n is not reader for n in readers[p]))
        gates = Gates(product, slices, reader, shared)
        too_many = len(reader.outputs) + len(shared) > len(slices)
        return None if too_many or self._is_slower(gates) else gates

    def _is_slower(self, gates: Gates) -> bool:
        """Whether whole gates do not suit the rows of the product: what is saved is little beside it."""
        v = gates.product.outputs[0].type
        rows, columns, steps = map(typical, (v.size // v.shape[-1], v.shape[-1],
                                             gates.product.inputs[0].type.shape[-1]))
        return gates_cost(rows, columns, steps, len(gates.slices), self.target, v.dtype.itemsize) > LOSS


def _is_product(node: Node) -> bool:
    """A product of two matrices of floats or of packed numbers, or of few rows by a matrix of codes; alone or with an
    epilogue of one result."""
    inner = contraction_in(node.op.body) if isinstance(node.op, Fused) and node.op.kind == "contraction" else node
    if not isinstance(inner.op, Matmul | BlockProduct) or len(node.outputs) != 1:
        return False
    a, b, *_ = inner.inputs
    if isinstance(inner.op, BlockProduct) and not is_few(prod(a.type.shape[:-1])):
        return False
    numbers = a.type.dtype.is_float or a.type.dtype.is_packed
    return a is not b and b.type.rank > 1 and numbers and 0 not in (*a.type.shape, *b.type.shape)


def _is_part(node: Node, v: Value) -> bool:
    """Whether the node is a range of the columns of `v`, one at least."""
    op = node.op
    return (isinstance(op, Slice) and op.start[-1] < op.stop[-1] and not any(op.start[:-1])
            and op.stop[:-1] == v.type.shape[:-1] and set(op.step) == {1})


def _is_elementwise(node: Node, part: Value) -> bool:
    """Whether the node computes element by element of arrays of the shape of `part`."""
    op, shape = node.op, part.type.shape
    if not isinstance(op, Fused) or op.kind != "nest" or any(v.type.shape != shape for v in node.outputs):
        return False
    space = Space()
    place = space.maps[part] = space.place(shape)
    try:
        for n in op.body.nodes:
            if not (n.op.is_elementwise or isinstance(n.op, Constant)):
                return False
            space.add(n)
    except Misfit:
        return False
    computed = [v for n in op.body.nodes if not isinstance(n.op, Constant) for v in n.outputs]
    return all(space.maps[v] == place for v in computed)


def _merge(w: Rewriter, g: Gates) -> None:
    """Puts the merged cluster where its reader stands."""
    reader, parts = g.reader, {s.outputs[0] for s in g.slices}
    ins = list(dict.fromkeys((*g.product.inputs, *(v for v in reader.inputs if v not in parts))))
    inside = {v: v for v in ins}
    members = [*_inlined(g.product, inside), *(_copied(s, inside) for s in g.slices), *_inlined(reader, inside)]
    outs = [*reader.outputs, *g.shared]
    body = body_of(members, ins, [inside[v] for v in outs])
    new = Node(Fused(body, "contraction"), tuple(w[v] for v in ins), tuple(v.type for v in outs), reader.loc,
               reader.scope)
    w.nodes.append(new)
    for old, v in zip(outs, new.outputs):
        v.name = old.name
        w.map[old] = v


def _inlined(node: Node, inside: dict[Value, Value]) -> list[Node]:
    """The node, or those of its cluster, on the values of `inside`, to which its results are added."""
    if not isinstance(node.op, Fused):
        return [_copied(node, inside)]
    body = node.op.body
    known = dict(zip(body.inputs, (inside[v] for v in node.inputs)))
    nodes = [_copied(n, known) for n in body.nodes]
    inside.update(zip(node.outputs, (known[v] for v in body.outputs)))
    return nodes


def _copied(node: Node, inside: dict[Value, Value]) -> Node:
    new = Node(node.op, tuple(inside[v] for v in node.inputs), tuple(v.type for v in node.outputs), node.loc,
               node.scope)
    inside.update(zip(node.outputs, new.outputs))
    return new
