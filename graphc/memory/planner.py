"""The memory plan: storage for all values, liveness, one arena. Bodies of loops and branches are planned inside out."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.memory.plan import Buffer, Packed, Place, Plan, Region
from graphc.memory.scan_layout import scan_layout
from graphc.memory.storage import ALIGNMENT, Constants, Order, Stored, assign_storage
from graphc.schedule.choose import schedule_node
from graphc.schedule.schedule import Schedule
from graphc.schedule.target import Target

Interval = tuple[int, int]          # first and last position at which a buffer is in use


def plan_memory(graph: Graph, target: Target, constants: Constants, orders: Mapping[Value, Order] | None = None,
                packed: Packed | None = None) -> Plan:
    """The plan of a whole program. Needs fused nodes in their final order; gives offsets of all buffers in one arena.

    `packed` collects the operands that lie in state which the program does not write, and are packed beforehand; without it none are.
    """
    places = {v: Place.dense(v, Buffer("input", v.type.nbytes, slot)) for slot, v in enumerate(graph.inputs)}
    places |= {v: Place.dense(v, Buffer("state", v.type.nbytes, slot, fixed=packed is not None and new is None))
               for slot, (v, new) in enumerate(zip(graph.state, graph.updates))}
    results = [Place.dense(v, Buffer("output", v.type.nbytes, slot)) for slot, v in enumerate(graph.outputs)]
    results += [Place.dense(v, Buffer("state", v.type.nbytes, slot)) for slot, v in enumerate(graph.updates) if v is not None]
    return Planner(target, constants, orders or {}, packed).plan(graph, places, results)


@dataclass(frozen=True)
class Planner:
    target: Target
    constants: Constants
    orders: Mapping[Value, Order]
    packed: Packed | None = None
    schedules: dict[tuple, Schedule] = field(default_factory=dict)        # of equal nodes, computed once

    def plan(self, graph: Graph, arguments: Mapping[Value, Place], results: Sequence[Place | None]) -> Plan:
        stored = assign_storage(graph, arguments, results, self.constants, self._schedule, self.orders)
        plan = Plan(stored.graph, stored.places, stored.schedules, assembled=frozenset(stored.assembled), borders=stored.borders)
        for node in plan.graph.nodes:
            if node.op.is_control:
                plan.regions[node] = REGION_PLANNERS[type(node.op)](self, node, stored)
            elif node in stored.schedules:
                self._scratch(plan, node, stored.schedules[node])
        plan.arena_bytes = assign_offsets(_intervals(plan, stored))
        stored.schedules.update(_aliased(stored))
        return plan

    def _scratch(self, plan: Plan, node: Node, schedule: Schedule) -> None:
        """Memory that the threads of a kernel share while it runs, and memory of the operand that is packed before it."""
        if size := schedule.shared_bytes:
            plan.scratch[node] = Buffer("arena", size)
        if size := schedule.packed_bytes:
            operand = plan.places[node.inputs[schedule.prepacked]]
            plan.packed[node] = self.packed.buffer(operand, schedule, size) if operand.lasts else Buffer("arena", size)

    def body(self, graph: Graph, places: Sequence[Place], results: Sequence[Place | None], fixed_from: int | None = None) -> Plan:
        """The plan of a region whose inputs and results lie at these places of the surrounding graph, which alone decides about their layout;
        inputs from number `fixed_from` on never change.
        """
        fixed = len(places) if fixed_from is None else fixed_from
        arguments = {v: p if slot >= fixed and p.lasts else p.given_as("argument", slot, fixed=slot >= fixed)
                     for slot, (v, p) in enumerate(zip(graph.inputs, places, strict=True))}
        return self.plan(graph, arguments, [p and p.given_as("result", slot) for slot, p in enumerate(results)])

    def _schedule(self, node: Node, ins: Sequence[Place], outs: Sequence[Place]) -> Schedule:
        views, results, fixed = tuple(p.view for p in ins), tuple(p.view for p in outs), tuple(p.buffer.fixed for p in ins)
        key = (node.op, views, results, fixed)
        if key not in self.schedules:
            self.schedules[key] = schedule_node(node, views, results, self.target, fixed)
        return self.schedules[key]


def _plan_scan(planner: Planner, node: Node, stored: Stored) -> Region:
    op = node.op
    slots, captured = stored.carries[node], op.carries + op.xs
    places = [stored.places[v] for v in node.inputs]
    steps = [p.element() for p in (*slots, *places[op.carries:captured])]
    windows = (None,) * op.carries + scan_layout(op).windows
    stacks = (*slots, *(stored.places[v] for v in node.outputs[op.carries:]))
    results = [None if window else p.element() for p, window in zip(stacks, windows, strict=True)]
    plan = planner.body(op.body, steps + places[captured:], results, captured)
    before = {inner: buffer for inner, buffer in plan.packed.items() if buffer.space == "arena"}
    return Region({"body": plan}, Buffer("arena", plan.arena_bytes), slots, before)


def _plan_cond(planner: Planner, node: Node, stored: Stored) -> Region:
    captured = [stored.places[v] for v in node.inputs[1:]]
    results = [stored.places[v] for v in node.outputs]
    plans = {name: planner.body(graph, captured, results)
             for name, graph in (("then_body", node.op.then_body), ("else_body", node.op.else_body))}
    return Region(plans, Buffer("arena", max(p.arena_bytes for p in plans.values())))


def _plan_while(planner: Planner, node: Node, stored: Stored) -> Region:
    op = node.op
    carries = [stored.places[v] for v in node.outputs[1:]]
    places = carries + [stored.places[v] for v in node.inputs[op.carries:]]
    go = Place.dense(op.cond_body.outputs[0], Buffer("arena", op.cond_body.outputs[0].type.nbytes))
    new = [replace(p, buffer=Buffer("arena", v.type.nbytes), offset=0) for v, p in zip(op.body.outputs, carries)]
    plans = {"cond_body": planner.body(op.cond_body, places, [go]), "body": planner.body(op.body, places, new)}
    return Region(plans, Buffer("arena", max(p.arena_bytes for p in plans.values())), (go, *new))


REGION_PLANNERS: dict[type[Op], Callable[[Planner, Node, Stored], Region]] = {
    Scan: _plan_scan, Cond: _plan_cond, WhileLoop: _plan_while}


def _intervals(plan: Plan, stored: Stored) -> dict[Buffer, Interval]:
    """When each arena buffer is in use, by position in the order. Outputs that may overwrite a dying input join its buffer."""
    live: dict[Buffer, Interval] = {}
    last_use = _last_uses(plan)
    residents = stored.residents()
    for position, node in enumerate(plan.graph.nodes):
        for output, v in enumerate(node.outputs):
            place = plan.places[v]
            if place.buffer.space != "arena" or place.buffer in live:
                continue
            donor = _donor(stored, node, output, position, last_use)
            if donor is not None:
                _merge(stored, residents, place.buffer, donor)
                last_use[donor] = max(last_use[donor], last_use.pop(place.buffer, position))
                live[donor] = (live[donor][0], last_use[donor])
            else:
                live[place.buffer] = (position, max(position, last_use.get(place.buffer, position)))
        for buffer in _temporaries(plan, node):
            start, end = live.get(buffer, (position, position))
            live[buffer] = (start, max(end, position))
    return live


def _last_uses(plan: Plan) -> dict[Buffer, int]:
    return {plan.places[v].buffer: position for position, node in enumerate(plan.graph.nodes) for v in node.inputs}


def _temporaries(plan: Plan, node: Node) -> list[Buffer]:
    """Memory that a node needs while it runs."""
    region = plan.regions.get(node)
    own = [region.arena, *(p.buffer for p in region.loop), *region.packed.values()] if region else []
    own += [plan.scratch[node]] if node in plan.scratch else []
    return [b for b in own if b.space == "arena"]           # a carry of one slot may have become a result of the graph


def _aliased(stored: Stored) -> dict[Node, Schedule]:
    """The schedules of kernels whose result came to lie where their first operand lies."""
    return {node: s.updating() for node, s in stored.schedules.items()
            if node.inputs and stored.places[node.outputs[0]].same_memory(stored.places[node.inputs[0]])}


def _donor(stored: Stored, node: Node, output: int, position: int, last_use: Mapping[Buffer, int]) -> Buffer | None:
    """The buffer of a dying input that this output may take over."""
    mine = stored.places[node.outputs[output]]
    for o, i in stored.inplace(node):
        theirs = stored.places[node.inputs[i]]
        if (o == output and theirs.buffer.space == "arena" and last_use.get(theirs.buffer) == position
                and theirs.offset == mine.offset and theirs.buffer.nbytes == mine.buffer.nbytes
                and all(stored.places[v].buffer is not theirs.buffer for v in node.outputs)):
            return theirs.buffer
    return None


def _merge(stored: Stored, residents: dict[Buffer, list[Value]], buffer: Buffer, donor: Buffer) -> None:
    """Every place in `buffer` moves to `donor`."""
    moved = residents.pop(buffer)
    residents[donor] += moved
    for v in moved:
        stored.places[v] = replace(stored.places[v], buffer=donor)


def assign_offsets(live: Mapping[Buffer, Interval]) -> int:
    """Greedy by size (Pisarchyk & Lee, arXiv:2001.03288): the largest first, each at the lowest gap that is free during its life.

    Sets the buffers' offsets, multiples of 64 bytes; returns the bytes of the arena.
    """
    buffers = sorted(live, key=lambda b: (-b.nbytes, live[b]))
    starts = np.array([live[b][0] for b in buffers], np.int64)
    ends = np.array([live[b][1] for b in buffers], np.int64)
    low, high = np.zeros(len(buffers), np.int64), np.zeros(len(buffers), np.int64)
    for n, buffer in enumerate(buffers):
        size = -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
        clash = np.flatnonzero((starts[:n] <= ends[n]) & (ends[:n] >= starts[n]) & (high[:n] > low[:n]))
        low[n] = _lowest_gap(low[clash], high[clash], size)
        high[n] = low[n] + size
        buffer.offset = int(low[n])
    return int(high.max(initial=0))


def _lowest_gap(low: np.ndarray, high: np.ndarray, size: int) -> int:
    """The lowest offset at which `size` bytes overlap none of the taken ranges."""
    order = np.argsort(low, kind="stable")
    low, high = low[order], high[order]
    reached = np.maximum.accumulate(np.concatenate(([0], high)))
    fits = np.flatnonzero(low - reached[:-1] >= size)
    return int(reached[fits[0]] if fits.size else reached[-1])
