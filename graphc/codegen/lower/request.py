"""What a lowering gets."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from graphc.codegen.loops.builder import LoopFunction
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.ops.fused import core_of
from graphc.records import dataclass
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

S = TypeVar("S", bound=Schedule, covariant=True)
O = TypeVar("O", bound=Op, covariant=True)


@dataclass(frozen=True)
class KernelRequest(Generic[S, O]):
    """A node to lower to one loop function: how its operands and results lie in memory, its schedule, and the CPU.
    `name` is that of the function; without one it has the operator's.
    """
    node: Node
    ins: tuple[ViewType, ...]
    outs: tuple[ViewType, ...]
    schedule: S
    target: Target
    name: str = ""

    @property
    def op(self) -> O:
        """The operator that decides how the kernel runs (`core_of`)."""
        return cast(O, core_of(self.node).op)

    @property
    def function_name(self) -> str:
        return self.name or self.node.op.name


# of requests with the operator of its key, and the schedule of that, which the type of a table cannot say
Lowering = Callable[[KernelRequest[Any, Any]], LoopFunction]
