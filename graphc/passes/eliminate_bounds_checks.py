"""Row numbers that a lookup has checked are not checked again, so that later nodes cannot fail on them."""
from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.embedding_gradients import AddRows, CheckRows, RowPlaces
from graphc.ir.ops.index import ScatterAdd, Take
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

Rows = tuple[Value, Dim]         # ids, and how many rows the table has that they point into


@dataclass(frozen=True)
class EliminateBoundsChecks(Pass):
    """The gradient of an embedding adds rows by the ids that the embedding has looked up: scatter_add -> add_rows,
    check_rows -> its ids.

    An optimizer writes state only after the last node that may fail (`Order`): if that were the gradient of the first
    layer, the gradients of all others, and the values that they are computed from, would have to be kept until then.
    Needs a graph without dead nodes: a lookup that nobody reads checks nothing.
    """
    name: ClassVar[str] = "eliminate_bounds_checks"

    def run(self, graph: Graph) -> Graph:
        checked = {rows for node in graph.nodes if (rows := _looked_up(node))}
        if not checked:
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if _rows(node) not in checked:
                w.keep(node)
            elif isinstance(node.op, CheckRows):
                w.replace(node, (w[node.inputs[0]],))
            else:
                w.keep(node, node.op.replace(checked=True) if isinstance(node.op, RowPlaces) else AddRows())
        return w.done()


def _looked_up(node: Node) -> Rows | None:
    """What a lookup checks."""
    if not isinstance(node.op, Take):
        return None
    table, ids = node.inputs
    return ids, table.type.shape[node.op.axis % table.type.rank]


def _rows(node: Node) -> Rows | None:
    """What another node checks."""
    if isinstance(node.op, (CheckRows, RowPlaces)):
        return node.inputs[0], node.op.size
    if type(node.op) is ScatterAdd and node.op.axis == 0:
        base, ids, _ = node.inputs
        return ids, base.type.shape[0]
    return None
