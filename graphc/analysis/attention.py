"""Finds attention that is spelled out: softmax(q kᵀ · scale + mask) v, by matmul or einsum, under any mask."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import inf, nan
from typing import TypeGuard

from graphc.analysis.mask_analysis import Known, MaskFacts, TriangleStep
from graphc.analysis.softmax_form import softmax_of
from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.attention import Attention
from graphc.ir.ops.contract import LabelledProduct
from graphc.ir.ops.elementwise import ADD, DIV, MUL, NEG, SUB, WHERE
from graphc.ir.ops.shape import Transpose
from graphc.ir.types import TensorType, i32
from graphc.once import once_property
from graphc.records import dataclass
from graphc.schedule.attention_support import computes_again

# a score as low as this, or lower, counts as hidden: beside one that is not, softmax gives it exactly 0
HIDES = -1e9
DEEPEST = 8             # operators between product and softmax, factors of an operand

Labels = tuple[str, ...]
Keep = Callable[[Op, Sequence[TensorType]], bool]


def spelled_out(nodes: Sequence[Node], results: Iterable[Value], fixed: Iterable[Value] = (),
                keep: Keep = computes_again) -> dict[Node, "Spelled"]:
    """The attentions among `nodes` by their last product. `results`: values that are read from outside. `fixed`: values
    that must stay on the way. keep: whether the operator is worth making of it."""
    facts, fixed, used = MaskFacts(), set(fixed), _Users(nodes, results)
    candidates = ((node, _match(node, facts)) for node in nodes if isinstance(node.op, LabelledProduct))
    return {node: match for node, match in candidates if match and used.only(match.inner, node)
            and not fixed & match.passed and match.fits(keep)}


class _Users:
    """Who reads which value; made when first asked for."""

    def __init__(self, nodes: Sequence[Node], results: Iterable[Value]):
        self.nodes, self.results = nodes, frozenset(results)

    @once_property
    def table(self) -> Mapping[Value, list[Node]]:
        table: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in node.inputs:
                table.setdefault(v, []).append(node)
        return table

    def only(self, inner: frozenset[Node], last: Node) -> bool:
        """Whether the results of `inner` are read by `inner` and `last` alone."""
        made = [v for node in inner for v in node.outputs]
        return (not self.results.intersection(made)
                and all(user is last or user in inner for v in made for user in self.table.get(v, ())))


@dataclass(frozen=True)
class LabelledOperand:
    """A value with a label for each axis, and a number that it is multiplied by. `passed`: values on the way from the
    product's own operand."""
    value: Value
    labels: Labels
    factor: float = 1.0
    passed: tuple[Value, ...] = ()

    def build(self, b: Builder, v: Value, order: Labels) -> Value:
        """v with its axes in this order; of size 1 those that it does not have, none in front of the first that it has.
        """
        kept = [i for i in order if i in self.labels]
        perm = tuple(self.labels.index(i) for i in kept)
        v = v if perm == tuple(range(len(perm))) else b.transpose(v, perm=perm)
        sizes = dict(zip(kept, v.type.shape))
        full = tuple(sizes.get(i, 1) for i in order[order.index(kept[0]):])
        return v if v.type.shape == full else b.reshape(v, shape=full)


@dataclass(frozen=True)
class Spelled:
    """softmax(factor · q kᵀ) v. Axes in order: those of the batch, then query and key; results are labelled `out`."""
    q: LabelledOperand
    k: LabelledOperand
    v: LabelledOperand
    batch: Labels
    feature: str
    query: str
    key: str
    value: str
    out: Labels
    scores: "Scores"
    inner: frozenset[Node]
    last: Node

    @property
    def leaves(self) -> tuple[Value, ...]:
        return (*(x.value for x in (self.q, self.k, self.v)), *(m.value for m in self.scores.masks))

    @property
    def biased(self) -> bool:
        """Whether numbers are added to the scores. The gradient then needs the probabilities: where they are as low as
        -1e9 in all of a row, the logsumexp has no digits left to tell them from."""
        return any(not m.hides for m in self.scores.masks)

    @property
    def passed(self) -> set[Value]:
        """Values that are no longer on the way from the leaves to the result."""
        return {*self.q.passed, *self.k.passed, *self.v.passed, *(v for node in self.inner for v in node.outputs)}

    def build(self, b: Builder, leaves: Sequence[Value]) -> Value:
        """The operator on `leaves`, in the form of the last product."""
        ends = (self.query, self.feature), (self.key, self.feature), (self.key, self.value)
        q, k, v = (x.build(b, leaf, self.batch + end) for x, leaf, end in zip((self.q, self.k, self.v), leaves, ends))
        layout, order = self.scores.product.out, (*self.batch, self.query, self.key)
        masks = [m.build(b, leaf, layout, order) for m, leaf in zip(self.scores.masks, leaves[3:])]
        mask = [reduce(b.bitand, masks)] if masks else []
        scale = self.scores.factor * self.q.factor * self.k.factor
        out, _ = b.apply(Attention(scale=scale, causal=self.scores.causal), (q, k, v, *mask))
        if mask and not self.biased:
            out = self._mended(b, out, v, mask[0])
        order = self.batch + (self.query, self.value)
        return out if order == self.out else b.transpose(out, perm=tuple(map(order.index, self.out)))

    def _mended(self, b: Builder, out: Value, v: Value, mask: Value) -> Value:
        """What softmax gives where a row is hidden whole: equal probabilities, or NaN for each, from which a gradient
        goes to v alone."""
        if self.scores.causal:
            shape = self.scores.node.outputs[0].type.shape
            rows, columns = (b.iota(shape=(shape[-2], shape[-1]), axis=axis, dtype=i32) for axis in (0, 1))
            mask = b.bitand(mask, b.ge(rows, columns))
        sees = b.max(mask, axes=(mask.type.rank - 1,), keepdims=True)
        blind = b.mean(v, axes=(v.type.rank - 2,), keepdims=True)
        if self.scores.lows == {-inf}:
            one, none = (b.constant(x, out.type.dtype) for x in (1, nan))
            blind = b.mul(blind, b.where(sees, one, none))
        return b.where(sees, out, blind)

    def fits(self, keep: Keep) -> bool:
        """Whether the operator takes these operands, is taken whole, and gives the type of the last product."""
        b = Builder()
        try:
            out = self.build(b, [b.input(f"x{i}", v.type) for i, v in enumerate(self.leaves)])
        except GraphError:
            return False
        attention = next(node for node in b.nodes if node.op.opcode is Attention)
        types = [v.type for v in attention.inputs]
        return (out.type == self.last.outputs[0].type
                and (not all(t.is_static for t in types) or keep(attention.op, types)))


# ---- products

@dataclass(frozen=True)
class Product:
    """Two operands summed over shared axes, with labels."""
    operands: tuple[LabelledOperand, LabelledOperand]
    out: Labels

    def renamed(self, names: Mapping[str, str]) -> "Product":
        def new(labels: Labels) -> Labels:
            return tuple(names.get(i, f"{i}'") for i in labels)
        a, b = (replace(x, labels=new(x.labels)) for x in self.operands)
        return Product((a, b), new(self.out))


def _product(node: Node | None) -> Product | None:
    if node is None or not isinstance(node.op, LabelledProduct):
        return None
    a, b = node.inputs
    of_a, of_b, out = node.op.labels(a.type.rank, b.type.rank)
    return Product((LabelledOperand(a, of_a), LabelledOperand(b, of_b)), out)


def _source(x: LabelledOperand) -> LabelledOperand:
    """The operand before it was transposed."""
    while (node := x.value.node) is not None and isinstance(node.op, Transpose):
        labels = tuple(x.labels[node.op.perm.index(i)] for i in range(len(x.labels)))
        x = LabelledOperand(node.inputs[0], labels, x.factor, (*x.passed, x.value))
    return x


def _unscaled_source(x: LabelledOperand, facts: MaskFacts) -> LabelledOperand:
    """The operand before it was transposed and multiplied by numbers, as far as `DEEPEST` products lead."""
    x = _source(x)
    for _ in range(DEEPEST):
        inner, factor = next(_scaled(x.value.node, facts), (None, 1.0))
        if inner is None:
            break
        x = _source(LabelledOperand(inner, x.labels, x.factor * factor, (*x.passed, x.value)))
    return x


# ---- scores

@dataclass(frozen=True)
class MaskOperand:
    """A bool array that is `seen` where a key may be looked at, or numbers that, times `factor`, are added to the
    scores."""
    value: Value
    hides: bool
    seen: bool = True
    factor: float = 1.0

    def build(self, b: Builder, v: Value, layout: Labels, order: Labels) -> Value:
        """The operator's mask, from v, which broadcasts to scores with axes as in `layout`."""
        shape = v.type.shape
        v = v if len(shape) > 1 else b.reshape(v, shape=(1,) * (2 - len(shape)) + shape)
        v = LabelledOperand(v, layout[len(layout) - v.type.rank:]).build(b, v, order)
        if self.hides:
            return v if self.seen else b.bitnot(v)
        return v if self.factor == 1 else b.mul(v, self.factor)


@dataclass(frozen=True)
class Scores:
    """factor · product, causal or not, masked. `lows`: scores that hidden keys have. `inner`: the nodes on the way."""
    node: Node
    product: Product
    factor: float = 1.0
    causal: bool = False
    masks: tuple[MaskOperand, ...] = ()
    lows: frozenset[float] = frozenset()
    inner: frozenset[Node] = frozenset()

    def scaled(self, factor: float) -> "Scores | None":
        """A negative factor would turn hidden into seen."""
        if factor < 0 and self.lows:
            return None
        masks = tuple(replace(m, factor=m.factor * factor) for m in self.masks)
        return replace(self, factor=self.factor * factor, masks=masks,
                       lows=frozenset(low * factor for low in self.lows))

    @property
    def exact(self) -> bool:
        """Whether the operator gives the same also where a row is hidden whole. A number is added under one mask at
        most, which then hides by -inf."""
        hiding = {m.hides for m in self.masks}
        if hiding == {False}:
            return len(self.masks) == 1 and self.lows <= {-inf}
        return len(hiding) < 2 and all(low <= HIDES for low in self.lows) and (not self.masks or len(self.lows) == 1)


def _scores(v: Value, facts: MaskFacts, depth: int = 0) -> Scores | None:
    """v as masked and scaled product."""
    if v.node is None or depth > DEEPEST:
        return None
    product = _product(v.node)
    if product is not None:
        return Scores(v.node, product, inner=frozenset((v.node,)))
    for inner, change in _layers(v.node, facts):
        scores = _scores(inner, facts, depth + 1) if inner.type == v.type else None
        changed = scores and change(scores)
        if changed:
            return replace(changed, inner=changed.inner | {v.node})
    return None


def _layers(node: Node, facts: MaskFacts) -> Iterator[tuple[Value, Callable[[Scores], Scores | None]]]:
    """Ways to read the node as scores that are scaled or masked: the inner scores, and what is done to them."""
    for inner, factor in _scaled(node, facts):
        yield inner, lambda scores: scores.scaled(factor)
    for inner, low in _causal(node, facts):
        yield inner, lambda scores: replace(scores, causal=True, lows=scores.lows | {low})
    for inner, mask, low in _hidden(node, facts):
        yield inner, lambda scores: replace(scores, masks=(*scores.masks, mask), lows=scores.lows | {low})
    for inner, mask in _added(node):
        yield inner, lambda scores: replace(scores, masks=(*scores.masks, mask))


def _scaled(node: Node | None, facts: MaskFacts) -> Iterator[tuple[Value, float]]:
    """x and c where the node is x · c, x / c or -x."""
    if node is not None and node.op is NEG:
        yield node.inputs[0], -1.0
    if node is None or node.op not in (MUL, DIV):
        return
    for x, c in (node.inputs, node.inputs[::-1])[:2 if node.op.is_commutative else 1]:
        number = facts.number(c)
        if number and x.type == node.outputs[0].type and abs(number) < inf:
            yield x, number if node.op is MUL else 1 / number
            return


def _causal(node: Node, facts: MaskFacts) -> Iterator[tuple[Value, float]]:
    """The scores, and the number that those of later keys become or get added."""
    if node.op is WHERE:
        condition, x, y = node.inputs
        step = facts(condition)
        for inner, other, seen in ((x, y, True), (y, x, False)):
            low = facts.number(other)
            if low is not None and _is_causal(step) and bool(step.lower) is seen and bool(step.upper) is not seen:
                yield inner, low
    for inner, other, sign in _terms(node):
        step = facts(other)
        if _is_causal(step) and step.lower == 0:
            yield inner, float(step.upper) * sign


def _hidden(node: Node, facts: MaskFacts) -> Iterator[tuple[Value, MaskOperand, float]]:
    """The scores, where they are seen, and what they are elsewhere."""
    if node.op is WHERE:
        condition, x, y = node.inputs
        for inner, other, seen in ((x, y, True), (y, x, False)):
            low = facts.number(other)
            if low is not None:
                yield inner, MaskOperand(condition, True, seen), low


def _added(node: Node) -> Iterator[tuple[Value, MaskOperand]]:
    """The scores, and what is added to them: a matrix at least, as one row of numbers is the bias of a layer."""
    for inner, other, sign in _terms(node):
        if other.type.rank >= 2:
            yield inner, MaskOperand(other, False, factor=sign)


def _terms(node: Node) -> Iterator[tuple[Value, Value, float]]:
    """x, y and a sign where the node is x + y or x - y."""
    if node.op in (ADD, SUB):
        x, y = node.inputs
        yield x, y, 1.0 if node.op is ADD else -1.0
        if node.op.is_commutative:
            yield y, x, 1.0


def _is_causal(step: Known | None) -> TypeGuard[TriangleStep]:
    return isinstance(step, TriangleStep) and step.diagonal == 0


# ---- the whole

def _match(last: Node, facts: MaskFacts) -> Spelled | None:
    outer = _product(last)
    if outer is None:
        return None
    for which, operand in enumerate(outer.operands):
        softmax = softmax_of(operand.value)
        scores = _scores(softmax.scores, facts) if softmax else None
        if softmax and scores and scores.exact:
            return _assembled(last, outer, which, scores, softmax.inner | scores.inner, facts)
    return None


def _assembled(last: Node, outer: Product, which: int, scores: Scores, inner: frozenset[Node],
               facts: MaskFacts) -> Spelled | None:
    """Scores are [batch and query in any order, key]; each axis is summed where attention sums it, or this is something
    else."""
    *rows, key = scores.product.out
    q, k = scores.product.operands if key in scores.product.operands[1].labels else scores.product.operands[::-1]
    own = [i for i in rows if i not in k.labels]
    summed = [i for i in q.labels if i not in rows]
    if not own or len(summed) != 1 or key in q.labels or set(k.labels) - {key, *rows} != set(summed):
        return None
    query, feature = own[-1], summed[0]
    batch = tuple(i for i in rows if i != query)
    outer = outer.renamed(dict(zip(outer.operands[which].labels, scores.product.out)))
    v = outer.operands[1 - which]
    new = [i for i in v.labels if i not in scores.product.out]
    if len(new) != 1 or query in v.labels or key not in v.labels or set(outer.out) != {*rows, *new}:
        return None
    if scores.causal and rows[-1] != query:
        return None
    q, k, v = _unscaled_source(q, facts), _unscaled_source(k, facts), _source(v)
    return Spelled(q, k, v, batch, feature, query, key, new[0], outer.out, scores, inner, last)
