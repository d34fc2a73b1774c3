"""`compute="bf16"`: products of factors that are rounded to bf16, which add up in f32."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from math import prod
from typing import cast

import numpy as np

from graphc.codegen.llvm.host import REFUSED, refuses_matrices
from graphc.config import config
from graphc.errors import InternalError
from graphc.ir.builder import Builder, Rewriter
from graphc.ir.dims import typical
from graphc.ir.graph import Graph, Node, NodeOf, Value, regions, users
from graphc.ir.op import Op
from graphc.ir.ops.attention import AttentionOp
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.control import Scan
from graphc.ir.ops.conv import Conv, ConvOp, ConvTranspose
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.ops.elementwise import COPY
from graphc.ir.ops.remat import Remat
from graphc.ir.ops.shape import Reshape, Transpose
from graphc.ir.types import bf16, bool_, f32
from graphc.passes.pack_factors import conv_terms_pair
from graphc.passes.winograd import faster_by_tiles
from graphc.product_rewriter import WEIGHTS, ProductError, ProductRewriter, WeightProduct, difference
from graphc.records import dataclass
from graphc.schedule.group_images import is_read_narrow
from graphc.schedule.target import Target
from graphc.schedule.widening_cost import is_read_faster_narrow

NO_PAIRS = "this CPU has no instruction for products of bf16"
WIDENED = "factors are rounded and multiplied in f32; those of few sums are stored in bf16"
SLOW_PAIRS = "this CPU's instruction for products of bf16 takes longer than f32's"


@dataclass
class Bf16Products(ProductRewriter):
    """Products (matmul, einsum) everywhere, attention, convolutions and the gradients of both where that is faster.
    `by_tiles`: convolutions that Winograd's form in f32 makes faster still. `rounded_images`: those in groups of which
    the image alone is rounded, by the kernel that makes it: half as many bytes are written and read."""
    by_tiles: set[Node] = field(default_factory=set)
    rounded_images: set[Node] = field(default_factory=set)

    def is_product(self, node: Node) -> bool:
        return isinstance(node.op, LabelledProduct | ConvOp | ConvTranspose | AttentionOp) and all(
            v.type.dtype in (f32, bool_) for v in (*node.inputs, *node.outputs))

    def why_not(self, node: Node, place: int | None) -> str:
        conv = _as_conv(node)
        if self._no_pairs and (conv is not None or isinstance(node.op, AttentionOp)):
            return self._no_pairs
        if conv is None:
            return ""
        if conv.op.groups != 1:
            return "" if node in self.rounded_images else "a convolution in groups"
        if not conv_terms_pair(conv, conv.op):
            return "there is one term along the axis that pairs are made along, or it is not known how many"
        return "Winograd's form in f32 is faster" if node in self.by_tiles else ""

    def replaced(self, w: Rewriter, product: WeightProduct) -> Sequence[Value]:
        node = product.node
        if isinstance(node.op, AttentionOp):
            return w.apply(node.op.replace(factors=bf16), [w[v] for v in node.inputs])
        if node in self.rounded_images:
            return with_rounded_image(w, node)
        return w.apply(node.op, [_round(w, w[v], self._is_read_narrow(node, i)) for i, v in enumerate(node.inputs)])

    def _is_read_narrow(self, node: Node, operand: int) -> bool:
        """Whether a product reads its operand as bf16, and not the rounded numbers as f32."""
        return self.target.multiplies_pairs or is_read_faster_narrow(_uses(node, operand), self.target)

    def error(self, p: WeightProduct, state: Mapping[Value, np.ndarray]) -> ProductError:
        if p.place is None or p.node in self.rounded_images:
            return ProductError(p.name, p.text, bf16.bits, bf16.name, of="")
        weights = self.numbers(p.weights, state)
        rounded = weights.astype(bf16.np).astype(np.float32)
        return ProductError(p.name, p.text, bf16.bits, bf16.name, *difference(rounded, weights), WEIGHTS)

    @property
    def remark(self) -> str:
        is_stored = self._no_pairs and not all(p.why_not for p in self.found)
        stored = f"{self._no_pairs}: {WIDENED}" if is_stored else ""
        return "\n".join(filter(None, (stored, REFUSED if refuses_matrices() else "")))

    @property
    def _no_pairs(self) -> str:
        """Why numbers of bf16 are not multiplied in pairs; "" if they are."""
        if self.target.multiplies_pairs:
            return ""
        return SLOW_PAIRS if self.target.has_bf16_dot else NO_PAIRS

    def rewritten(self, graph: Graph, known: Mapping[Value, str], inner: bool) -> Graph:
        if config().winograd:
            self.by_tiles |= faster_by_tiles(graph, self.target)
        self.rounded_images |= rounded_images(graph, self.target)
        return super().rewritten(graph, known, inner)

    def with_bodies(self, node: Node, lasting: Mapping[Value, str], inner: bool) -> Op | None:
        """Of all loops and branches. Gradients of one's own (custom_vjp) have been inlined, or belong to a function
        that is not differentiated here."""
        if isinstance(node.op, Scan | Remat | CustomVjp):
            return super().with_bodies(node, lasting, inner)
        bodies = {name: self.rewritten(body, {}, True) for name, body in regions(node.op)}
        return node.op.replace(**bodies) if bodies else None


def _as_conv(node: Node) -> NodeOf[ConvOp] | None:
    """The convolution that the node is; None if it is none."""
    if isinstance(node.op, ConvTranspose):
        b = Builder()
        node.op.decompose(b, *(b.input(name, v.type) for name, v in zip("xw", node.inputs)))
        node = b.nodes[0]
    return cast(NodeOf[ConvOp], node) if isinstance(node.op, ConvOp) else None


def _uses(node: Node, operand: int) -> int:
    """How many sums each number of an operand goes into."""
    if not isinstance(node.op, LabelledProduct):
        raise InternalError(f"{node.op.name} is no product of two arrays", "compute")
    *labels, out = node.op.labels(*(v.type.rank for v in node.inputs))
    return prod([typical(size) for label, size in zip(out, node.outputs[0].type.shape) if label not in labels[operand]])


def _round(w: Rewriter, v: Value, narrow: bool) -> Value:
    """v as it is after rounding; narrow: products read it as bf16. What a view shows is rounded where it lies: a weight
    that is read transposed, or repeated, stays as it is in memory. An array that is transposed and then reshaped is a
    copy: rounding makes it."""
    views: list[Op] = []
    while v.node is not None and v.node.op.is_whole_view:
        views.append(v.node.op)
        v, = v.node.inputs
        if isinstance(views[-1], Reshape) and _is_transposed(v):
            break
    v = w.cast(w.cast(v, dtype=bf16), dtype=f32)
    v = v if narrow else w.apply(COPY, (v,))[0]        # which `read_stored` does not look through
    for op in reversed(views):
        v, = w.apply(op, (v,))
    return v


def _is_transposed(v: Value) -> bool:
    """Whether it shows axes in another order, and is no reshaped array itself."""
    while v.node is not None and v.node.op.is_whole_view and not isinstance(v.node.op, Reshape):
        if isinstance(v.node.op, Transpose) and v.node.op.perm != tuple(range(v.type.rank)):
            return True
        v, = v.node.inputs
    return False


def with_rounded_image(w: Rewriter, node: Node) -> Sequence[Value]:
    """The convolution of an image that is kept as bf16."""
    image, weights = node.inputs
    return w.apply(node.op, [_round(w, w[image], True), w[weights]])


def rounded_images(graph: Graph, target: Target) -> set[Node]:
    """Convolutions in groups whose image is computed element by element, for them alone, and read faster as bf16: what
    computes it writes half as many bytes, and no array is made."""
    readers, results = users(graph), {*graph.results}
    return {node for node in graph.nodes if isinstance(node.op, Conv) and node.op.groups > 1
            and (x := node.inputs[0]).node is not None and x.node.op.is_elementwise
            and readers[x] == [node] and x not in results
            and is_read_narrow(node.op, x.type, node.inputs[1].type, target, True)}
