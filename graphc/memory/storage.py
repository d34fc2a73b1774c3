"""Gives every value a place: views share memory, results are written to the caller's arrays, copies are added only
where neither is possible."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from graphc.errors import InternalError
from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim, exact_quotient
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Literal, Op
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.control import Scan
from graphc.ir.ops.elementwise import COPY
from graphc.ir.ops.packed import Pack
from graphc.ir.ops.remat import Hold
from graphc.ir.ops.shape import BroadcastTo, Pad, Reshape, Slice, Transpose
from graphc.ir.types import TensorType
from graphc.memory.buffer_aliasing import Order, Slot, find_slots
from graphc.memory.plan import Buffer, Constants, Place
from graphc.memory.scan_layout import scan_layout
from graphc.records import dataclass
from graphc.schedule.in_place import updated, updated_results
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.target import ALIGNMENT
from graphc.schedule.view import contiguous_strides, reshape_strides

ChooseSchedule = Callable[[Node, Sequence[Place], Sequence[Place]], Schedule]


class ConstantPool:
    """Collects the constants of a program, equal arrays once. lasting: whether kernels of the graph that is planned may
    read them packed beforehand; those that run beforehand may not."""

    def __init__(self) -> None:
        self.lasting = True
        self._parts: list[bytes] = []
        self._known: dict[Literal, Buffer] = {}
        self._nbytes = 0

    def buffer(self, literal: Literal) -> Buffer:
        if literal not in self._known:
            self._known[literal] = Buffer("const", len(literal.data), offset=self._nbytes)
            padding = bytes(-len(literal.data) % ALIGNMENT)
            self._parts += literal.data, padding
            self._nbytes += len(literal.data) + len(padding)
        return replace(self._known[literal], fixed=self.lasting)

    def constants(self) -> Constants:
        return Constants(tuple(self._parts), self._nbytes)


@dataclass(frozen=True)
class Stored:
    """A graph whose values have places, in arena buffers without offsets, and whose kernels have schedules."""
    graph: Graph
    places: Mapping[Value, Place]
    schedules: Mapping[Node, Schedule]
    carries: Mapping[Node, tuple[Place, ...]]       # of a scan: the slots of each carry, stacked
    in_place: Mapping[Node, InplacePairs]           # of loops and branches: what their bodies change where it lies
    assembled: frozenset[Node]                      # concatenations and pads, without kernel: parts computed in place
    borders: Mapping[Value, Node]                   # of these the pads, by their insides

    def pairs(self, node: Node) -> InplacePairs:
        """(output, input): what the node may make in the memory of a dying operand."""
        return inplace_pairs(node, self.schedules, self.in_place, self.places)


def inplace_pairs(node: Node, schedules: Mapping[Node, Schedule], in_place: Mapping[Node, InplacePairs],
                  places: Mapping[Value, Place]) -> InplacePairs:
    """Pairs (output, input) of a kernel, by its schedule, or of a loop or branch."""
    if node in schedules:
        ins, outs = ([places[v].view for v in values] for values in (node.inputs, node.outputs))
        return schedules[node].inplace_pairs(ins, outs)
    return tuple((o, i) for o, i in in_place.get(node, ())
                 if places[node.outputs[o]].view == places[node.inputs[i]].view)


def shareable(node: Node, pairs: InplacePairs, places: Mapping[Value, Place],
              buffer: Callable[[Value], Buffer]) -> Iterator[tuple[int, int]]:
    """Of pairs (output, input) of `node` those that may share memory: no other operand shows that memory in another
    way. `buffer` gives the one that a value is in now."""
    for o, i in pairs:
        mine = buffer(node.inputs[i])
        if all(j == i or buffer(v) is not mine for j, v in enumerate(node.inputs)):
            yield o, i


def assign_storage(graph: Graph, arguments: Mapping[Value, Place], results: Sequence[Place | None],
                   constants: ConstantPool, schedule: ChooseSchedule,
                   orders: Mapping[Value, Order] | None = None) -> Stored:
    """The graph with the copies it needs, a place for each of its values, a schedule for each kernel.

    `arguments` are the places of inputs and state; `results[i]` is the place, with its layout, in which result number i
    (outputs, then updates) must be, decided by the owner of that memory; None if it is there anyway. `orders` gives the
    storage order of axes where it is not row-major.
    """
    return _Storage(graph, arguments, constants, schedule, orders or {}).run(results)


class _Storage:
    def __init__(self, graph: Graph, arguments: Mapping[Value, Place], constants: ConstantPool,
                 schedule: ChooseSchedule, orders: Mapping[Value, Order]):
        self.graph, self.constants, self.schedule, self.orders = graph, constants, schedule, orders
        self.w = Rewriter(graph)
        self.places: dict[Value, Place] = {self.w[v]: place for v, place in arguments.items()}
        self.schedules: dict[Node, Schedule] = {}
        self.carries: dict[Node, tuple[Place, ...]] = {}
        self.in_place: dict[Node, InplacePairs] = {}
        self.changes: dict[Value, Value] = {}           # what lies where an argument lay: the operand that it changes
        self.assembled: set[Node] = set()
        self.borders: dict[Value, Node] = {}
        self.past = _Past()
        self.settled: dict[Value, Value] = {}           # results, and what lies where the first of each is wanted
        self.moved: dict[Buffer, Buffer] = {}           # arena buffers whose values came to lie where they are wanted
        self.residents: dict[Buffer, list[Value]] = {}  # what is in each buffer before that
        self.kept: set[Buffer] = set()                  # those of results
        self.dense: dict[Value, Value] = {}             # copies of what views cannot show where it lies
        self.slots = find_slots(graph, self.orders)
        wholes = {slot.whole: slot for slot in self.slots.values()}
        self.wholes = {node: (slot, Buffer("arena", slot.nbytes)) for node, slot in wholes.items()}

    def run(self, results: Sequence[Place | None]) -> Stored:
        self.change_arguments(results)
        for node in self.graph.nodes:
            with self.w.at(node.loc, node.scope):
                self.place(node)
        outputs, updates = self.graph.outputs, [u for u in self.graph.updates if u is not None]
        ends = [self.w[v] for v in outputs] + self.rescued([self.w[v] for v in updates])
        self.kept = {self.places[v].buffer for v in ends}
        for v, place in self.places.items():
            self.residents.setdefault(place.buffer, []).append(v)
        fixed = [self.settle(v, wanted) for v, wanted in zip(ends, results, strict=True)]
        new_outputs, new_updates = fixed[:len(outputs)], iter(fixed[len(outputs):])
        for state, old in zip(self.graph.state, self.graph.updates):
            if old is not None:
                self.w.update(self.w[state], next(new_updates))
        carries = {node: tuple(p.moved(self.moved) for p in slots) for node, slots in self.carries.items()}
        return Stored(self.w.finish(new_outputs, self.graph.output_names), self.places, self.schedules, carries,
                      self.in_place, frozenset(self.assembled), self.borders)

    def change_arguments(self, results: Sequence[Place | None]) -> None:
        """Results that are wanted where an argument lies, which the graph around this one knows to be possible."""
        wanted = {r: p for r, p in enumerate(results) if p is not None and p.buffer.space == "inout"}
        found = updated_results(self.graph) if wanted else {}
        for r in wanted:
            self.changes.update((node.outputs[o], node.inputs[i]) for node, o, i in found[r].steps)

    def place(self, node: Node) -> None:
        if isinstance(node.op, Constant):
            v, = self.w.keep(node)
            self.places[v] = Place.dense(v, self.constants.buffer(node.op.value))
        elif node.op.is_view:
            self.place_view(node)
        elif isinstance(node.op, Scan):
            self.place_scan(node, node.op)
        elif node in self.wholes:
            self.place_whole(node)
        else:
            outs = self.w.keep(node)
            self.places.update((v, self.place_result(old, v)) for old, v in zip(node.outputs, outs))
            if node.op.is_control:      # memory in another order of elements is no argument that a body changes
                self.in_place[outs[0].maker] = tuple((o, i) for o, i in updated(node)
                                                    if self.places[outs[o]].view.is_contiguous)
            self.choose_schedule()

    def place_whole(self, node: Node) -> None:
        """A concatenation whose parts are there already, or a pad: what makes its inside fills the elements around it,
        too."""
        v, = self.w.keep(node)
        slot, buffer = self.wholes[node]
        self.places[v] = slot.place_whole(v, buffer)
        self.assembled.add(v.maker)
        if isinstance(node.op, Pad):
            self.borders[v.maker.inputs[0]] = v.maker

    def place_result(self, old: Value, v: Value) -> Place:
        """Memory of its own, that of the argument which it is a change of, or a slot of a concatenation or pad."""
        if old in self.changes:
            return self.places[self.w[self.changes[old]]]
        slot: Slot | None = self.slots.get(old)
        if slot is not None:
            return slot.place(v, self.wholes[slot.whole][1])
        return Place.dense(v, Buffer("arena", v.type.nbytes), self.orders.get(old))

    def place_scan(self, node: Node, op: Scan) -> None:
        """Carries get slots; results that are carries are windows into these."""
        outs = self.w.keep(node)
        new = self.w.nodes[-1]
        in_place = self.in_place[new] = updated(node)
        layout = scan_layout(op, in_place)
        carries, stacked = outs[:op.carries], outs[op.carries:]
        changed = [self.changes.get(old) for old in node.outputs]
        slots = self.carries[new] = tuple(_stack(v, n) if old is None else self.places[self.w[old]].as_stack()
                                          for n, v, old in zip(layout.slots, carries, changed))
        for c, v in enumerate(carries):
            self.places[v] = slots[c].element(layout.last(c))
        for v, window in zip(stacked, layout.windows):
            own = Place.dense(v, Buffer("arena", v.type.nbytes))
            self.places[v] = slots[window.carry].elements(window.first, op.length) if window else own

    def choose_schedule(self) -> None:
        """Schedules the node that was added last, unless it is a control operator, which has none."""
        node = self.w.nodes[-1]
        if not node.op.is_control:
            ins, outs = ([self.places[v] for v in values] for values in (node.inputs, node.outputs))
            self.schedules[node] = self.schedule(node, ins, outs)

    def place_view(self, node: Node) -> None:
        old = node.inputs[0]
        source = part = self.w[old]
        rule = VIEW_RULES[type(node.op)]
        place = rule(self.places[source], node.op)
        if place is None:
            source = self.w.map[old] = self.dense[old] = self.dense.get(old) or self.copied(source)
            place = rule(self.places[source], node.op)
        if place is None:
            raise InternalError(f"{node.op.name} cannot show an array that is dense", "plan memory", repr(node))
        v, = self.w.keep(node)
        self.places[v] = place
        if old in self.slots:       # the whole is put together of the part, not of its copy
            self.w.map[old] = part

    def copied(self, v: Value, place: Place | None = None) -> Value:
        """A copy of v at `place`, else dense and row-major in the arena."""
        new, = self.w.apply(COPY, (v,))
        self.places[new] = place or Place.dense(new, Buffer("arena", new.type.nbytes))
        self.choose_schedule()
        return new

    def rescued(self, updates: Sequence[Value]) -> list[Value]:
        """The new values of state; those that are old values of state (two states change places, one keeps what another
        was) as copies, since that state may be written before it is read for them.
        """
        old = dict.fromkeys(v for v in updates if _is_state(self.places[v].buffer))
        copies = {v: self.copied(v) for v in old}
        return [copies.get(v, v) for v in updates]

    def settle(self, v: Value, wanted: Place | None) -> Value:
        """v, or a copy of it, at the place that is wanted. All that is in the buffer of v moves there where v alone
        fills it, in the same layout."""
        if wanted is None:
            return self.settled.get(v, v)
        place, buffer, new = self.places[v], wanted.buffer, v
        if place.buffer is buffer and place.offset == wanted.offset and place.has_layout(wanted):
            pass                            # a change of the argument that lies there
        elif (place.buffer.space == "arena" and place.is_all and place.has_layout(wanted)
                and (buffer.space != "state" or self.may_write(place.buffer, buffer))):
            self.move(place.buffer, buffer)
        else:
            new = self.copied(v, wanted)
        self.settled.setdefault(v, new)
        return new

    def move(self, own: Buffer, wanted: Buffer) -> None:
        """All that is in a buffer lies in another one from now on; so does what the values in it are changes of, where
        that dies, so that nothing has to be copied."""
        self.past.extend(self.w.nodes, self.places)
        moving: Buffer | None = own
        while moving is not None:
            self.moved[moving] = wanted
            self.places.update((u, self.places[u].moved(self.moved)) for u in self.residents[moving])
            changed = self.changed_in(moving)
            moving = changed if changed and (wanted.space != "state" or self.may_write(changed, wanted)) else None

    def changed_in(self, buffer: Buffer) -> Buffer | None:
        """The arena buffer of the array of which a kernel, a loop or a branch makes the one that fills this buffer, by
        changing some elements, and which nothing reads afterwards."""
        at, output = self.past.made.get(buffer, (-1, 0))
        node = self.w.nodes[at]
        pairs = self.in_place[node] if node.op.is_control else updated(node)
        i = next((i for o, i in pairs if o == output and at >= 0), None)
        if i is None:
            return None
        place = self.places[node.inputs[i]]
        own, others = place.buffer, [self.places[v].buffer for j, v in enumerate(node.inputs) if j != i]
        dies = own not in self.kept and own not in others and self.past.last_use.get(own) == at
        same = place.is_all and place.view == self.places[node.outputs[output]].view
        return own if dies and same and own.space == "arena" and own in self.past.made else None

    def may_write(self, new: Buffer, state: Buffer) -> bool:
        """Whether the node that fills `new` may write the state itself: after the last check and the last reader of the
        old state."""
        self.past.extend(self.w.nodes, self.places)
        at, output = self.past.made[new]
        if self.past.last_check >= at or self.past.last_read.get(state.slot, -1) > at:
            return False
        node = self.w.nodes[at]
        pairs = shareable(node, inplace_pairs(node, self.schedules, self.in_place, self.places), self.places,
                          lambda v: self.places[v].buffer)
        allowed = {i for o, i in pairs if o == output}
        return all(i in allowed for i, v in enumerate(node.inputs) if _is_state(self.places[v].buffer, state.slot))


@dataclass
class _Past:
    """What the nodes of a graph did, by their numbers: which filled a buffer, with which output; the last that reads a
    buffer; the last that may fail; the last reader of each state slot."""
    made: dict[Buffer, tuple[int, int]] = field(default_factory=dict)
    last_use: dict[Buffer, int] = field(default_factory=dict)
    last_check: int = -1
    last_read: dict[int, int] = field(default_factory=dict)
    seen: int = 0

    def extend(self, nodes: Sequence[Node], places: Mapping[Value, Place]) -> None:
        """Looks at the nodes that were added since the last time."""
        for at in range(self.seen, len(nodes)):
            node = nodes[at]
            self.last_check = at if node.op.may_fail else self.last_check
            if not node.op.is_view:
                for i, v in enumerate(node.outputs):
                    self.made.setdefault(places[v].buffer, (at, i))
                self.last_use.update((places[v].buffer, at) for v in node.inputs)
                self.last_read.update((places[v].buffer.slot, at) for v in node.inputs if _is_state(places[v].buffer))
        self.seen = len(nodes)


def _is_state(buffer: Buffer, slot: int | None = None) -> bool:
    """Whether it is memory of the state: of this slot, if one is given."""
    return buffer.space == "state" and slot in (None, buffer.slot)


def _stack(v: Value, slots: Dim) -> Place:
    """Memory for so many arrays like v, dense and row-major."""
    shape = (slots, *v.type.shape)
    return Place(Buffer("arena", slots * v.type.nbytes), v.type.dtype, shape, contiguous_strides(shape))


def _transpose(place: Place, op: Transpose) -> Place:
    shape = tuple(place.shape[p] for p in op.perm)
    return Place(place.buffer, place.dtype, shape, tuple(place.strides[p] for p in op.perm), place.offset)


def _reshape(place: Place, op: Reshape) -> Place | None:
    strides = reshape_strides(place.shape, place.strides, op.shape)
    return None if strides is None else Place(place.buffer, place.dtype, op.shape, strides, place.offset)


def _broadcast(place: Place, op: BroadcastTo) -> Place:
    extra = len(op.shape) - len(place.shape)
    kept = (s if n == m else 0 for n, m, s in zip(place.shape, op.shape[extra:], place.strides))
    return Place(place.buffer, place.dtype, op.shape, (0,) * extra + tuple(kept), place.offset)


def _slice(place: Place, op: Slice) -> Place:
    offset = place.offset + sum(a * s for a, s in zip(op.start, place.strides))
    shape = tuple(max(0, -((a - b) // c)) for a, b, c in zip(op.start, op.stop, op.step))
    return Place(place.buffer, place.dtype, shape, tuple(c * s for c, s in zip(op.step, place.strides)), offset)


def _pack(place: Place, op: Pack) -> Place | None:
    """Elements of several numbers, where these follow each other and all rows begin with whole ones."""
    packed = op.infer(TensorType(place.dtype, place.shape))
    count = packed.dtype.numbers
    rows = [exact_quotient(s, count) if n != 1 else 0 for n, s in zip(place.shape[:-1], place.strides)]
    steps = [s for s in rows if s is not None]
    offset = exact_quotient(place.offset, count)
    around = place.buffer.space in ("argument", "result", "inout")      # where that begins is not known here
    if place.strides[-1] != 1 or offset is None or len(steps) < len(rows) or around:
        return None
    return Place(place.buffer, packed.dtype, packed.shape, (*steps, 1), offset)


# the place of a view, from that of what it shows and its operator; None where the memory cannot be seen so
VIEW_RULES: dict[type[Op], Callable[[Place, Any], Place | None]] = {
    Transpose: _transpose, Reshape: _reshape, BroadcastTo: _broadcast, Slice: _slice, Pack: _pack,
    Hold: lambda place, op: place}
