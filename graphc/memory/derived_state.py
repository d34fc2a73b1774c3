"""What a program makes from its state and keeps while that does not change: derived values, then packed operands."""
from __future__ import annotations


from graphc.ir.dims import static_dim
from graphc.ir.graph import Graph
from graphc.memory.plan import ProgramPlan
from graphc.records import dataclass


@dataclass(frozen=True)
class DerivedState:
    """`sizes`: bytes of the arrays that are made from the state, which stand behind it in the table of arrays.

    `passing`: numbers of those that are only packed; they can share one buffer, because each is packed before the next
    is computed. `idle`: numbers of the state's own arrays that calls do not touch.
    """
    sizes: tuple[int, ...]
    passing: frozenset[int]
    idle: frozenset[int]

    @staticmethod
    def of(graph: Graph, plan: ProgramPlan) -> DerivedState:
        """Of the program that `graph` became."""
        own, read = len(graph.state), frozenset(plan.main.read_state())
        values = [v.type.nbytes for v in plan.main.graph.state[own:]]
        sizes = tuple(map(static_dim, (*values, *(b.nbytes for b in plan.packed.buffers.values()))))
        idle = frozenset(n for n, new in enumerate(graph.updates) if n not in read and new is None)
        return DerivedState(sizes, _passing(plan, own, read), idle)

    @property
    def kept_bytes(self) -> int:
        """Of the arrays that stay."""
        return sum(size for n, size in enumerate(self.sizes) if n not in self.passing)


def _passing(plan: ProgramPlan, own: int, read: frozenset[int]) -> frozenset[int]:
    if plan.prepare is None:
        return frozenset()
    graph = plan.prepare.graph
    values = {v for node in graph.nodes for v in node.inputs}
    return frozenset(n for n, v in enumerate(graph.updates[own:])
                     if own + n not in read and v is not None and v not in values and len(v.maker.outputs) == 1)
