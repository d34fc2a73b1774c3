"""Values that depend only on state which the program never writes, and on arrays that a function captured, are computed
once and kept while that state does not change."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from enum import Enum

from graphc.ir.builder import Rewriter
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op, is_symbolic
from graphc.ir.ops.constant import Constant
from graphc.ir.ops.elementwise import Cast
from graphc.ir.ops.winograd import WinogradWeights
from graphc.ir.printer import print_graph
from graphc.passes.dce import EliminateDeadCode
from graphc.records import dataclass

# derived values may be at most this many times as large as the state and the constants from which they are computed
GROWTH = 2
GROWTHS: Mapping[type[Op], int] = {WinogradWeights: 8}      # 4 times, and a last panel that is not full
FREE_BYTES = 4096                   # and may always have this size


class Kind(Enum):
    """What a value depends on: nothing (numbers), lasting state and perhaps numbers, or anything that may change."""
    NUMBER = 0
    LASTING = 1
    CHANGING = 2


@dataclass(frozen=True)
class Split:
    """`main` runs in every call and `prepare`, which has no inputs, when the state has changed. Both have the same
    state: that of the program, then the derived values, which `prepare` updates.
    """
    main: Graph
    prepare: Graph | None = None

    def text(self) -> str:
        return "\n\n".join(print_graph(graph) for graph in (self.main, self.prepare) if graph)


def split_derived(graph: Graph) -> Split:
    """The graph in two, if anything in it can be derived from state alone.

    Needs a simplified graph; stands before fusion, which would put values that are computed once into kernels that run
    in every call.
    """
    kinds = value_kinds(graph)
    roots = {_root(v): None for v in _crossings(graph, kinds)}
    derived = [v for v in roots if v is not None]
    if not derived:
        return Split(graph)
    return Split(_main(graph, kinds, derived), _prepare(graph, kinds, derived))


def value_kinds(graph: Graph) -> Mapping[Value, Kind]:
    """The kind of every value of the graph, regions apart. Conversions to larger types are lasting where lasting values
    alone read them (sums of weights): then they are not kept."""
    changing: set[Node] = set()
    while True:
        kinds, large = _kinds(graph, changing)
        kept = {_root(v) for v in _crossings(graph, kinds)}
        found = {node for node in large if node.outputs[0] in kept}
        if not found:
            return kinds
        changing |= found


def _kinds(graph: Graph, changing: Collection[Node]) -> tuple[Mapping[Value, Kind], list[Node]]:
    """The kinds where these nodes give changing values, and lasting conversions that are too large to be kept."""
    kinds = {v: Kind.CHANGING for v in graph.inputs}
    kinds |= {v: Kind.LASTING if new is None else Kind.CHANGING for v, new in zip(graph.state, graph.updates)}
    sources, large = {v: v.type.nbytes for v in graph.state}, list[Node]()
    for node in graph.nodes:
        kind = max((kinds[v] for v in node.inputs), key=lambda k: k.value, default=Kind.NUMBER)
        if kind is not Kind.CHANGING and not node.op.is_view and _has_names(node):
            kind = Kind.CHANGING            # each call of a program for all sizes brings its own
        if kind is Kind.LASTING and not node.op.is_view:
            is_large = _is_large(node, sources)
            if isinstance(node.op, Cast) and is_large and node not in changing:
                large.append(node)
            elif node.op.may_fail or node.op.is_control or is_large:
                kind = Kind.CHANGING
        elif kind is Kind.NUMBER and _is_worth_keeping(node, sources):
            kind = Kind.LASTING
        for v in node.outputs:
            own = v.type.nbytes if isinstance(node.op, Constant) else 0
            kinds[v], sources[v] = kind, own + sum(sources.get(i, 0) for i in node.inputs)
    return kinds, large


def _is_worth_keeping(node: Node, sources: Mapping[Value, Dim]) -> bool:
    """Whether a value made of numbers alone is kept as one of state is: what each call would make of a captured array,
    too much to be a constant itself. A number repeated, or counted, is made for nothing."""
    made = bool(node.inputs) and not (node.op.is_view or node.op.may_fail or node.op.is_control)
    return made and not _is_large(node, sources)


def _has_names(node: Node) -> bool:
    """Whether what the node computes depends on sizes that are no numbers."""
    return is_symbolic(node.op) or not all(v.type.is_static for v in (*node.inputs, *node.outputs))


def _is_large(node: Node, sources: Mapping[Value, Dim]) -> bool:
    most = GROWTHS.get(type(node.op), GROWTH) * sum(sources.get(v, 0) for v in node.inputs)
    return _size(node) > max(FREE_BYTES, most)


def _size(node: Node) -> Dim:
    return sum(v.type.nbytes for v in node.outputs)


def _crossings(graph: Graph, kinds: Mapping[Value, Kind]) -> Iterator[Value]:
    """Lasting values that the rest of the program reads."""
    for node in graph.nodes:
        if any(kinds[v] is not Kind.LASTING for v in node.outputs):
            yield from (v for v in node.inputs if kinds[v] is Kind.LASTING)
    yield from (v for v in graph.results if kinds[v] is Kind.LASTING)


def _root(v: Value) -> Value | None:
    """The computed value that v is a view of; None when v is state itself, or a view of it: that costs nothing."""
    while v.node is not None and v.node.op.is_view:
        v = v.node.inputs[0]
    return None if v.node is None else v


def _main(graph: Graph, kinds: Mapping[Value, Kind], derived: list[Value]) -> Graph:
    w = Rewriter(graph)
    _add_state(w, derived)
    for node in graph.nodes:
        lasting = kinds[node.outputs[0]] is Kind.LASTING
        if not lasting or node.op.is_view and node.inputs[0] in w.map:
            w.keep(node)
    return EliminateDeadCode().run(w.done())


def _prepare(graph: Graph, kinds: Mapping[Value, Kind], derived: list[Value]) -> Graph:
    nothing = replace(graph, name=f"prepare {graph.name}", inputs=(), outputs=(), output_names=(),
                      updates=(None,) * len(graph.state))
    w = Rewriter(nothing)
    made: dict[Value, Value] = {}
    for node in graph.nodes:
        if all(v in w.map for v in node.inputs) and kinds[node.outputs[0]] is not Kind.CHANGING:
            made.update(zip(node.outputs, w.keep(node)))
    _add_state(w, derived)
    for v in derived:
        w.update(w.map[v], made[v])
    return EliminateDeadCode().run(w.finish((), ()))


def _add_state(w: Rewriter, derived: list[Value]) -> None:
    for number, v in enumerate(derived):
        w.map[v] = w.state_input(f"derived.{number}", v.type)
