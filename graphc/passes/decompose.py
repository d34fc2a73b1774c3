"""Replaces composite operators by the operators they are made of."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Composite, Op, Values, as_tuple
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass, apply
from graphc.records import dataclass


@dataclass(frozen=True)
class Decompose(Pass):
    """Needs bound dimensions. Gives a graph without composites, except those that the back end takes whole: those for
    which `keep` holds, given operator, operand types, and the operator that shares operands with it (`_beside`).

    Stands after differentiation (composites have cheaper gradients of their own) and before fusion (which works on the
    parts).
    """
    name: ClassVar[str] = "decompose"
    keep: Callable[[Op, Sequence[TensorType], Op | None], bool] = lambda op, types, beside: False

    def run(self, graph: Graph) -> Graph:
        beside = _beside(graph)
        apart = {n: n.op for n in graph.nodes if isinstance(n.op, Composite)
                 and not self.keep(n.op, [v.type for v in n.inputs], beside.get(n))}
        if not apart:
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if node in apart:
                with w.at(node.loc and node.loc.calling(node.op.name), node.scope):
                    w.replace(node, self._expand(w, apart[node], tuple(w[v] for v in node.inputs)))
            else:
                w.keep(node)
        return w.done()

    def _expand(self, w: Rewriter, op: Composite, ins: Values) -> Values:
        """The decomposition of `op`, itself decomposed, appended to `w`."""
        b = Builder(op.name)
        arguments = [b.input(f"x{i}", v.type) for i, v in enumerate(ins)]
        inner = apply(self, b.finish(as_tuple(op.decompose(b, *arguments)), ("",)))
        return w.inline_here(inner, ins)


def _beside(graph: Graph) -> dict[Node, Op]:
    """Of composites with a kernel, one of which (a gradient) reads the results of the other beside all its operands:
    the operator of the other, which may be made of the same parts."""
    found: dict[Node, Op] = {}
    for node in graph.nodes:
        first = next((v.node for v in node.inputs if v.node is not None and _has_kernel(v.node)), None)
        if first is not None and _has_kernel(node) and node.inputs[:len(first.inputs)] == first.inputs:
            found |= {node: first.op, first: node.op}
    return found


def _has_kernel(node: Node) -> bool:
    return isinstance(node.op, Composite) and node.op.has_kernel
