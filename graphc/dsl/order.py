"""Which of the first two axes of a sequence is time. Layers that know say it of what they return; whoever is not told
finds it there, also behind other layers and functions."""
from __future__ import annotations

from collections.abc import Mapping

from graphc.dsl.array import Array
from graphc.dsl.trace import Trace
from graphc.errors import GraphError
from graphc.ir.graph import Node, Value
from graphc.ir.ops.contract import Matmul
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.ops.norm import LayerNorm, LogSoftmax, RMSNorm, Softmax
from graphc.ir.ops.random import Dropout
from graphc.ir.ops.remat import Remat
from graphc.ir.ops.scan_ops import CumSum
from graphc.ir.ops.shape import Concat, DynamicSlice, DynamicUpdateSlice, Flip, Pad, Reshape, Slice, Transpose
from graphc.records import dataclass

# operators, beside elementwise ones, whose results have the axes of their inputs of the same rank
KEEPING = (
    Softmax, LogSoftmax, LayerNorm, RMSNorm, Dropout, Concat, Slice, Pad, Flip, CumSum, DynamicSlice,
    DynamicUpdateSlice, CustomVjp, Remat)


@dataclass(frozen=True)
class AxisOrders:
    """What is known of the sequences of a graph, for graphs that it is inlined in: `said` by layers, whether they
    have the batch first; and as what layers took what they got, by the name of the layer.
    """
    said: Mapping[Value, bool]
    taken: tuple[tuple[str, Value, bool], ...]

    @staticmethod
    def of(trace: Trace) -> AxisOrders:
        return AxisOrders(dict(trace.batch_first), tuple(trace.taken_orders))

    def moved(self, values: Mapping[Value, Value]) -> AxisOrders:
        """The same in a copy of the graph."""
        return AxisOrders({values[v]: order for v, order in self.said.items() if v in values},
                          tuple((layer, values[v], order) for layer, v, order in self.taken if v in values))

    def join(self, trace: Trace) -> None:
        """The graph is a part of this trace. GraphError where one of its layers took an array for what it is not: the
        function was traced by itself, when nobody knew what it would get.
        """
        trace.batch_first.update(self.said)
        for layer, value, order in self.taken:
            batch_comes_first(layer, Array(value, trace), order)


def said(x: Array, batch_first: bool) -> Array:
    """x, which is [batch, time, …] or [time, batch, …]."""
    x.trace.batch_first[x.value] = batch_first
    return x


def batch_comes_first(what: str, x: Array, told: bool | None = None) -> bool:
    """Whether x is [batch, time, …]: as `what`, a layer or function, is told, else as x is known to be, else not.
    GraphError where x is known to be other than told."""
    known = known_order(x)
    if None not in (told, known) and told != known:
        wanted, got = (("batch, time", "time, batch") if told else ("time, batch", "batch, time"))
        raise GraphError(f"{what} takes [{wanted}, …], and what it gets is [{got}, …]: the layer before it was made "
                         f"{'without' if told else 'with'} batch_first=True; give both the same order, "
                         "or transpose(1, 0, 2) in between")
    found = bool(known if told is None else told)
    x.trace.taken_orders.append((what, x.value, found))
    return found


def known_order(x: Array) -> bool | None:
    """What layers said of x, or of the values that it has its first two axes from; None if nobody did, or not all the
    same."""
    known, seen, todo, found = x.trace.batch_first, {}, [(x.value, False)], set()
    while todo:
        value, turned = todo.pop()
        if value in known:
            found.add(known[value] != turned)
        elif value not in seen:
            seen[value] = turned
            todo += [(v, turned != swaps) for v, swaps in _sources(value.node, value)] if value.node else []
    if len(found) != 1:
        return None
    order, = found
    # so that each value is looked at once
    known.update({value: order != turned for value, turned in seen.items()})
    return order


def _sources(node: Node, value: Value) -> list[tuple[Value, bool]]:
    """Inputs of the node whose first two axes are those of `value`, its output, each with whether they are swapped."""
    op, rank = node.op, value.type.rank
    same = [v for v in node.inputs if v.type.rank == rank >= 2]
    if isinstance(op, Matmul):
        return [(v, False) for v in same[:1] if v is node.inputs[0] and rank >= 3]
    if isinstance(op, Transpose):
        return [(node.inputs[0], op.perm[:2] == (1, 0))] if sorted(op.perm[:2]) == [0, 1] else []
    if isinstance(op, Reshape):
        return [(v, False) for v in node.inputs if v.type.rank >= 2 and v.type.shape[:2] == value.type.shape[:2]]
    return [(v, False) for v in same] if op.is_elementwise or isinstance(op, KEEPING) else []
