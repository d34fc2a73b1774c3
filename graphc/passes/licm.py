"""Loop-invariant code motion and more: products of inputs are moved before a loop, weight gradients and products of
results behind it."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import reduce
from typing import ClassVar

from graphc.analysis.dependence import dependents
from graphc.analysis.profitability import batching_gains
from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dims
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.constant import full, splat
from graphc.ir.ops.control import Scan
from graphc.ir.ops.elementwise import ADD, Cast
from graphc.ir.ops.remat import Hold
from graphc.ir.walk import resolve
from graphc.ir.types import includes
from graphc.passes.batching_rules import Batcher, OuterOperand, can_batch
from graphc.passes.carried_cores import CarriedCore, carried_cores
from graphc.passes.loop import Carry, Read, ScanLoop, Stacked, emit_in_place, values_read
from graphc.passes.loop_reductions import LoopReductions
from graphc.passes.pipeline import Pass
from graphc.records import dataclass



@dataclass(frozen=True)
class LoopInvariantCodeMotion(Pass):
    """Shortens the bodies of scans; results stay the same but for the order of sums.

    Before the loop: values that are the same in every step; products that depend on stacked inputs alone, batched over
    the steps, with their operands and the elementwise work that follows them. After the loop: carried sums of products,
    as one product of stacks; other carried sums of values that are stacked anyway; products that only per-step outputs
    need. Large products stay where they are (`gain`). Other sums, of values with zeros around them or repeated, are
    carried without these (`carried_cores`), so that a step costs what it computes.

    Needs a decomposed graph after cse: with duplicates, "used only by this sum" cannot be detected.
    Gives new nodes around the loops, which cse and canonicalize may simplify; dead results and carries of scans are
    gone. Stands before layout and fusion, which must see the products where they run.
    """
    name: ClassVar[str] = "licm"

    def run(self, graph: Graph) -> Graph:
        if not any(isinstance(n.op, Scan) for n in graph.nodes):
            return graph
        w, read = Rewriter(graph), values_read(graph)
        for node in graph.nodes:
            if isinstance(node.op, Scan):
                _hoist(w, ScanLoop.of(node, [w[v] for v in node.inputs]), read)
            else:
                w.keep(node)
        return w.done()


def _hoist(w: Rewriter, loop: ScanLoop, read: set[Value]) -> None:
    loop.prune(read)
    _free_constant_carries(w, loop)
    _take_out_before(w, loop)
    after = _After(loop)
    after.take()
    with w.at(loop.node.loc, loop.node.scope):
        after.begin(w)
    made = emit_in_place(w, loop)
    after.build(w, made)


def _free_constant_carries(w: Rewriter, loop: ScanLoop) -> None:
    """A carry that every step hands on unchanged is a captured value."""
    for c in [c for c in loop.carries if c.next is c.inner]:
        loop.carries.remove(c)
        loop.captured.append(Read(c.inner, c.start))
        w.map.update((old, c.start) for old in c.results)


def _operands(loop: ScanLoop) -> dict[Value, OuterOperand]:
    return ({r.inner: OuterOperand(r.outer, True) for r in loop.xs}
            | {r.inner: OuterOperand(r.outer, False) for r in loop.captured})


def _take_out_before(w: Rewriter, loop: ScanLoop) -> None:
    """Values that no carry enters and that are worth it become operands of the loop."""
    batcher = Batcher(w, loop.made, _operands(loop), loop.op.length)
    moved = _movable(loop)
    for y in [y for y in loop.ys if y.inner in batcher.known or y.inner in moved]:
        loop.ys.remove(y)
        with w.at(loop.node.loc, loop.node.scope):
            stack = batcher.stacked(y.inner)
        w.map.update((old, stack) for old in y.results)
    staying = [v for node in loop.nodes if node.outputs[0] not in moved for v in node.inputs]
    staying += [c.next for c in loop.carries]
    for v in dict.fromkeys(v for v in staying if v in moved):
        operand = batcher.of(v)
        (loop.xs if operand.stacked else loop.captured).append(Read(v, operand.value))


def _movable(loop: ScanLoop) -> set[Value]:
    """Values to compute before the loop: those that are the same in every step, and those with a product in what they
    are made of."""
    on_carries = loop.on_carries()
    varying = dependents(loop.nodes, [r.inner for r in loop.xs])
    possible = {r.inner for r in loop.xs}
    moved: set[Value] = set()
    for node in loop.nodes:
        if any(v in on_carries for v in node.inputs):
            continue
        if not any(v in varying for v in node.inputs):
            worth = not (node.op.is_whole_view or node.op.is_leaf)
        elif can_batch(node) and all(v in possible for v in node.inputs if v in varying):
            possible.update(node.outputs)
            worth = (batching_gains(node, varying) if node.op.is_contraction
                     else any(v in moved and v in varying for v in node.inputs))
        else:
            worth = False
        moved.update(node.outputs if worth else ())
    return moved


class _After:
    """What one loop leaves to be done after it."""

    def __init__(self, loop: ScanLoop):
        self.loop, self.made, self.operands = loop, loop.made, _operands(loop)
        self.varying = dependents(loop.nodes, [r.inner for r in loop.xs] + [c.inner for c in loop.carries])
        # computed again in each step so that nothing of it is kept for all (remat): not stacked
        self.again = dependents(loop.nodes, [v for n in loop.nodes if isinstance(n.op, Hold) for v in n.outputs])
        self._sources: dict[Value, frozenset[Value]] = {}
        self.sums = {c: terms for c in loop.carries if (terms := _terms(loop, c))}
        kept = [c.next for c in loop.carries if c not in self.sums]
        self.core = {v for node in loop.needed(kept)[0] for v in node.outputs} | {c.inner for c in loop.carries}
        self.products = self._products()
        self.planner = LoopReductions(self.made, self.varying, self.sources)
        self.totals: dict[Carry, list[Value]] = {}
        self.cores: dict[Carry, list[CarriedCore]] = {}
        self.outputs: list[Stacked] = []
        self.stacked: frozenset[Value] = frozenset()

    def _products(self) -> set[Value]:
        """Values outside the core with a product in what they are made of, as far as it is outside the core and can be
        batched."""
        found: set[Value] = set()
        for node in self.loop.nodes:
            if (node.outputs[0] in self.core or not can_batch(node) or not any(v in self.varying for v in node.inputs)
                    or not self.again.isdisjoint(node.inputs)):
                continue
            if batching_gains(node, self.varying) if node.op.is_contraction else any(v in found for v in node.inputs):
                found.update(node.outputs)
        return found

    def sources(self, v: Value) -> frozenset[Value]:
        """The values of a step that must be stacked to make v after the loop."""
        return resolve(v, self._sources, self._made_from, self._source)

    def _made_from(self, v: Value) -> tuple[Value, ...]:
        """What v is made from after the loop; nothing if v itself is stacked, or known there."""
        node = self.made.get(v)
        if node is None or v not in self.varying:
            return ()
        return node.inputs if v in self.products or node.op.is_whole_view or _widens(node) else ()

    def _source(self, v: Value) -> frozenset[Value]:
        parts = self._made_from(v)
        if parts:
            return frozenset().union(*(self._sources[i] for i in parts))
        return frozenset((v,)) if v in self.varying else frozenset()

    def take(self) -> None:
        """Removes from the loop what is done after it, and stacks what that needs."""
        loop = self.loop
        self.outputs = [y for y in loop.ys if y.inner in self.products]
        loop.ys = [y for y in loop.ys if y not in self.outputs]
        self.stacked = frozenset().union(*(self.sources(y.inner) for y in self.outputs))
        plans = [(c, v, p) for c, terms in self.sums.items() for v in terms if (p := self.planner.plan(v))]
        for c, v, plan in sorted(plans, key=lambda entry: not entry[2].products):
            free = self.stacked.union(r.inner for r in loop.xs).union(y.inner for y in loop.ys + self.outputs)
            if plan.pays(free) and self.again.isdisjoint(plan.stacked - free):
                self.totals.setdefault(c, []).append(v)
                self.stacked = self.stacked.union(*map(self.sources, plan.stacked))
        for c, terms in self.sums.items():
            rest = [v for v in terms if v not in self.totals.get(c, ())]
            self.cores[c] = carried_cores(loop, c, rest)
            carried = {core.term for core in self.cores[c]}
            if len(rest) < len(terms) or carried:
                self._shorten(c, [v for v in rest if v not in carried])
        given = {r.inner for r in loop.xs}
        order = {v: i for i, v in enumerate([*(c.inner for c in loop.carries), *self.made])}
        for v in sorted(self.stacked - given, key=order.__getitem__):
            loop.stack(v)

    def _shorten(self, c: Carry, rest: list[Value]) -> None:
        """The carry sums only the terms that stay in the loop; without any it goes."""
        loop = self.loop
        if not rest:
            loop.carries.remove(c)
        c.next = c.inner
        for v in rest:
            node = Node(ADD, (c.next, v), (c.inner.type,), loop.node.loc, loop.node.scope)
            loop.nodes.append(node)
            c.next = node.outputs[0]

    def begin(self, w: Rewriter) -> None:
        """Adds to the loop the carries that begin here, with zeros."""
        for core in (core for cores in self.cores.values() for core in cores):
            self.loop.carries.append(core.carry(self.loop, full(w, 0, core.value.type)))

    def build(self, w: Rewriter, made: dict[Value, Value]) -> None:
        loop = self.loop
        known = self.operands | {v: OuterOperand(made[v], True) for v in self.stacked if v in made}
        batcher = Batcher(w, self.made, known, loop.op.length)
        with w.at(loop.node.loc, loop.node.scope):
            for y in self.outputs:
                stack = batcher.stacked(y.inner)
                w.map.update((old, stack) for old in y.results)
            built: dict[Value, Value] = {}
            for c in [c for c in self.sums if self.totals.get(c) or self.cores[c]]:
                carried = made[c.results[0]] if c in loop.carries else None if splat(c.start) == 0 else c.start
                terms = [self.planner.build(v, batcher, built) for v in self.totals.get(c, ())]
                terms += [core.finished(w, made) for core in self.cores[c]]
                total = _sum(w, carried, terms, c.inner.type.shape)
                w.map.update((old, total) for old in c.results)


def _widens(node: Node) -> bool:
    """Whether it converts to a larger type that has all of the operand's numbers: the operand is stacked then."""
    if not isinstance(node.op, Cast):
        return False
    source, result = node.inputs[0].type.dtype, node.outputs[0].type.dtype
    return includes(result, source) and result.itemsize > source.itemsize


def _sum(w: Rewriter, start: Value | None, terms: list[Value], shape: Dims) -> Value:
    total = reduce(w.add, terms if start is None else [start, *terms])
    return total if total.type.shape == shape else w.broadcast_to(total, shape=shape)


def _terms(loop: ScanLoop, c: Carry) -> list[Value] | None:
    """The values that each step adds to the carry, when adding is all that is done with it; else None."""
    made, on_it = loop.made, dependents(loop.nodes, [c.inner])
    uses = Counter(v for node in loop.nodes for v in node.inputs)
    uses.update(v for v in [*(d.next for d in loop.carries), *(y.inner for y in loop.ys)])
    v, terms = c.next, []
    while v is not c.inner:
        node = made.get(v)
        if node is None or node.op is not ADD or uses[v] != 1:
            return None
        x, y = node.inputs
        if (x in on_it) == (y in on_it):
            return None
        v, term = (x, y) if x in on_it else (y, x)
        if v.type != c.inner.type:
            return None
        terms.append(term)
    return _flat(made, uses, terms) if uses[v] == 1 else None


def _flat(made: Mapping[Value, Node], uses: Mapping[Value, int], terms: list[Value]) -> list[Value]:
    """The terms, sums among them taken apart."""
    flat, waiting = [], list(reversed(terms))
    while waiting:
        v = waiting.pop()
        if v in made and made[v].op is ADD and uses[v] == 1:
            waiting += reversed(made[v].inputs)
        else:
            flat.append(v)
    return flat
