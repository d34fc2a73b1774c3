"""Builds graphs: appends operators, checks their types, turns Python numbers into constants."""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature

import numpy as np

from graphc.errors import GraphError, Loc
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, regions
from graphc.ir.op import Literal, Op, result_types
from graphc.ir.ops import OPS
from graphc.ir.ops.constant import Constant
from graphc.ir.room import check_room
from graphc.ir.types import DType, TensorType, shape_text

Operand = Value | int | float | bool
# bytes from which equal arrays of one graph are one object: a captured array may be used many times
SHARED = 64 << 10


class Builder:
    """Appends nodes to a growing graph. `b.mul(x, 2.0)` and `b.sum(x, axes=(0,))` apply the operator of that name.

    Python numbers among the operands take the dtype of the first array operand.
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.state: list[Value] = []
        self.updates: dict[Value, Value] = {}
        self.nodes: list[Node] = []
        self.literals: dict[Literal, Literal] = {}
        # of operators on operands of some types: layers repeat each other
        self._known: dict[tuple[object, ...], tuple[TensorType, ...]] = {}
        self.loc: Loc | None = None
        self.scope = ""

    def input(self, name: str, type: TensorType) -> Value:
        check_room(name, type)
        self.inputs.append(Value(type, name))
        return self.inputs[-1]

    def state_input(self, name: str, type: TensorType) -> Value:
        self.state.append(Value(type, name))
        return self.state[-1]

    def update(self, state: Value, new: Value) -> None:
        """`new` becomes the value of `state` after a run."""
        if state.type != new.type:
            raise GraphError(f"the new value of state {state.name} is {new.type}, it must stay {state.type}", self.loc)
        self.updates[state] = new

    def constant(self, value: object, dtype: DType | None = None) -> Value:
        """A constant array. `value` is a number, list or numpy array; float64 input needs `dtype` to become f32."""
        array = np.asarray(value, dtype.np if dtype else None)
        literal = Literal.of(array)
        if array.nbytes >= SHARED:
            literal = self.literals.setdefault(literal, literal)
        return self.apply(Constant(literal), ())[0]

    def apply(self, op: Op, operands: Sequence[Operand]) -> tuple[Value, ...]:
        """Appends `op` and returns its outputs. GraphError, with the current line, when the types do not fit."""
        ins = self._values(operands)
        try:
            types = self._types(op, ins)
        except GraphError as error:
            raise error.at(self.loc) from None
        except TypeError:
            check_count(op, len(ins), self.loc)
            raise
        below = next((t for t in types if any(isinstance(d, int) and d < 0 for d in t.shape)), None)
        if below is not None:
            raise GraphError(f"{op.name} of {', '.join(str(v.type) for v in ins)} would have the shape "
                             f"{shape_text(below.shape)}: less is there than it leaves out", self.loc)
        node = Node(op, ins, types, self.loc, self.scope)
        self.nodes.append(node)
        return node.outputs

    def _types(self, op: Op, ins: Sequence[Value]) -> tuple[TensorType, ...]:
        """Of the results, which have room."""
        known = (op, *[v.type for v in ins]) if ins and not op.REGIONS else None
        if known is not None and known in self._known:
            return self._known[known]
        types = result_types(op, [v.type for v in ins])
        for t in types:
            check_room(op.name, t)
        if known is not None:
            self._known[known] = types
        return types

    def __getattr__(self, name: str) -> Callable[..., Value]:
        """The function that applies the operator of that name and returns its output. Of several outputs it returns the
        tuple, which `apply` is typed to give: nearly all operators have one."""
        if name not in OPS:
            raise AttributeError(f"no operator is called {name!r}")

        def call(*operands: Operand, **attributes: object) -> Value:
            outs = self.apply(OPS[name](**attributes), operands)
            return outs[0] if len(outs) == 1 else outs      # type: ignore[return-value]   # see above
        return call

    @contextmanager
    def at(self, loc: Loc | None, scope: str = "") -> Iterator[None]:
        """Nodes built inside carry this source line and layer path."""
        before = self.loc, self.scope
        self.loc, self.scope = loc, scope
        try:
            yield
        finally:
            self.loc, self.scope = before

    def copy(self, node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...]:
        """The node again, on mapped inputs, with its own line; types are inferred anew."""
        with self.at(node.loc, node.scope):
            return self.apply(node.op, [mapping[v] for v in node.inputs])

    def inline(self, graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Appends the nodes of `graph`, its arguments (inputs, then state) replaced; returns its outputs."""
        mapping = dict(zip(graph.arguments, arguments, strict=True))
        for node in graph.nodes:
            mapping.update(zip(node.outputs, self.copy(node, mapping)))
        return tuple(mapping[v] for v in graph.outputs)

    def inline_here(self, graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """As `inline`, but nodes without a line take the current line and scope, and types are not inferred anew."""
        mapping = dict(zip(graph.arguments, arguments, strict=True))
        for node in graph.nodes:
            new = Node(node.op, tuple(mapping[v] for v in node.inputs), tuple(v.type for v in node.outputs),
                       *((node.loc, node.scope) if node.loc else (self.loc, self.scope)))
            self.nodes.append(new)
            mapping.update(zip(node.outputs, new.outputs))
        return tuple(mapping[v] for v in graph.outputs)

    def finish(self, outputs: Sequence[Value], names: tuple[str, ...] | None = None) -> Graph:
        """The graph. `names`: None for a single array, ("", …) for a tuple, keys for a dict."""
        updates = tuple(self.updates.get(s) for s in self.state)
        return Graph(self.name, tuple(self.inputs), tuple(self.nodes), tuple(outputs), names,
                     tuple(self.state), updates)

    def _values(self, operands: Sequence[Operand]) -> tuple[Value, ...]:
        values = [v for v in operands if isinstance(v, Value)]
        if len(values) == len(operands):
            return tuple(values)
        dtype = values[0].type.dtype if values else None
        return tuple(v if isinstance(v, Value) else self.constant(v, dtype) for v in operands)


def check_count(op: Op, given: int, loc: Loc | None) -> None:
    """GraphError unless the operator's shape rule takes so many operands. Asked only after it has failed: the signature
    is slow to read."""
    kinds = [p.kind for p in signature(op.infer).parameters.values()]
    least, any_more = sum(k is Parameter.POSITIONAL_OR_KEYWORD for k in kinds), Parameter.VAR_POSITIONAL in kinds
    if given < least or (given > least and not any_more):
        raise GraphError(f"{op.name} takes {'at least ' * any_more}{least} operand{'s' * (least != 1)}, got {given}",
                         loc)


class Rewriter(Builder):
    """Builds the successor of a graph: same arguments by name, values translated through `self[old]`."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.name)
        self.old = graph
        self.map: dict[Value, Value] = {}
        for v in graph.inputs:
            self.map[v] = self.input(v.name, v.type)
        for v in graph.state:
            self.map[v] = self.state_input(v.name, v.type)

    def __getitem__(self, old: Value) -> Value:
        return self.map[old]

    def keep(self, node: Node, op: Op | None = None) -> tuple[Value, ...]:
        """Copies the node (or `op` in its place) with its types as they were (no inference: cheap) and records its
        outputs."""
        new = Node(op or node.op, tuple([self.map[v] for v in node.inputs]), [v.type for v in node.outputs],
                   node.loc, node.scope)
        self.nodes.append(new)
        self.replace(node, new.outputs)
        return new.outputs

    def replace(self, node: Node, outputs: Sequence[Value]) -> None:
        """`outputs` stand for the outputs of the old `node` from here on; names of values move along."""
        for old, new in zip(node.outputs, outputs, strict=True):
            if old.name and not new.name:
                new.name = old.name
            self.map[old] = new

    def done(self) -> Graph:
        old = self.old
        for state, new in zip(old.state, old.updates):
            if new is not None:
                self.update(self.map[state], self.map[new])
        return self.finish([self.map[v] for v in old.outputs], old.output_names)


def rewritten(graph: Graph, nodes: Collection[Node], made: Callable[[Rewriter, Node], Sequence[Value]]) -> Graph:
    """The graph with what `made` gives in the place of the results of these nodes; itself where there are none."""
    if not nodes:
        return graph
    w = Rewriter(graph)
    for node in graph.nodes:
        if node not in nodes:
            w.keep(node)
            continue
        with w.at(node.loc, node.scope):
            w.replace(node, made(w, node))
    return w.done()


def bind_graph(graph: Graph, values: Mapping[str, Dim]) -> Graph:
    """The graph with named dimensions replaced by ints, types inferred anew, regions too."""
    if not values:
        return graph
    b = Builder(graph.name)
    mapping = {v: b.input(v.name, v.type.bind(values)) for v in graph.inputs}
    mapping |= {v: b.state_input(v.name, v.type.bind(values)) for v in graph.state}
    for node in graph.nodes:
        inner = {name: bind_graph(region, values) for name, region in regions(node.op)}
        op = node.op.bind(values)
        with b.at(node.loc, node.scope):
            outs = b.apply(op.replace(**inner) if inner else op, [mapping[v] for v in node.inputs])
        mapping.update(zip(node.outputs, outs))
        for old, new in zip(node.outputs, outs):
            new.name = old.name
    for state, value in zip(graph.state, graph.updates):
        if value is not None:
            b.update(mapping[state], mapping[value])
    return b.finish([mapping[v] for v in graph.outputs], graph.output_names)
