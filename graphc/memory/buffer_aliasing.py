"""Which parts of a concatenation, and which insides of a pad, are computed directly in its memory, so that nothing is
copied."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from graphc.ir.dims import Dim, Dims, largest
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.image import CHANNEL_AXIS
from graphc.ir.ops.conv import ConvOp
from graphc.ir.ops.elementwise import Elementwise
from graphc.ir.ops.fused import Fused, members
from graphc.ir.ops.shape import Concat, Pad
from graphc.ir.types import normalize_axis
from graphc.memory.plan import Buffer, Place
from graphc.records import dataclass
from graphc.schedule.contraction_form import spread
from graphc.schedule.target import LINE_BYTES
from graphc.schedule.view import contiguous_strides

Order = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A part of the result of `whole`, which has `strides` in memory: from index `start` on, on each axis."""
    whole: Node
    start: Dims
    strides: Dims

    @property
    def nbytes(self) -> Dim:
        """Of the memory of the whole."""
        v, = self.whole.outputs
        return largest(*(n * step for n, step in zip(v.type.shape, self.strides))) * v.type.dtype.itemsize

    def place(self, part: Value, buffer: Buffer) -> Place:
        """Where the part lies in the memory of the whole."""
        return Place(buffer, part.type.dtype, part.type.shape, self.strides,
                     sum(i * step for i, step in zip(self.start, self.strides)))

    def place_whole(self, v: Value, buffer: Buffer) -> Place:
        return Place(buffer, v.type.dtype, v.type.shape, self.strides)


def find_slots(graph: Graph, orders: Mapping[Value, Order]) -> dict[Value, Slot]:
    """The slots of all parts of those concatenations and pads that need no copy: each part is made in this graph, by a
    kernel that may write anywhere, lies in the order of the whole, and is neither a result of the graph nor part of
    another one.
    """
    slots: dict[Value, Slot] = {}
    taken, side_by_side = set(graph.results), _read_side_by_side(graph)
    for node in graph.nodes:
        if isinstance(node.op, (Concat, Pad)) and _may_assemble(node, orders, taken | slots.keys()):
            v, = node.outputs
            strides = _strides(v, orders.get(v), v in side_by_side and v not in taken)
            starts = _starts(node.op, node.inputs)
            slots.update((part, Slot(node, start, strides)) for part, start in zip(node.inputs, starts))
    return slots


def _read_side_by_side(graph: Graph) -> set[Value]:
    """Images of depthwise convolutions: a kernel reads some channels of many pixels at once."""
    found: set[Value] = set()
    for inner, outer in (pair for node in graph.nodes for pair in members(node)):
        if isinstance(inner.op, ConvOp) and inner.op.groups > 1:
            images = (outer.get(inner.inputs[i]) for i in inner.op.images.operands)
            found.update(v for v in images if v is not None and v.type.shape[CHANNEL_AXIS] == inner.op.groups)
    return found


def _strides(v: Value, order: Order | None, apart: bool) -> Dims:
    """Dense, in the given order of axes; `apart`: lines that are read side by side do not share few sets of the L1
    cache."""
    shape, inner = list(v.type.shape), (order or range(v.type.rank))[-1] if v.type.rank else 0
    if apart:
        shape[inner] = spread(shape[inner], LINE_BYTES // (2 * v.type.dtype.itemsize))
    return contiguous_strides(tuple(shape), order)


def _starts(op: Concat | Pad, parts: Sequence[Value]) -> list[Dims]:
    """Where each part begins in the whole."""
    if isinstance(op, Pad):
        return [op.low]
    rank = parts[0].type.rank
    axis = normalize_axis(op.axis, rank)
    ends: Iterator[Dim] = accumulate((v.type.shape[axis] for v in parts), initial=0)
    return [(0,) * axis + (start,) + (0,) * (rank - axis - 1) for start, _ in zip(ends, parts)]


def _may_assemble(node: Node, orders: Mapping[Value, Order], taken: Collection[Value]) -> bool:
    parts, order = node.inputs, orders.get(node.outputs[0])
    return len(set(parts)) == len(parts) and all(
        v not in taken and orders.get(v) == order and v.type.size and v.node is not None and _writes_anywhere(v.node)
        for v in parts)


def _writes_anywhere(node: Node) -> bool:
    """Loop nests and contractions store at any strides."""
    return isinstance(node.op, (Fused, Elementwise)) or node.op.takes_epilogue
