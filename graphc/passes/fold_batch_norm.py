"""y = conv(x, w) * scale + shift, all but x lasting, becomes conv(x, w * scale) + shift: inference batch norm costs
nothing. Sums of integers get one factor."""
from __future__ import annotations

from math import inf
from typing import ClassVar

from graphc.errors import InternalError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.image import varies_by_channel_only
from graphc.ir.ops.constant import splat
from graphc.ir.ops.conv import Conv
from graphc.ir.ops.elementwise import ADD, MAXIMUM, MUL, ROUND, SUB, Cast
from graphc.ir.types import f32, i32
from graphc.passes.pipeline import Pass
from graphc.passes.precompute import Kind, value_kinds
from graphc.passes.read_stored import converted
from graphc.records import dataclass

STEPS = (ADD, SUB, MUL)


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Needs a simplified graph. Gives one whose convolutions by lasting weights have their factors per channel in the
    weights; the products of weights and factors depend on state alone, so that `split_derived` moves them out of the
    calls.

    Changes rounding: w * scale is rounded once for each weight, where the sum was rounded once for each result.
    Rounded factors and integers stay what they are, for instructions that take such: then there is one factor behind
    the convolution. A positive factor behind relu joins those before it: that of activations which become integers.
    Before integers without sign a relu is idle.
    """
    name: ClassVar[str] = "fold_batch_norm"

    def run(self, graph: Graph) -> Graph:
        facts = _Facts(graph)
        chains = facts.chains()
        if not chains and not facts.idle:
            return graph
        inside = {n for chain in chains.values() for n in (*chain.replaced, *chain.steps[:-1])}
        w = Rewriter(graph)
        for node in graph.nodes:
            if node in chains:
                w.replace(node, (_folded(w, chains[node]),))
            elif node not in inside:
                w.replace(node, (w[facts.idle[node]],)) if node in facts.idle else w.keep(node)
        return w.done()


@dataclass(frozen=True)
class Chain:
    """Additions and products by lasting values per channel that follow `start` and nobody else sees the inside of;
    perhaps a relu, then products by positive numbers. rectified: whether there is one that is not idle."""
    start: Node
    steps: tuple[Node, ...]
    rectified: bool

    @property
    def replaced(self) -> tuple[Node, ...]:
        """The convolution whose weights take the factor."""
        return (self.start,) if isinstance(self.start.op, Conv) else ()


class _Facts:
    """What the pass knows of a graph. idle: relus before integers without sign, which numbers below 0 become 0 of."""

    def __init__(self, graph: Graph):
        self.nodes, self.results = graph.nodes, set(graph.results)
        self.kinds, self.readers = value_kinds(graph), users(graph)
        self.idle = {node: x for node in graph.nodes
                     if (x := _rectified(node)) is not None and self._becomes_unsigned(node.outputs[0])}

    def chains(self) -> dict[Node, Chain]:
        """Those that fold, by their last nodes."""
        found = {}
        for node in self.nodes:
            start = self._start(node)
            steps = self._steps(start) if start else []
            factors = sum(step.op is MUL for step in steps)
            if start and factors > (not isinstance(start.op, Conv)):        # a factor of integers stays behind them
                needed = any(step.op is MAXIMUM and step not in self.idle for step in steps)
                found[steps[-1]] = Chain(start, tuple(steps), needed)
        return found

    def _start(self, node: Node) -> Node | None:
        """A convolution by lasting weights, or the sums of one of integers as f32, perhaps times what changes."""
        if isinstance(node.op, Conv):
            return node if self.kinds[node.inputs[1]] is Kind.LASTING else None
        source = node.inputs[0].node if isinstance(node.op, Cast) else None
        types = [v.type.dtype for v in (*node.inputs, *node.outputs)]
        if source is None or not isinstance(source.op, Conv) or types != [i32, f32]:
            return None
        while (step := self._reader(node.outputs[0])) and step.op is MUL and (
                self.kinds[_other(step, node.outputs[0])] is Kind.CHANGING):
            node = step
        return node

    def _steps(self, start: Node) -> list[Node]:
        steps, y, rectified = list[Node](), start.outputs[0], False
        while step := self._reader(y):
            if rectified:
                fits = _is_positive(step, y)
            elif _rectified(step) is y:
                after = self._reader(step.outputs[0])
                fits = rectified = after is not None and _is_positive(after, step.outputs[0])
            else:
                other = _other(step, y)
                fits = step.op in STEPS and not (step.op is SUB and step.inputs[0] is not y) and (
                    self.kinds[other] is not Kind.CHANGING and varies_by_channel_only(other.type.shape, y.type.shape))
            if not fits:
                break
            steps.append(step)
            y = step.outputs[0]
        return steps

    def _reader(self, v: Value) -> Node | None:
        """Who alone reads a value."""
        return self.readers[v][0] if len(self.readers[v]) == 1 and v not in self.results else None

    def _becomes_unsigned(self, v: Value) -> bool:
        """Whether all that is made of a value, perhaps times a positive number and rounded, are such integers."""
        return v not in self.results and bool(self.readers[v]) and all(
            isinstance(node.op, Cast) and node.op.dtype.is_int and not node.op.dtype.is_signed
            or (node.op is ROUND or _is_positive(node, v)) and self._becomes_unsigned(node.outputs[0])
            for node in self.readers[v])


def _rectified(node: Node) -> Value | None:
    """What a relu of floats is of; None of other nodes."""
    if node.op is not MAXIMUM or not node.outputs[0].type.dtype.is_float:
        return None
    return next((v for v, other in (node.inputs, node.inputs[::-1])
                 if splat(other) == 0 and v.type == node.outputs[0].type), None)


def _is_positive(step: Node, y: Value) -> bool:
    """Whether it multiplies by a positive number."""
    factor = splat(_other(step, y)) if step.op is MUL else None
    return factor is not None and 0 < factor < inf


def _other(step: Node, y: Value) -> Value:
    return step.inputs[-1] if step.inputs[0] is y else step.inputs[0]


def _folded(w: Rewriter, chain: Chain) -> Value:
    scale: Value | None = None
    shift: Value | None = None
    y = chain.start.outputs[0]
    for step in chain.steps:
        with w.at(step.loc, step.scope):
            other = w[_other(step, y)]
            if step.op is MUL:
                scale = other if scale is None else w.mul(scale, other)
                shift = None if shift is None else w.mul(shift, other)
            elif step.op is not MAXIMUM and shift is None:
                shift = other if step.op is ADD else w.neg(other)
            elif step.op is not MAXIMUM:
                shift = w.add(shift, other) if step.op is ADD else w.sub(shift, other)
        y = step.outputs[0]
    if scale is None:
        raise InternalError("a chain without a product is not folded", "fold_batch_norm")
    with w.at(chain.start.loc, chain.start.scope):
        result = _scaled(w, chain.start, scale)
    last = chain.steps[-1]
    with w.at(last.loc, last.scope):
        result = result if shift is None else w.add(result, shift)
        return w.maximum(result, 0) if chain.rectified else result


def _scaled(w: Rewriter, start: Node, scale: Value) -> Value:
    if not isinstance(start.op, Conv):
        return w.mul(w[start.outputs[0]], scale)
    x, weight = (w[v] for v in start.inputs)
    if all(converted(v) is not None for v in start.inputs):
        return w.mul(w.apply(start.op, (x, weight))[0], scale)
    per_output = w.reshape(scale, shape=(scale.type.size, *(1,) * (weight.type.rank - 1)))
    return w.apply(start.op, (x, w.mul(weight, per_output)))[0]
