"""Where the buffers of a plan are while a function runs it."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from math import prod

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix
from graphc.codegen.loops.loop_ir import Root, View
from graphc.errors import InternalError
from graphc.ir.dims import Dim, round_up
from graphc.ir.graph import Node, Value
from graphc.memory.plan import Buffer, Place, Plan
from graphc.records import dataclass
from graphc.schedule.target import ALIGNMENT


@dataclass(frozen=True)
class PlanMemory:
    """The memory of one graph of the program: its arena begins `base` bytes into that of the call.

    arguments, results: of a region, as views of what is around it. packed: operands that were packed before the loop
    around the region.
    """
    function: LoopFunction
    plan: Plan
    base: Dim = 0
    arguments: Sequence[View] = ()
    results: Mapping[int, View] = field(default_factory=dict)
    packed: Mapping[Node, list[View]] = field(default_factory=dict)

    def view(self, place: Place) -> View:
        """The place as memory of the function."""
        buffer = place.buffer
        if buffer.space in ("argument", "inout"):
            return within(self.function, self.arguments[buffer.slot], place)
        if buffer.space == "result":
            return within(self.function, self.results[buffer.slot], place)
        return place_in(self.function, place, self.base)

    def views(self, values: Iterable[Value]) -> list[View]:
        return [self.view(self.plan.places[v]) for v in values]


def place_in(function: LoopFunction, place: Place, base: Dim = 0) -> View:
    """A place of the program as memory of the function; `base`: where the arena of the place's plan begins."""
    buffer = place.buffer
    offset = place.offset * place.dtype.itemsize + buffer.offset + (base if buffer.space == "arena" else 0)
    return function.buffer(buffer.space, buffer.slot, offset, place.dtype, place.shape, place.strides)


def within(f: LoopFunction, outer: View, place: Place) -> View:
    """A place in the memory that starts where `outer` does; numbers of that may be packed in it, some to an element."""
    root, start, numbers = outer.root, outer.start, place.dtype.itemsize // outer.dtype.itemsize
    if numbers > 1:
        start, rest = f.divmod(start, numbers)
        if rest != Ix():
            raise InternalError(f"{place.dtype} in the midst of one in {root.name}", "lower")
        root = Root(root.name, root.kind, place.dtype, root.low // numbers, root.size // numbers, root.slot,
                    root.offset)
    return View(root, place.shape, place.strides, start + place.offset)


def views_of_buffer(function: LoopFunction, buffer: Buffer, wanted: Iterable[View], base: Dim = 0) -> list[View]:
    """A buffer as views like those wanted, one after the other, each aligned; `base`: where the arena of the buffer's
    plan begins.
    """
    views, at = [], base + buffer.offset
    for w in wanted:
        views.append(function.buffer(buffer.space, buffer.slot, at, w.dtype, w.shape))
        at = at + round_up(w.dtype.itemsize * prod(w.shape), ALIGNMENT)
    return views
