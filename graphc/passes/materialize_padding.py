"""The zeros around the image of a convolution become part of the image in memory."""
from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeGuard

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim, largest
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.image import FIRST_SPATIAL_AXIS, spatial_axes
from graphc.ir.ops.conv import ConvInputGrad, ConvOp
from graphc.ir.ops.elementwise import Cast, Elementwise
from graphc.ir.ops.sliding import Pads
from graphc.passes.pipeline import Pass
from graphc.records import dataclass


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
        framed: dict[Value, tuple[Pads, Value]] = {}
        for node in graph.nodes:
            wanted = _frame(node)
            if not wanted or not _may_be_framed(node.inputs[wanted[0]], results):
                w.keep(node)
                continue
            operand, frame = wanted
            x = node.inputs[operand]
            with w.at(node.loc, node.scope):
                if x not in framed:
                    framed[x] = frame, w.pad(w[x], low=_ends(frame, 0), high=_ends(frame, 1))
                if framed[x][0] != frame:
                    w.keep(node)
                    continue
                operands = [framed[x][1] if i == operand else w[v] for i, v in enumerate(node.inputs)]
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


def _may_be_framed(x: Value, results: set[Value]) -> bool:
    """Whether the image is computed element by element, and its memory is not decided elsewhere."""
    return x.node is not None and isinstance(x.node.op, Elementwise | Cast) and x not in results and bool(x.type.size)


def _ends(frame: Pads, end: int) -> tuple[int, ...]:
    return (0,) * FIRST_SPATIAL_AXIS + tuple(pair[end] for pair in frame)
