"""`compute="int8"`: products of weights and activations as 8-bit integers, which add up in i32."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc.codegen.llvm.host import host_target
from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim, Dims, typical
from graphc.ir.graph import Graph, Node, Value, regions
from graphc.ir.image import FIRST_SPATIAL_AXIS
from graphc.ir.op import Op
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.control import Scan
from graphc.ir.ops.conv import Conv
from graphc.ir.ops.remat import Remat
from graphc.ir.stored import node_reference
from graphc.ir.types import DType, f32, i8, i32, u8
from graphc.passes.pack_factors import spread
from graphc.schedule.target import Target

MOST = 127                      # the largest number of a channel or row becomes this
TINY = 1e-30                    # the largest number counts as that at least: a row of zeros
# Activations are read and written once more to be quantised: what fewer columns, or sums of fewer terms, gain is less
LEAST_COLUMNS = LEAST_TERMS = 16
LEAST_CHANNELS = 4
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


@dataclass(frozen=True)
class WeightProduct:
    """A product of f32 in a graph. name: that of its weights, with a number where they are used again, or of the layer.
    place: which operand is the weights; None: none is. why_not: the reason for which it stays in f32. inner: it is in a
    loop."""
    name: str
    node: Node
    place: int | None
    why_not: str = ""
    inner: bool = False

    @property
    def text(self) -> str:
        return f"{self.node.op.name} {' x '.join(str(v.type) for v in self.node.inputs)}"

    @property
    def weights(self) -> Value:
        return self.node.inputs[self.place or 0]

    @property
    def activations(self) -> Value:
        return self.node.inputs[1 - (self.place or 0)]

    def summed(self, operand: int) -> tuple[int, ...]:
        """The axes of an operand that are summed over, and those of an image that have a scale in common."""
        return _axes(self.node, operand)


@dataclass
class ProductQuantizer:
    """Rewrites graphs; `found`: the products that it saw. `fixed`: ranges of activations by the names of products;
    others are quantised by their largest number in each row, or image. `straight_through`: products stay f32, of
    factors as they are after rounding, through which gradients go. `outer`: what inputs of bodies are outside."""
    target: Target
    fixed: Mapping[str, Activations] = field(default_factory=dict)
    found: list[WeightProduct] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    outer: dict[Value, Value] = field(default_factory=dict)
    straight_through: bool = False

    def whole(self, graph: Graph) -> Graph:
        return self._rewritten(graph, {v: v.name for v, new in zip(graph.state, graph.updates) if new is None}, False)

    def _rewritten(self, graph: Graph, known: Mapping[Value, str], inner: bool) -> Graph:
        w, lasting = Rewriter(graph), dict(known)
        for node in graph.nodes:
            names = [lasting.get(v) for v in node.inputs]
            if _is_lasting(node, names):
                lasting.update(dict.fromkeys(node.outputs, next(filter(None, names))))
            with w.at(node.loc, node.scope):
                if _is_product(node):
                    product = self._product(node, names, inner)
                    self.found.append(product)
                    if not product.why_not:
                        w.replace(node, [_rounded(w, product) if self.straight_through else
                                         _quantised(w, product, self.fixed.get(product.name))])
                        continue
                w.keep(node, self._with_bodies(node, lasting, inner))
        return w.done()

    def _product(self, node: Node, names: Sequence[str | None], inner: bool) -> WeightProduct:
        places = [i for i, name in enumerate(names) if name]
        place = places[0] if len(places) == 1 else None
        name = (names[place] if place is not None else None) or node.scope or node.op.name
        self.names[name] += 1
        if self.names[name] > 1:
            name = f"{name}#{self.names[name]}"
        return WeightProduct(name, node, place, _why_not(node, place, self.target), inner)

    def _with_bodies(self, node: Node, lasting: Mapping[Value, str], inner: bool) -> Op | None:
        if not isinstance(node.op, Scan | Remat):
            return None
        is_loop, body = isinstance(node.op, Scan), node.op.body
        first = node.op.carries + node.op.xs if isinstance(node.op, Scan) else 0
        known = {}
        for inside, v in zip(body.inputs[first:], node.inputs[first:], strict=True):
            self.outer[inside] = v
            if v in lasting:
                known[inside] = lasting[v]
        return node.op.replace(body=self._rewritten(body, known, inner or is_loop))

    def numbers(self, v: Value, state: Mapping[Value, np.ndarray]) -> np.ndarray:
        """What a lasting value is, of these arrays of the state."""
        v = self.outer.get(v, v)
        if v in state or v.node is None:
            return state[v]
        at = v.node.outputs.index(v)
        return node_reference(v.node, [self.numbers(i, state) for i in v.node.inputs])[at]


def _is_lasting(node: Node, names: Sequence[str | None]) -> bool:
    """Whether it depends on weights alone, and numbers."""
    return any(names) and not regions(node.op) and not node.op.may_fail and all(
        name or v.node is not None and isinstance(v.node.op, Constant) for name, v in zip(names, node.inputs))


def _is_product(node: Node) -> bool:
    return isinstance(node.op, LabelledProduct | Conv) and all(
        v.type.dtype is f32 for v in (*node.inputs, *node.outputs))


def _why_not(node: Node, place: int | None, target: Target) -> str:
    """Why a product stays in f32; "" if it does not."""
    if place is None:
        return "no factor is a weight alone"
    if isinstance(node.op, Conv) and (place != 1 or node.op.groups != 1):
        return "a convolution in groups"
    axes = _axes(node, place)
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


def _axes(node: Node, operand: int) -> tuple[int, ...]:
    rank = node.inputs[operand].type.rank
    if not isinstance(node.op, LabelledProduct):
        return tuple(range(1, rank))
    x, y, out = node.op.labels(*(v.type.rank for v in node.inputs))
    return tuple(i for i, label in enumerate((x, y)[operand]) if label not in out)


def _quantised(w: Rewriter, product: WeightProduct, fixed: Activations | None) -> Value:
    """The product of integers, times the scales."""
    node, place = product.node, product.place or 0
    factors: list[Value] = [w[v] for v in node.inputs]
    scales: list[Value | None] = [None, None]
    for i in range(2):
        if i == place or fixed is None:
            factors[i], scales[i] = _by_largest(w, factors[i], product.summed(i), i == place)
        else:
            factors[i] = w.cast(w.round(w.mul(factors[i], 1 / fixed.scale)), dtype=fixed.dtype)
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
        codes, scale = _by_largest(w, fixed, product.summed(i), i == (product.place or 0))
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
    summed = _axes(node, operand)
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
