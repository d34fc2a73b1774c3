"""The zeros around the image of a convolution become part of the image in memory."""
from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeGuard

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim, largest
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.image import FIRST_SPATIAL_AXIS, spatial_axes
from graphc.ir.op import Op
from graphc.ir.ops.conv import ConvInputGrad, ConvOp
from graphc.ir.ops.elementwise import Cast, Elementwise
from graphc.ir.ops.packed import Pack, PackPair
from graphc.ir.ops.shape import Transpose
from graphc.ir.ops.sliding import Pads
from graphc.ir.types import bf16, bf16x2
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


Ends = tuple[int, ...]


@dataclass(frozen=True)
class MaterializePadding(Pass):
    """conv(x, padding) -> conv(pad(x)), and likewise for both gradients, where x is computed element by element in
    this graph.

    Such a value can be written into the middle of the padded image (`buffer_aliasing.py`), zeros around it by the same
    kernel, where a convolution would copy the whole image (`contract_form.PaddedCopy`), and its gradient again. Each
    image is padded once; convolutions that need different padding still copy. Needs bound dimensions; stands before
    fusion, since a convolution's operand changes.
    """
    name: ClassVar[str] = "materialize_padding"

    def run(self, graph: Graph) -> Graph:
        results = set(graph.results)
        w = Rewriter(graph)
        framed: dict[Value, tuple[tuple[Ends, ...], Value]] = {}
        for node in graph.nodes:
            wanted = _frame(node)
            if not wanted or not _may_be_framed((seen := _made(node.inputs[wanted[0]])).source, results):
                w.keep(node)
                continue
            operand, frame = wanted
            ends = tuple([seen.ends(frame, end) for end in (0, 1)])
            with w.at(node.loc, node.scope):
                if seen.source not in framed:
                    framed[seen.source] = ends, w.pad(w[seen.source], low=ends[0], high=ends[1])
                if framed[seen.source][0] != ends:
                    w.keep(node)
                    continue
                image = framed[seen.source][1]
                for op in seen.views:
                    image, = w.apply(op, (image,))
                operands = [image if i == operand else w[v] for i, v in enumerate(node.inputs)]
                w.replace(node, w.apply(node.op.replace(padding=_padding_left(node, frame)), operands))
        return w.done() if framed else graph


def _frame(node: Node) -> tuple[int, Pads] | None:
    """Which operand of a convolution is read outside of its image, and how far; None where none is, or where that comes
    with the call."""
    if not isinstance(node.op, ConvOp) or node.op.images is None:
        return None
    is_gradient = isinstance(node.op, ConvInputGrad)
    frame = tuple(_reach(*along) for along in _axes(node.op, node)) if is_gradient else node.op.padding
    return (node.op.images.operands[0], frame) if _is_known(frame) and any(map(any, frame)) else None


def _is_known(frame: tuple[tuple[Dim, Dim], ...]) -> TypeGuard[Pads]:
    return all(isinstance(n, int) for along in frame for n in along)


def _axes(op: ConvOp, node: Node) -> Iterator[tuple[Dim, Dim, Dim, int, int, int]]:
    """Of an input gradient, for each axis: sizes of x, w and dy, stride, dilation, padding before."""
    x, w, dy = (v.type.shape for v in op.parts(node))
    for i, axis in enumerate(spatial_axes(len(x))):
        yield x[axis], w[axis], dy[axis], op.stride[i], op.dilation[i], op.padding[i][0]


def _reach(x: Dim, kernel: Dim, dy: Dim, stride: int, dilation: int, before: int) -> tuple[Dim, Dim]:
    """How far dx[i] = sum over k of dy[(i + before - k * dilation) / stride] * w[k] reads outside of dy, at either end.
    """
    first, last = -((dilation * (kernel - 1) - before) // stride), (x - 1 + before) // stride
    return largest(0, -first), largest(0, last - (dy - 1))


def _padding_left(node: Node, frame: Pads) -> Pads:
    """The padding of the operator whose image has its frame already: of an input gradient, that of the larger dy."""
    if not isinstance(node.op, ConvInputGrad):
        return ((0, 0),) * len(frame)
    return tuple((low + s * f[0], high + s * f[1]) for (low, high), s, f in zip(node.op.padding, node.op.stride, frame))


@dataclass(frozen=True)
class Seen:
    """What an image is made of: an array, the views through which it is seen, and which of the array's axes each of its
    own is."""
    source: Value
    views: tuple[Op, ...]
    axes: tuple[int, ...]

    def ends(self, frame: Pads, end: int) -> Ends:
        """How much comes before (0) or after (1) each axis of the array."""
        found = [0] * len(self.axes)
        for axis, pair in enumerate(frame, FIRST_SPATIAL_AXIS):
            found[self.axes[axis]] = pair[end]
        return tuple(found)


def _made(v: Value) -> Seen:
    """Of an image whose numbers are read two at a time, which lie as they do without; of others nothing is looked
    through. `PackFactors` has framed images of bytes itself, where nothing else is made of what computes them."""
    views, x = list[Op](), v
    axes = alone = tuple(range(v.type.rank))
    while x.node is not None and isinstance(x.node.op, Transpose | Pack):
        if isinstance(x.node.op, Transpose):
            axes = tuple([x.node.op.perm[axis] for axis in axes])
        views.append(x.node.op)
        x, = x.node.inputs
    is_paired = x.type.dtype is bf16 and v.type.dtype is bf16x2
    return Seen(x, tuple(reversed(views)), axes) if is_paired else Seen(v, (), alone)


def _may_be_framed(x: Value, results: set[Value]) -> bool:
    """Whether the image is computed element by element, and its memory is not decided elsewhere."""
    return (x.node is not None and isinstance(x.node.op, Elementwise | Cast | PackPair) and x not in results
            and bool(x.type.size))
