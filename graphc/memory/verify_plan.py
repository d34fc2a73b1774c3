"""Proves that a memory plan is sound, or raises InternalError. The conditions are written here a second time,
independently of the planner.

Checked: every view stays inside its buffer, and the slots of a loop inside theirs for its first trips and its last; the
arguments and results of a body have the places and layouts that the graph around it gives them; buffers in use at the
same time do not overlap; no kernel writes over memory that is still read, except a kernel that may work in place; every
result is at the end in its place.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from heapq import heappop, heappush
from typing import Any, NamedTuple, NoReturn, cast

from graphc.errors import InternalError
from graphc.ir.dims import Dim, Poly, ceil_div, exact_quotient, lower, quotient_and_rest, typical
from graphc.ir.graph import Node, NodeOf, Value
from graphc.ir.op import Op
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.shape import Concat, Pad
from graphc.ir.size_proofs import is_nonnegative
from graphc.ir.types import normalize_axis
from graphc.memory.plan import Buffer, MemorySpace, Place, Plan
from graphc.memory.scan_layout import scan_layout
from graphc.records import dataclass
from graphc.schedule.schedule import InplacePairs
from graphc.schedule.target import ALIGNMENT
from graphc.schedule.view import span

NEVER = 1 << 62                         # the position behind all nodes, at which results are read
READ_ONLY: tuple[MemorySpace, ...] = ("const", "input", "argument")


def verify_plan(plan: Plan) -> None:
    """InternalError, naming the value and the node, when the plan of a program, or of a body in it, is not sound."""
    graph = plan.graph

    def arrays(values: Sequence[Value | None], space: MemorySpace) -> list[Place]:
        return [Place.dense(v, Buffer(space, v.type.nbytes, slot)) for slot, v in enumerate(values) if v is not None]
    _Checker(plan, arrays(graph.inputs, "input") + arrays(graph.state, "state"),
             arrays(graph.outputs, "output") + arrays(graph.updates, "state")).check()


@dataclass
class _Checker:
    """Of one graph: `given` are the places of its arguments and `wanted` those of its results, as it should see
    them."""
    plan: Plan
    given: Sequence[Place]
    wanted: Sequence[Place]
    rooms: dict[object, list[tuple[Dim, Dim]]] = field(default_factory=dict)    # bytes of arrays around it

    def check(self) -> None:
        self.handed_over()
        for v, place in self.plan.places.items():
            self.inside(place, v)
        for node in self.plan.assembled:
            self.put_together(node)
        for node, region in self.plan.regions.items():
            for p in region.loop:
                self.inside(p, node)
            REGIONS[type(node.op)](self, cast(NodeOf[Any], node))
        self.buffers_apart()
        _Lives(self.plan).check()

    # ---- places
    def handed_over(self) -> None:
        graph, places = self.plan.graph, self.plan.places
        for v, place in (*zip(graph.arguments, self.given, strict=True), *zip(graph.results, self.wanted, strict=True)):
            if not (places[v].offset == place.offset and places[v].has_layout(place)
                    and memory(places[v].buffer) == memory(place.buffer)):
                fail(f"{v} lies in {places[v]}, the graph around {graph.name} has it in {place}")
            low, high = span(place.shape, place.strides)
            size = place.dtype.itemsize
            room = (place.offset + low) * size, (place.offset + high + 1) * size
            self.rooms.setdefault(memory(place.buffer), []).append(room)

    def inside(self, place: Place, what: object) -> None:
        size = place.dtype.itemsize
        low, high = span(place.shape, place.strides)
        rooms = self.rooms.get(memory(place.buffer), [(0, place.buffer.nbytes)])
        mine = (place.offset + low) * size, (place.offset + high + 1) * size
        if low <= high and not any(first <= mine[0] <= mine[1] <= last for first, last in rooms):
            spans = ", ".join(f"[{first}, {last})" for first, last in rooms)
            fail(f"{what} in {place} leaves the bytes {spans} of its memory")

    def put_together(self, node: Node) -> None:
        """The parts of a concatenation, and the inside of a pad, lie where they belong in the whole."""
        whole, places, op = self.plan.places[node.outputs[0]], self.plan.places, node.op
        at: Dim = 0
        for v in node.inputs:
            start: list[Dim] = [0] * v.type.rank
            if isinstance(op, Pad):
                start = list(op.low)
            elif isinstance(op, Concat):
                axis = normalize_axis(op.axis, v.type.rank)
                start[axis], at = at, at + v.type.shape[axis]
            else:
                fail(f"{op.name} is not put together of its operands", node)
            offset = whole.offset + sum(i * step for i, step in zip(start, whole.strides))
            if places[v] != Place(whole.buffer, whole.dtype, v.type.shape, whole.strides, offset):
                fail(f"{v} in {places[v]} is not where it belongs in {whole}", node)

    # ---- bodies
    def body(self, node: Node, name: str, given: Sequence[Place], wanted: Sequence[Place],
             in_place: InplacePairs = ()) -> None:
        """The plan of a body whose arguments and results lie at these places of this graph; those of `in_place`
        (result, argument) where the result lies."""
        region = self.plan.regions[node]
        inner = region.plans[name]
        if inner.arena_bytes > region.arena.nbytes:
            fail(f"the arena of {name} has {inner.arena_bytes} bytes, its region {region.arena.nbytes}", node)
        taken = [p if p.lasts and inner.places[v] == p else p.given_as("argument", i)
                 for i, (v, p) in enumerate(zip(inner.graph.inputs, given))]
        wanted = list(wanted)
        for r, a in in_place:
            taken[a] = wanted[r] = replace(wanted[r], buffer=Buffer("inout", wanted[r].buffer.nbytes, a))
        _Checker(inner, taken, wanted).check()

    def places(self, values: Sequence[Value]) -> list[Place]:
        return [self.plan.places[v] for v in values]

    def scan(self, node: NodeOf[Scan]) -> None:
        op, region = node.op, self.plan.regions[node]
        slots, layout = region.loop, scan_layout(op, region.in_place)
        stacks = self.places(node.inputs)[op.carries:op.carries + op.xs] + self.places(node.outputs)[op.carries:]
        for c, place in enumerate(slots):
            used = [(layout.slot(c, t, t % 2, after=False), layout.slot(c, t, t % 2, after=True))
                    for t in _trips(op.length)]
            all_slots = {layout.first(c), layout.last(c), *sum(used, ())}
            if (any((before == after) != layout.in_place(c) for before, after in used)
                    or not all(0 <= s < place.shape[0] for s in all_slots)):
                fail(f"carry {c} is in slots {used} of {place.shape[0]}", node)
        if any(p.shape[0] != op.length for p in stacks):
            fail(f"stacked arrays of another length than {op.length}", node)
        given = [p.element() for p in (*slots, *stacks[:op.xs])] + self.places(node.inputs)[op.carries + op.xs:]
        wanted = [p.element().given_as("result", j) for j, p in enumerate((*slots, *stacks[op.xs:]))]
        for j, window in enumerate(layout.windows, op.carries):
            if window:          # the carry itself: after the step, or before it
                before = slots[window.carry].element().given_as("argument", window.carry)
                wanted[j] = wanted[window.carry] if (window.first == 0) == op.reverse else before
        self.body(node, "body", given, wanted, region.in_place)

    def cond(self, node: NodeOf[Cond]) -> None:
        pairs = tuple((o, i - 1) for o, i in self.plan.regions[node].in_place)
        for name in ("then_body", "else_body"):
            wanted = [p.given_as("result", j) for j, p in enumerate(self.places(node.outputs))]
            self.body(node, name, self.places(node.inputs)[1:], wanted, pairs)

    def while_loop(self, node: NodeOf[WhileLoop]) -> None:
        go, *new = self.plan.regions[node].loop
        given = self.places(node.outputs)[1:] + self.places(node.inputs)[node.op.carries:]
        self.body(node, "cond_body", given, [go.given_as("result", 0)])
        pairs = tuple((o - 1, i) for o, i in self.plan.regions[node].in_place)
        for c, place in enumerate(new):
            if place.same_memory(given[c]) != ((c, c) in pairs):
                fail(f"carry {c} in {given[c]} becomes {place}, changed in place are {pairs}", node)
        self.body(node, "body", given, [p.given_as("result", j) for j, p in enumerate(new)], pairs)

    # ---- buffers
    def temporaries(self, node: Node) -> Iterator[Buffer]:
        """Memory that is in use while a node runs, besides its operands and results."""
        if node in self.plan.scratch:
            yield self.plan.scratch[node]
        if node in self.plan.regions:
            region = self.plan.regions[node]
            yield from (region.arena, *(p.buffer for p in region.loop), *region.packed.values())

    def buffers_apart(self) -> None:
        """A sweep over the nodes: buffers in use do not overlap their neighbours in the arena. What lies below another
        buffer that stays in the arena does so too: of sizes that are names that is the shorter proof."""
        nodes, beneath = self.plan.graph.nodes, set[Buffer]()
        used: dict[Buffer, tuple[int, int]] = {}
        for at, node in enumerate(nodes):
            values = () if node.op.is_view else (*node.inputs, *node.outputs)
            operands = [self.plan.places[v].buffer for v in values]
            for b in (*operands, *self.temporaries(node)):
                if b.space == "arena" and b.nbytes:
                    used[b] = used.get(b, (at, at))[0], at
        active: list[_InUse] = []
        ends: list[tuple[int, _InUse]] = []
        for number, (b, (first, last)) in enumerate(sorted(used.items(), key=lambda item: item[1])):
            while ends and ends[0][0] < first:
                active.remove(heappop(ends)[1])
            mine = _InUse(typical(b.offset), typical(b.offset + b.nbytes), number, b)
            i = bisect_left(active, mine)
            if i and not active[i - 1].below(mine) or i < len(active) and not mine.below(active[i]):
                fail(f"{b} of {b.nbytes} bytes overlaps another buffer that is in use", nodes[first])
            beneath.update(below.buffer for below in ([active[i - 1]] if i else []) + ([mine] if active[i:] else []))
            active.insert(i, mine)
            heappush(ends, (last, mine))
        for b, (first, _) in used.items():
            if b.offset < 0 or b not in beneath and b.offset + b.nbytes > self.plan.arena_bytes:
                fail(f"{b} of {b.nbytes} bytes leaves the arena of {self.plan.arena_bytes} bytes", nodes[first])


class _InUse(NamedTuple):
    """A buffer in use, in the order of the arena for typical sizes: its first byte, and that behind its last."""
    first: int
    end: int
    number: int
    buffer: Buffer

    def below(self, other: _InUse) -> bool:
        """Whether it ends where the other begins or before, whatever the sizes. Offsets are aligned, so that it is
        easier to see of an end that is aligned too."""
        (start, nbytes), end = (self.buffer.offset, self.buffer.nbytes), other.buffer.offset
        return is_nonnegative(end - start - ceil_div(nbytes, ALIGNMENT) * ALIGNMENT) or start + nbytes <= end


def _trips(length: Dim) -> list[Dim]:
    """The first trips of a loop, and its last."""
    found: list[Dim] = [t for t in range(3) if t < lower(length)]
    return found if length - 1 in found or length == 0 else [*found, length - 1]


class _Lives:
    """Every value stays as it is until its last reader is done."""

    def __init__(self, plan: Plan):
        self.plan, self.graph = plan, plan.graph
        self.wholes: dict[Value, Node] = {v: node for node in plan.assembled for v in node.inputs}
        self.roots: dict[Value, tuple[Value, ...]] = {v: (v,) for v in plan.graph.arguments}    # whose memory it shows
        self.last: dict[Value, int] = dict.fromkeys(plan.graph.arguments, -1)
        for at, node in enumerate(self.graph.nodes):
            self._read(at, node)
        self.last.update((r, NEVER) for v in self.graph.results for r in self.roots[v])
        self.checked = max((at for at, node in enumerate(self.graph.nodes) if node.op.may_fail), default=-1)

    def _read(self, at: int, node: Node) -> None:
        if self._makes_nothing(node):
            seen = node.inputs[:1] if node.op.is_view else node.inputs
            shown = tuple(dict.fromkeys(r for v in seen for r in self.roots[v]))
            self.roots.update(dict.fromkeys(node.outputs, shown))
            return
        self.last.update((r, at) for v in node.inputs for r in self.roots[v])
        self.last.update(dict.fromkeys(node.outputs, at))
        self.roots.update((v, (v,)) for v in node.outputs)

    def _makes_nothing(self, node: Node) -> bool:
        """Whether it only shows memory in another way."""
        return node.op.is_view or node in self.plan.assembled

    def check(self) -> None:
        alive: dict[object, list[Value]] = {}
        for v in self.graph.arguments:
            alive.setdefault(memory(self.plan.places[v].buffer), []).append(v)
        for at, node in enumerate(self.graph.nodes):
            if self._makes_nothing(node) or isinstance(node.op, Constant):
                continue
            for v in node.outputs:
                buffer = self.plan.places[v].buffer
                if buffer.space in READ_ONLY or buffer.fixed:
                    fail(f"{v} is stored in {buffer}, which is only read", node)
                if buffer.space == "state" and at <= self.checked:
                    fail(f"{v} is stored in {buffer} before the last check of indices", node)
                here = alive.setdefault(memory(buffer), [])
                here[:] = [u for u in here if self.last[u] >= at]
                for u in here:
                    if not self._may_share(u, v, node, at):
                        fail(f"{v} is stored in {self.plan.places[v]}, where {u} is still read", node)
                here.append(v)

    def _may_share(self, u: Value, v: Value, node: Node, at: int) -> bool:
        """Parts of one whole; the carries and stacked results of one loop; an operand that the node reads element by
        element where it stores `v`, or of which it reads what lies elsewhere.
        """
        if u in self.wholes and self.wholes[u] is self.wholes.get(v) or u.node is node and isinstance(node.op, Scan):
            return True
        plan, mine = self.plan, self.plan.places[v]
        met = [i for i, w in enumerate(node.inputs) if u in self.roots[w] and not apart(plan.places[w], mine)]
        schedule, region = plan.schedules.get(node), plan.regions.get(node)
        pairs = schedule.inplace_pairs(plan.views(node.inputs), plan.views(node.outputs)) if schedule else \
            region.in_place if region else ()
        there = len(met) == 1 and (v.index, met[0]) in pairs and plan.places[node.inputs[met[0]]].same_memory(mine)
        return self.last[u] == at and (not met or there)


def apart(a: Place, b: Place) -> bool:
    """Whether two places in one buffer have no byte in common: one ends before the other begins, or both are columns of
    the same rows.
    """
    spans = [span(p.shape, p.strides) for p in (a, b)]
    mine, other = (((p.offset + low) * p.dtype.itemsize, (p.offset + high + 1) * p.dtype.itemsize)
                   for p, (low, high) in zip((a, b), spans))
    if _one_ends_first(mine, other):
        return True
    rows = {s if isinstance(s, Poly) else abs(s) for p in (a, b) for s in p.strides} if a.dtype == b.dtype else set()
    return any(x and y and _one_ends_first(x, y)
               for x, y in ((_columns(a, row), _columns(b, row)) for row in rows - {0, 1}))


def _one_ends_first(a: tuple[Dim, Dim], b: tuple[Dim, Dim]) -> bool:
    return is_nonnegative(b[0] - a[1]) or is_nonnegative(a[0] - b[1])


def _columns(p: Place, row: Dim) -> tuple[Dim, Dim] | None:
    """The first column of the place and that behind its last, if it lies in rows of so many elements and none of its
    lines crosses their ends, for all sizes.
    """
    inside = [(n, s) for n, s in zip(p.shape, p.strides) if exact_quotient(s, row) is None]
    low, high = span(tuple(n for n, _ in inside), tuple(s for _, s in inside))
    first = _remainder(p.offset + low, row)
    if first is None or not is_nonnegative(row - 1 - (first + high - low)):
        return None
    return first, first + high - low + 1


def _remainder(dim: Dim, row: Dim) -> Dim | None:
    """`dim` modulo `row`, if that is one formula for all sizes."""
    if isinstance(dim, int) and isinstance(row, int):
        return dim % row
    rest = quotient_and_rest(dim, row)[1]
    return rest if is_nonnegative(rest) and is_nonnegative(row - 1 - rest) else None


def memory(buffer: Buffer) -> object:
    """Equal for two buffers that are one piece of memory."""
    return buffer if buffer.space in ("arena", "const") else (buffer.space, buffer.slot)


def fail(text: str, node: Node | None = None) -> NoReturn:
    raise InternalError(text, "plan verifier", "" if node is None else repr(node))


REGIONS: dict[type[Op], Callable[[_Checker, NodeOf[Any]], None]] = {
    Scan: _Checker.scan, Cond: _Checker.cond, WhileLoop: _Checker.while_loop}
