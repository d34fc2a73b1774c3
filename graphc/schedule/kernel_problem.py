"""What a schedule is chosen for."""
from __future__ import annotations

from typing import Generic, cast

from graphc.ir.graph import Node, NodeOf, OpClass
from graphc.ir.ops.fused import Fused, core_of, slices_in
from graphc.records import dataclass
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType


@dataclass(frozen=True)
class KernelProblem(Generic[OpClass]):
    """A node that becomes one kernel, decided by an operator of this class, how its operands and results lie in memory,
    and the CPU.

    invariant: for each input, whether it does not change in the loop around the kernel; (): all may change.
    """
    node: Node
    ins: tuple[ViewType, ...]
    outs: tuple[ViewType, ...]
    target: Target
    invariant: tuple[bool, ...] = ()

    @property
    def core(self) -> NodeOf[OpClass]:
        """The node whose operator decides how the kernel runs (`core_of`)."""
        return cast(NodeOf[OpClass], core_of(self.node))

    @property
    def has_epilogue(self) -> bool:
        """Whether the operands and results are those of a contraction with an epilogue."""
        return self.core is not self.node

    @property
    def gates(self) -> int:
        """In how many equal slices the epilogue reads the columns of its contraction; 0: as they are."""
        return len(slices_in(self.node.op.body)) if self.has_epilogue and isinstance(self.node.op, Fused) else 0
