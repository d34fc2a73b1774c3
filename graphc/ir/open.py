"""Opens a graph: its named dimensions become sizes of which bounds are known, so that one program serves them all."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt

from graphc.errors import GraphError, Unsized
from graphc.ir.builder import bind_graph
from graphc.ir.dim_binding import bind
from graphc.ir.dims import USUAL, Dim, Poly, evaluate, size_name, typical
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
    """The graph with bounds for each name, those given or tighter ones: such that every dimension is at least 1, every
    shape rule holds, and every part of a contraction with a division has elements. Other sizes may be right, and are
    rare: they have programs of their own. Unsized where bounds of names do not say when rules hold."""
    units = _units(graph)
    bounds = {name: _ended(given.get(name, Bounds()), units.get(name, 1)) for name in sorted(graph.dim_names)}
    for dim in dict.fromkeys(_dims(graph)):
        bounds = _tightened(bounds, dim - 1) or bounds
    while True:
        sizes = {name: size_name(name, b.low, b.high, b.usual) for name, b in bounds.items()}
        try:
            opened = bind_graph(graph, sizes)
        except GraphError as error:
            if not isinstance(error, Unsized):          # right for some sizes, or else the call will say so
                raise Unsized(error.text, error.loc) from error
            bounds = tightened(bounds, error)
        else:
            tighter = bounds
            for wanted in dict.fromkeys(_residues(opened)):
                tighter = _tightened(tighter, wanted) or tighter
            if tighter == bounds:
                return opened, bounds
            bounds = tighter


def tightened(bounds: Mapping[str, Bounds], error: Unsized) -> dict[str, Bounds]:
    """Bounds under which the error's condition may hold; the error where these do not say when."""
    tighter = _tightened(bounds, error.condition) if isinstance(error.condition, Poly) else None
    if tighter is None or tighter == bounds:
        raise error
    return tighter


def _residues(graph: Graph) -> Iterator[Dim]:
    """What is at least 0 where each residue class of the dims of divided indices has an element. A strided gradient is
    a product for each of them."""
    for node in graph.nodes:
        if node.op.is_contraction:
            c = node.op.contraction(*(v.type for v in node.inputs))
            yield from (size - step for size, step in zip(c.sizes, c.residue_steps) if step > 1)
        for _, region in regions(node.op):
            yield from _residues(region)


def _ended(bounds: Bounds, unit: int) -> Bounds:
    """With an end and a usual size. That of a name which counts units (an image of 32*h × 32*w) is fewer of them: half
    way, as factors go, from as many units as of others to as many elements."""
    usual = isqrt(USUAL**2 // unit) if bounds.usual is None and unit > 1 else bounds.usual
    if bounds.high is None:
        return replace(bounds, high=max(MOST, bounds.low), usual=usual)
    return replace(bounds, usual=usual and min(usual, bounds.high))


def _units(graph: Graph) -> dict[str, int]:
    """By how many elements an axis of an argument grows with a name, at most."""
    found: dict[str, int] = {}
    for v in graph.arguments:
        for dim in v.type.shape:
            for monomial, c in dim.terms if isinstance(dim, Poly) else ():
                if len(monomial) == 1:
                    found[str(monomial[0])] = max(c, found.get(str(monomial[0]), 1))
    return found


def size_conditions(graph: Graph) -> tuple[Dim, ...]:
    """What must be at least 0 besides, and can be looked at only when the sizes are there."""
    found = [condition for node in graph.nodes for condition in node.op.size_conditions(*(v.type for v in node.inputs))]
    inner = [c for node in graph.nodes for _, region in regions(node.op) for c in size_conditions(region)]
    return tuple(dict.fromkeys(c for c in (*found, *inner) if not is_nonnegative(c)))


def _tightened(bounds: Mapping[str, Bounds], wanted: Dim) -> dict[str, Bounds] | None:
    """Bounds under which `wanted` is at least 0: exact where it is linear in one name. Of several names the one with
    the largest usual size gets a least one, the others being at their least: it is rarely small. None where no such
    bound says it."""
    if isinstance(wanted, int) or not {str(name) for name in wanted.names} <= set(bounds):
        return None
    names, terms = wanted.names, dict(wanted.terms)
    atom = max(names, key=lambda name: (_usual(bounds[str(name)]), str(name)))
    name, slope, constant = str(atom), terms.get((atom,), 0), terms.get((), 0)
    low, high, usual = bounds[name].low, bounds[name].high, bounds[name].usual
    if set(terms) - {(atom,), ()} or slope == 0:
        lows = {str(other): bounds[str(other)].low for other in names}
        closed = bind(wanted, {other: size_name(other) for other in lows})
        tried = range(low, min(low + TRIED, high or MOST))
        least = next((n for n in tried if evaluate(closed, {**lows, name: n}) >= 0), None)
        return None if least in (None, low) else {**bounds, name: Bounds(least, high, usual)}
    if slope > 0:
        low = max(low, -(constant // slope))
    else:
        most = constant // -slope
        high = most if high is None else min(high, most)
    if high is not None and low > high:
        raise Unsized(f"{wanted} is below 0 for all sizes of {name}")
    return {**bounds, name: Bounds(low, high, usual)}


def _usual(bounds: Bounds) -> int:
    return typical(size_name("n", bounds.low, bounds.high, bounds.usual))


def _dims(graph: Graph) -> Iterator[Dim]:
    for v in graph.arguments:
        yield from v.type.shape
    for node in graph.nodes:
        for v in node.outputs:
            yield from v.type.shape
        for _, region in regions(node.op):
            yield from _dims(region)
