"""Transpose folding, (x y)^T = y^T x^T: the transpose of a product becomes a product of transposed views."""
from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.match import Is, match
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.shape import Transpose
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


@dataclass(frozen=True)
class FoldTransposes(Pass):
    """Rewrites the transpose of a product that has no other reader (the gradient of a weight stored transposed,
    usually).

    Needs: no dead nodes (a dead reader would keep the product).
    Gives: the same values, in products whose operands are transposed views.
    Stands before fuse, because operators that follow a product directly can become its epilogue, and those that follow
    a view of it cannot.
    """
    name: ClassVar[str] = "fold_transposes"

    def run(self, graph: Graph) -> Graph:
        readers = users(graph)
        found = {n: product for n in graph.nodes
                 if (product := _transposed_product(n)) and len(readers[n.inputs[0]]) == 1}
        turned = set(found.values()) - {v.node for v in graph.results}
        if not turned:
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if node in turned:
                continue
            product = found.get(node)
            if product in turned:
                with w.at(product.loc, product.scope):
                    w.replace(node, w.apply(product.op, [_transposed(w, v, turned) for v in reversed(product.inputs)]))
            else:
                w.keep(node)
        return w.done()


def _transposed_product(node: Node) -> Node | None:
    """The product of matrices of which the node is the transpose."""
    found = match(node.outputs[0], Is(Transpose, Is(Matmul, "x", "y")))
    if found is None or min(found["x"].type.rank, found["y"].type.rank) < 2:
        return None
    return found.nodes[1] if node.op == Transpose(_swap(node.outputs[0].type.rank)) else None


def _transposed(w: Rewriter, v: Value, turned: set[Node]) -> Value:
    """v the other way round. What v itself is the transpose of, unless that is a product which was turned and exists no
    more."""
    perm = _swap(v.type.rank)
    if v.node is not None and v.node.op == Transpose(perm) and v.node.inputs[0].node not in turned:
        return w[v.node.inputs[0]]
    return w.apply(Transpose(perm), (w[v],))[0]


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)
