"""What all lowerings of a phase have in common: the function that they write, its views, the sizes of the phase."""
from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Generic, TypeVar, cast

from graphc.codegen.loops.builder import LoopFunction, View
from graphc.codegen.lower.contraction.outputs import EpilogueFunction, GateEpilogueFunction, Outputs
from graphc.codegen.lower.contraction.sweep import GateSweep, Sweep
from graphc.errors import InternalError
from graphc.ir.dims import Dim, Dims
from graphc.ir.ops.blocks import BlockProduct
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.contraction_form import Phase
from graphc.schedule.contraction_schedule import ContractionSchedule, PhaseSchedule, group_sizes
from graphc.schedule.target import Target

S = TypeVar("S", bound=PhaseSchedule)
AnyEpilogue = EpilogueFunction | GateEpilogueFunction | None         # by `ContractionSchedule.gates`


@dataclass(frozen=True)
class BlockCodes:
    """The columns of b as rows of codes, as `op` says, flat; scales: and minima."""
    op: BlockProduct
    codes: View
    scales: tuple[View, ...]
    target: Target


@dataclass(frozen=True)
class ContractionViews:
    """The memory of a contraction's function. a, b: flat, as the linear maps of the phases index them; shared: scratch
    that all threads see; prepacked: the operand that was packed before the kernel runs; codes: what columns are made
    of that are no numbers in memory.
    """
    a: View
    b: View
    outs: tuple[View, ...] = ()
    shared: View | None = None
    prepacked: View | None = None
    codes: BlockCodes | None = None


@dataclass(frozen=True)
class PhaseLowering(ABC, Generic[S]):
    """A phase of a contraction, and the function into which its loops are written; a subclass for each schedule."""
    f: LoopFunction
    contraction: ContractionSchedule
    number: int                         # of the phase
    views: ContractionViews
    fused: bool                         # the target multiplies and adds in one instruction
    epilogue: AnyEpilogue = None

    @abstractmethod
    def run(self) -> None:
        """Writes the loops of the phase."""

    def prepack(self) -> None:
        """Writes the loops that pack operand `contraction.prepacked_role` for kernels of this schedule."""
        raise InternalError(f"{type(self).__name__} packs nothing", "lower")

    @cached_property
    def phase(self) -> Phase[Dim]:
        return self.contraction.form.phases[self.number]

    @cached_property
    def schedule(self) -> S:
        return cast(S, self.contraction.phases[self.number])

    @property
    def a(self) -> View:
        return self.views.a

    @property
    def b(self) -> View:
        return self.views.b

    @property
    def dtype(self) -> DType:
        """The type of the sums."""
        return self.contraction.dtype

    @cached_property
    def outputs(self) -> Outputs:
        epilogue = None if self.contraction.gates else cast(EpilogueFunction | None, self.epilogue)
        form = self.contraction.form
        apart = Outputs(self.f, self.views.outs, epilogue, form.c.out, self.phase)
        merged = apart.together(form.together) if form.together else apart
        if merged is None:
            raise InternalError("the schedule takes axes as one that the epilogue does not", "lower")
        return merged

    def sweep_by(self, lanes: int) -> Sweep:
        """What stores finished sums of a tile, in vectors of `lanes`."""
        gates = self.contraction.gates
        if not gates:
            return Sweep(self.outputs, lanes)
        return GateSweep(self.outputs, lanes, cast(GateEpilogueFunction, self.epilogue), gates)

    # ---- sizes

    @cached_property
    def m(self) -> Dim:
        return self.phase.extent(self.phase.m)

    @cached_property
    def n(self) -> Dim:
        return self.phase.extent(self.phase.n)

    @cached_property
    def k(self) -> Dim:
        return self.phase.extent(self.phase.k)

    @cached_property
    def batches(self) -> Dim:
        return self.phase.extent(self.phase.batch)

    @property
    def sizes(self) -> Dims:
        return self.phase.sizes

    @cached_property
    def m_sizes(self) -> Dims:
        return group_sizes(self.phase, self.phase.m)

    @cached_property
    def n_sizes(self) -> Dims:
        return group_sizes(self.phase, self.phase.n)

    @cached_property
    def k_sizes(self) -> Dims:
        return group_sizes(self.phase, self.phase.k)

    # ---- memory

    def packed(self, role: str, size: Dim) -> View:
        """The memory of packed operand "a" or "b": shared scratch, or what was packed before the kernel runs."""
        memory, dtype = self._packed(role, size), (self.a if role == "a" else self.b).dtype
        return memory.seen_as(dtype) if dtype.is_packed else memory

    def _packed(self, role: str, size: Dim) -> View:
        if role == self.contraction.prepacked_role:
            return part_of_scratch(self.views.prepacked, 0, size)
        offsets = {"a": self.contraction.packed_a, "b": self.contraction.packed_b}[role]
        return part_of_scratch(self.views.shared, offsets[self.number], size)

    def partials(self, size: Dim) -> View:
        """The memory of the partial results of a sum that is split."""
        return part_of_scratch(self.views.shared, self.contraction.partials[self.number], size)


def part_of_scratch(memory: View | None, offset: Dim | None, size: Dim) -> View:
    """`size` elements of memory that the schedule should have counted."""
    if memory is None or offset is None:
        raise InternalError("the schedule has no room for what is packed or copied", "lower")
    return memory.view_at([offset], (size,))
