"""Opens a graph: its named dimensions become sizes of which bounds are known, so that one program can be made for all."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.errors import Unsized
from graphc.ir.builder import bind_graph
from graphc.ir.dims import Dim, Poly, size_name
from graphc.ir.graph import Graph, regions


@dataclass(frozen=True)
class Bounds:
    """What is known of a named dimension: from `low` to `high` (None: no end), mostly about `usual`."""
    low: int = 1
    high: int | None = None
    usual: int | None = None

    def __contains__(self, size: int) -> bool:
        return self.low <= size and (self.high is None or size <= self.high)


def open_graph(graph: Graph, bounds: Mapping[str, Bounds]) -> Graph:
    """The graph with bounds for each name, and no size below 1 anywhere: `least_sizes` says from which sizes on. Unsized
    where bounds on single names do not say so."""
    return bind_graph(graph, {name: size_name(name, b.low, b.high, b.usual) for name, b in bounds.items()})


def bounds_of(graph: Graph, given: Mapping[str, Bounds]) -> dict[str, Bounds]:
    """Bounds of all names: those given, raised to where every dimension of the graph that is made of one name is at
    least 1. Smaller sizes are right, and rare: they have programs of their own."""
    bounds = {name: given.get(name, Bounds()) for name in sorted(graph.dim_names)}
    for dim in set(_dims(graph)):
        if isinstance(dim, Poly) and len(dim.names) == 1:
            name, = dim.names
            if name in bounds:
                bounds[name] = _raised(bounds[name], dim, name)
    return bounds


def _raised(bounds: Bounds, dim: Poly, name: str) -> Bounds:
    """With a lower end from which on `dim`, linear in the name, is at least 1."""
    terms = dict(dim.terms)
    slope, constant = terms.get((name,), 0), terms.get((), 0)
    if set(terms) - {(name,), ()} or slope <= 0:
        return bounds
    low = max(bounds.low, -(-(1 - constant) // slope))
    if bounds.high is not None and low > bounds.high:
        raise Unsized(f"{dim} is below 1 for all sizes of {name} up to {bounds.high}")
    return Bounds(low, bounds.high, bounds.usual)


def _dims(graph: Graph) -> Iterator[Dim]:
    for v in graph.arguments:
        yield from v.type.shape
    for node in graph.nodes:
        for v in node.outputs:
            yield from v.type.shape
        for _, region in regions(node.op):
            yield from _dims(region)
