"""Runs a memory plan on tags instead of numbers: every element that a kernel makes is a number of its own, written byte by byte where the plan says.

What a kernel reads must be the elements that the graph says it reads. Shares nothing with the planner, and no arithmetic of strides but its own:
views are made of the tags by numpy.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from graphc.ir.graph import Node, Value
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.shape import Pad
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.memory.plan import Buffer, Place, Plan

SPARE = 64                              # bytes around every array, which nobody may touch


@dataclass(frozen=True)
class Window:
    """Where an array of the surrounding graph lies: memory, and the byte of its first element."""
    memory: np.ndarray
    start: int


@dataclass
class Frame:
    """One run of a plan: where its arena begins, and what a body's arguments and results are."""
    plan: Plan
    base: int = 0
    arguments: Sequence[Window] = ()
    results: Sequence[Window] = ()
    tags: dict[Value, np.ndarray] = field(default_factory=dict)
    packed: Mapping[Node, tuple] = field(default_factory=dict)


class Wrong(AssertionError):
    """The plan loses or misplaces something."""


def run_plan(plan: Plan, trips: int = 2, branch: Callable[[Node], bool] = lambda node: True) -> None:
    """Raises Wrong where memory does not hold what the graph says. A while_loop takes `trips` steps where it may; `branch` chooses of a cond."""
    _Run(plan, trips, branch).whole()


class _Run:
    def __init__(self, plan: Plan, trips: int, branch: Callable[[Node], bool]):
        self.plan, self.trips, self.branch = plan, trips, branch
        self.used = 1                   # tags given so far, and number 0, which is in the frames of pads
        self.arena = np.zeros(plan.arena_bytes + 2 * SPARE, np.int64)
        self.arrays: dict[tuple[str, int], np.ndarray] = {}
        self.constants: dict[Buffer, np.ndarray] = {}

    def whole(self) -> None:
        graph, frame = self.plan.graph, Frame(self.plan)
        for space, values in (("input", graph.inputs), ("state", graph.state), ("output", graph.outputs)):
            for slot, v in enumerate(values):
                self.arrays[space, slot] = np.zeros(v.type.nbytes + 2 * SPARE, np.int64)
        for v in graph.arguments:
            frame.tags[v] = self.fresh(v)
            self.write(frame, self.plan.places[v], frame.tags[v])
        before = {v: frame.tags[v] for v, new in zip(graph.state, graph.updates) if new is None} | {v: frame.tags[v] for v in graph.inputs}
        self.block(frame)
        for v in (*before, *graph.results):
            self.read(frame, v, "at the end")
        for slot, v in enumerate(graph.outputs):
            self.expect(self.addresses(frame, Place.dense(v, Buffer("output", v.type.nbytes, slot))), frame.tags[v], f"output {slot}")
        for slot, v in enumerate(graph.updates):
            if v is not None:
                self.expect(self.addresses(frame, Place.dense(v, Buffer("state", v.type.nbytes, slot))), frame.tags[v], f"state {slot}")
        for name, memory in {"arena": self.arena, **self.arrays}.items():
            if memory[:SPARE].any() or memory[-SPARE:].any():
                raise Wrong(f"something was stored outside {name}")

    # ---- memory
    def fresh(self, v: Value) -> np.ndarray:
        """Tags that nothing else has, one for each element."""
        self.used += v.type.size
        return np.arange(self.used - v.type.size, self.used).reshape(v.type.shape) << 4

    def home(self, frame: Frame, buffer: Buffer) -> tuple[np.ndarray, int]:
        """The memory of a buffer, and its first byte there."""
        if buffer.space in ("argument", "result", "inout"):
            window = (frame.results if buffer.space == "result" else frame.arguments)[buffer.slot]
            return window.memory, window.start
        if buffer.space == "arena":
            return self.arena, SPARE + frame.base + buffer.offset
        key = (buffer.space, buffer.slot if buffer.space != "const" else id(buffer))
        if key not in self.arrays:          # constants, and state that is derived
            self.arrays[key] = np.zeros(buffer.nbytes + 2 * SPARE, np.int64)
        return self.arrays[key], SPARE

    def addresses(self, frame: Frame, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """The memory, and the first byte of each element, in the shape of the array."""
        memory, start = self.home(frame, place.buffer)
        at = np.full(place.shape, place.offset, np.int64)
        for axis, (n, step) in enumerate(zip(place.shape, place.strides)):
            at += (np.arange(n) * step).reshape((n,) + (1,) * (len(place.shape) - axis - 1))
        at = start + at * place.dtype.itemsize
        if at.size and not SPARE <= at.min() <= at.max() + place.dtype.itemsize <= len(memory) - SPARE:
            raise Wrong(f"{place} leaves its memory of {len(memory) - 2 * SPARE} bytes")
        return memory, at[..., None] + np.arange(place.dtype.itemsize)

    def window(self, frame: Frame, place: Place) -> Window:
        memory, start = self.home(frame, place.buffer)
        return Window(memory, start + place.offset * place.dtype.itemsize)

    def write(self, frame: Frame, place: Place, tags: np.ndarray) -> None:
        memory, at = self.addresses(frame, place)
        memory[at] = tags[..., None] + np.arange(at.shape[-1])

    def expect(self, where: tuple[np.ndarray, np.ndarray], tags: np.ndarray, what: str) -> None:
        memory, at = where
        if not np.array_equal(memory[at], tags[..., None] + np.arange(at.shape[-1])):
            raise Wrong(f"{what} is not in memory")

    def read(self, frame: Frame, v: Value, by: object) -> None:
        self.expect(self.addresses(frame, frame.plan.places[v]), frame.tags[v], f"{v} in {frame.plan.places[v]}, read by {by},")

    def spoil(self, frame: Frame, buffer: Buffer) -> None:
        """Somebody uses the buffer for something else."""
        memory, start = self.home(frame, buffer)
        if start < SPARE or start + buffer.nbytes > len(memory) - SPARE:
            raise Wrong(f"{buffer} of {buffer.nbytes} bytes leaves its memory")
        self.used += 1
        memory[start:start + buffer.nbytes] = -self.used

    # ---- nodes
    def block(self, frame: Frame) -> None:
        for node in frame.plan.graph.nodes:
            if node.op.is_control:
                for v in node.inputs:
                    self.read(frame, v, node)
                CONTROL[type(node.op)](self, frame, node)
                for v in node.outputs:
                    self.read(frame, v, f"the reader of {node}")
            elif node.op.is_view or node in frame.plan.assembled:
                parts = [frame.tags[v] for v in node.inputs]
                frame.tags[node.outputs[0]] = np.pad(parts[0], list(zip(node.op.low, node.op.high))) if isinstance(node.op, Pad) \
                    else node.op.reference(*parts)
            elif isinstance(node.op, Constant):
                self.constant(frame, node.outputs[0])
            else:
                self.kernel(frame, node)

    def constant(self, frame: Frame, v: Value) -> None:
        """Equal constants are one array."""
        place = frame.plan.places[v]
        if place.buffer not in self.constants:
            self.constants[place.buffer] = self.fresh(v)
            self.write(frame, place, self.constants[place.buffer])
        frame.tags[v] = self.constants[place.buffer]

    def kernel(self, frame: Frame, node: Node) -> None:
        plan, scratch = frame.plan, frame.plan.scratch.get(node)
        if scratch:
            self.spoil(frame, scratch)
        for v in node.inputs:
            self.read(frame, v, node)
        if node in frame.packed:
            memory, start, stop, tag = frame.packed[node]
            if not (memory[start:stop] == tag).all():
                raise Wrong(f"the packed operand of {node} is lost")
        self.check_sharing(frame, node)
        for v in node.outputs:
            frame.tags[v] = self.fresh(v)
            self.write(frame, plan.places[v], frame.tags[v])
            if v in plan.borders:
                pad = plan.borders[v]
                self.write(frame, plan.places[pad.outputs[0]], np.pad(frame.tags[v], list(zip(pad.op.low, pad.op.high))))
        if scratch:
            self.spoil(frame, scratch)
        for v in node.outputs:
            self.read(frame, v, f"the reader of {node}")

    def check_sharing(self, frame: Frame, node: Node) -> None:
        """Memory that a kernel reads and stores is that of a pair which it may work on in place, and no element is stored twice."""
        plan = frame.plan
        pairs = plan.schedules[node].inplace_pairs(plan.views(node.inputs), plan.views(node.outputs))
        ins = [self.addresses(frame, plan.places[v]) for v in node.inputs]
        for o, v in enumerate(node.outputs):
            memory, at = self.addresses(frame, plan.places[v])
            if len(np.unique(at)) != at.size:
                raise Wrong(f"{node} stores elements of {v} over one another in {plan.places[v]}")
            for i, (other, theirs) in enumerate(ins):
                if other is memory and np.intersect1d(at, theirs).size and not ((o, i) in pairs and np.array_equal(at, theirs)):
                    raise Wrong(f"{node} stores {v} over {node.inputs[i]}, which it reads otherwise")

    # ---- loops and branches
    def inner(self, frame: Frame, node: Node, name: str, arguments: Sequence[Window], results: Sequence[Window], tags: Sequence[np.ndarray],
              packed: Mapping[Node, tuple] | None = None) -> Frame:
        """Runs a body once; its values are then in the frame that is returned."""
        region = frame.plan.regions[node]
        body = region.plans[name]
        self.spoil(frame, region.arena)
        new = Frame(body, frame.base + region.arena.offset, arguments, results, dict(zip(body.graph.inputs, tags, strict=True)), packed or {})
        for v in body.graph.inputs:
            self.read(new, v, f"{name} of {node}")
        self.block(new)
        return new

    def scan(self, frame: Frame, node: Node) -> None:
        op, region, places = node.op, frame.plan.regions[node], frame.plan.places
        n, last = op.carries, op.carries + op.xs
        xs, captured = node.inputs[n:last], node.inputs[last:]
        carried = [frame.tags[v] for v in node.inputs[:n]]
        stacks = [np.zeros(v.type.shape, np.int64) for v in node.outputs[n:]]
        windows = self.windows_of(op)
        slots = [[0] * (op.length + 1) if (c, c) in region.in_place else self.slots(op, c, windows) for c in range(n)]
        for c, tags in enumerate(carried):
            if not self.begins_there(frame, node.inputs[c], region.loop[c].element(slots[c][0])):
                self.spoil(frame, region.loop[c].buffer)
        for c, tags in enumerate(carried):
            self.write(frame, region.loop[c].element(slots[c][0]), tags)
        packed = {}
        for inner, buffer in region.packed.items():
            self.spoil(frame, buffer)
            memory, start = self.home(frame, buffer)
            packed[inner] = memory, start, start + buffer.nbytes, memory[start]
        for v in node.inputs:
            self.read(frame, v, node)
        for t in range(op.length):
            at = op.length - 1 - t if op.reverse else t
            arguments = [self.window(frame, region.loop[c].element(slots[c][t])) for c in range(n)]
            arguments += [self.window(frame, places[v].element(at)) for v in xs] + [self.window(frame, places[v]) for v in captured]
            results = [self.window(frame, region.loop[c].element(slots[c][t + 1])) for c in range(n)]
            results += [self.window(frame, places[v].element(at)) for v in node.outputs[n:]]
            tags = carried + [frame.tags[v][at] for v in xs] + [frame.tags[v] for v in captured]
            done = self.inner(frame, node, "body", arguments, results, tags, packed)
            new = [done.tags[v] for v in done.plan.graph.outputs]
            carried = new[:n]
            for stack, y in zip(stacks, new[n:]):
                stack[at] = y
        frame.tags.update(zip(node.outputs, [*carried, *stacks]))

    @staticmethod
    def windows_of(op) -> set[int]:
        """The carries that are stacked outputs themselves, before or after the step: these keep all their values."""
        ends = {v: c for c, v in reversed(list(enumerate(op.body.outputs[:op.carries])))}
        starts = {v: c for c, v in enumerate(op.body.inputs[:op.carries])}
        return {ends[v] if v in ends else starts[v] for v in op.body.outputs[op.carries:] if v in ends or v in starts}

    @staticmethod
    def slots(op, c: int, windows: set[int]) -> list[int]:
        """The slots of a carry before the first step, after it, and so on."""
        return [(op.length - t if op.reverse else t) if c in windows else t % 2 for t in range(op.length + 1)]

    def begins_there(self, frame: Frame, v: Value, place: Place) -> bool:
        """Whether the value lies where a region is to change it."""
        (memory, at), (other, there) = (self.addresses(frame, p) for p in (frame.plan.places[v], place))
        return memory is other and np.array_equal(at, there)

    def cond(self, frame: Frame, node: Node) -> None:
        places = frame.plan.places
        captured = node.inputs[1:]
        name = "then_body" if self.branch(node) else "else_body"
        arguments = [self.window(frame, places[v]) for v in captured]
        for o, i in frame.plan.regions[node].in_place:
            self.write(frame, places[node.outputs[o]], frame.tags[node.inputs[i]])
            arguments[i - 1] = self.window(frame, places[node.outputs[o]])
        for v in node.inputs:
            self.read(frame, v, node)
        done = self.inner(frame, node, name, arguments,
                          [self.window(frame, places[v]) for v in node.outputs], [frame.tags[v] for v in captured])
        frame.tags.update((v, done.tags[w]) for v, w in zip(node.outputs, done.plan.graph.outputs))

    def while_loop(self, frame: Frame, node: Node) -> None:
        op, region, places = node.op, frame.plan.regions[node], frame.plan.places
        counted, *carries = node.outputs
        captured = node.inputs[op.carries:]
        tags = [frame.tags[v] for v in node.inputs[:op.carries]]
        go, *new = region.loop
        for v, t in zip(carries, tags):
            self.write(frame, places[v], t)
        for v in node.inputs:
            self.read(frame, v, node)
        arguments = [self.window(frame, places[v]) for v in (*carries, *captured)]
        for t in range(min(self.trips, op.max_trips) + 1):
            given = [*tags, *(frame.tags[v] for v in captured)]
            if t < op.max_trips:
                self.inner(frame, node, "cond_body", arguments, [self.window(frame, go)], given)
            if t < min(self.trips, op.max_trips):
                done = self.inner(frame, node, "body", arguments, [self.window(frame, p) for p in new], given)
                tags = [done.tags[v] for v in done.plan.graph.outputs]
                for v, p, mine in zip(carries, new, tags):
                    self.expect(self.addresses(frame, p), mine, f"new carry {v}")
                    self.write(frame, places[v], mine)
        frame.tags[counted] = self.fresh(counted)
        self.write(frame, places[counted], frame.tags[counted])
        frame.tags.update(zip(carries, tags))


CONTROL = {Scan: _Run.scan, Cond: _Run.cond, WhileLoop: _Run.while_loop}


def run_all(plan: Plan) -> None:
    """With loops of 0, 1 and 2 trips where data decide, and either branch."""
    names = set(_control(plan))
    for trips, yes in product((0, 1, 2) if "while_loop" in names else (0,), (True, False) if "cond" in names else (True,)):
        run_plan(plan, trips, lambda node, yes=yes: yes)


def _control(plan: Plan) -> Iterator[str]:
    for node, region in plan.regions.items():
        yield node.op.name
        for inner in region.plans.values():
            yield from _control(inner)
