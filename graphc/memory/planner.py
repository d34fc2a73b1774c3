"""The memory plan: storage for all values, liveness, one arena. Bodies of loops and branches are planned inside out.

Nothing that has been handed out changes: storage puts values into buffers, liveness decides which buffers are one,
offsets are assigned, and only then is the plan made, with buffers that say where they are.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, cast, overload

import numpy as np

from graphc.errors import InternalError
from graphc.ir.dims import Dim, ceil_div, largest, largest_by, lower, typical
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.room import check_bytes
from graphc.ir.size_atoms import Named
from graphc.ir.size_proofs import is_nonnegative
from graphc.memory.formula import named
from graphc.memory.buffer_aliasing import Order
from graphc.memory.plan import Buffer, Packed, PackedOperand, Place, Plan, ProgramPlan, Region
from graphc.memory.scan_layout import scan_layout
from graphc.memory.storage import ConstantPool, Stored, assign_storage, shareable
from graphc.records import dataclass
from graphc.schedule.choose import schedule_node
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.target import ALIGNMENT, Target
from graphc.schedule.view import ViewType

Interval = tuple[int, int]          # first and last position at which a buffer is in use
Views = tuple[ViewType, ...]


def plan_memory(main: Graph, target: Target, prepare: Graph | None = None,
                orders: Mapping[Value, Order] | None = None, anew: bool = False) -> ProgramPlan:
    """The plan of a whole program: `main` runs in every call, `prepare` when the state has changed. Needs fused nodes
    in their final order. `orders`: the storage order of the axes of values that are not row-major. `anew`: what `main`
    writes is packed beforehand, too.

    Constants and operands in state that `main` never writes are packed beforehand, and kept behind the state's own
    arrays.
    """
    constants, packed = ConstantPool(), _PackedPool(len(main.state))
    planner = Planner(target, constants, packed, orders or {})
    plan = planner.program(main, lambda new: anew or new is None)
    constants.lasting = False
    prepared = planner.program(prepare, lambda new: False) if prepare else None
    return ProgramPlan(plan, prepared, constants.constants(), Packed(packed.buffers))


class _PackedPool:
    """Collects the operands that are packed beforehand, equal ones once; `first` is the state slot of the first."""

    def __init__(self, first: int):
        self.first = first
        self.buffers: dict[PackedOperand, Buffer] = {}

    def buffer(self, operand: Place, schedule: Schedule, nbytes: Dim) -> Buffer:
        buffer = operand.buffer
        key = PackedOperand(buffer.space, buffer.slot, buffer.offset, operand.offset, operand.view, schedule)
        if key not in self.buffers:
            self.buffers[key] = Buffer("state", nbytes, self.first + len(self.buffers), fixed=True)
        return self.buffers[key]


@dataclass(frozen=True)
class Planner:
    """Plans the graphs of one program, which share their constants and packed operands."""
    target: Target
    constants: ConstantPool
    packed: _PackedPool
    orders: Mapping[Value, Order]
    # of equal nodes, computed once: by operator, operands, results, and which operands never change
    schedules: dict[tuple[Op, Views, Views, tuple[bool, ...]], Schedule] = field(default_factory=dict)

    def program(self, graph: Graph, lasts: Callable[[Value | None], bool]) -> Plan:
        """The plan of a graph that is called from outside. `lasts`: whether state of which it makes this new value, or
        none, is the same for all its kernels: it changes only between calls, or was packed before."""
        places = {v: Place.dense(v, Buffer("input", v.type.nbytes, slot)) for slot, v in enumerate(graph.inputs)}
        places |= {v: Place.dense(v, Buffer("state", v.type.nbytes, slot, fixed=lasts(new)))
                   for slot, (v, new) in enumerate(zip(graph.state, graph.updates))}
        results = [Place.dense(v, Buffer("output", v.type.nbytes, slot)) for slot, v in enumerate(graph.outputs)]
        results += [Place.dense(v, Buffer("state", v.type.nbytes, slot))
                    for slot, v in enumerate(graph.updates) if v is not None]
        return self.plan(graph, places, results)

    def body(self, graph: Graph, places: Sequence[Place], results: Sequence[Place | None],
             captured: int, in_place: InplacePairs = (), loops: bool = False) -> Plan:
        """The plan of a region whose inputs and results lie at these places of the surrounding graph, which alone
        decides about their layout; inputs from number `captured` on are what they are there, for a scan, which
        `loops`, in every trip. `in_place`: pairs (result, argument) of one memory, which the body changes."""
        arguments = {v: p if slot >= captured and p.lasts else
                     p.given_as("argument", slot, fixed=loops and slot >= captured)
                     for slot, (v, p) in enumerate(zip(graph.inputs, places, strict=True))}
        wanted = [p and p.given_as("result", slot) for slot, p in enumerate(results)]
        for r, a in in_place:
            wanted[r] = arguments[graph.inputs[a]] = places[a].given_as("inout", a)
        return self.plan(graph, arguments, wanted)

    def plan(self, graph: Graph, arguments: Mapping[Value, Place], results: Sequence[Place | None]) -> Plan:
        """The plan of one graph, whose arguments are at these places and whose results must come to lie at those."""
        stored = assign_storage(graph, arguments, results, self.constants, self._schedule, self.orders)
        regions: dict[Node, Region] = {}
        scratch: dict[Node, Buffer] = {}
        packed: dict[Node, Buffer] = {}
        for node in stored.graph.nodes:
            if node.op.is_control:
                regions[node] = REGION_PLANNERS[type(node.op)](self, cast(NodeOf[Any], node), stored)
            elif node in stored.schedules:
                scratch |= self._scratch(node, stored)
                packed |= self._packed(node, stored)
        buffers, arena_bytes = BufferSharing.of(stored, _temporaries(regions, scratch)).allocated()
        places = {v: place.moved(buffers) for v, place in stored.places.items()}
        regions = {node: region.moved(buffers) for node, region in regions.items()}
        scratch = {node: buffers[buffer] for node, buffer in scratch.items()}
        return Plan(stored.graph, places, _with_aliases(stored, places), scratch, packed, regions, arena_bytes,
                    stored.assembled, stored.borders)

    def _schedule(self, node: Node, ins: Sequence[Place], outs: Sequence[Place]) -> Schedule:
        views, results = tuple(p.view for p in ins), tuple(p.view for p in outs)
        fixed = tuple(p.buffer.fixed for p in ins)
        key = (node.op, views, results, fixed)
        if key not in self.schedules:
            self.schedules[key] = schedule_node(node, views, results, self.target, fixed)
        return self.schedules[key]

    def _scratch(self, node: Node, stored: Stored) -> dict[Node, Buffer]:
        """Memory that the threads of a kernel share while it runs."""
        size = stored.schedules[node].shared_bytes
        return {node: Buffer("arena", size)} if size else {}

    def _packed(self, node: Node, stored: Stored) -> dict[Node, Buffer]:
        """Memory of the operand that is packed before the kernel runs: in state, or before the loop around it."""
        schedule = stored.schedules[node]
        size = schedule.packed_bytes
        if not size:
            return {}
        if schedule.prepacked is None:
            raise InternalError(f"a schedule packs nothing into {size} bytes: {schedule}", "plan memory", repr(node))
        operand = stored.places[node.inputs[schedule.prepacked]]
        return {node: self.packed.buffer(operand, schedule, size) if operand.lasts else Buffer("arena", size)}


def _plan_scan(planner: Planner, node: NodeOf[Scan], stored: Stored) -> Region:
    op, in_place = node.op, stored.in_place[node]
    slots, captured = stored.carries[node], op.carries + op.xs
    places = [stored.places[v] for v in node.inputs]
    steps = [p.element() for p in (*slots, *places[op.carries:captured])]
    windows = (None,) * op.carries + scan_layout(op, in_place).windows
    stacks = (*slots, *(stored.places[v] for v in node.outputs[op.carries:]))
    results = [None if window else p.element() for p, window in zip(stacks, windows, strict=True)]
    plan = planner.body(op.body, steps + places[captured:], results, captured, in_place, loops=True)
    before = {inner: buffer for inner, buffer in plan.packed.items() if buffer.space == "arena"}
    return Region({"body": plan}, Buffer("arena", plan.arena_bytes), slots, before, in_place)


def _plan_cond(planner: Planner, node: NodeOf[Cond], stored: Stored) -> Region:
    captured, in_place = [stored.places[v] for v in node.inputs[1:]], stored.in_place[node]
    results, pairs = [stored.places[v] for v in node.outputs], tuple((o, i - 1) for o, i in in_place)
    for o, i in pairs:
        captured[i] = results[o]
    plans = {name: planner.body(graph, captured, results, 0, pairs)
             for name, graph in (("then_body", node.op.then_body), ("else_body", node.op.else_body))}
    return Region(plans, Buffer("arena", largest(*(p.arena_bytes for p in plans.values()))), in_place=in_place)


def _plan_while(planner: Planner, node: NodeOf[WhileLoop], stored: Stored) -> Region:
    op, in_place = node.op, stored.in_place[node]
    carries, pairs = [stored.places[v] for v in node.outputs[1:]], tuple((o - 1, i) for o, i in in_place)
    places = carries + [stored.places[v] for v in node.inputs[op.carries:]]
    go = Place.dense(op.cond_body.outputs[0], Buffer("arena", op.cond_body.outputs[0].type.nbytes))
    new = [replace(p, buffer=Buffer("arena", v.type.nbytes), offset=0) for v, p in zip(op.body.outputs, carries)]
    for c, _ in pairs:
        new[c] = carries[c]
    plans = {"cond_body": planner.body(op.cond_body, places, [go], op.carries),
             "body": planner.body(op.body, places, new, op.carries, pairs)}
    return Region(plans, Buffer("arena", largest(*(p.arena_bytes for p in plans.values()))), (go, *new),
                  in_place=in_place)


REGION_PLANNERS: dict[type[Op], Callable[[Planner, NodeOf[Any], Stored], Region]] = {
    Scan: _plan_scan, Cond: _plan_cond, WhileLoop: _plan_while}


def _temporaries(regions: Mapping[Node, Region], scratch: Mapping[Node, Buffer]) -> dict[Node, list[Buffer]]:
    """Memory that nodes need while they run."""
    found = {node: [buffer] for node, buffer in scratch.items()}
    for node, region in regions.items():        # a carry of one slot may have become a result of the graph
        found[node] = [b for b in region.buffers if b.space == "arena"]
    return found


def _with_aliases(stored: Stored, places: Mapping[Value, Place]) -> dict[Node, Schedule]:
    """The schedules, with those of updates whose result came to lie where their first operand lies."""
    aliased = {node: s.updating() for node, s in stored.schedules.items()
               if node.inputs and places[node.outputs[0]].same_memory(places[node.inputs[0]])}
    return {**stored.schedules, **aliased}


@dataclass
class BufferSharing:
    """When each arena buffer is in use, by position in the order of nodes, and which buffers are one: an output that
    may overwrite a dying input joins its buffer."""
    stored: Stored
    last_use: dict[Buffer, int]
    live: dict[Buffer, Interval] = field(default_factory=dict)
    joined: dict[Buffer, Buffer] = field(default_factory=dict)

    @staticmethod
    def of(stored: Stored, temporaries: Mapping[Node, Sequence[Buffer]]) -> "BufferSharing":
        nodes = stored.graph.nodes
        last_use = {stored.places[v].buffer: position for position, node in enumerate(nodes) for v in node.inputs}
        sharing = BufferSharing(stored, last_use)
        for position, node in enumerate(nodes):
            for output in range(len(node.outputs)):
                sharing.store(node, output, position)
            for buffer in temporaries.get(node, ()):
                buffer = sharing.joined.get(buffer, buffer)
                start, end = sharing.live.get(buffer, (position, position))
                sharing.live[buffer] = (start, max(end, position))
        return sharing

    def allocated(self) -> tuple[dict[Buffer, Buffer], Dim]:
        """For each buffer the one that it is, with its offset; the bytes of the arena."""
        offsets, nbytes = assign_offsets(self.live)
        final = {buffer: replace(buffer, offset=offset) for buffer, offset in offsets.items()}
        return final | {buffer: final[donor] for buffer, donor in self.joined.items()}, nbytes

    def buffer(self, v: Value) -> Buffer:
        """The one that the value is in."""
        buffer = self.stored.places[v].buffer
        return self.joined.get(buffer, buffer)

    def store(self, node: Node, output: int, position: int) -> None:
        """The node at this position stores its output, in memory of its own or in that of a dying input."""
        buffer, last_use = self.buffer(node.outputs[output]), self.last_use
        if buffer.space != "arena" or buffer in self.live:
            return
        donor = self._donor(node, output, position)
        if donor is None:
            self.live[buffer] = (position, max(position, last_use.get(buffer, position)))
            return
        self.joined[buffer] = donor
        last_use[donor] = max(last_use[donor], last_use.pop(buffer, position))
        self.live[donor] = (self.live[donor][0], last_use[donor])

    def _donor(self, node: Node, output: int, position: int) -> Buffer | None:
        """The buffer of a dying input that this output may take over."""
        places = self.stored.places
        mine = places[node.outputs[output]]
        for o, i in shareable(node, self.stored.pairs(node), places, self.buffer):
            offset, theirs = places[node.inputs[i]].offset, self.buffer(node.inputs[i])
            if (o == output and theirs.space == "arena" and self.last_use.get(theirs) == position
                    and offset == mine.offset and theirs.nbytes == mine.buffer.nbytes
                    and all(self.buffer(v) is not theirs for v in node.outputs)):
                return theirs
        return None


def assign_offsets(live: Mapping[Buffer, Interval]) -> tuple[dict[Buffer, Dim], Dim]:
    """Greedy by size (Pisarchyk & Lee, arXiv:2001.03288): the largest first, each at the lowest gap that is free during
    its life. The buffers' offsets, multiples of 64 bytes, and the bytes of the arena.

    Sizes that are not numbers are placed by what is typical; of two buffers that clash the one that lies below then
    lies below for all sizes, so that the other begins where the last of those below it ends.
    """
    buffers = sorted(live, key=lambda b: (-typical(b.nbytes), live[b]))
    check_bytes("what this graph computes", sum(_padded(typical(b.nbytes)) for b in buffers))
    starts = np.array([live[b][0] for b in buffers], np.int64)
    ends = np.array([live[b][1] for b in buffers], np.int64)
    low, high = np.zeros(len(buffers), np.int64), np.zeros(len(buffers), np.int64)
    for n, buffer in enumerate(buffers):
        size = _padded(typical(buffer.nbytes))
        clash = np.flatnonzero((starts[:n] <= ends[n]) & (ends[:n] >= starts[n]) & (high[:n] > low[:n]))
        low[n] = _lowest_gap(low[clash], high[clash], size)
        high[n] = low[n] + size
    if all(isinstance(b.nbytes, int) for b in buffers):
        return dict(zip(buffers, low.tolist())), int(high.max(initial=0))
    below = [np.flatnonzero((starts <= ends[n]) & (ends >= starts[n]) & (high <= low[n]) & (high > low)).tolist()
             for n in range(len(buffers))]
    return _stacked(buffers, np.argsort(low, kind="stable").tolist(), [set(b) for b in below])


def _stacked(buffers: Sequence[Buffer], order: Sequence[int],
             below: Sequence[set[int]]) -> tuple[dict[Buffer, Dim], Dim]:
    """The offsets of buffers, and the end of the last. order: upwards; below: numbers of those that must end before
    each begins."""
    offsets: dict[Buffer, Dim] = {}
    ends: list[Dim] = [0] * len(buffers)
    for n in order:
        direct = below[n] - set().union(*(below[k] for k in below[n]))      # these end after those below them
        offset = named(f"offset{n}", largest_by(_is_above, (0, *(ends[k] for k in sorted(direct)))))
        offsets[buffers[n]], ends[n] = offset, offset + _padded(buffers[n].nbytes)
    beneath = set().union(*below)
    return offsets, named("arena", largest_by(_is_above, (0, *(end for n, end in enumerate(ends) if n not in beneath))))


def _is_above(difference: Dim) -> bool:
    """Whether one end of buffers is never below another: not by long proofs through the formulas of offsets, since of
    ends of which none lies on another that is rare."""
    stacked = not isinstance(difference, int) and any(isinstance(atom, Named) for atom in difference.atoms)
    return lower(difference) >= 0 if stacked else is_nonnegative(difference)


@overload
def _padded(nbytes: int) -> int: ...
@overload
def _padded(nbytes: Dim) -> Dim: ...


def _padded(nbytes: Dim) -> Dim:
    return ceil_div(nbytes, ALIGNMENT) * ALIGNMENT


def _lowest_gap(low: np.ndarray, high: np.ndarray, size: int) -> int:
    """The lowest offset at which `size` bytes overlap none of the taken ranges."""
    order = np.argsort(low, kind="stable")
    low, high = low[order], high[order]
    reached = np.maximum.accumulate(np.concatenate(([0], high)))
    fits = np.flatnonzero(low - reached[:-1] >= size)
    return int(reached[fits[0]] if fits.size else reached[-1])
