"""From a planned graph to loop functions: one function per distinct kernel, and `main`, which calls them in order."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from graphc.codegen.graph_calls import call_graph, call_node
from graphc.codegen.kernel_calls import KernelCalls, Site
from graphc.codegen.kernel_table import KernelTable
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.plan_memory import PlanMemory, place_in
from graphc.ir.graph import Node
from graphc.memory.plan import Buffer, Packed, PackedOperand, Place, Plan
from graphc.records import dataclass
from graphc.schedule.target import Target
from graphc.schedule.contraction_schedule import ContractionSchedule


@dataclass(frozen=True)
class LoopProgram:
    """The loop functions of a program. `prepare` makes what is derived from state. `checked[i]` is the graph node that
    reports failures under number i, `nan_checks` those of them that report the NaN they made. `sites` are the calls
    in main, which an instrumented one times, `prepare_sites` those in `prepare`.
    """
    kernels: tuple[LoopFunction, ...]
    main: LoopFunction
    checked: tuple[Node, ...]
    nan_checks: frozenset[int] = frozenset()
    prepare: LoopFunction | None = None
    sites: tuple[Site, ...] = ()
    prepare_sites: tuple[Site, ...] = ()


def build_program(plan: Plan, target: Target, check_nan: bool = False, prepare: Plan | None = None,
                  packed: Packed | None = None,
                  timed: bool = False) -> LoopProgram:
    """Lowers every node of the plans. Pure: equal plans give equal programs. `check_nan`: a kernel that makes a NaN is
    a failure.

    `prepare` is the plan of what is derived from state; `packed` what is packed after that. `timed`: an instrumented
    build.
    """
    kernels, main = KernelTable(target), LoopFunction("main")
    calls = KernelCalls(kernels, main, check_nan, timed)
    call_graph(calls, PlanMemory(main, plan))
    preparation, preparing = None, list[Site]()
    if prepare or packed and packed.buffers:
        preparation = LoopFunction("prepare")
        _prepare(replace(calls, function=preparation, timed=False, sites=preparing), prepare,
                 dict(packed.buffers) if packed else {})
    return LoopProgram(kernels.functions, main, tuple(calls.checked), frozenset(calls.nan_checks), preparation,
                       tuple(calls.sites), tuple(preparing))


def _prepare(calls: KernelCalls, plan: Plan | None, buffers: dict[PackedOperand, Buffer]) -> None:
    """Computes and packs what is derived from state. A value is packed as soon as it is there."""
    if plan:
        memory = PlanMemory(calls.function, plan)
        slots = {v: slot for slot, v in enumerate(plan.graph.updates)}
        for node in plan.graph.nodes:
            call_node(calls, node, memory)
            made = {slots[v] for v in node.outputs if v in slots}
            _pack(calls, {key: buffers.pop(key) for key in list(buffers) if key.space == "state" and key.slot in made})
    _pack(calls, buffers)


def _pack(calls: KernelCalls, buffers: Mapping[PackedOperand, Buffer]) -> None:
    """Packs arrays of the state's table and constants; `buffers` as in `Packed`."""
    for (space, slot, begin, offset, view, schedule), buffer in buffers.items():
        operand = Place(Buffer(space, 0, slot, begin), view.dtype, view.shape, view.strides, offset)
        calls.pack(place_in(calls.function, operand), view, cast(ContractionSchedule, schedule), buffer)
