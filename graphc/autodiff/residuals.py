"""What the gradient of a branch reads of the branch, as results of a cond of its own.

A loop around it can then stack these, instead of the arrays that they are made from: of a large array that the loop
changes in places, the elements that a step reads.
"""
from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.analysis.dependence import live_nodes
from graphc.ir.builder import Builder
from graphc.ir.dims import typical
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.constant import full
from graphc.ir.ops.control import Cond
from graphc.ir.types import TensorType
from graphc.records import dataclass

FEWER = 4               # times fewer bytes than the operands in whose place they are kept


@dataclass(frozen=True)
class Residuals:
    """`cond` computes them of the captured operands; `bodies` are the gradients' branches, which take them last."""
    cond: Cond
    bodies: tuple[Graph, ...]


@dataclass(frozen=True)
class _Branch:
    """A gradient's branch: the nodes of the forward computation in it, the values of these that the others read, and
    the views in between, which are made again."""
    body: Graph
    forward: Collection[Node]
    kept: list[Value]
    views: set[Node]
    read: set[Value]        # inputs that the others read

    @staticmethod
    def of(body: Graph, forward: Collection[Node]) -> "_Branch":
        made = {v: node for node in body.nodes if node in forward for v in node.outputs}
        waiting = [v for node in body.nodes if node not in forward for v in node.inputs] + list(body.outputs)
        kept: dict[Value, None] = {}
        views, read = set[Node](), set[Value]()
        while waiting:
            v = waiting.pop()
            node = made.get(v)
            if node is None:
                read.add(v)
            elif node.op.is_whole_view or not node.inputs:
                views.add(node)
                waiting += node.inputs
            else:
                kept[v] = None
        return _Branch(body, forward, list(kept), views, read)


def residuals(bodies: Sequence[Graph], forward: Sequence[Collection[Node]], captured: int) -> Residuals | None:
    """Of the two branches of a cond's gradient, whose first `captured` inputs are those of the cond; None where keeping
    them saves nothing."""
    branches = [_Branch.of(body, nodes) for body, nodes in zip(bodies, forward, strict=True)]
    types = [v.type for branch in branches for v in branch.kept]
    freed = [v.type for i, v in enumerate(bodies[0].inputs[:captured])
             if any(reads(x.body, i) for x in branches) and not any(x.body.inputs[i] in x.read for x in branches)]
    if not types or FEWER * _bytes(types) > _bytes(freed):
        return None
    made = tuple(_made(branch, branches, captured) for branch in branches)
    return Residuals(Cond(*made), tuple(_given(branch, branches) for branch in branches))


def independent_conds(nodes: Sequence[Node], given: Collection[Value]) -> list[Node]:
    """The conds that need nothing but given values and each other."""
    known, found = set(given), []
    for node in nodes:
        if isinstance(node.op, Cond) and all(v in known for v in node.inputs):
            found.append(node)
            known.update(node.outputs)
    return found


def _bytes(types: Sequence[TensorType]) -> int:
    return sum(typical(t.nbytes) for t in types)


def reads(body: Graph, i: int) -> bool:
    """Whether a branch reads its input number i."""
    v = body.inputs[i]
    return v in body.outputs or any(v in node.inputs for node in body.nodes)


def _made(branch: _Branch, branches: Sequence[_Branch], captured: int) -> Graph:
    """The branch that computes what is kept; zeros for the other one."""
    b = Builder(f"{branch.body.name}_kept")
    here = {v: b.input(v.name, v.type) for v in branch.body.inputs[:captured]}
    for node in live_nodes([n for n in branch.body.nodes if n in branch.forward], branch.kept):
        here.update(zip(node.outputs, b.copy(node, here)))
    results = [here[v] if x is branch else full(b, 0, v.type) for x in branches for v in x.kept]
    return b.finish(results, ("",) * len(results))


def _given(branch: _Branch, branches: Sequence[_Branch]) -> Graph:
    """The gradient's branch that takes what is kept."""
    b, body = Builder(branch.body.name), branch.body
    here = {v: b.input(v.name, v.type) for v in body.inputs}
    used = {v.name for v in body.inputs}
    for number, (x, v) in enumerate((x, v) for x in branches for v in x.kept):
        name = f"kept{number}"
        while name in used:
            name += "_"
        value = b.input(name, v.type)
        if x is branch:
            here[v] = value
    for node in body.nodes:
        if node in branch.views or node not in branch.forward:
            here.update(zip(node.outputs, b.copy(node, here)))
    return b.finish([here[v] for v in body.outputs], ("",) * len(body.outputs))
