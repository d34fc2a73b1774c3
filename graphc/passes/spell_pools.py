"""Max pooling far from convolutions becomes maxima of slices, which are fused with what is around them: images that lie
channels first are then read as they are, where the kernel for windows would want them, and its result, turned."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import inf, prod
from typing import ClassVar

from graphc.ir.builder import Builder, rewritten
from graphc.ir.dims import static_shape, typical
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.ops.elementwise import MAXIMUM, Elementwise
from graphc.ir.ops.shape import Pad
from graphc.ir.ops.window import MaxPool
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass
from graphc.records import dataclass
from graphc.schedule.pool_cost import LINE_CYCLES, channel_cycles, line_cycles
from graphc.schedule.spaced_loads import spaced_cycles
from graphc.schedule.target import Target

MOST_POSITIONS = 16             # of a window, each of which is a slice of its own


@dataclass(frozen=True)
class SpellPools(Pass):
    """max_pool(x) -> maximum(x[first of each window], x[second of each window], …), of a padded image where windows
    reach outside; where no image beside it is a convolution's, and that takes fewer cycles than to turn the image, to
    walk over windows by channels, and to turn the result, or than to walk line by line.

    Needs static sizes, a decomposed graph. Gives slices, which are views, and maxima; the same bits. Stands before
    fusion, which takes these into its loop nests, and before images are given their order.
    """
    target: Target
    name: ClassVar[str] = "spell_pools"

    def run(self, graph: Graph) -> Graph:
        pools = {n: n.op for n in graph.nodes if isinstance(n.op, MaxPool) and self._pays(n, n.op)}
        readers = users(graph) if pools else {}
        spelled = {n: op for n, op in pools.items() if _is_alone(n, readers)}
        return rewritten(graph, spelled, lambda w, node: [maxima(w, spelled[node], w[node.inputs[0]])])

    def _pays(self, node: Node, op: MaxPool) -> bool:
        x, y = node.inputs[0].type, node.outputs[0].type
        sizes = (*x.shape, *y.shape)
        if not all(isinstance(n, int) for n in sizes) or 0 in sizes or prod(op.kernel) > MOST_POSITIONS:
            return False
        return self._straight(op, x, y) < min(cycles(op, x, y, self.target) for cycles in (channel_cycles, line_cycles))

    def _straight(self, op: MaxPool, x: TensorType, y: TensorType) -> float:
        """Cycles of vectors along the last axis, and of what is left of each line."""
        machine, lanes, step = self.target.machine, self.target.lanes(x.dtype.itemsize), op.stride[-1]
        whole, rest = divmod(typical(y.shape[-1]), lanes)
        each, last = (spaced_cycles(step, lanes, machine, count) + machine.vector_op_cycles for count in (lanes, rest))
        line = LINE_CYCLES + prod(op.kernel) * (whole * each + (last if rest else 0))
        padded = 2 * typical(x.nbytes) / machine.l3_bytes_per_cycle if _reaches_outside(op, x, y) else 0
        return typical(y.size) / typical(y.shape[-1]) * line + padded


def maxima(b: Builder, op: MaxPool, x: Value) -> Value:
    """The maximum of each window, in the order of its positions."""
    sizes, out = x.type.shape, op.output_shape(x.type.shape)
    frame = op.frame(*(static_shape(shape[FIRST_SPATIAL_AXIS:]) for shape in (sizes, out)))
    if any(map(any, frame)):
        low, high = ((0, 0, *(pair[side] for pair in frame)) for side in range(2))
        dtype = x.type.dtype
        x = b.pad(x, low=low, high=high, value=-inf if dtype.is_float else dtype.range[0])
    result = None
    for at in product(*map(range, op.kernel)):
        first = [k * d for k, d in zip(at, op.dilation)]
        stop = [i + (n - 1) * step + 1 for i, n, step in zip(first, out[FIRST_SPATIAL_AXIS:], op.stride)]
        part = b.slice(x, start=(0, 0, *first), stop=(*sizes[:FIRST_SPATIAL_AXIS], *stop), step=(1, 1, *op.stride))
        result = part if result is None else b.apply(MAXIMUM, [result, part])[0]
    assert result is not None           # a window has a position
    return result


def _reaches_outside(op: MaxPool, x: TensorType, y: TensorType) -> bool:
    return op.reaches_outside(x.shape[FIRST_SPATIAL_AXIS:], y.shape[FIRST_SPATIAL_AXIS:])


def _is_alone(pool: Node, readers: Mapping[Value, list[Node]]) -> bool:
    """Whether no operator on images but max pooling is joined to the pool by elementwise work."""
    seen, waiting = {pool}, [pool]
    while waiting:
        for node in _joined(waiting.pop(), readers):
            if node.op.images and not isinstance(node.op, MaxPool):
                return False
            if node not in seen and (node.op.images or isinstance(node.op, (Elementwise, Pad))):
                seen.add(node)
                waiting.append(node)
    return True


def _joined(node: Node, readers: Mapping[Value, list[Node]]) -> Iterator[Node]:
    yield from (v.node for v in node.inputs if v.node is not None)
    for v in (*node.inputs, *node.outputs):
        yield from readers.get(v, ())
