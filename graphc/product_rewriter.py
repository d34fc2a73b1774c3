"""Products of f32 in a graph become products of smaller numbers: what `compute="bf16"` and `compute="int8"` share."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np

from graphc.errors import InternalError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, regions
from graphc.ir.op import Op
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.control import Scan
from graphc.ir.ops.conv import Conv
from graphc.ir.ops.remat import Remat
from graphc.ir.stored import node_reference
from graphc.ir.types import f32
from graphc.records import dataclass
from graphc.schedule.target import Target

F32_BITS = 32
WEIGHTS, RESULTS = "weights", "results"         # of what errors are told
TINY_NORM = 1e-30


@dataclass(frozen=True)
class ProductError:
    """A product of f32 in a network. bits: of its factors, 8, 16 or 32; activations: how they are rounded; largest,
    relative: the largest error and the norm of the errors as a share of the norm, `of` its weights, or of its results
    on the first batch of a calibration ("": they are not known); why_not: the reason for which it stays in f32."""
    name: str
    product: str
    bits: int
    activations: str = ""
    largest: float = 0.0
    relative: float = 0.0
    of: str = WEIGHTS
    why_not: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        known = self.bits < F32_BITS and self.of
        errors = (f"{self.largest:.2e}", f"{self.relative:.2e}", self.of) if known else ("",) * 3
        return self.name, self.product, str(self.bits), self.activations or self.why_not, *errors


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


@dataclass
class ProductRewriter:
    """Rewrites graphs; `found`: the products that it saw. `outer`: what inputs of bodies are outside."""
    target: Target
    found: list[WeightProduct] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    outer: dict[Value, Value] = field(default_factory=dict)

    def is_product(self, node: Node) -> bool:
        """Whether this class looks at the node."""
        return isinstance(node.op, LabelledProduct | Conv) and all(
            v.type.dtype is f32 for v in (*node.inputs, *node.outputs))

    def why_not(self, node: Node, place: int | None) -> str:
        """Why a product stays in f32; "" if it does not."""
        raise InternalError(f"{type(self).__name__} does not say what stays in f32", "compute")

    def replaced(self, w: Rewriter, product: WeightProduct) -> Sequence[Value]:
        """The results of the product of smaller numbers."""
        raise InternalError(f"{type(self).__name__} does not say what becomes of products", "compute")

    def left_as_f32(self, w: Rewriter, node: Node) -> Sequence[Value] | None:
        """The results of a product that stays in f32; None: it stays as it is."""
        return None

    def error(self, p: WeightProduct, state: Mapping[Value, np.ndarray]) -> ProductError:
        """What a product that does not stay in f32 lost, with these arrays of the state."""
        raise InternalError(f"{type(self).__name__} does not tell errors", "compute")

    @property
    def remark(self) -> str:
        """What `explain` says of all products."""
        return ""

    @property
    def left(self) -> str:
        """The products that stay in f32, and why, and what holds for all, for `explain`."""
        rows = [f"{p.name}: {p.text} stays f32: {p.why_not}" for p in self.found if p.why_not]
        return "\n".join(filter(None, (*rows, self.remark)))

    def whole(self, graph: Graph) -> Graph:
        return self.rewritten(graph, {v: v.name for v, new in zip(graph.state, graph.updates) if new is None}, False)

    def rewritten(self, graph: Graph, known: Mapping[Value, str], inner: bool) -> Graph:
        """known: the values that last, by the names of what they are made of; inner: the graph is the body of a loop.
        """
        w, lasting = Rewriter(graph), dict(known)
        for node in graph.nodes:
            names = [lasting.get(v) for v in node.inputs]
            if _is_lasting(node, names):
                lasting.update(dict.fromkeys(node.outputs, next(filter(None, names))))
            with w.at(node.loc, node.scope):
                if self.is_product(node):
                    product = self._product(node, names, inner)
                    self.found.append(product)
                    new = self.left_as_f32(w, node) if product.why_not else self.replaced(w, product)
                    if new is not None:
                        w.replace(node, new)
                        continue
                w.keep(node, self.with_bodies(node, lasting, inner))
        return w.done()

    def _product(self, node: Node, names: Sequence[str | None], inner: bool) -> WeightProduct:
        places = [i for i, name in enumerate(names) if name]
        place = places[0] if len(places) == 1 else None
        name = (names[place] if place is not None else None) or node.scope or node.op.name
        self.names[name] += 1
        if self.names[name] > 1:
            name = f"{name}#{self.names[name]}"
        return WeightProduct(name, node, place, self.why_not(node, place), inner)

    def with_bodies(self, node: Node, lasting: Mapping[Value, str], inner: bool) -> Op | None:
        """The operator with bodies rewritten; None: it stays as it is."""
        if not isinstance(node.op, Scan | Remat):
            return None
        is_loop, body = isinstance(node.op, Scan), node.op.body
        first = node.op.carries + node.op.xs if isinstance(node.op, Scan) else 0
        known = {}
        for inside, v in zip(body.inputs[first:], node.inputs[first:], strict=True):
            self.outer[inside] = v
            if v in lasting:
                known[inside] = lasting[v]
        return node.op.replace(body=self.rewritten(body, known, inner or is_loop))

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


def product_axes(node: Node, operand: int) -> tuple[int, ...]:
    """The axes of an operand that are summed over, and those of an image that have a scale in common."""
    rank = node.inputs[operand].type.rank
    if not isinstance(node.op, LabelledProduct):
        return tuple(range(1, rank))
    x, y, out = node.op.labels(*(v.type.rank for v in node.inputs))
    return tuple(i for i, label in enumerate((x, y)[operand]) if label not in out)


def difference(rounded: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """The largest error, and the norm of the errors as a share of the norm."""
    error = rounded - exact
    size, whole = float(np.linalg.norm(error)), float(np.linalg.norm(exact))
    return float(np.abs(error).max(initial=0.0)), size / max(whole, TINY_NORM)
