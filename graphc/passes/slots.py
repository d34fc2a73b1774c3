"""Which parts of a concatenation are computed where they belong in it, so that nothing is copied."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.shape import Concat
from graphc.ir.plan import Buffer, Place
from graphc.ir.types import normalize_axis


@dataclass(frozen=True)
class Slot:
    """Part of the result of `whole`, from index `start` along its axis."""
    whole: Node
    start: int

    def place(self, part: Value, buffer: Buffer) -> Place:
        """Where the part lies in the memory of the whole."""
        whole = Place.dense(self.whole.outputs[0], buffer)
        axis = normalize_axis(self.whole.op.axis, len(whole.shape))
        return Place(buffer, whole.dtype, part.type.shape, whole.strides, self.start * whole.strides[axis])


def concat_slots(graph: Graph, fixed: Collection[Value]) -> dict[Value, Slot]:
    """The slots of all parts of those concatenations that need no kernel: each part is made in this graph, by a kernel that may write
    anywhere, and is neither a result of the graph nor part of another one. `fixed`: values that are stored in another order.
    """
    slots: dict[Value, Slot] = {}
    taken = {*graph.results, *fixed}
    for node in graph.nodes:
        if isinstance(node.op, Concat) and node.outputs[0] not in fixed and _may_assemble(node, taken | slots.keys()):
            axis = normalize_axis(node.op.axis, node.outputs[0].type.rank)
            starts = accumulate((v.type.shape[axis] for v in node.inputs), initial=0)
            slots.update((v, Slot(node, start)) for v, start in zip(node.inputs, starts))
    return slots


def _may_assemble(node: Node, taken: Collection[Value]) -> bool:
    parts = node.inputs
    return len(set(parts)) == len(parts) and all(v not in taken and v.type.size and v.node is not None and _writes_anywhere(v.node) for v in parts)


def _writes_anywhere(node: Node) -> bool:
    """Loop nests and contractions store at any strides."""
    return isinstance(node.op, (Fused, Elementwise)) or hasattr(node.op, "contraction")
