"""What a drawing of a graph shows: vertices, clusters for layers, loops and fused kernels, and edges. Its layout is
decided elsewhere.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

from graphc.errors import Loc
from graphc.ir.graph import Graph, Node, NodeOf, Value
from graphc.ir.op import Literal
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.custom import CustomVjp
from graphc.ir.ops.fused import Fused
from graphc.ir.ops.remat import Remat
from graphc.ir.printer import attribute_text
from graphc.records import dataclass

LONGEST = 48                        # characters of an attribute
SEEN_IN_TYPE = ("shape", "dtype")   # attributes that the type of the result shows
OWN: dict[type, Callable[[Any], int]] = {Scan: lambda op: op.carries + op.xs, WhileLoop: lambda op: op.carries}
"""How many of a body's first inputs are its own, anew in each step. The others are what was captured from outside."""
DRAWN = {Scan: ("body",), WhileLoop: ("cond_body", "body"), Cond: ("then_body", "else_body"), Fused: ("body",),
         CustomVjp: ("forward",), Remat: ("body",)}
TITLES: dict[type, Callable[[Any], str]] = {
    Scan: lambda op: f"scan, {op.length} steps" + ", backwards" * op.reverse,
    WhileLoop: lambda op: f"while, at most {op.max_trips} steps",
    Cond: lambda op: "cond", Fused: lambda op: f"kernel ({op.kind})", CustomVjp: lambda op: "custom_vjp",
    Remat: lambda op: "computed again" if op.held else "remat"}


@dataclass(frozen=True)
class Vertex:
    """kind: "input", "state", "op", "layer" (a collapsed cluster), "constant" or "output"."""
    name: str
    kind: str
    lines: tuple[str, ...]
    loc: Loc | None = None
    scope: str = ""                 # the path of the layer that it belongs to

    @property
    def tooltip(self) -> str:
        return f"{Path(self.loc.file).name}:{self.loc.line}  {self.loc.code}" if self.loc else ""


@dataclass
class PictureCluster:
    """kind: "graph", "phase", "layer", "kernel" or "loop"."""
    name: str
    kind: str
    label: str = ""
    items: list[Vertex | PictureCluster] = field(default_factory=list)

    def walk(self) -> Iterator[Vertex | PictureCluster]:
        """Everything inside, at any depth."""
        for item in self.items:
            yield item
            if isinstance(item, PictureCluster):
                yield from item.walk()


@dataclass(frozen=True)
class Edge:
    """kind: "data", or "carry" for what the next step of a loop or the next run finds."""
    tail: str
    head: str
    kind: str = "data"


@dataclass(frozen=True)
class Picture:
    title: str
    root: PictureCluster
    edges: tuple[Edge, ...]

    @property
    def vertices(self) -> list[Vertex]:
        return [item for item in self.root.walk() if isinstance(item, Vertex)]

    @property
    def clusters(self) -> list[PictureCluster]:
        return [item for item in self.root.walk() if isinstance(item, PictureCluster)]


def picture_of(graph: Graph, kinds: Mapping[str, str] | None = None, depth: int | None = None,
               phases: Mapping[Node, str] = MappingProxyType({})) -> Picture:
    """`kinds`: what the layers are, by path. `depth`: clusters inside of so many others are drawn as one box each.
    `phases`: the part of a training step that each node belongs to; each part is a cluster."""
    return _Drawing(kinds or {}, depth).whole(graph, phases)


class _Drawing:
    """A picture being made. `at[value]` are the vertices that its edges start from; a small constant has none until
    someone needs one.
    """

    def __init__(self, kinds: Mapping[str, str], depth: int | None):
        self.kinds, self.depth = kinds, depth
        self.at: dict[Value, tuple[str, ...]] = {}
        self.edges: list[Edge] = []
        self.count = 0

    def whole(self, graph: Graph, phases: Mapping[Node, str]) -> Picture:
        root = PictureCluster("graph", "graph", graph.name)
        for v in graph.inputs:
            self.argument(root, v)
        for phase in dict.fromkeys(phases.get(node, "") for node in graph.nodes):
            self.groups(self.cluster(root, "phase", phase) if phase else root,
                        [node for node in graph.nodes if phases.get(node, "") == phase], (), 0)
        for name, v in zip(_result_names(graph), graph.outputs):
            out = self.vertex(root, "output", (name, str(v.type)))
            self.edge(self.sources(root, v), out)
        for s, new in zip(graph.state, graph.updates):
            if new is not None:
                self.edge(self.sources(root, new), self.sources(root, s)[0], "carry")
        return Picture(graph.name, root, tuple(self.edges))

    def groups(self, into: PictureCluster, nodes: Sequence[Node], path: tuple[str, ...], level: int) -> None:
        """A cluster for each run of nodes in one layer. (A run, not all nodes of the layer: what depends on it in
        between stays outside.)
        """
        for part, same in groupby(nodes, lambda node: _part(node, path)):
            run = list(same)
            if part is None:
                for node in run:
                    self.node(into, node, path, level)
            elif not all(map(_is_small, run)):
                self.layer(into, run, (*path, part), level)

    def layer(self, into: PictureCluster, run: list[Node], path: tuple[str, ...], level: int) -> None:
        label = " ".join(filter(None, (path[-1], self.kinds.get(".".join(path), ""))))
        if level == self.depth:
            self.box(into, run, "layer", label)
        else:
            self.groups(self.cluster(into, "layer", label), run, path, level + 1)

    def node(self, into: PictureCluster, node: Node, path: tuple[str, ...], level: int) -> None:
        if _is_small(node):
            return
        if type(node.op) not in DRAWN:
            self.operator(into, node)
        elif level == self.depth:
            self.box(into, [node], "layer", _title(node))
        else:
            self.region(into, node, path, level)

    def operator(self, into: PictureCluster, node: Node) -> None:
        lines = (_operator_text(node), ", ".join(str(v.type) for v in node.outputs))
        name = self.vertex(into, "constant" if isinstance(node.op, Constant) else "op", lines, node)
        for v in node.inputs:
            if not _is_small(v.node):
                self.edge(self.sources(into, v), name)
        self.at.update((v, (name,)) for v in node.outputs)

    def box(self, into: PictureCluster, run: list[Node], kind: str, label: str) -> None:
        """Several nodes as one vertex, which takes in the parameters that it is the first to read."""
        read = {v for node in run for v in node.inputs}
        inside = {v for node in run for v in node.outputs} | {v for v in read if v.node is None and v not in self.at}
        name = self.vertex(into, kind, (label, str(run[-1].outputs[-1].type)), run[0])
        outside = (v for node in run for v in node.inputs if v not in inside and not _is_small(v.node))
        self.edge(tuple(dict.fromkeys(source for v in outside for source in self.sources(into, v))), name)
        self.at.update((v, (name,)) for v in inside)

    def region(self, into: PictureCluster, node: Node, path: tuple[str, ...], level: int) -> None:
        """A loop, branch or kernel as a cluster of its bodies."""
        inner = self.cluster(into, "kernel" if isinstance(node.op, Fused) else "loop", _title(node))
        ends = [self.body(inner, node, getattr(node.op, name), path, level + 1) for name in DRAWN[type(node.op)]]
        if isinstance(node.op, Cond):
            ends = [self.choice(inner, node, ends)]
        flat = [sources for body in ends for sources in body]
        self.at.update(zip(node.outputs, flat))

    def body(self, into: PictureCluster, node: Node, body: Graph, path: tuple[str, ...],
             level: int) -> list[tuple[str, ...]]:
        """Draws a body; the vertices that its outputs come from."""
        operands = node.inputs[len(node.inputs) - len(body.inputs):]
        op = node.op
        carries = op.carries if isinstance(op, Scan | WhileLoop) else 0
        own = OWN.get(type(op), lambda op: 0)(op)
        for i, (v, operand) in enumerate(zip(body.inputs, operands)):
            self.at[v] = self.sources(into, operand)
            if i < own:
                self.at[v] = (self._step(into, v, self.at[v], "carry" if i < carries else "slice"),)
        self.groups(into, body.nodes, path, level)
        if isinstance(op, Scan | WhileLoop) and body is op.body:
            for v, new in zip(body.inputs[:carries], body.outputs):
                self.edge(self.sources(into, new), self.at[v][0], "carry")
        return [self.sources(into, v) for v in body.outputs]

    def choice(self, into: PictureCluster, node: Node, branches: list[list[tuple[str, ...]]]) -> list[tuple[str, ...]]:
        """The vertex that takes the results of one branch."""
        name = self.vertex(into, "op", ("choose", ", ".join(str(v.type) for v in node.outputs)), node)
        for sources in (self.sources(into, node.inputs[0]), *(s for branch in branches for s in branch)):
            self.edge(sources, name)
        return [(name,)] * len(node.outputs)

    def sources(self, into: PictureCluster, v: Value) -> tuple[str, ...]:
        """Where edges of the value start; drawn here if it is a parameter or a small constant that was not needed
        before.
        """
        if v not in self.at and v.node is not None:
            self.operator(into, v.node)
        elif v not in self.at:
            self.argument(into, v, "state")
        return self.at[v]

    def argument(self, into: PictureCluster, v: Value, kind: str = "input") -> None:
        self.at[v] = (self.vertex(into, kind, (v.name, str(v.type))),)

    def _step(self, into: PictureCluster, v: Value, sources: tuple[str, ...], what: str) -> str:
        name = self.vertex(into, "input", (v.name if v.name.startswith(what) else f"{what} {v.name}", str(v.type)))
        self.edge(sources, name)
        return name

    def vertex(self, into: PictureCluster, kind: str, lines: tuple[str, ...], node: Node | None = None) -> str:
        place = (node.loc, node.scope) if node is not None else (None, "")
        into.items.append(Vertex(self._name("v"), kind, lines, *place))
        return into.items[-1].name

    def cluster(self, into: PictureCluster, kind: str, label: str) -> PictureCluster:
        made = PictureCluster(self._name("c"), kind, label)
        into.items.append(made)
        return made

    def edge(self, tails: tuple[str, ...], head: str, kind: str = "data") -> None:
        self.edges += (Edge(tail, head, kind) for tail in tails)

    def _name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


def _part(node: Node, path: tuple[str, ...]) -> str | None:
    """The layer inside `path` that the node belongs to; None for one that belongs to `path` itself."""
    scope = tuple(node.scope.split(".")) if node.scope else ()
    if scope[:len(path)] != path:
        return None
    return scope[len(path)] if len(scope) > len(path) else None


def _result_names(graph: Graph) -> list[str]:
    if graph.output_names is None:
        return ["result"]
    return [name or f"result {i}" for i, name in enumerate(graph.output_names)]


def _is_small(node: Node | None) -> TypeGuard[NodeOf[Constant]]:
    """A constant of one element: written into the vertices of its readers."""
    return node is not None and isinstance(node.op, Constant) and node.outputs[0].type.size == 1


def _title(node: Node) -> str:
    return TITLES[type(node.op)](node.op)


def _operator_text(node: Node) -> str:
    """h = sub(1.0, ·) axes=(0,)."""
    operands = [_number(v.node) if _is_small(v.node) else "·" for v in node.inputs]
    call = node.op.name + (f"({', '.join(operands)})" if any(o != "·" for o in operands) else "")
    if _is_small(node):
        return _number(node)
    pairs = [f"{k}={attribute_text(v)}" for k, v in node.op.attributes.items() if k not in SEEN_IN_TYPE
             and not isinstance(v, (Literal, Graph))]
    name = node.outputs[0].name
    return " ".join((f"{name} = {call}" if name else call,
                     *(p if len(p) <= LONGEST else p[:LONGEST] + "…" for p in pairs)))


def _number(node: NodeOf[Constant]) -> str:
    value = node.op.value.array.item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
