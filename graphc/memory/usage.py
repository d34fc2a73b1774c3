"""Bytes that a compiled graph needs, by purpose."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.graph import Value
from graphc.memory.plan import ProgramPlan

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Memory:
    """All in bytes. `scratch` is per thread; `arena` is what one call in flight needs besides; `derived` is made from
    the state (packed or folded weights) and kept while that does not change.
    """
    arena: int
    scratch: int
    consts: int
    state: int
    inputs: int
    outputs: int
    derived: int = 0

    @staticmethod
    def of(plan: ProgramPlan, scratch: int, state: Sequence[Value], derived: int) -> "Memory":
        """Of a program with these bytes of scratch for each thread, whose own state arrays are `state`, and from which
        it makes and keeps so many bytes."""
        graph = plan.main.graph
        size = lambda values: sum(v.type.nbytes for v in values)
        return Memory(plan.arena_bytes, scratch, plan.constants.nbytes, size(state), size(graph.inputs),
                      size(graph.outputs), derived)

    @property
    def total(self) -> int:
        """With one thread and one call in flight."""
        return self.arena + self.scratch + self.consts + self.state + self.derived + self.inputs + self.outputs

    def __str__(self) -> str:
        rows = ((name, getattr(self, name))
                for name in ("arena", "scratch", "consts", "state", "derived", "inputs", "outputs", "total"))
        return "memory: " + ", ".join(f"{name} {human(n)}" for name, n in rows)


def human(nbytes: float) -> str:
    """1536 -> "1.5 KB"."""
    unit = 0
    while nbytes >= 1024 and unit < len(UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    return f"{nbytes:.0f} {UNITS[unit]}" if unit == 0 else f"{nbytes:.1f} {UNITS[unit]}"
