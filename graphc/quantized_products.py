"""`compute="int8"`: products of weights and activations as 8-bit integers, which add up in i32."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

import numpy as np

from graphc.bf16_products import rounded_images, with_rounded_image
from graphc.codegen.llvm.host import REFUSED, host_target, refuses_matrices
from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim, Dims, typical
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.conv import Conv
from graphc.ir.ops.window import MaxPool
from graphc.ir.types import DType, bf16, f32, i8, i32, u8
from graphc.passes.pack_factors import spread
from graphc.product_rewriter import RESULTS, ProductError, ProductRewriter, WeightProduct, difference, product_axes
from graphc.records import dataclass
from graphc.schedule.target import Target

MOST = 127                      # the largest number of a channel or row becomes this
TINY = 1e-30                    # the largest number counts as that at least: a row of zeros
# Activations are read and written once more to be quantised: what fewer columns, or sums of fewer terms, gain is less
LEAST_COLUMNS = LEAST_TERMS = 16
LEAST_CHANNELS = 3
GAINING = ("+avx512vnni", "+avxvnni", "+avx2", "+sse2", "+dotprod")     # features of targets that gain anything
NO_INSTRUCTIONS = "this CPU has no instructions for products of bytes"


@dataclass(frozen=True)
class Activations:
    """The range in which activations are quantised, alike in all calls. 0 is in it. largest, relative: the largest
    error of the product on data, and the norm of its errors as a share of its norm."""
    low: float
    high: float
    largest: float = 0.0
    relative: float = 0.0

    @property
    def dtype(self) -> DType:
        return i8 if self.low < 0 else u8

    @property
    def scale(self) -> float:
        """What a step of the integers stands for."""
        return max(-self.low, self.high, TINY) / (MOST if self.low < 0 else 255)

    def integers(self, w: Rewriter, x: Value) -> Value:
        return w.cast(w.round(w.mul(x, 1 / self.scale)), dtype=self.dtype)

    def codes(self, x: np.ndarray) -> np.ndarray:
        """The integers, as f32."""
        low, high = self.dtype.range
        return np.clip(np.rint(x * np.float32(1 / self.scale)), low, high).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """The ranges of activations by the names of products, as `gc.calibrate` finds them: `compute=` of gc.compile and
    gc.plan takes it."""
    method: str
    ranges: Mapping[str, Activations]

    def __repr__(self) -> str:
        return f"<calibration of {len(self.ranges)} products by {self.method}>"


@dataclass
class ProductQuantizer(ProductRewriter):
    """`fixed`: ranges of activations by the names of products; others are quantised by their largest number in each
    row, or image. `straight_through`: products stay f32, of factors as they are after rounding, through which gradients
    go. codes: the integers of activations in their ranges, of those that are quantised so far. `rounded_images`:
    convolutions in groups whose image is kept as bf16: more exact than the integers, and half as many bytes as f32."""
    fixed: Mapping[str, Activations] = field(default_factory=dict)
    straight_through: bool = False
    codes: dict[tuple[Value, Activations], Value] = field(default_factory=dict)
    rounded_images: set[Node] = field(default_factory=set)

    def why_not(self, node: Node, place: int | None) -> str:
        return _why_not(node, place, self.target) + f", whose image is kept as {bf16}" * (node in self.rounded_images)

    def left_as_f32(self, w: Rewriter, node: Node) -> Sequence[Value] | None:
        return with_rounded_image(w, node) if node in self.rounded_images else None

    def rewritten(self, graph: Graph, known: Mapping[Value, str], inner: bool) -> Graph:
        if self.target.rounds_to_bf16(self.target.lanes(f32.itemsize)) and not self.straight_through:
            self.rounded_images |= rounded_images(graph, self.target)
        return super().rewritten(graph, known, inner)

    @property
    def remark(self) -> str:
        return REFUSED if refuses_matrices() else ""

    def replaced(self, w: Rewriter, product: WeightProduct) -> Sequence[Value]:
        if self.straight_through:
            return [_rounded(w, product)]
        fixed = self.fixed.get(product.name)
        if fixed is None:
            return [_quantised(w, product)]
        scale = replace(fixed, largest=0.0, relative=0.0)       # the same for all products that read them
        codes = self._codes(w, product.activations, scale)
        if isinstance(product.node.op, Conv) and product.activations not in w.old.outputs:
            # what is added to the results of later convolutions need not be kept in f32 besides
            w.map[product.activations] = w.mul(w.cast(codes, dtype=f32), scale.scale)
        return [_quantised(w, product, scale, codes)]

    def _codes(self, w: Rewriter, v: Value, scale: Activations) -> Value:
        """The integers of activations; the largest of windows are those of the largest numbers."""
        if (v, scale) not in self.codes:
            pool = v.node if v.node is not None and isinstance(v.node.op, MaxPool) else None
            codes = (scale.integers(w, w[v]) if pool is None else
                     w.apply(pool.op, (self._codes(w, pool.inputs[0], scale),))[0])
            self.codes[v, scale] = codes
        return self.codes[v, scale]

    def error(self, p: WeightProduct, state: Mapping[Value, np.ndarray]) -> ProductError:
        fixed = self.fixed.get(p.name)
        if fixed is not None:
            how = f"{fixed.dtype} of {fixed.low:.4g} … {fixed.high:.4g}"
            return ProductError(p.name, p.text, 8, how, fixed.largest, fixed.relative, RESULTS)
        weights, axes = self.numbers(p.weights, state), product_axes(p.node, p.place or 0)
        scale = np.maximum(np.abs(weights).max(axis=axes, keepdims=True), np.float32(TINY)) / np.float32(MOST)
        with np.errstate(invalid="ignore"):         # weights that are not finite: so are their errors
            return ProductError(p.name, p.text, 8, "i8 by row", *difference(np.rint(weights / scale) * scale, weights))


def _why_not(node: Node, place: int | None, target: Target) -> str:
    """Why a product stays in f32; "" if it does not."""
    if place is None:
        return "no factor is a weight alone"
    if isinstance(node.op, Conv) and (place != 1 or node.op.groups != 1):
        return "a convolution in groups"
    axes = product_axes(node, place)
    sizes = node.inputs[place].type.shape
    terms, columns = (_count(sizes, chosen) for chosen in (axes, set(range(len(sizes))) - set(axes)))
    if not axes:
        return "nothing is summed"
    if terms < LEAST_TERMS or columns < LEAST_COLUMNS:
        return f"{columns} columns of sums of {terms} terms gain nothing"
    if isinstance(node.op, Conv) and typical(sizes[FIRST_SPATIAL_AXIS - 1]) < LEAST_CHANNELS:
        return f"{sizes[FIRST_SPATIAL_AXIS - 1]} channels do not fill an element of four"
    if not any(feature in target.features.split(",") for feature in GAINING):
        return NO_INSTRUCTIONS
    if isinstance(node.op, Conv) and _is_winograd(node) and not target.byte_dots(8 * target.vector_bytes):
        return "Winograd's form in f32 is as fast"
    return ""


def _is_winograd(node: Node) -> bool:
    """Whether a convolution has kernels of 3 × 3 that meet every element."""
    op, kernel = node.op, node.inputs[1].type.shape[FIRST_SPATIAL_AXIS:]
    return isinstance(op, Conv) and kernel == (3, 3) and {*op.stride, *op.dilation} == {1}


def _count(sizes: Dims, axes: Iterable[int]) -> int:
    return int(np.prod([typical(sizes[i]) for i in axes], dtype=np.int64))


def _quantised(w: Rewriter, product: WeightProduct, fixed: Activations | None = None, codes: Value | None = None
               ) -> Value:
    """The product of integers, times the scales. codes: of activations in a fixed range."""
    node, place = product.node, product.place or 0
    factors: list[Value] = [w[v] for v in node.inputs]
    scales: list[Value | None] = [None, None]
    for i in range(2):
        if i == place or fixed is None:
            factors[i], scales[i] = _by_largest(w, factors[i], product_axes(node, i), i == place)
        else:
            factors[i] = fixed.integers(w, factors[i]) if codes is None else codes
    y, = w.apply(node.op.replace(dtype=i32), factors)
    y = w.cast(y, dtype=f32)
    if fixed is not None and (own := scales[place]) is not None:
        scales[place] = w.mul(own, fixed.scale)
    for i in (1 - place, place):            # weights last: activations have fewer axes in common with the result
        if (scale := scales[i]) is not None:
            y = w.mul(y, _along_result(w, node, i, scale))
    return y


def _rounded(w: Rewriter, product: WeightProduct) -> Value:
    """The product of what the factors are after rounding to integers; each factor's gradient is that of the rounded
    one."""
    factors = []
    for i, v in enumerate(product.node.inputs):
        fixed = w.stop_gradient(w[v])
        codes, scale = _by_largest(w, fixed, product_axes(product.node, i), i == (product.place or 0))
        factors.append(w.add(w.sub(w[v], fixed), w.mul(w.cast(codes, dtype=f32), scale)))   # 0 with the gradient 1
    return w.apply(product.node.op, factors)[0]


def _by_largest(w: Rewriter, v: Value, axes: tuple[int, ...], exact: bool) -> tuple[Value, Value]:
    """Integers, and the scale for all elements along these axes, of size 1 there. exact: by division, as weights are,
    once; else times the reciprocal."""
    largest = w.maximum(w.max(w.abs(v), axes=axes, keepdims=True), TINY)
    scale = w.div(largest, float(MOST))
    steps = w.div(v, scale) if exact else w.mul(v, w.div(w.constant(float(MOST), f32), largest))
    return w.cast(w.round(steps), dtype=i8), scale


def _along_result(w: Rewriter, node: Node, operand: int, scale: Value) -> Value:
    """The scale of an operand with its axes where the result has them."""
    rank = node.outputs[0].type.rank
    if not isinstance(node.op, LabelledProduct):
        shape: list[Dim] = [1] * rank
        shape[operand] = scale.type.shape[0]
        return w.reshape(scale, shape=tuple(shape))
    labels = node.op.labels(*(v.type.rank for v in node.inputs))
    summed = product_axes(node, operand)
    own = [label for i, label in enumerate(labels[operand]) if i not in summed]
    kept = tuple(d for i, d in enumerate(scale.type.shape) if i not in summed)
    return spread(w, w.reshape(scale, shape=kept), own, labels[2])


def with_errors(graph: Graph, products: Sequence[WeightProduct], ranges: Mapping[str, Activations]) -> Graph:
    """The graph that gives for each of its products, of exact activations, the sum of the squares of the errors of
    integers, their largest, and the sum of the squares of the results."""
    w, chosen, outputs = Rewriter(graph), {p.node: p for p in products}, list[Value]()
    for node in graph.nodes:
        y = w.keep(node)[0]
        if node in chosen:
            with w.at(node.loc, node.scope):
                error = w.sub(_quantised(w, chosen[node], ranges[chosen[node].name]), y)
                axes = tuple(range(y.type.rank))
                outputs += [w.sum(w.mul(error, error), axes=axes), w.max(w.abs(error), axes=axes),
                            w.sum(w.mul(y, y), axes=axes)]
    return w.finish(outputs, ("",) * len(outputs))


def products_of(graph: Graph) -> list[WeightProduct]:
    """All products of f32 in the graph, and in its loops, on this machine."""
    quantizer = ProductQuantizer(host_target())
    quantizer.whole(graph)
    return quantizer.found
