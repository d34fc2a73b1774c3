"""The update of a parameter as the epilogue of the kernel that makes the sum of its gradient over all shards: the sum
is not stored, as the gradient of a step without shards is not."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value, users
from graphc.ir.op import Op
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.fused import Fused


def updates_behind(update: Graph, parts: Sequence[Sequence[Value]]) -> dict[int, Node]:
    """For the gradients, by number, whose update can be such an epilogue, the node of it, which updates nothing else.
    parts: the inputs of the update that are sums over some shards each, and together a gradient."""
    readers, new = users(update), {v for v in update.updates if v is not None} - set(update.outputs)
    found = dict[int, Node]()
    for number, sums in enumerate(parts):
        nodes = {u for v in sums for u in readers[v]}
        node = nodes.pop() if len(nodes) == 1 else None
        if node and _is_epilogue(node, sums[0]) and all(v in new and not readers[v] for v in node.outputs):
            found[number] = node
    gradients = Counter(found.values())
    return {number: node for number, node in found.items() if gradients[node] == 1}


def _is_epilogue(node: Node, gradient: Value) -> bool:
    """Whether it computes element by element, all in the shape of the gradient but what it knows beforehand."""
    if not isinstance(node.op, Fused) or node.op.kind != "nest":
        return False
    known = set[Value]()
    for inner in node.op.body.nodes:
        if isinstance(inner.op, Constant) or inner.op.is_elementwise and known.issuperset(inner.inputs):
            known.update(inner.outputs)
        elif not inner.op.is_elementwise or any(v.type.shape != gradient.type.shape for v in inner.outputs):
            return False
    return True


def with_update(b: Builder, op: Op, operands: Sequence[Value], node: Node, sums: Sequence[Value],
                known: Mapping[Value, Value]) -> tuple[Value, ...]:
    """The results of `node` of an update, with what stands for its operands in `known`; the gradient, in the place of
    the first of the `sums`, is made by the kernel of `op`, and zeros are in the place of the others: `0.0` is added to
    it in any case."""
    assert isinstance(node.op, Fused)
    body, outer, inner = Builder("body"), list(operands), node.op.body
    made = [body.input(f"x{k}", v.type) for k, v in enumerate(operands)]
    total, = body.apply(op, made)
    zero = body.constant(0, total.type.dtype)
    names = {v: zero for v in sums} | {sums[0]: total}
    for v in dict.fromkeys(node.inputs):
        if v not in names:
            names[v] = body.input(f"x{len(outer)}", v.type)
            outer.append(known[v])
    values = {mine: names[v] for mine, v in zip(inner.inputs, node.inputs)}
    for each in inner.nodes:
        values.update(zip(each.outputs, body.copy(each, values)))
    with b.at(node.loc, node.scope):
        return b.apply(Fused(body.finish([values[v] for v in inner.outputs], inner.output_names), "contraction"), outer)
