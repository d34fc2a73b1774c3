"""The graph: typed values, nodes that make them, and the graph that owns both. Never changed once built: a pass builds
a new one."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from graphc.errors import InternalError, Loc
from graphc.ir.shown import Shown
from graphc.ir.types import TensorType
from graphc.once import once_property
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.ir.op import Op

OpClass = TypeVar("OpClass", bound="Op")


class Value:
    """A tensor in a graph: an input (node is None) or output number `index` of `node`. Compared by identity."""
    __slots__ = ("type", "name", "node", "index")

    def __init__(self, type: TensorType, name: str = "", node: "Node | None" = None, index: int = 0) -> None:
        self.type, self.name, self.node, self.index = type, name, node, index

    @property
    def maker(self) -> Node:
        """The node, of a value that is no input; InternalError of an input."""
        if self.node is None:
            raise InternalError(f"no node makes {self!r}, which is an input")
        return self.node

    def __repr__(self) -> str:
        return f"<{self.name or 'value'}: {self.type}>"


class Node:
    """One operator applied to values. `loc` is the user's line, `scope` the path of the layer it belongs to. Compared
    by identity."""
    __slots__ = ("op", "inputs", "outputs", "loc", "scope")

    def __init__(self, op: "Op", inputs: tuple[Value, ...], types: Iterable[TensorType], loc: Loc | None = None,
                 scope: str = ""):
        self.op, self.inputs, self.loc, self.scope = op, inputs, loc, scope
        self.outputs = tuple([Value(t, "", self, i) for i, t in enumerate(types)])

    def __repr__(self) -> str:
        return f"<{self.op.name}({', '.join(str(v.type) for v in self.inputs)})>"


class NodeOf(Node, Generic[OpClass]):
    """A node whose operator is of this class: what a rule under that class in a table is given. For annotations alone;
    none is ever made."""
    __slots__ = ()
    op: OpClass


@dataclass(frozen=True, eq=False)
class Graph(Shown):
    """A function from inputs and state to outputs and new state.

    `nodes` are in an order in which every value is made before it is used. `output_names` is None for a single
    array, a tuple of "" for a tuple, and the keys for a dict. `updates[i]` is the new value of `state[i]`, or None.
    Two graphs are equal when they compute the same in the same order (names of inputs count, source lines do not).
    """
    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...] | None = None
    state: tuple[Value, ...] = ()
    updates: tuple[Value | None, ...] = ()

    @property
    def heading(self) -> str:
        """Name, inputs and results, in one line."""
        ins = ", ".join(f"{v.name}: {v.type}" for v in self.inputs)
        return f"{self.name}({ins}) -> {', '.join(str(v.type) for v in self.outputs)}"

    @property
    def arguments(self) -> tuple[Value, ...]:
        return self.inputs + self.state

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything that a run leaves behind: outputs, then new state."""
        return self.outputs + tuple(u for u in self.updates if u is not None)

    def input(self, name: str) -> Value:
        return next(v for v in self.arguments if v.name == name)

    @property
    def dim_names(self) -> frozenset[str]:
        return frozenset().union(*(v.type.names for v in self.arguments))

    @property
    def writes(self) -> bool:
        """Whether it changes its state."""
        return any(new is not None for new in self.updates)

    @once_property
    def key(self) -> tuple[object, ...]:
        """A hashable tuple, equal for equal graphs."""
        number: dict[Value, int] = {v: i for i, v in enumerate(self.arguments)}
        rows = []
        for node in self.nodes:
            rows.append((node.op, tuple(number[v] for v in node.inputs), tuple(v.type for v in node.outputs)))
            for v in node.outputs:
                number[v] = len(number)
        ends = tuple(None if v is None else number[v] for v in self.outputs + self.updates)
        return (self.name, tuple((v.name, v.type) for v in self.arguments), len(self.inputs), tuple(rows), ends,
                self.output_names)

    @once_property
    def _hash(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Graph) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash


def users(graph: Graph) -> Mapping[Value, list[Node]]:
    """The nodes that read each value (each node once per use); values nobody reads map to an empty list."""
    table: dict[Value, list[Node]] = {v: [] for v in graph.arguments}
    for node in graph.nodes:
        for v in node.inputs:
            table[v].append(node)
        for v in node.outputs:
            table[v] = []
    return table


def leading_to(values: Iterable[Value], nodes: Sequence[Node]) -> list[Node]:
    """Those of the nodes, which are in order, that the values depend on through nodes of the list."""
    wanted = set(values)
    kept: list[Node] = []
    for n in reversed(nodes):
        if any(v in wanted for v in n.outputs):
            kept.append(n)
            wanted.update(n.inputs)
    return kept[::-1]


def regions(op: "Op") -> list[tuple[str, Graph]]:
    """The graphs among an operator's attributes, by attribute name."""
    return [(name, getattr(op, name)) for name in op.REGIONS]
