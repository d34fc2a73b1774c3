"""Replaces composite operators by the operators they are made of."""
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph
from graphc.ir.op import Composite, as_tuple
from graphc.passes.pipeline import Pass, apply


@dataclass(frozen=True)
class Decompose(Pass):
    """Needs bound dimensions. Gives a graph without composites, except those of the classes in `keep`, which the back end takes whole.

    Stands after differentiation (composites have cheaper gradients of their own) and before fusion (which works on the parts).
    """
    name: ClassVar[str] = "decompose"
    keep: frozenset[type] = frozenset()

    def run(self, graph: Graph) -> Graph:
        if not any(self._taken_apart(n.op) for n in graph.nodes):
            return graph
        w = Rewriter(graph)
        for node in graph.nodes:
            if self._taken_apart(node.op):
                with w.at(node.loc, node.scope):
                    w.replace(node, self._expand(w, node.op, tuple(w[v] for v in node.inputs)))
            else:
                w.keep(node)
        return w.done()

    def _taken_apart(self, op) -> bool:
        return isinstance(op, Composite) and type(op) not in self.keep

    def _expand(self, w: Rewriter, op: Composite, ins: tuple) -> tuple:
        """The decomposition of `op`, itself decomposed, appended to `w`."""
        b = Builder(op.name)
        arguments = [b.input(f"x{i}", v.type) for i, v in enumerate(ins)]
        inner = apply(self, b.finish(as_tuple(op.decompose(b, *arguments)), ("",)))
        return w.inline_here(inner, ins)
