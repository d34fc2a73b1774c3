"""y = conv(x, w) * scale + shift, all but x lasting, becomes conv(x, w * scale) + shift: inference batch norm costs
nothing."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphc.errors import InternalError
from graphc.ir.builder import Rewriter
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.image import varies_by_channel_only
from graphc.ir.ops.conv import Conv
from graphc.ir.ops.elementwise import ADD, MUL, SUB
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
    Rounded factors stay what they are, for instructions that take such: then there is one factor behind the
    convolution.
    """
    name: ClassVar[str] = "fold_batch_norm"

    def run(self, graph: Graph) -> Graph:
        kinds, readers = value_kinds(graph), users(graph)
        results = set(graph.results)
        chains = {}
        for node in graph.nodes:
            if isinstance(node.op, Conv) and kinds[node.inputs[1]] is Kind.LASTING:
                chain = _chain(node, kinds, readers, results)
                if any(step.op is MUL for step in chain):
                    chains[chain[-1]] = (node, chain)
        if not chains:
            return graph
        inside = {n for conv, chain in chains.values() for n in (conv, *chain[:-1])}
        w = Rewriter(graph)
        for node in graph.nodes:
            if node in chains:
                w.replace(node, (_folded(w, *chains[node]),))
            elif node not in inside:
                w.keep(node)
        return w.done()


def _chain(conv: Node, kinds: Mapping[Value, Kind], readers: Mapping[Value, list[Node]],
           results: set[Value]) -> list[Node]:
    """The additions and products, by lasting values per channel, that follow `conv` and nobody else sees the inside of.
    """
    chain: list[Node] = []
    y = conv.outputs[0]
    while len(readers[y]) == 1 and y not in results:
        step = readers[y][0]
        if step.op not in STEPS or step.op is SUB and step.inputs[0] is not y:
            break
        other = _other(step, y)
        if kinds[other] is Kind.CHANGING or not varies_by_channel_only(other.type.shape, y.type.shape):
            break
        chain.append(step)
        y = step.outputs[0]
    return chain


def _other(step: Node, y: Value) -> Value:
    return step.inputs[1] if step.inputs[0] is y else step.inputs[0]


def _folded(w: Rewriter, conv: Node, chain: Sequence[Node]) -> Value:
    scale: Value | None = None
    shift: Value | None = None
    y = conv.outputs[0]
    for step in chain:
        with w.at(step.loc, step.scope):
            other = w[_other(step, y)]
            if step.op is MUL:
                scale = other if scale is None else w.mul(scale, other)
                shift = None if shift is None else w.mul(shift, other)
            elif shift is None:
                shift = other if step.op is ADD else w.neg(other)
            else:
                shift = w.add(shift, other) if step.op is ADD else w.sub(shift, other)
        y = step.outputs[0]
    if scale is None:
        raise InternalError("a chain without a product is not folded", "fold_batch_norm")
    x, weight = (w[v] for v in conv.inputs)
    with w.at(conv.loc, conv.scope):
        if all(converted(v) is not None for v in conv.inputs):
            result = w.mul(w.apply(conv.op, (x, weight))[0], scale)
        else:
            per_output = w.reshape(scale, shape=(scale.type.size, *(1,) * (weight.type.rank - 1)))
            result = w.apply(conv.op, (x, w.mul(weight, per_output)))[0]
    with w.at(chain[-1].loc, chain[-1].scope):
        return result if shift is None else w.add(result, shift)
