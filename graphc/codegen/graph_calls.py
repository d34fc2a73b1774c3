"""The calls of a whole graph. Its loops and branches become loops and branches of main; the bodies' kernels are shared
with everything else.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from graphc.codegen.kernel_calls import KernelCalls
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.plan_memory import PlanMemory, within
from graphc.ir.dims import Dim
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.types import i64
from graphc.memory.plan import Buffer, Plan
from graphc.memory.scan_layout import scan_layout
from graphc.schedule.contraction_schedule import ContractionSchedule


def call_graph(calls: KernelCalls, memory: PlanMemory) -> None:
    """Calls the kernels of one graph, in order."""
    for node in memory.plan.graph.nodes:
        call_node(calls, node, memory)


def call_node(calls: KernelCalls, node: Node, memory: PlanMemory) -> None:
    """The loop or branch that a control operator is; the kernel of an operator that has one: views, constants, and
    what is put together of parts that lie where they belong, have none.
    """
    if type(node.op) in CONTROL:
        if any(memory.plan.places[v].buffer.space == "state" for v in node.outputs):
            calls.commit()
        CONTROL[type(node.op)](calls, node, memory)
    elif node in memory.plan.schedules:
        calls.node(node, memory)


def _scan(calls: KernelCalls, node: Node, memory: PlanMemory) -> None:
    f, op, region = calls.function, cast(Scan, node.op), memory.plan.regions[node]
    layout, body, length = scan_layout(op, region.in_place), region.plans["body"], op.length
    ins, ys = memory.views(node.inputs), memory.views(node.outputs[op.carries:])
    carries = [memory.view(p) for p in region.loop]
    for c, slots in enumerate(carries):
        if not memory.plan.places[node.inputs[c]].same_memory(region.loop[c].element(layout.first(c))):
            calls.copy(ins[c], _step(slots, layout.first(c)))
    packed = _pack_before(calls, region.packed, body, ins, memory.base)
    with f.loop(0, length, name="step") as loop:
        f.return_if_cancelled()
        trip = loop.index
        parity = f.divmod(trip, 2)[1]
        at = trip * -1 + (length - 1) if op.reverse else trip
        arguments = [_step(slots, layout.slot(c, trip, parity, after=False)) for c, slots in enumerate(carries)]
        arguments += [_step(x, at) for x in ins[op.carries:op.carries + op.xs]] + ins[op.carries + op.xs:]
        after = [_step(slots, layout.slot(c, trip, parity, after=True)) for c, slots in enumerate(carries)]
        results = dict(enumerate(after + [_step(y, at) for y in ys]))
        call_graph(calls, PlanMemory(f, body, memory.base + region.arena.offset, arguments, results, packed))


def _pack_before(calls: KernelCalls, buffers: Mapping[Node, Buffer], body: Plan, ins: Sequence[View],
                 base: Dim) -> dict[Node, list[View]]:
    """Packs operands of kernels of a loop's body that do not change in the loop; the memory that holds them."""
    packed = {}
    for node, buffer in buffers.items():
        schedule = cast(ContractionSchedule, body.schedules[node])
        place = body.places[node.inputs[cast(int, schedule.prepacked)]]
        operand = within(calls.function, ins[place.buffer.slot], place)
        packed[node] = calls.pack(operand, place.view, schedule, buffer, base)
    return packed


def _cond(calls: KernelCalls, node: Node, memory: PlanMemory) -> None:
    f, region = calls.function, memory.plan.regions[node]
    pred, *captured = memory.views(node.inputs)
    results = dict(enumerate(memory.views(node.outputs)))
    for o, i in region.in_place:
        _begin(calls, node, memory, i, o)
        captured[i - 1] = results[o]

    def branch(name: str) -> None:
        call_graph(calls, PlanMemory(f, region.plans[name], memory.base + region.arena.offset, captured, results))
    with f.if_(f.load(pred, [])):
        branch("then_body")
    with f.else_():
        branch("else_body")


def _while_loop(calls: KernelCalls, node: Node, memory: PlanMemory) -> None:
    f, op, region = calls.function, cast(WhileLoop, node.op), memory.plan.regions[node]
    ins = memory.views(node.inputs)
    count, *carries = memory.views(node.outputs)
    pred, *new = [memory.view(p) for p in region.loop]

    def part(name: str, results: Sequence[View]) -> None:
        inside = PlanMemory(f, region.plans[name], memory.base + region.arena.offset, carries + ins[op.carries:],
                            dict(enumerate(results)))
        call_graph(calls, inside)
    for c in range(op.carries):
        _begin(calls, node, memory, c, c + 1)
    changed = {i for _, i in region.in_place}
    with f.while_(op.max_trips) as loop:
        f.return_if_cancelled()
        part("cond_body", [pred])
        loop.condition(f.load(pred, []))
        part("body", new)
        for c in range(op.carries):
            if c not in changed:
                calls.copy(new[c], carries[c])
    f.store(count, [], f.cast(f.value(loop.count), i64))


def _begin(calls: KernelCalls, node: Node, memory: PlanMemory, source: int, target: int) -> None:
    """Puts an operand where an output is to be, unless it lies there."""
    places, x, y = memory.plan.places, node.inputs[source], node.outputs[target]
    if not places[x].same_memory(places[y]):
        calls.copy(*memory.views((x, y)))


CONTROL: dict[type[Op], Callable[[KernelCalls, Node, PlanMemory], None]] = {Scan: _scan, Cond: _cond,
                                                                            WhileLoop: _while_loop}


def _step(view: View, at: Ix | Dim) -> View:
    """Slice number `at` along the first axis."""
    return View(view.root, view.shape[1:], view.strides[1:], view.start + as_ix(at) * view.strides[0], view.dtype)
