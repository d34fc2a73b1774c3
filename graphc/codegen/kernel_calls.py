"""Calls of kernels in main."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from graphc.codegen.kernel_table import KernelTable, borders_of
from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower import function_needs_node_id
from graphc.codegen.plan_memory import PlanMemory, views_of_buffer
from graphc.ir.dims import Dim
from graphc.ir.graph import Node
from graphc.memory.plan import Buffer
from graphc.records import dataclass
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.view import ViewType


@dataclass(frozen=True)
class Site:
    """A call in main: of which function, for which node (None: copies of carries, packing). aliased: its result lies
    in its first operand;
    `around`: bytes that it fills around its results.
    """
    kernel: str
    node: Node | None
    aliased: bool = False
    around: Dim = 0


@dataclass
class KernelCalls:
    """Writes calls of kernels into `function`.

    check_nan: results are checked, a NaN is a failure. timed: the function is instrumented. What it collects: `sites`,
    the calls, which an instrumented function times; `checked[i]`, the node that reports failures under number i;
    `nan_checks`, the numbers of those that report a NaN.
    """
    kernels: KernelTable
    function: LoopFunction
    check_nan: bool = False
    timed: bool = False
    sites: list[Site] = field(default_factory=list)
    checked: list[Node] = field(default_factory=list)
    nan_checks: list[int] = field(default_factory=list)
    committed: bool = False         # state may have been written

    def node(self, node: Node, memory: PlanMemory) -> None:
        """Calls the kernel of a node: with its operands and results, the packed operand, shared scratch, and the pads
        around its results.
        """
        plan = memory.plan
        kernel, borders = self.kernels.of_node(node, plan), borders_of(node, plan)
        views = memory.views((*node.inputs, *node.outputs))
        if node in plan.packed:
            packed = kernel.views[len(views):][:1]
            views += memory.packed.get(node) or views_of_buffer(self.function, plan.packed[node], packed)
        if node in plan.scratch:
            scratch = kernel.views[len(views):len(kernel.views) - len(borders)]
            views += views_of_buffer(self.function, plan.scratch[node], scratch, memory.base)
        views += [memory.view(place) for _, place in borders]
        if any(plan.places[v].buffer.space == "state" for v in node.outputs):
            self.commit()
        around = sum([pad.outputs[0].type.nbytes - pad.inputs[0].type.nbytes for pad, _ in borders])
        number = [self._number(node)] if function_needs_node_id(kernel) else []
        self._call(kernel, [*views, *number], Site(kernel.name, node, plan.schedules[node].aliased, around))
        if self.check_nan:
            self._check_for_nan(node, memory)

    def copy(self, source: View, target: View) -> None:
        """Copies a value: initial carries, results of a while loop."""
        self._call(self.kernels.copying(source, target), [source, target])

    def pack(self, operand: View, view: ViewType, schedule: ContractionSchedule, buffer: Buffer,
             base: Dim = 0) -> list[View]:
        """Packs an operand, of this view, for kernels of a schedule; the memory that holds it."""
        kernel = self.kernels.packing(view, schedule)
        packed = views_of_buffer(self.function, buffer, kernel.views[1:], base)
        self._call(kernel, [operand, *packed])
        return packed

    def _call(self, kernel: LoopFunction, arguments: Sequence[View | int], site: Site | None = None) -> None:
        number = len(self.sites)
        self.sites.append(site or Site(kernel.name, None))
        if self.timed:
            self.function.stamp(number, ends=False)
        self.function.call(kernel, arguments)
        if self.timed:
            self.function.stamp(number, ends=True)

    def commit(self) -> None:
        """Before the first kernel or loop that writes state: leave if something failed or Ctrl-C came, so that state is
        not half updated.
        """
        if not self.committed:
            self.function.return_if_failed()
            self.function.commit()
            self.committed = True

    def _check_for_nan(self, node: Node, memory: PlanMemory) -> None:
        """Reports the first element of each result that is NaN."""
        for v in node.outputs:
            place = memory.plan.places[v]
            if place.dtype.is_float and 0 not in place.shape:
                check = self.kernels.nan_check(place.view)
                number = self._number(node)
                self.nan_checks.append(number)
                self.function.call(check, [memory.view(place), number])

    def _number(self, node: Node) -> int:
        """The number under which the node reports failures."""
        self.checked.append(node)
        return len(self.checked) - 1
