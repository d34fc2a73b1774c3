"""The gradient of a large table of which few rows were read stays a list of rows."""
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from graphc.ir.builder import Rewriter
from graphc.ir.dims import typical
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.match import Is, matches
from graphc.ir.ops.constant import full, splat
from graphc.ir.ops.elementwise import ADD, MUL, SUB
from graphc.ir.ops.index import ScatterAdd
from graphc.passes.pipeline import Pass
from graphc.records import dataclass

FEW = 2                             # the table has at least this many times the rows that are read
SMALL_BYTES = 64 << 10              # a table in L1 or nearly: nothing to gain
CHANGED = Is(ADD, "state", "change"), Is(SUB, "state", "change")


@dataclass(frozen=True)
class SparseGradients(Pass):
    """The gradient of a lookup, rows added to a table of zeros, is kept as a list of rows instead of the table.

    An update state + c * table, with a scalar c, adds the rows to the state in place: plain gradient descent touches
    the rows that were read and no others. For other readers the table is pick_rows(rows, places), which fuses with
    them: an update with momentum or decay still changes every row, as dense semantics ask, but reads no gradient for
    most. In both, rows that occur more than once are added in the order of ids. The result equals that of the table,
    except for the order of additions in state + c * (r1 + r2).

    Needs no dead readers. Stands before what removes dead nodes: the tables are left behind.
    """
    name: ClassVar[str] = "sparse_gradients"

    def run(self, graph: Graph) -> Graph:
        tables = {node.outputs[0]: node for node in graph.nodes if _is_table(node)}
        if not tables:
            return graph
        read, results = users(graph), set(graph.results)
        found = {new.node: _as_sum(new.node, state, tables, read, results)
                 for state, new in zip(graph.state, graph.updates) if new and new.node}
        sums = {node: found for node, found in found.items() if found}
        direct = {found.table for found in sums.values()}
        w = Rewriter(graph)
        for node in graph.nodes:
            with w.at(node.loc, node.scope):
                if node in sums:
                    w.replace(node, [sums[node].make(w)])
                elif tables.get(node.outputs[0]) is node and node not in direct:
                    w.replace(node, [_picked(w, node)])
                else:
                    w.keep(node)
        return w.done()


@dataclass(frozen=True)
class _Sum:
    """state + sign * factor * table"""
    state: Value
    table: Node
    factor: Value | None
    negative: bool

    def make(self, w: Rewriter) -> Value:
        _, ids, rows = (w[v] for v in self.table.inputs)
        if self.factor is not None:
            rows = w.mul(rows, w[self.factor])
        checked = w.check_rows(ids, size=self.state.type.shape[0])
        return w.add_rows(w[self.state], checked, w.neg(rows) if self.negative else rows)


def _as_sum(node: Node, state: Value, tables: Mapping[Value, Node], read: Mapping[Value, list[Node]],
            results: set[Value]) -> _Sum | None:
    """How the node is a sum of the state and a multiple of a table that nothing else reads."""
    found = next((m for m in matches(node.outputs[0], *CHANGED) if m["state"] is state), None)
    table, factor = _multiple(found["change"], tables, read, results) if found else (None, None)
    return None if table is None else _Sum(state, table, factor, node.op is SUB)


def _multiple(v: Value, tables: Mapping[Value, Node], read: Mapping[Value, list[Node]],
              results: set[Value]) -> tuple[Node | None, Value | None]:
    """v as a table times one number (None: 1), with no other reader on the way."""
    if v in results or len(read[v]) != 1:
        return None, None
    if v in tables:
        return tables[v], None
    for found in matches(v, Is(MUL, "table", "factor")):
        table, factor = found["table"], found["factor"]
        if factor.type.rank == 0 and table in tables and table not in results and len(read[table]) == 1:
            return tables[table], factor
    return None, None


def _picked(w: Rewriter, node: Node) -> Value:
    """The table as rows of a small one, whose last row is zero. Where rows stand first is checked: nothing after it can
    fail."""
    _, ids, rows = (w[v] for v in node.inputs)
    table, count = node.outputs[0].type, ids.type.size
    places = w.row_places(ids, size=table.shape[0])
    few = full(w, 0, table.with_shape((count + 1, *table.shape[1:])))
    own = w.pick_rows(places, w.reshape(ids, shape=(count,)))
    return w.pick_rows(w.add_rows(few, own, w.reshape(rows, shape=(count, *table.shape[1:]))), places)


def _is_table(node: Node) -> bool:
    """Rows added to zeros, few rows for the size of the result."""
    if not isinstance(node.op, ScatterAdd) or node.op.axis != 0:
        return False
    base, ids, _ = (v.type for v in node.inputs)
    return (FEW * typical(ids.size) <= typical(base.shape[0]) and typical(base.nbytes) >= SMALL_BYTES
            and base.dtype.is_float and splat(node.inputs[0]) == 0)
