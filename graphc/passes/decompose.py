"""Replaces composite operators by the operators they are made of."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeGuard

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Composite, Op, Values, as_tuple
from graphc.ir.types import TensorType
from graphc.passes.pipeline import Pass, apply
from graphc.records import dataclass


@dataclass(frozen=True)
class Decompose(Pass):
    """Needs bound dimensions. Gives a graph without composites, except those that the back end takes whole: those for
    which `keep`, given operator and operand types, holds.

    Stands after differentiation (composites have cheaper gradients of their own) and before fusion (which works on the
    parts).
    """
    name: ClassVar[str] = "decompose"
    keep: Callable[[Op, Sequence[TensorType]], bool] = lambda op, types: False

    def run(self, graph: Graph) -> Graph:
        if not any(self._takes_apart(n.op, n.inputs) for n in graph.nodes):
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if self._takes_apart(node.op, node.inputs):
                with w.at(node.loc and node.loc.calling(node.op.name), node.scope):
                    w.replace(node, self._expand(w, node.op, tuple(w[v] for v in node.inputs)))
            else:
                w.keep(node)
        return w.done()

    def _takes_apart(self, op: Op, ins: Sequence[Value]) -> TypeGuard[Composite]:
        return isinstance(op, Composite) and not self.keep(op, [v.type for v in ins])

    def _expand(self, w: Rewriter, op: Composite, ins: Values) -> Values:
        """The decomposition of `op`, itself decomposed, appended to `w`."""
        b = Builder(op.name)
        arguments = [b.input(f"x{i}", v.type) for i, v in enumerate(ins)]
        inner = apply(self, b.finish(as_tuple(op.decompose(b, *arguments)), ("",)))
        return w.inline_here(inner, ins)
