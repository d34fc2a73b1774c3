"""Opens a graph: its named dimensions become sizes of which bounds are known, so that one program serves them all."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from graphc.errors import GraphError, Unsized
from graphc.ir.builder import bind_graph
from graphc.ir.dims import Dim, Poly, bind, evaluate, size_name
from graphc.ir.size_proofs import is_nonnegative
from graphc.ir.graph import Graph, regions
from graphc.records import dataclass


MOST = (1 << 31) - 1                # of a name without an end of its own: places along its axes fit into 32 bits
TRIED = 1 << 12                     # sizes, for the least at which a rule holds


@dataclass(frozen=True)
class Bounds:
    """What is known of a named dimension: from `low` to `high` (None: no end), mostly about `usual`."""
    low: int = 1
    high: int | None = None
    usual: int | None = None

    def __contains__(self, size: int) -> bool:
        return self.low <= size and (self.high is None or size <= self.high)


def open_graph(graph: Graph, given: Mapping[str, Bounds]) -> tuple[Graph, dict[str, Bounds]]:
    """The graph with bounds for each name, those given or tighter ones: such that every dimension is at least 1, and
    every shape rule holds. Other sizes may be right, and are rare: they have programs of their own. Unsized where
    bounds of single names do not say when rules hold."""
    bounds = {name: _ended(given.get(name, Bounds())) for name in sorted(graph.dim_names)}
    for dim in set(_dims(graph)):
        bounds = _tightened(bounds, dim - 1) or bounds
    while True:
        sizes = {name: size_name(name, b.low, b.high, b.usual) for name, b in bounds.items()}
        try:
            return bind_graph(graph, sizes), bounds
        except GraphError as error:
            if not isinstance(error, Unsized):          # right for some sizes, or else the call will say so
                raise Unsized(error.text, error.loc) from error
            tighter = _tightened(bounds, error.condition) if isinstance(error.condition, Poly) else None
            if tighter in (None, bounds):
                raise
            bounds = tighter


def _ended(bounds: Bounds) -> Bounds:
    return replace(bounds, high=max(MOST, bounds.low)) if bounds.high is None else bounds


def size_conditions(graph: Graph) -> tuple[Dim, ...]:
    """What must be at least 0 besides, and can be looked at only when the sizes are there."""
    found = [condition for node in graph.nodes for condition in node.op.size_conditions(*(v.type for v in node.inputs))]
    inner = [c for node in graph.nodes for _, region in regions(node.op) for c in size_conditions(region)]
    return tuple(dict.fromkeys(c for c in (*found, *inner) if not is_nonnegative(c)))


def _tightened(bounds: Mapping[str, Bounds], wanted: Dim) -> dict[str, Bounds] | None:
    """Bounds under which `wanted`, linear in one name, is at least 0; None where it is something else."""
    if isinstance(wanted, int) or len(wanted.names) != 1:
        return None
    (name,), terms = wanted.names, dict(wanted.terms)
    if str(name) not in bounds:
        return None
    slope, constant = terms.get((name,), 0), terms.get((), 0)
    low, high, usual = bounds[str(name)].low, bounds[str(name)].high, bounds[str(name)].usual
    if set(terms) - {(name,), ()} or slope == 0:
        least = next((n for n in range(low, low + TRIED) if _value(wanted, str(name), n) >= 0), None)
        return None if least in (None, low) else {**bounds, str(name): Bounds(least, high, usual)}
    if slope > 0:
        low = max(low, -(constant // slope))
    else:
        most = constant // -slope
        high = most if high is None else min(high, most)
    if high is not None and low > high:
        raise Unsized(f"{wanted} is below 0 for all sizes of {name}")
    return {**bounds, str(name): Bounds(low, high, usual)}


def _value(dim: Dim, name: str, size: int) -> int:
    """Of a dimension of plain or open names."""
    return evaluate(bind(dim, {name: size_name(name)}), {name: size})


def _dims(graph: Graph) -> Iterator[Dim]:
    for v in graph.arguments:
        yield from v.type.shape
    for node in graph.nodes:
        for v in node.outputs:
            yield from v.type.shape
        for _, region in regions(node.op):
            yield from _dims(region)
