"""What a lowering gets."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from graphc.ir.graph import Node
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType

S = TypeVar("S", bound=Schedule, covariant=True)


@dataclass(frozen=True)
class KernelRequest(Generic[S]):
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
    def function_name(self) -> str:
        return self.name or self.node.op.name
