"""Where every value of a planned graph is in memory: buffers, places in them, the arena."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from math import prod
from typing import Literal, NamedTuple

from graphc.ir.dims import Dim, Dims, largest
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.printer import Note, print_graph
from graphc.ir.types import DType
from graphc.records import dataclass
from graphc.schedule.schedule import InplacePairs, Schedule
from graphc.schedule.view import ViewType, contiguous_strides, same_strides


MemorySpace = Literal["arena", "const", "input", "state", "output", "argument", "result", "inout"]
# spaces in which the slot says which array it is
SLOTTED: tuple[MemorySpace, ...] = ("input", "state", "output", "argument", "result", "inout")


@dataclass(frozen=True, eq=False)
class Buffer:
    """A piece of memory: itself and no other, however alike. `slot` is the number of the array in its space, `offset`
    its first byte in arena or const; until offsets are assigned, that of an arena buffer is 0.

    "argument" and "result" are memory of the graph around a region: its body's inputs and outputs; "inout" is an
    argument that the body changes, whose memory holds a result in the end. `fixed`: of an argument, the same in every
    trip of the loop; of state, for all kernels of the program that read it. Constants are.
    """
    space: MemorySpace
    nbytes: Dim
    slot: int = 0
    offset: Dim = 0
    fixed: bool = False

    def __str__(self) -> str:
        return f"{self.space}+{self.offset}" if self.space in ("arena", "const") else f"{self.space}[{self.slot}]"


@dataclass(frozen=True)
class Place:
    """A value's elements: element [0, 0, …] is `offset` elements into the buffer."""
    buffer: Buffer
    dtype: DType
    shape: Dims
    strides: Dims
    offset: Dim = 0

    @property
    def view(self) -> ViewType:
        return ViewType(self.dtype, self.shape, self.strides)

    def moved(self, buffers: Mapping[Buffer, Buffer]) -> "Place":
        """The same elements in the buffer that took the place of this one, if one did."""
        new = buffers.get(self.buffer)
        return self if new is None else Place(new, self.dtype, self.shape, self.strides, self.offset)

    @property
    def lasts(self) -> bool:
        """Whether the elements are those that were there when the call began, or before: constants, and state that this
        program only reads, or writes when it has read it for the last time."""
        return self.buffer.space in ("state", "const") and self.buffer.fixed

    @property
    def is_whole(self) -> bool:
        """A dense row-major array that starts its buffer."""
        return self.offset == 0 and self.view.is_contiguous

    @property
    def is_all(self) -> bool:
        """Whether the buffer holds these elements, each once, and nothing else."""
        return self.offset == 0 and self.buffer.nbytes == prod(self.shape) * self.dtype.itemsize

    def has_layout(self, other: "Place") -> bool:
        """Whether the elements lie relative to the first as those of the other place do."""
        return self.shape == other.shape and (0 in self.shape or same_strides(self.shape, self.strides, other.strides))

    def element(self, i: Dim = 0) -> "Place":
        """Of arrays stacked along the first axis, number i."""
        return Place(self.buffer, self.dtype, self.shape[1:], self.strides[1:], self.offset + i * self.strides[0])

    def as_stack(self) -> "Place":
        """The array, dense and row-major, as the only one of a stack."""
        return replace(self, shape=(1, *self.shape), strides=contiguous_strides((1, *self.shape)))

    def elements(self, first: int, count: Dim) -> "Place":
        """Some of the arrays stacked along the first axis."""
        return Place(self.buffer, self.dtype, (count, *self.shape[1:]), self.strides,
                     self.offset + first * self.strides[0])

    def given_as(self, space: MemorySpace, slot: int, fixed: bool = False) -> "Place":
        """What a region sees of the place: an argument or a result of its body, of this layout."""
        buffer = Buffer(space, prod(self.shape) * self.dtype.itemsize, slot, fixed=fixed)
        return Place(buffer, self.dtype, self.shape, self.strides)

    def same_memory(self, other: "Place") -> bool:
        """Whether both are the same elements; two buffers with one slot of state, say, are one piece of memory."""
        mine, theirs = self.buffer, other.buffer
        one = mine is theirs or mine.space == theirs.space in SLOTTED and mine.slot == theirs.slot
        return one and self.offset == other.offset and self.view == other.view

    @staticmethod
    def dense(value: Value, buffer: Buffer, order: tuple[int, ...] | None = None) -> "Place":
        t = value.type
        return Place(buffer, t.dtype, t.shape, contiguous_strides(t.shape, order))

    def __str__(self) -> str:
        tail = "" if self.is_whole else f" {self.view}" + (f" from element {self.offset}" if self.offset != 0 else "")
        return f"{self.buffer}{tail}"


@dataclass(frozen=True)
class Region:
    """The planned bodies of a control node; `arena` holds their arenas, `loop` what they carry from trip to trip,
    `packed` operands that are packed before the loop for kernels of the body, `in_place` pairs (output, input) of the
    node: the memory of the output holds the input when the region begins, and its bodies change it there.

    `loop` of a scan: for each carry its slots, stacked along a first axis; of a while_loop: the condition, then the new
    carries.
    """
    plans: Mapping[str, "Plan"]
    arena: Buffer
    loop: tuple[Place, ...] = ()
    packed: Mapping[Node, Buffer] = field(default_factory=dict)
    in_place: InplacePairs = ()

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """What the region needs, while it runs, in the memory of the graph around it."""
        return (self.arena, *(p.buffer for p in self.loop), *self.packed.values())

    def moved(self, buffers: Mapping[Buffer, Buffer]) -> "Region":
        """The region with buffers that took the place of its own."""
        packed = {node: buffers.get(b, b) for node, b in self.packed.items()}
        return replace(self, arena=buffers.get(self.arena, self.arena), loop=tuple(p.moved(buffers) for p in self.loop),
                       packed=packed)


@dataclass(frozen=True)
class Plan:
    """A graph ready for lowering. `packed` is where operands are packed before the loop around the graph, or (in state)
    before all. `assembled`: concatenations and pads that need no kernel, since their parts are computed where they
    belong. `borders`: of these the pads, by their insides; the kernel that makes the inside fills what is around it.
    """
    graph: Graph
    places: Mapping[Value, Place]
    schedules: Mapping[Node, Schedule]
    scratch: Mapping[Node, Buffer] = field(default_factory=dict)
    packed: Mapping[Node, Buffer] = field(default_factory=dict)
    regions: Mapping[Node, Region] = field(default_factory=dict)
    arena_bytes: Dim = 0
    assembled: frozenset[Node] = frozenset()
    borders: Mapping[Value, Node] = field(default_factory=dict)

    def scheduled(self) -> Iterator[tuple[Node, Schedule]]:
        """The kernels of the graph, then those of its loops and branches."""
        yield from self.schedules.items()
        for region in self.regions.values():
            for inner in region.plans.values():
                yield from inner.scheduled()

    def read_state(self) -> Iterator[int]:
        """The state slots whose elements kernels read, other than to pack them beforehand."""
        for node in self.graph.nodes:
            packed = self.schedules[node].prepacked if node in self.packed else None
            reads = (self.places[v].buffer for i, v in enumerate(node.inputs)
                     if i != packed and not node.op.is_view)
            yield from (b.slot for b in reads if b.space == "state")
        for region in self.regions.values():
            for inner in region.plans.values():
                yield from inner.read_state()

    def views(self, values: Sequence[Value]) -> list[ViewType]:
        return [self.places[v].view for v in values]

    def texts(self, more: Note | None = None) -> Iterator[str]:
        """The graph with places and schedules, then the planned bodies of its loops and branches, which may differ by
        copies. `more`: what else to say behind a node."""
        yield print_graph(self.graph, lambda node: self._note(node) + (more(node) if more else ""))
        for node, region in self.regions.items():
            where = f"{node.scope or 'graph'} at {node.loc}" if node.loc else node.scope
            for name, inner in region.plans.items():
                first, *rest = inner.texts(more)
                yield f"# {name} of {node.op.name}, {where}\n{first}"
                yield from rest

    def _note(self, node: Node) -> str:
        places = ", ".join(str(self.places[v]) for v in node.outputs)
        return f"in {places}; {self.schedules[node]}" if node in self.schedules else f"in {places}"


@dataclass(frozen=True)
class Constants:
    """The constants of a whole program as parts that follow one after the other. Not copied: they may be large."""
    parts: tuple[bytes, ...] = ()
    nbytes: int = 0


class PackedOperand(NamedTuple):
    """An operand in the state or among the constants: the slot of its array, or at which byte that begins, the first of
    its elements there, and the schedule of the kernel that it is packed for."""
    space: MemorySpace
    slot: int
    begin: Dim
    offset: Dim
    view: ViewType
    schedule: Schedule


@dataclass(frozen=True)
class Packed:
    """Operands that are packed when the state has changed, or once, and kept. `buffers`: for each the state slot that
    holds it packed."""
    buffers: Mapping[PackedOperand, Buffer] = field(default_factory=dict)


class RecomputedArray(NamedTuple):
    """Equal arrays of one layer and line that are computed again: by which kernel, how often in all, and how many bytes
    that makes together."""
    kernel: str
    type: str
    scope: str
    line: str
    times: int
    nbytes: int


@dataclass(frozen=True)
class Recomputed:
    """What a plan within a budget computes again instead of keeping it, the largest first; `nbytes` of all; `work`:
    cycles for it, as a share of those of the rest."""
    rows: tuple[RecomputedArray, ...]
    nbytes: int
    work: float


@dataclass(frozen=True)
class ProgramPlan:
    """The plans of a whole program: of what every call computes (`main`) and of what is computed when the state has
    changed (`prepare`), with the constants and the packed operands of both."""
    main: Plan
    prepare: Plan | None
    constants: Constants
    packed: Packed
    recomputed: Recomputed | None = None

    @property
    def plans(self) -> tuple[Plan, ...]:
        return (self.main, self.prepare) if self.prepare else (self.main,)

    def scheduled(self) -> Iterator[tuple[Node, Schedule]]:
        """All kernels with their schedules."""
        return (kernel for plan in self.plans for kernel in plan.scheduled())

    @property
    def arena_bytes(self) -> Dim:
        """`prepare` runs before the call, in the same arena."""
        return largest(*(plan.arena_bytes for plan in self.plans))

    @property
    def anew(self) -> bool:
        """Whether `main` writes state on which something depends that is computed or packed beforehand."""
        read = {operand.slot for operand in self.packed.buffers if operand.space == "state"}
        read.update(self.prepare.read_state() if self.prepare else ())
        return any(new is not None and n in read for n, new in enumerate(self.main.graph.updates))

    def text(self, more: Note | None = None) -> str:
        return "\n\n".join(text for plan in self.plans for text in plan.texts(more))
