"""What the loops of one phase of a contraction share."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.codegen.loops.builder import LoopFunction, Val, View
from graphc.codegen.loops.index import Ix
from graphc.ir.types import DType
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import ContractionSchedule, PhaseSchedule, group_sizes

Epilogue = Callable[[LoopFunction, Val | list[Val], list[Ix], int, Val | None, int], list[Val]]
"""(function, sums or those of all gates, index in the outputs, lanes, mask, axis of the lanes) -> what is stored"""


@dataclass(frozen=True)
class Job:
    """One phase to lower. a, b: flat views that the phase's linear maps index."""
    f: LoopFunction
    whole: ContractionSchedule
    number: int
    phase: Phase
    schedule: PhaseSchedule
    a: View
    b: View
    outs: tuple[View, ...]
    shared: View | None
    ready: View | None          # the operand that is packed already
    epilogue: Epilogue | None
    fused: bool                 # the target has fma

    @property
    def dtype(self) -> DType:
        return self.a.dtype

    @property
    def m(self) -> int:
        return self.phase.extent(self.phase.m)

    @property
    def n(self) -> int:
        return self.phase.extent(self.phase.n)

    @property
    def k(self) -> int:
        return self.phase.extent(self.phase.k)

    @property
    def batches(self) -> int:
        return self.phase.extent(self.phase.batch)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.phase.sizes

    @property
    def m_sizes(self) -> tuple[int, ...]:
        return group_sizes(self.phase, self.phase.m)

    @property
    def n_sizes(self) -> tuple[int, ...]:
        return group_sizes(self.phase, self.phase.n)

    @property
    def k_sizes(self) -> tuple[int, ...]:
        return group_sizes(self.phase, self.phase.k)

    @property
    def gates(self) -> int:
        return self.whole.gates

    @property
    def has_row_tail(self) -> bool:
        """Whether a register tile may reach past the last row."""
        s = self.schedule
        return self.m % s.blocking.mr != 0 or s.transposed_store is not None and s.blocking.mc % s.blocking.mr != 0

    def packed(self, which: str, size: int) -> View:
        """The memory of packed "a", packed "b" or "partials" of this phase: shared scratch, or what was packed beforehand."""
        if which == self.whole.ready:
            return self.ready.view_at([Ix()], (size,))
        offsets = {"a": self.whole.packed_a, "b": self.whole.packed_b, "partials": self.whole.partials}[which]
        return self.shared.view_at([offsets[self.number]], (size,))
