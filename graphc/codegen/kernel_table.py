"""One loop function for each distinct kernel of a program."""
from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import cast

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower import lower
from graphc.codegen.lower.contraction.lowering import lower_packing
from graphc.codegen.lower.copy import copied
from graphc.codegen.lower.padding_fill import fill_border
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import nested
from graphc.ir.graph import Node
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.shape import Pad
from graphc.memory.plan import Place, Plan
from graphc.schedule.choose_move import copy_schedule
from graphc.schedule.contraction_schedule import ContractionSchedule
from graphc.schedule.single_op import cluster_of
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides

MAX_NODES = 1 << 20
NAMED_OPERATORS = 4                 # of a cluster that its kernel is called after


class KernelTable:
    """The functions that were asked for, each lowered once and numbered in this order: equal kernels share one."""

    def __init__(self, target: Target):
        self.target = target
        self._made: dict[tuple[Hashable, ...], LoopFunction] = {}

    @property
    def functions(self) -> tuple[LoopFunction, ...]:
        return tuple(self._made.values())

    def of_node(self, node: Node, plan: Plan) -> LoopFunction:
        """The kernel of an operator, of these views and this schedule."""
        ins, outs, schedule = tuple(plan.views(node.inputs)), tuple(plan.views(node.outputs)), plan.schedules[node]
        borders = tuple((cast(Pad, pad.op), pad.inputs[0].type.shape, place.view)
                        for pad, place in borders_of(node, plan))

        def make(name: str) -> LoopFunction:
            f = lower(KernelRequest(node, ins, outs, schedule, self.target, name))
            for border in borders:
                fill_border(f, *border, self.target)
            return f
        return self._once((node.op, ins, outs, schedule, borders), _kernel_name(node), make)

    def packing(self, view: ViewType, schedule: ContractionSchedule) -> LoopFunction:
        """Packs an operand for kernels of a schedule."""
        return self._once(("pack", view, schedule), "pack",
                          lambda name: lower_packing(view, schedule, self.target, name))

    def copying(self, source: View, target: View) -> LoopFunction:
        """Copies an array to one of other strides."""
        key = ("copy", source.dtype, source.shape, source.strides, target.strides)
        return self._once(key, "copy_carry", lambda name: _copy_function(name, source, target, self.target))

    def nan_check(self, view: ViewType) -> LoopFunction:
        """Fails, with the number of a node, at the first element that is NaN."""
        return self._once(("nan", view), "check_nan", lambda name: _nan_function(name, view))

    def _once(self, key: tuple[Hashable, ...], name: str, make: Callable[[str], LoopFunction]) -> LoopFunction:
        """The function of the key. It has a numbered name: no libm symbol, and kernels are told apart."""
        if key not in self._made:
            self._made[key] = make(f"k{len(self._made)}_{name}")
        return self._made[key]


def borders_of(node: Node, plan: Plan) -> list[tuple[Node, Place]]:
    """The pads whose insides a node makes, and where they lie."""
    pads = [plan.borders[v] for v in node.outputs if v in plan.borders]
    return [(pad, plan.places[pad.outputs[0]]) for pad in pads]


def _kernel_name(node: Node) -> str:
    """What the profile and the assembly call this kernel."""
    parts = [n.op.name for n in cluster_of(node).nodes if not isinstance(n.op, Constant)]
    return "_".join(parts[:NAMED_OPERATORS] + ["etc"] * (len(parts) > NAMED_OPERATORS)) or node.op.name


def _copy_function(name: str, source: View, target: View, machine: Target) -> LoopFunction:
    f = LoopFunction(name)
    x = f.view("x", source.dtype, source.shape, source.strides)
    y = f.view("y", target.dtype, target.shape, target.strides)
    if 0 not in x.shape:
        types = [ViewType(v.dtype, v.shape, v.strides) for v in (x, y)]
        copied(f, x, y, copy_schedule(types[0], types[1], machine), machine)
    return f


def _nan_function(name: str, view: ViewType) -> LoopFunction:
    f = LoopFunction(name)
    x, number = f.view("x", view.dtype, view.shape, view.strides), f.param("node", 0, MAX_NODES)
    order = contiguous_strides(view.shape)

    def check(index: list[Ix]) -> None:
        flat = Ix()
        for i, step in zip(index, order):
            flat = flat + i * step
        f.fail_unless(f.not_(f.isnan(f.cast(f.load(x, index), view.dtype.compute))), number, f.value(flat))
    nested(f, view.shape, check)
    return f
