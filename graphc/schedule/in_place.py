"""Which results of a graph can be made by changing the memory of an argument, so that a loop or branch whose body it is
needs no copy of what it carries."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.ops import embedding_gradients, index, scatter, shape
from graphc.ir.ops.control import Cond, Scan, WhileLoop
from graphc.ir.ops.shape import Reshape
from graphc.records import dataclass

Pairs = tuple[tuple[int, int], ...]         # (output, input) of a node, (result, argument) of a graph

# their result is the first operand, changed in places
SCATTERS: tuple[type[Op], ...] = (index.ScatterAdd, embedding_gradients.AddRows, index.ScatterAddAlongAxis,
                                  scatter.Scatter, scatter.ScatterAlongAxis)
UPDATES = (*SCATTERS, shape.DynamicUpdateSlice)


@dataclass(frozen=True)
class Update:
    """A result that lies where an argument lay: `steps` are the nodes that change it, the last first, each with the
    number of its output and of the operand that it changes."""
    argument: int
    steps: tuple[tuple[Node, int, int], ...] = ()


def updated(node: Node) -> Pairs:
    """Pairs (output, input) of a node that changes only some elements of the input, or none: of a loop or branch, the
    memory of the output holds the input when it begins, and its body works there."""
    if type(node.op) in UPDATES:
        return ((0, 0),)
    rule = REGIONS.get(type(node.op))
    return rule(node.op) if rule else ()


def updated_results(graph: Graph) -> dict[int, Update]:
    """The results of a graph, by number, that are an argument to which a chain of nodes makes changes, each of them
    where it lies: whatever else reads an array that a node changes does so before. Views in the chain keep the order of
    elements, so the argument must be row-major and dense.
    """
    readers = _Readers(graph)
    found = {r: _update(v, readers) for r, v in enumerate(graph.outputs)}
    return {r: update for r, update in found.items() if update is not None}


def _update(v: Value, readers: _Readers) -> Update | None:
    steps = []
    while v.node is not None:
        node = v.node
        if isinstance(node.op, Reshape):
            v = node.inputs[0]
            continue
        i = next((i for o, i in updated(node) if o == v.index), None)
        if i is None or not readers.ends_at(node, i):
            return None
        steps.append((node, v.index, i))
        v = node.inputs[i]
    return Update(readers.arguments[v], tuple(steps)) if v in readers.arguments else None


@dataclass
class _Readers:
    """What reads each array of a graph, through whatever views; made when first asked for, since most graphs change
    nothing in place."""
    graph: Graph
    made: bool = False
    roots: dict[Value, Value] = field(default_factory=dict)
    last: dict[Value, int] = field(default_factory=dict)            # the position of the last reader of each root
    before: dict[Value, int] = field(default_factory=dict)          # that of the reader before it
    position: dict[Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arguments = {v: i for i, v in enumerate(self.graph.inputs)}

    def ends_at(self, node: Node, operand: int) -> bool:
        """Whether nothing reads the operand after the node, and the node itself only as this operand."""
        if not self.made:
            self._make()
        root = self.root(node.inputs[operand])
        alone = all(i == operand or self.root(v) is not root for i, v in enumerate(node.inputs))
        return alone and self.last[root] == self.position[node]

    def root(self, v: Value) -> Value:
        return self.roots.get(v, v)

    def _make(self) -> None:
        self.made = True
        for at, node in enumerate(self.graph.nodes):
            self.position[node] = at
            if node.op.is_view:
                self.roots.update(dict.fromkeys(node.outputs, self.root(node.inputs[0])))
            else:
                self.last.update((self.root(v), at) for v in node.inputs)
        self.last.update((self.root(v), len(self.graph.nodes)) for v in self.graph.results)


def _scan(op: Scan) -> Pairs:
    """Carries of which no history is kept."""
    kept = {v for v in op.body.outputs[op.carries:]}
    found = updated_results(op.body)
    return tuple((c, c) for c in range(op.carries) if c in found and found[c].argument == c
                 and op.body.outputs[c] not in kept and op.body.inputs[c] not in kept)


def _while(op: WhileLoop) -> Pairs:
    found = updated_results(op.body)
    return tuple((c + 1, c) for c in range(op.carries) if c in found and found[c].argument == c)


def _cond(op: Cond) -> Pairs:
    """What both branches give in the memory of the same operand; each memory once."""
    yes, no = updated_results(op.then_body), updated_results(op.else_body)
    pairs: dict[int, int] = {}
    for o in sorted(yes.keys() & no.keys()):
        i = yes[o].argument + 1
        if yes[o].argument == no[o].argument and i not in pairs.values():
            pairs[o] = i
    return tuple(pairs.items())


REGIONS: Mapping[type[Op], Callable[..., Pairs]] = {Scan: _scan, Cond: _cond, WhileLoop: _while}
