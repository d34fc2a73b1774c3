"""Gradients of operators that hold regions: a scan's is a reverse scan, a cond's is a cond, a while_loop's is that of a
scan of masked steps."""
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import replace

from graphc.analysis.dependence import dependents, float_dependents, live_nodes
from graphc.autodiff.residuals import independent_conds, reads, residuals
from graphc.autodiff.sums import added
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.op import Gradients, Op, only_gradient
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.types import TensorType
from graphc.records import dataclass

Grads = list[Value | None]
Backward = Callable[..., Grads]                 # `backward.backward`

@dataclass(frozen=True)
class DifferentiatedStep:
    """One differentiated step of a loop: the nodes of its body, then those of its gradient.

    `body` is the loop's, with what the gradients of its branches want to be kept; `inputs` are the body's, copied;
    `seeds` maps the number of a body output to the gradient that comes in for it; `grads[i]` is the gradient of
    inputs[i] or None; `origin` leads from copied values back to those of `body`.
    """
    body: Graph
    inputs: tuple[Value, ...]
    forward: tuple[Node, ...]
    gradient: tuple[Node, ...]
    seeds: dict[int, Value]
    grads: tuple[Value | None, ...]
    origin: dict[Value, Value]


def scan_vjp(backward: Backward, b: Builder, node: NodeOf[Scan], gs: Gradients, wanted: Sequence[bool]) -> Grads:
    """Gradients of a scan's operands, by a scan in the other direction.

    Its carries are the gradients of the carries and, added up, those of the captured values (the pass `licm` takes them
    out of the loop). What the gradient of a step needs of the step itself is stacked by the forward scan, run once more
    with these as further outputs (`fuse_loops` makes one of the two); what depends on no carry is computed again
    instead.
    """
    return _scan_gradients(backward, b, node.op, node, gs, wanted)


def _scan_gradients(backward: Backward, b: Builder, op: Scan, node: Node, gs: Gradients,
                    wanted: Sequence[bool]) -> Grads:
    on_carries = dependents(op.body.nodes, op.body.inputs[:op.carries])
    step = _differentiate_step(backward, op, gs, _active_inputs(op.body, op.carries, wanted), on_carries)
    return _ReverseScan(b, op, node, step, gs, wanted).emit()


def _active_inputs(body: Graph, carries: int, wanted: Sequence[bool]) -> tuple[bool, ...]:
    """Body inputs that lie on a path from a wanted operand, also by way of earlier steps."""
    active = [w and v.type.dtype.is_float for v, w in zip(body.inputs, wanted, strict=True)]
    while True:
        reach = float_dependents(body.nodes, [v for v, a in zip(body.inputs, active) if a])
        new = [a or (i < carries and body.outputs[i] in reach) for i, a in enumerate(active)]
        if new == active:
            return tuple(active)
        active = new


def _differentiate_step(backward: Backward, op: Scan, gs: Gradients, active: Sequence[bool],
                        in_place: Set[Value]) -> DifferentiatedStep:
    """The step's gradient, with one for every carry to which a gradient comes from outside or from a later step."""
    seeded = {i for i, g in enumerate(gs) if g is not None and (i >= op.carries or active[i])}
    while True:
        step = _gradient_step(backward, op.body, seeded, active, in_place)
        more = {i for i in range(op.carries) if active[i] and step.grads[i] is not None} - seeded
        if not more:
            return step
        seeded |= more


def _gradient_step(backward: Backward, body: Graph, seeded: set[int], active: Sequence[bool],
                   in_place: Set[Value]) -> DifferentiatedStep:
    """`in_place`: values of the body that depend on carries. What a step reads of them is added to their gradient where
    it belongs; lookups in captured arrays stay apart, since `licm` takes them out of the loop as they are."""
    b = Builder(body.name)
    copied = {v: b.input(v.name, v.type) for v in body.inputs}
    inputs = tuple(copied.values())
    for node in body.nodes:
        copied.update(zip(node.outputs, b.copy(node, copied)))
    forward = tuple(b.nodes)
    seeds = {i: b.input(f"d{i}", body.outputs[i].type) for i in sorted(seeded)}
    grads = _gradients(backward, b, [copied[v] for v in body.outputs], seeds, [v for v, a in zip(inputs, active) if a],
                       {copied[v] for v in in_place})
    by_input = tuple(grads.get(v) for v in inputs)
    origin = {new: old for old, new in copied.items()}
    late, added_nodes = b.nodes[len(forward):], []
    moved = independent_conds(late, origin)
    for node in moved:              # what they keep is a result of the step itself
        again = Node(node.op, tuple(origin[v] for v in node.inputs), tuple(v.type for v in node.outputs), node.loc,
                     node.scope)
        added_nodes.append(again)
        origin.update(zip(node.outputs, again.outputs))
    gradient = tuple(n for n in late if n not in moved)
    return DifferentiatedStep(replace(body, nodes=(*body.nodes, *added_nodes)), inputs, (*forward, *moved), gradient,
                              seeds, by_input, origin)


def _gradients(backward: Backward, b: Builder, outputs: Sequence[Value], seeds: dict[int, Value],
               wrt: Sequence[Value], in_place: Collection[Value] = ()) -> dict[Value, Value | None]:
    """Gradients of `wrt` for seeds by output number; an output may occur twice, or be an input."""
    nodes = tuple(b.nodes)
    total: dict[Value, Value] = {}
    for i, g in seeds.items():
        v = outputs[i]
        total[v] = b.add(total[v], g) if v in total else g
    return dict(zip(wrt, backward(b, nodes, total, wrt, in_place=in_place)))


class _ReverseScan:
    """Assembles the two scans of a scan's gradient from one differentiated step."""

    def __init__(self, b: Builder, op: Scan, node: Node, step: DifferentiatedStep, gs: Gradients,
                 wanted: Sequence[bool]) -> None:
        self.b, self.node, self.op, self.step, self.gs = b, node, op, step, gs
        n, last = self.op.carries, self.op.carries + self.op.xs
        self.carries = [i for i in step.seeds if i < n]
        self.ys = [i for i in step.seeds if i >= n]
        self.slices = [i for i in range(n, last) if wanted[i] and step.grads[i] is not None]
        self.captured = [i for i in range(last, len(wanted)) if wanted[i] and step.grads[i] is not None]
        made = (step.grads[i] for i in self.carries + self.slices + self.captured)
        self.results = [g for g in made if g is not None]
        self.gradient = live_nodes(step.gradient, self.results)
        self.saved: list[Value] = []
        self.again: set[Node] = set()
        self.read: set[Value] = set()
        self._partition()

    def _partition(self) -> None:
        """Finds what of the forward step the gradient reads, and for each whether it is saved, computed again, or an
        operand."""
        step = self.step
        made = {v: node for node in step.forward for v in node.outputs}
        on_carries = dependents(step.forward, step.inputs[:self.op.carries])
        wanted = [v for node in self.gradient for v in node.inputs] + self.results
        seen: set[Value] = set()
        while wanted:
            v = wanted.pop()
            if v in seen or v not in step.origin:
                continue
            seen.add(v)
            node = made.get(v)
            if node is not None and (v not in on_carries or node.op.is_whole_view):
                self.again.add(node)
                wanted += node.inputs
            elif node is None and v not in on_carries:
                self.read.add(v)
            else:
                self.saved.append(v)

    def emit(self) -> Grads:
        b, step, op = self.b, self.step, self.op
        if not step.seeds or not (self.carries or self.slices or self.captured):
            return [None] * len(self.node.inputs)
        stacks = self._save()
        n, last = op.carries, op.carries + op.xs
        xs = [i for i in range(n, last) if step.inputs[i] in self.read]
        captured = [i for i in range(last, len(step.inputs)) if step.inputs[i] in self.read]
        body = self._body(xs, captured)
        starts = [_or_zeros(b, self.gs[i], self.node.inputs[i].type) for i in self.carries]
        starts += [_zeros(b, self.node.inputs[i].type) for i in self.captured]
        ys = [only_gradient([self.gs[i]]) for i in self.ys]
        operands = [*starts, *ys, *(self.node.inputs[i] for i in xs), *stacks, *(self.node.inputs[i] for i in captured)]
        outs = b.apply(Scan(body, len(starts), len(self.ys) + len(xs) + len(stacks), op.length, not op.reverse),
                       operands)
        by_input = dict(zip(self.carries + self.captured + self.slices, outs, strict=True))
        return [by_input.get(i) for i in range(len(self.node.inputs))]

    def _save(self) -> list[Value]:
        """The stacked values of `saved`: outputs of the scan where it has them, else of its copy that stacks them
        too."""
        op, origin = self.op, self.step.origin
        have = {v: self.node.outputs[i] for i, v in enumerate(op.body.outputs) if i >= op.carries}
        more = [origin[v] for v in self.saved if origin[v] not in have]
        if more:
            results = (*op.body.outputs[:op.carries], *more)
            body = replace(self.step.body, outputs=results, output_names=("",) * len(results))
            have |= zip(more, self.b.apply(op.replace(body=body), self.node.inputs)[op.carries:])
        return [have[origin[v]] for v in self.saved]

    def _body(self, xs: list[int], captured: list[int]) -> Graph:
        step = self.step
        b = Builder(f"{self.op.body.name}_grad")
        names = Names()
        here: dict[Value, Value] = {}

        def take(v: Value, name: str) -> None:
            here[v] = b.input(names.fresh(name), v.type)
        for i in self.carries:
            take(step.seeds[i], f"d_{step.inputs[i].name or f'c{i}'}")
        sums = [b.input(names.fresh(f"sum_{step.inputs[i].name or f'w{i}'}"), step.inputs[i].type)
                for i in self.captured]
        for i in self.ys:
            take(step.seeds[i], f"d_y{i - self.op.carries}")
        for v in [*(step.inputs[i] for i in xs), *self.saved, *(step.inputs[i] for i in captured)]:
            take(v, step.origin[v].name or "saved")
        for node in [n for n in step.forward if n in self.again] + self.gradient:
            here.update(zip(node.outputs, b.copy(node, here)))

        def gradient(i: int) -> Value:
            g = step.grads[i]
            return _zeros(b, step.inputs[i].type) if g is None else here[g]
        results = [gradient(i) for i in self.carries]
        results += [added(b, total, gradient(i), lookups=False) for total, i in zip(sums, self.captured)]
        results += [gradient(i) for i in self.slices]
        return b.finish(results, ("",) * len(results))


def cond_vjp(backward: Backward, b: Builder, node: NodeOf[Cond], gs: Gradients, wanted: Sequence[bool]) -> Grads:
    """Gradients of a cond's operands: a cond whose branches compute forward again, then their gradient; or, where that
    spares large operands, a cond that computes what the gradient reads of its branches, then that of their gradients.
    """
    op = node.op
    captured = node.inputs[1:]
    given_gs = {i: g for i, g in enumerate(gs) if g is not None}
    asked = [i for i, w in enumerate(wanted[1:]) if w and captured[i].type.dtype.is_float]
    branches = [_branch_gradient(backward, body, list(given_gs), asked) for body in (op.then_body, op.else_body)]
    given = [i for i in asked if any(grads[i] is not None for _, _, grads in branches)]
    if not given:
        return [None] * len(node.inputs)
    bodies = [_branch_body(builder, grads, given) for builder, _, grads in branches]
    operands = [*captured, *given_gs.values()]
    found = residuals(bodies, [forward for _, forward, _ in branches], len(captured))
    if found is not None:
        operands += _applied(b, found.cond, node.inputs[0], captured)
        bodies = list(found.bodies)
    by_input = dict(zip(given, _applied(b, Cond(*bodies), node.inputs[0], operands)))
    return [None, *(by_input.get(i) for i in range(len(captured)))]


def _applied(b: Builder, op: Cond, pred: Value, operands: Sequence[Value]) -> Sequence[Value]:
    """The results of the cond, which captures only what its branches read."""
    bodies = op.then_body, op.else_body
    read = [i for i in range(len(operands)) if any(reads(body, i) for body in bodies)]
    then_body, else_body = (replace(body, inputs=tuple(body.inputs[i] for i in read)) for body in bodies)
    return b.apply(Cond(then_body, else_body), [pred, *(operands[i] for i in read)])


def _branch_gradient(backward: Backward, body: Graph, seeded: list[int],
                     asked: list[int]) -> tuple[Builder, set[Node], dict[int, Value | None]]:
    """The builder of the branch's gradient, which nodes in it compute the branch, and the gradients."""
    b = Builder(f"{body.name}_grad")
    names = Names()
    inputs = [b.input(names.fresh(v.name or "x"), v.type) for v in body.inputs]
    outputs = b.inline(body, inputs)
    forward = list(b.nodes)
    seeds = {i: b.input(names.fresh(f"d_y{i}"), outputs[i].type) for i in seeded}
    grads = _gradients(backward, b, outputs, seeds, [inputs[i] for i in asked], dependents(b.nodes, inputs))
    made = [*inputs, *(v for n in forward for v in n.outputs)]
    return b, {*forward, *independent_conds(b.nodes[len(forward):], made)}, {i: grads[inputs[i]] for i in asked}


def _branch_body(b: Builder, grads: dict[int, Value | None], given: list[int]) -> Graph:
    results = [_or_zeros(b, grads[i], b.inputs[i].type) for i in given]
    graph = b.finish(results, ("",) * len(results))
    return replace(graph, nodes=tuple(live_nodes(graph.nodes, graph.outputs)))


def while_vjp(backward: Backward, b: Builder, node: NodeOf[WhileLoop], gs: Gradients, wanted: Sequence[bool]) -> Grads:
    """Gradients of a while_loop's operands: those of `max_trips` steps, each of which does nothing once the condition
    is false.

    The condition, a function of the carries, stays false once it is, since the carries then stay as they are.
    """
    op = node.op
    body = _masked_step(op, [v.type for v in node.inputs])
    scan = Scan(body, op.carries, 0, op.max_trips)
    b.apply(scan, node.inputs)
    return _scan_gradients(backward, b, scan, b.nodes[-1], gs[1:], wanted)


def _masked_step(op: WhileLoop, types: Sequence[TensorType]) -> Graph:
    b = Builder(op.body.name)
    names = Names()
    inputs = [b.input(names.fresh(v.name or "x"), t) for v, t in zip(op.body.inputs, types)]
    go, = b.inline(op.cond_body, inputs)
    stay = Graph("stay", op.body.inputs, (), op.body.inputs[:op.carries], ("",) * op.carries)
    outs = b.apply(Cond(op.body, stay), [go, *inputs])
    return b.finish(outs, ("",) * op.carries)


class Names:
    """Hands out names that differ."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def fresh(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self.used:
            candidate, number = f"{name}_{number}", number + 1
        self.used.add(candidate)
        return candidate


def _zeros(b: Builder, t: TensorType) -> Value:
    zero = b.constant(0, t.dtype)
    return b.broadcast_to(zero, shape=t.shape) if t.rank else zero


def _or_zeros(b: Builder, g: Value | None, t: TensorType) -> Value:
    return _zeros(b, t) if g is None else g


CONTROL_RULES: dict[type[Op], Callable[..., Grads]] = {Scan: scan_vjp, Cond: cond_vjp, WhileLoop: while_vjp}
