"""Intermediate values by name: those that `gc.name` named, and the results of layers, by path."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from graphc.errors import GraphError
from graphc.ir.convert import is_sequence, shown
from graphc.ir.graph import Graph, Node, Value, regions
from graphc.records import dataclass

if TYPE_CHECKING:
    from graphc.dsl.function import GraphFunction

RESULT = "result"
LISTED = 12                         # names that an error lists


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: its path in the network, what it is, and the values that it returned."""
    path: str
    kind: str
    values: tuple[Value, ...]

    def moved(self, values: Mapping[Value, Value]) -> "LayerCall":
        """The same call in a copy of the graph."""
        return replace(self, values=tuple(values[v] for v in self.values))


def with_outputs(f: "GraphFunction", names: Sequence[str]) -> "GraphFunction":
    """`f`, returning a flat dict: its own results first ("result"; "result0", "result1", … of a tuple; a dict's own
    keys), then the values
    `names`. GraphError for a name that it has not, with those that it may be meant for."""
    if not is_sequence(names) or not all(isinstance(n, str) for n in names):
        raise GraphError('outputs= takes a list of names, for example outputs=["h1", "features.3"], '
                         f"got {shown(names)}")
    outputs = dict(zip(_own_names(f.graph), f.graph.outputs))
    for name in names:
        value = named_value(f, name)
        if outputs.setdefault(name, value) is not value:
            raise GraphError(f"{f.name} returns another array under the name {name!r}: rename one of the two")
    graph = replace(f.graph, outputs=tuple(outputs.values()), output_names=tuple(outputs))
    return replace(f, graph=graph, retrace=None)


def named_value(f: "GraphFunction", name: str) -> Value:
    """The intermediate value of this name."""
    known = named_values(f)
    if name not in known:
        raise GraphError(_unknown(f.graph, name, list(known)))
    return known[name]


def named_values(f: "GraphFunction") -> dict[str, Value]:
    """All values that have a name. A name that several have counts them: "h#1", "h#2", … in the order in which they
    were made; so does a layer that returns several arrays, and one that is called several times."""
    found: dict[str, list[Value]] = {}
    for name, value in _pairs(f):
        found.setdefault(name, []).append(value)
    single = {name: values[0] for name, values in found.items() if len(values) == 1}
    return single | {f"{name}#{i}": v for name, values in found.items() if len(values) > 1
                     for i, v in enumerate(values, 1)}


def _pairs(f: "GraphFunction") -> Iterator[tuple[str, Value]]:
    yield from ((v.name, v) for node in f.graph.nodes for v in node.outputs if v.name)
    yield from ((call.path, v) for call in f.calls for v in call.values if call.path)


def _own_names(graph: Graph) -> list[str]:
    """What the graph's own results are called among the outputs."""
    if graph.output_names is None:
        return [RESULT]
    return [name or f"{RESULT}{i}" for i, name in enumerate(graph.output_names)]


def _unknown(graph: Graph, name: str, known: list[str]) -> str:
    if f"{name}#1" in known:
        count = sum(k.rpartition("#")[0] == name for k in known)
        return f"{graph.name} has {count} values called {name!r}: ask for {name + '#1'!r} to {f'{name}#{count}'!r}"
    if any(_mentions(node, name) for outer in graph.nodes for _, body in regions(outer.op) for node in body.nodes):
        return (f"{name!r} is made inside a loop or branch of {graph.name}, anew in every step: "
                "return it from the body to have it outside")
    near = get_close_matches(name, known, LISTED, 0.5) or known[:LISTED]
    rest = f" and {len(known) - len(near)} more" if len(known) > len(near) else ""
    has = ", ".join(near) + rest if near else "none with a name (see gc.name)"
    return f"{graph.name} has no value or layer called {name!r}; it has {has}"


def _mentions(node: Node, name: str) -> bool:
    """Whether the name is that of a result of the node, or of a layer around it."""
    scope = f"{node.scope}."
    return any(v.name == name for v in node.outputs) or scope.startswith(f"{name}.") or f".{name}." in scope
