"""From a planned graph to loop functions: one function per distinct kernel, and `main`, which calls them in order.

Loops and branches of the graph become loops and branches of main; the bodies' kernels are shared with everything else.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from graphc.codegen.loops.builder import LoopFunction
from graphc.codegen.loops.index import Ix, as_ix
from graphc.codegen.loops.loop_ir import View
from graphc.codegen.lower import function_needs_node_id, lower
from graphc.codegen.lower.contract import lower_packing
from graphc.codegen.lower.padding_fill import fill_border
from graphc.codegen.lower.request import KernelRequest
from graphc.codegen.lower.rows import nested
from graphc.ir.graph import Node
from graphc.ir.ops.constant import Constant
from graphc.ir.traits import VIEWS
from graphc.ir.types import i64
from graphc.memory.plan import Buffer, Packed, Place, Plan
from graphc.memory.scan_layout import scan_layout
from graphc.schedule.nest_schedule import buffer_bytes
from graphc.schedule.target import Target
from graphc.schedule.view import ViewType, contiguous_strides

MAX_NODES = 1 << 20


@dataclass(frozen=True)
class LoopProgram:
    """The loop functions of a program. `prepare` makes what is derived from state. `checked[i]` is the graph node that reports
    failures under number i, `nan_checks` those of them that report the NaN they made. `sites` are the calls that an instrumented main times.
    """
    kernels: tuple[LoopFunction, ...]
    main: LoopFunction
    checked: tuple[Node, ...]
    nan_checks: frozenset[int] = frozenset()
    prepare: LoopFunction | None = None
    sites: tuple["Site", ...] = ()


@dataclass(frozen=True)
class Site:
    """A call in main: of which function, for which node (None: copies of carries, packing). aliased: its result lies in its first operand;
    `around`: bytes that it fills around its results.
    """
    kernel: str
    node: Node | None
    aliased: bool = False
    around: int = 0


def build_program(plan: Plan, target: Target, check_nan: bool = False, prepare: Plan | None = None, packed: Packed | None = None,
                  timed: bool = False) -> LoopProgram:
    """Lowers every node of the plans. Pure: equal plans give equal programs. `check_nan`: a kernel that makes a NaN is a failure.

    `prepare` is the plan of what is derived from state; `packed` what is packed after that. `timed`: an instrumented build.
    """
    builder = _ProgramBuilder(target, check_nan, timed)
    builder.block(plan, _Frame(plan))
    main, sites = builder.main, tuple(builder.sites)
    preparation = builder.preparation(prepare, packed) if prepare or packed and packed.buffers else None
    return LoopProgram(tuple(builder.kernels.values()), main, tuple(builder.checked), frozenset(builder.nan_checks), preparation, sites)


@dataclass(frozen=True)
class _Frame:
    """Where a plan's buffers are: `base` bytes into the arena; arguments and results of a region as views of what is around it."""
    plan: Plan
    base: int = 0
    arguments: Sequence[View] = ()
    results: Mapping[int, View] = field(default_factory=dict)
    packed: Mapping[Node, list[View]] = field(default_factory=dict)


class _ProgramBuilder:
    def __init__(self, target: Target, check_nan: bool, timed: bool = False):
        self.target, self.check_nan, self.timed = target, check_nan, timed
        self.sites: list[Site] = []
        self.nan_checks: list[int] = []
        self.main = LoopFunction("main")
        self.kernels: dict[tuple, LoopFunction] = {}
        self.checked: list[Node] = []
        self.committed = False

    def preparation(self, plan: Plan | None, packed: Packed | None) -> LoopFunction:
        """The function that computes and packs what is derived from state. A value is packed as soon as it is there."""
        self.main, self.timed = LoopFunction("prepare"), False
        waiting = dict(packed.buffers) if packed else {}
        slots = {v: slot for slot, v in enumerate(plan.graph.updates)} if plan else {}
        for node in plan.graph.nodes if plan else ():
            self.node(node, _Frame(plan))
            made = {slots[v] for v in node.outputs if v in slots}
            self.pack_state({key: waiting.pop(key) for key in list(waiting) if key[0] in made})
        self.pack_state(waiting)
        return self.main

    def pack_state(self, buffers: Mapping[tuple, Buffer]) -> None:
        """Packs arrays of the state's table; `buffers` as in `Packed`."""
        for (slot, offset, view, schedule), buffer in buffers.items():
            operand = Place(Buffer("state", 0, slot), view.dtype, view.shape, view.strides, offset)
            self.pack(self.view(operand, _Frame(None)), view, schedule, buffer, 0)

    def block(self, plan: Plan, frame: _Frame) -> None:
        """Calls the kernels of one graph, in order."""
        for node in plan.graph.nodes:
            self.node(node, frame)

    def node(self, node: Node, frame: _Frame) -> None:
        if node.op.name in CONTROL:
            CONTROL[node.op.name](self, node, frame)
        elif node.op.name not in VIEWS and not isinstance(node.op, Constant) and node not in frame.plan.assembled:
            self.kernel_call(node, frame)

    def kernel_call(self, node: Node, frame: _Frame) -> None:
        plan = frame.plan
        kernel, borders = self.kernel(node, plan), _borders(node, plan)
        views = [self.view(plan.places[v], frame) for v in (*node.inputs, *node.outputs)]
        if node in plan.packed:
            views += frame.packed.get(node) or self.scratch(plan.packed[node], kernel.views[len(views):][:1], 0)
        if node in plan.scratch:
            views += self.scratch(plan.scratch[node], kernel.views[len(views):len(kernel.views) - len(borders)], frame.base)
        views += [self.view(place, frame) for _, place in borders]
        self.commit(plan, node)
        around = sum(pad.outputs[0].type.nbytes - pad.inputs[0].type.nbytes for pad, _ in borders)
        self.call(kernel, views + self.node_id(node, kernel), Site(kernel.name, node, plan.schedules[node].aliased, around))
        if self.check_nan:
            self.check_for_nan(node, frame)

    def call(self, kernel: LoopFunction, arguments: Sequence[View | int], site: Site | None = None) -> None:
        """Calls a kernel; an instrumented build times it."""
        if not self.timed:
            return self.main.call(kernel, arguments)
        number = len(self.sites)
        self.sites.append(site or Site(kernel.name, None))
        self.main.stamp(number, ends=False)
        self.main.call(kernel, arguments)
        self.main.stamp(number, ends=True)

    def check_for_nan(self, node: Node, frame: _Frame) -> None:
        """Reports the first element of each result that is NaN."""
        for v in node.outputs:
            place = frame.plan.places[v]
            if place.dtype.is_float and 0 not in place.shape:
                key = ("nan", place.view)
                if key not in self.kernels:
                    self.kernels[key] = _nan_function(self.unique("check_nan"), place.view)
                self.nan_checks.append(len(self.checked))
                self.checked.append(node)
                self.main.call(self.kernels[key], [self.view(place, frame), len(self.checked) - 1])

    def kernel(self, node: Node, plan: Plan) -> LoopFunction:
        """The function for this operator, these views and this schedule: lowered once."""
        ins, outs, schedule = plan.views(node.inputs), plan.views(node.outputs), plan.schedules[node]
        borders = tuple((pad.op, pad.inputs[0].type.shape, place.view) for pad, place in _borders(node, plan))
        key = (node.op, tuple(ins), tuple(outs), schedule, borders)
        if key not in self.kernels:
            self.kernels[key] = lower(KernelRequest(node, tuple(ins), tuple(outs), schedule, self.target, self.unique(_kernel_name(node))))
            for border in borders:
                fill_border(self.kernels[key], *border, self.target)
        return self.kernels[key]

    def unique(self, name: str) -> str:
        """A numbered name: no libm symbol, and kernels are told apart."""
        return f"k{len(self.kernels)}_{name}"

    def node_id(self, node: Node, kernel: LoopFunction) -> list[int]:
        if not function_needs_node_id(kernel):
            return []
        self.checked.append(node)
        return [len(self.checked) - 1]

    def commit(self, plan: Plan, node: Node) -> None:
        """Before the first kernel that writes state: leave if something failed or Ctrl-C came, so that state is not half updated."""
        if not self.committed and any(plan.places[v].buffer.space == "state" for v in node.outputs):
            self.main.return_if_failed()
            self.main.commit()
            self.committed = True

    # memory

    def view(self, place: Place, frame: _Frame) -> View:
        buffer = place.buffer
        if buffer.space in ("argument", "result"):
            outer = (frame.arguments if buffer.space == "argument" else frame.results)[buffer.slot]
            return View(outer.root, place.shape, place.strides, outer.start + place.offset)
        offset = place.offset * place.dtype.itemsize + buffer.offset + (frame.base if buffer.space == "arena" else 0)
        return self.main.buffer(buffer.space, buffer.slot, offset, place.dtype, place.shape, place.strides)

    def scratch(self, buffer: Buffer, wanted: Sequence[View], base: int) -> list[View]:
        """A buffer as views one after the other, each aligned."""
        views, at = [], base + buffer.offset
        for w in wanted:
            views.append(self.main.buffer(buffer.space, buffer.slot, at, w.dtype, w.shape))
            at += buffer_bytes(((w.dtype, prod(w.shape)),))
        return views

    def copy(self, source: View, target: View) -> None:
        """Copies a value inside main: initial carries, results of a while loop."""
        key = ("copy", source.dtype, source.shape, source.strides, target.strides)
        if key not in self.kernels:
            self.kernels[key] = _copy_function(self.unique("copy_carry"), source, target)
        self.call(self.kernels[key], [source, target])

    # control

    def scan(self, node: Node, frame: _Frame) -> None:
        op, plan, region = node.op, frame.plan, frame.plan.regions[node]
        layout, body = scan_layout(op), region.plans["body"]
        ins = [self.view(plan.places[v], frame) for v in node.inputs]
        ys = [self.view(plan.places[v], frame) for v in node.outputs[op.carries:]]
        carries = [self.view(p, frame) for p in region.loop]
        for c, slots in enumerate(carries):
            self.copy(ins[c], _step(slots, layout.first(c)))
        packed = {inner: self.pack_before(inner, buffer, body, ins, frame) for inner, buffer in region.packed.items()}
        with self.main.loop(0, op.length, name="step") as loop:
            self.main.return_if_cancelled()
            trip = loop.index
            parity = self.main.divmod(trip, 2)[1]
            at = trip * -1 + (op.length - 1) if op.reverse else trip
            arguments = [_step(slots, layout.slot(c, trip, parity, after=False)) for c, slots in enumerate(carries)]
            arguments += [_step(x, at) for x in ins[op.carries:op.carries + op.xs]] + ins[op.carries + op.xs:]
            after = [_step(slots, layout.slot(c, trip, parity, after=True)) for c, slots in enumerate(carries)]
            results = dict(enumerate(after + [_step(y, at) for y in ys]))
            self.block(body, _Frame(body, frame.base + region.arena.offset, arguments, results, packed))

    def pack_before(self, node: Node, buffer: Buffer, body: Plan, ins: Sequence[View], frame: _Frame) -> list[View]:
        """Packs the operand of a kernel of a loop's body that does not change in the loop; the memory that holds it."""
        schedule = body.schedules[node]
        place = body.places[node.inputs[schedule.prepacked]]
        outer = ins[place.buffer.slot]
        operand = View(outer.root, place.shape, place.strides, outer.start + place.offset)
        return self.pack(operand, place.view, schedule, buffer, frame.base)

    def pack(self, operand: View, view: ViewType, schedule, buffer: Buffer, base: int) -> list[View]:
        """Packs an operand for kernels of a schedule; the memory that holds it."""
        key = ("pack", view, schedule)
        if key not in self.kernels:
            self.kernels[key] = lower_packing(view, schedule, self.target, self.unique("pack"))
        packed = self.scratch(buffer, self.kernels[key].views[1:], base)
        self.call(self.kernels[key], [operand, *packed])
        return packed

    def cond(self, node: Node, frame: _Frame) -> None:
        plan, region = frame.plan, frame.plan.regions[node]
        pred, *captured = [self.view(plan.places[v], frame) for v in node.inputs]
        results = dict(enumerate(self.view(plan.places[v], frame) for v in node.outputs))
        base = frame.base + region.arena.offset
        then_plan, else_plan = region.plans["then_body"], region.plans["else_body"]
        with self.main.if_(self.main.load(pred, [])):
            self.block(then_plan, _Frame(then_plan, base, captured, results))
        with self.main.else_():
            self.block(else_plan, _Frame(else_plan, base, captured, results))

    def while_loop(self, node: Node, frame: _Frame) -> None:
        op, plan, region = node.op, frame.plan, frame.plan.regions[node]
        ins = [self.view(plan.places[v], frame) for v in node.inputs]
        count, *carries = [self.view(plan.places[v], frame) for v in node.outputs]
        pred, *new = [self.view(p, frame) for p in region.loop]
        base, arguments = frame.base + region.arena.offset, carries + ins[op.carries:]
        test, body = region.plans["cond_body"], region.plans["body"]
        for source, target in zip(ins, carries):
            self.copy(source, target)
        with self.main.while_(op.max_trips) as loop:
            self.main.return_if_cancelled()
            self.block(test, _Frame(test, base, arguments, {0: pred}))
            loop.condition(self.main.load(pred, []))
            self.block(body, _Frame(body, base, arguments, dict(enumerate(new))))
            for source, target in zip(new, carries):
                self.copy(source, target)
        self.main.store(count, [], self.main.cast(self.main.value(loop.count), i64))


CONTROL: dict[str, Callable[[_ProgramBuilder, Node, _Frame], None]] = {
    "scan": _ProgramBuilder.scan, "cond": _ProgramBuilder.cond, "while_loop": _ProgramBuilder.while_loop}


def _borders(node: Node, plan: Plan) -> list[tuple[Node, Place]]:
    """The pads whose insides a node makes, and where they lie."""
    pads = [plan.borders[v] for v in node.outputs if v in plan.borders]
    return [(pad, plan.places[pad.outputs[0]]) for pad in pads]


def _step(view: View, at: Ix | int) -> View:
    """Slice number `at` along the first axis."""
    return View(view.root, view.shape[1:], view.strides[1:], view.start + as_ix(at) * view.strides[0])


def _copy_function(name: str, source: View, target: View) -> LoopFunction:
    f = LoopFunction(name)
    x = f.view("x", source.dtype, source.shape, source.strides)
    y = f.view("y", target.dtype, target.shape, target.strides)
    nested(f, x.shape, lambda index: f.store(y, index, f.load(x, index)))
    return f


def _nan_function(name: str, view: ViewType) -> LoopFunction:
    f = LoopFunction(name)
    x, number = f.view("x", view.dtype, view.shape, view.strides), f.param("node", 0, MAX_NODES)
    order = contiguous_strides(view.shape)

    def check(index: list[Ix]) -> None:
        flat = Ix()
        for i, step in zip(index, order):
            flat = flat + i * step
        f.fail_unless(f.not_(f.isnan(f.load(x, index))), number, f.value(flat))
    nested(f, view.shape, check)
    return f


def _kernel_name(node: Node) -> str:
    """What the profile and the assembly call this kernel."""
    body = getattr(node.op, "body", None)
    parts = [n.op.name for n in body.nodes if not isinstance(n.op, Constant)] if body else [node.op.name]
    return "_".join(parts[:4] + ["etc"] * (len(parts) > 4)) or node.op.name
