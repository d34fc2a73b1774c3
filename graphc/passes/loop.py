"""A scan taken apart, so that a pass can move what it carries, reads, computes and writes, and put together again
without what is dead."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field

from graphc.analysis.dependence import dependents
from graphc.autodiff.backward_control import Names
from graphc.errors import InternalError
from graphc.ir.builder import Builder, Rewriter
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.ops.control import Scan
from graphc.records import dataclass


@dataclass(eq=False)
class Carry:
    """`inner` is the value at the start of a step, `next` that at its end; `start` and `result` belong to the graph
    around."""
    inner: Value
    start: Value
    next: Value
    results: list[Value]


@dataclass(eq=False)
class Read:
    """A value that a step takes from outside: a slice of `outer`, or all of it. `inner` may also be made by a node,
    which then is not run."""
    inner: Value
    outer: Value


@dataclass(eq=False)
class Stacked:
    """A value of each step, stacked; `results` are the values of the graph around that it stands for."""
    inner: Value
    results: list[Value] = field(default_factory=list)


@dataclass(eq=False)
class ScanLoop:
    """The parts of one scan node. `outer`, `start` are values of the graph under construction, `results` of the old
    one."""
    op: Scan
    node: Node
    nodes: list[Node]
    carries: list[Carry]
    xs: list[Read]
    captured: list[Read]
    ys: list[Stacked]

    @staticmethod
    def of(node: Node, operands: Sequence[Value]) -> "ScanLoop":
        op = node.op
        if not isinstance(op, Scan):
            raise InternalError(f"{op.name} is not taken apart as a scan", "loop")
        n, last = op.carries, op.carries + op.xs
        reads = [Read(v, o) for v, o in zip(op.body.inputs, operands, strict=True)]
        carries = [Carry(r.inner, r.outer, new, [out]) for r, new, out in zip(reads, op.body.outputs, node.outputs[:n])]
        ys = [Stacked(v, [out]) for v, out in zip(op.body.outputs[n:], node.outputs[n:], strict=True)]
        return ScanLoop(op, node, list(op.body.nodes), carries, reads[n:last], reads[last:], ys)

    @property
    def made(self) -> dict[Value, Node]:
        return {v: node for node in self.nodes for v in node.outputs}

    def on_carries(self) -> set[Value]:
        """The values of a step that depend on earlier steps."""
        return dependents(self.nodes, [c.inner for c in self.carries])

    def stack(self, v: Value) -> Stacked:
        """The entry of `ys` that stacks v; a new one if there is none."""
        for y in self.ys:
            if y.inner is v:
                return y
        self.ys.append(Stacked(v))
        return self.ys[-1]

    def needed(self, roots: Iterable[Value]) -> tuple[list[Node], set[Value]]:
        """The nodes that make `roots` from what the step is given, and the values of the latter that are read."""
        given = {r.inner for r in self.xs + self.captured} | {c.inner for c in self.carries}
        live, nodes = set(roots), []
        for node in reversed(self.nodes):
            if any(v in live and v not in given for v in node.outputs):
                nodes.append(node)
                live.update(node.inputs)
        return nodes[::-1], live & given

    def prune(self, read: set[Value]) -> None:
        """Drops results outside `read`, and then what nothing needs any more."""
        for part in self.carries + self.ys:
            part.results = [v for v in part.results if v in read]
        self.ys = [y for y in self.ys if y.results]
        kept = [c for c in self.carries if c.results]
        while True:
            nodes, leaves = self.needed([c.next for c in kept] + [y.inner for y in self.ys])
            grown = [c for c in self.carries if c in kept or c.inner in leaves]
            if len(grown) == len(kept):
                break
            kept = grown
        self.nodes, self.carries = nodes, kept

    def emit(self, w: Builder) -> dict[Value, Value]:
        """Appends the scan to `w`; the new value of each part's results, and of each stacked inner value."""
        results = [c.next for c in self.carries] + [y.inner for y in self.ys]
        if not results:
            return {}
        nodes, leaves = self.needed(results)
        self.xs = [r for r in self.xs if r.inner in leaves]
        self.captured = [r for r in self.captured if r.inner in leaves]
        body = self._body(nodes, results)
        op = Scan(body, len(self.carries), len(self.xs), self.op.length, self.op.reverse)
        operands = [c.start for c in self.carries] + [r.outer for r in self.xs + self.captured]
        parts: list[Carry | Stacked] = [*self.carries, *self.ys]
        with w.at(self.node.loc, self.node.scope):
            outs = w.apply(op, operands)
        return {old: new for part, new in zip(parts, outs, strict=True) for old in part.results} | {
            y.inner: new for y, new in zip(self.ys, outs[len(self.carries):])}

    def _body(self, nodes: list[Node], results: list[Value]) -> Graph:
        b, names = Builder(self.op.body.name), Names()
        inner = [c.inner for c in self.carries] + [r.inner for r in self.xs + self.captured]
        here = {v: b.input(names.fresh(v.name or f"t{i}"), v.type) for i, v in enumerate(inner)}
        for node in nodes:
            new = Node(node.op, tuple(here[v] for v in node.inputs), tuple(v.type for v in node.outputs), node.loc,
                       node.scope)
            b.nodes.append(new)
            for old, out in zip(node.outputs, new.outputs):
                out.name = old.name
                here.setdefault(old, out)
        return b.finish([here[v] for v in results], ("",) * len(results))


def values_read(graph: Graph) -> set[Value]:
    """The values that nodes or the results of the graph read."""
    return {v for node in graph.nodes for v in node.inputs} | set(graph.results)


def emit_in_place(w: Rewriter, loop: ScanLoop) -> dict[Value, Value]:
    """Emits the loop, with its names, and records what its results became."""
    made = loop.emit(w)
    for old in (v for part in loop.carries + loop.ys for v in part.results):
        made[old].name = made[old].name or old.name
        w.map[old] = made[old]
    return made
