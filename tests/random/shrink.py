"""A smaller graph that fails in the same way: outputs left out, nodes replaced by inputs or by what they read, in
regions too."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from graphc.errors import GraphError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from tests.random.check import Outcome, check_calls, choose, judged, poison_memory
from tests.random.generator import numbers
from tests.random.workers import in_child


def failing(graph: Graph, seed: int = 0, special: bool = False, target: str = "", quick: bool = False) -> Outcome:
    """The outcome of a graph alone, on numbers drawn for its inputs, in a process of its own."""
    def work() -> str:
        poison_memory()
        choose(special, target, quick)
        rng = np.random.default_rng(seed)
        draws = [[numbers(rng, v.type, special) for v in graph.arguments] for _ in range(2)]
        return check_calls(graph, draws, seed)
    return in_child(lambda: judged(work), 20)


def shrunk(graph: Graph, found: Outcome, special: bool = False, target: str = "", quick: bool = False,
           seconds: float = 30) -> tuple[Graph, Outcome]:
    """The smallest graph found in that time which ends as `found` does, and its outcome; the graph itself if no draw
    fails without its program."""
    best, last = graph, failing(graph, 0, special, target, quick)
    if not _alike(last, found) or graph.state:
        return graph, found
    deadline = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < deadline:
        progress = False
        for smaller in candidates(best, deadline):
            result = failing(smaller, 0, special, target, quick)
            if _alike(result, found):
                best, last, progress = smaller, result, True
                break
    return best, last


def _alike(a: Outcome, b: Outcome) -> bool:
    return a.kind == b.kind and a.where.split(":")[:2] == b.where.split(":")[:2] or a.kind == b.kind == "wrong"


def candidates(graph: Graph, deadline: float = float("inf")) -> Iterator[Graph]:
    """Graphs with a little less in them, the boldest first; none after the deadline."""
    weight = _weight(graph)
    for makes in (_fewer_outputs, _halves, _cut, _fewer_results, _fewer_operands, _bypassed, _in_regions):
        for make in makes(graph):
            if time.monotonic() > deadline:
                return
            try:
                smaller = make()
            except (GraphError, KeyError):
                continue
            if smaller is not None and _weight(smaller) < weight:
                yield smaller


def _weight(graph: Graph) -> int:
    own = 10 * len(graph.nodes) + len(graph.outputs) + len(graph.inputs)
    return own + sum(_weight(body) for _, body in _bodies(graph))


def _bodies(graph: Graph) -> Iterator[tuple[Node, Graph]]:
    return ((node, getattr(node.op, name)) for node in graph.nodes for name in node.op.REGIONS)


def _fewer_outputs(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    outs = list(range(len(graph.outputs)))
    for kept in [[i] for i in outs] + [[j for j in outs if j != i] for i in outs] if len(outs) > 1 else []:
        yield lambda kept=kept: rebuilt(graph, outputs=[graph.outputs[i] for i in kept])


def _halves(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    """What is made up to some node becomes an input; what is made behind it is left out."""
    n = len(graph.nodes)
    for k in dict.fromkeys(n * i // 16 for i in range(15, 0, -1)):
        yield lambda k=k: rebuilt(graph, inputs={v for node in graph.nodes[:k] if node.inputs for v in node.outputs})
    for k in dict.fromkeys(n * i // 16 for i in range(1, 16)):
        yield lambda k=k: rebuilt(graph, outputs=graph.nodes[k].outputs)


def _cut(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    """A node's results become inputs, from the last node to the first."""
    for node in reversed(graph.nodes):
        if node.inputs:
            yield lambda node=node: rebuilt(graph, inputs=set(node.outputs))


def _bypassed(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    for node in reversed(graph.nodes):
        for out in node.outputs:
            for v in dict.fromkeys(node.inputs):
                if v.type == out.type:
                    yield lambda out=out, v=v, region=False: rebuilt(graph, instead={out: v}, region=region)


def _fewer_results(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    """Results of regions that nobody reads, but for carries, are left out."""
    read = {v for node in graph.nodes for v in node.inputs} | set(graph.outputs)
    for node in graph.nodes:
        first = {"cond": 0, "scan": getattr(node.op, "carries", 0)}.get(node.op.name)
        if first is None or len(node.outputs) < 2:
            continue
        for i, v in enumerate(node.outputs):
            if i >= first and v not in read:
                bodies = {name: _with_outputs(getattr(node.op, name), i) for name in node.op.REGIONS}
                yield lambda node=node, i=i, bodies=bodies, region=False: rebuilt(
                    graph, ops={node: node.op.replace(**bodies)}, gone={node: i}, region=region)


def _with_outputs(body: Graph, gone: int) -> Graph:
    return Graph(body.name, body.inputs, body.nodes, tuple(v for i, v in enumerate(body.outputs) if i != gone),
                 ("",) * (len(body.outputs) - 1))


def _fewer_operands(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    """Captured operands that no body reads are left out."""
    for node in graph.nodes:
        bodies = [getattr(node.op, name) for name in node.op.REGIONS]
        if node.op.name not in ("cond", "scan", "while_loop"):
            continue
        before = 1 if node.op.name == "cond" else 0                 # the predicate is no argument of the bodies
        first = 0 if before else node.op.carries + getattr(node.op, "xs", 0)
        for i in range(first, len(node.inputs) - before):
            if not any(body.inputs[i] in _read(body) for body in bodies):
                smaller = {name: _without_input(getattr(node.op, name), i) for name in node.op.REGIONS}
                yield lambda node=node, operand=i + before, smaller=smaller: rebuilt(
                    graph, ops={node: node.op.replace(**smaller)}, unread={node: operand})


def _read(body: Graph) -> set[Value]:
    return {v for node in body.nodes for v in node.inputs} | set(body.outputs)


def _without_input(body: Graph, gone: int) -> Graph:
    return Graph(body.name, tuple(v for i, v in enumerate(body.inputs) if i != gone), body.nodes, body.outputs,
                 body.output_names)


def _in_regions(graph: Graph) -> Iterator[Callable[[], Graph | None]]:
    for node, body in _bodies(graph):
        name = next(n for n in node.op.REGIONS if getattr(node.op, n) is body)
        for make in _simpler_bodies(body):
            yield lambda node=node, name=name, make=make, region=False: rebuilt(
                graph, ops={node: node.op.replace(**{name: make()})}, region=region)


def _simpler_bodies(body: Graph) -> Iterator[Callable[[], Graph]]:
    """Bodies of the same inputs and output types."""
    for i, out in enumerate(body.outputs):
        for v in body.inputs:
            if v is not out and v.type == out.type:
                yield lambda i=i, v=v: rebuilt(body, outputs=[v if j == i else o for j, o in enumerate(body.outputs)],
                                               region=True)
    for node in reversed(body.nodes):
        if node.inputs:
            yield lambda node=node: rebuilt(body, inputs=set(node.outputs), region=True)
    yield from (lambda make=make: make(region=True) for make in _bypassed(body))
    yield from (lambda make=make: make(region=True) for make in _fewer_results(body))
    yield from (lambda make=make: make(region=True) for make in _in_regions(body))


def rebuilt(graph: Graph, outputs: Sequence[Value] | None = None, inputs=frozenset(), instead=None, ops=None, gone=None,
            unread=None,
            region: bool = False) -> Graph:
    """The graph with other `outputs`, with values that become `inputs`, values used `instead` of others, and other
    `ops` of nodes, which have one result (`gone`) or operand (`unread`) less; only what the outputs need. Of a
    `region` all inputs stay, and constants take the place of new ones.
    """
    outputs, instead, ops, gone, unread = list(outputs
                                               or graph.outputs), instead or {}, ops or {}, gone or {}, unread or {}

    def use(v: Value) -> Value:
        return instead.get(v, v)
    live, kept = {use(v) for v in outputs}, []
    for node in reversed(graph.nodes):
        if any(v in live and v not in inputs for v in node.outputs):
            live.update(use(v) for v in node.inputs)
            kept.append(node)
    b = Builder(graph.name)
    env = {v: b.input(v.name, v.type) for v in graph.inputs if region or v in live}
    cut = [v for node in graph.nodes for v in node.outputs if v in inputs and v in live]
    for v in cut:
        taken = {v.name for v in graph.inputs + tuple(b.inputs)}
        env[v] = _constant(b, v.type) if region else b.input(_fresh(taken), v.type)
    for node in reversed(kept):
        operands = [env[use(v)] for i, v in enumerate(node.inputs) if i != unread.get(node)]
        results = iter(b.apply(ops.get(node, node.op), operands))
        for i, old in enumerate(node.outputs):
            if i != gone.get(node):
                env.setdefault(old, next(results))
    return b.finish([env[use(v)] for v in outputs], ("",) * len(outputs))


def _fresh(names) -> str:
    return next(name for name in (f"c{n}" for n in range(10_000)) if name not in names)


def _constant(b: Builder, t):
    value = (np.arange(t.size) % 7 - 2).reshape(t.shape)
    return b.constant(value * 0.3 if t.dtype.is_float else value, t.dtype)
